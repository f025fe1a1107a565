//! Where one HTTP/1.1 request ends and the next begins, read strictly.
//!
//! hyper reads the same bytes and is lenient where RFC 9112 lets it be: a request with both a length
//! and chunks, a length said twice, lines that end in a bare LF. Whoever stands behind us may read
//! these differently, so such requests are refused (RFC 9112 §11.2), before hyper sees anything of
//! them. The inspector keeps the head that is coming in, and nothing of bodies. Pure.

use memchr::memchr;

use crate::proxy::terminate::http::fault::Fault;
use crate::proxy::terminate::http::head::{Follows, judge, plain, stand_in};

/// The longest head.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Empty lines before a request that are passed over: some old clients send one (RFC 9112 §2.2).
const MAX_EMPTY: usize = 8;

/// Follows the requests of one connection.
#[derive(Debug)]
pub(crate) struct Inspector {
    state: State,
    /// The head, or a line of the chunks, as far as it has come.
    line: Vec<u8>,
    /// Empty lines since the last request.
    empty: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head.
    Head,
    /// So many bytes of a body are to come, and then another request.
    Body(u64),
    /// A line with the size of a chunk is to come.
    Size,
    /// So many bytes of a chunk are to come, its CRLF included.
    Chunk(u64),
    /// The lines behind the last chunk.
    Trailers,
    /// An upgrade was asked for: what comes next may be no HTTP.
    Waiting,
    /// Nothing is looked at any more.
    Blind,
}

/// What is wrong, and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Faulty {
    /// So many of the bytes are before it.
    pub(crate) before: usize,
    /// What it is.
    pub(crate) fault: Fault,
    /// What stands in for the request, if it is its head that is at fault.
    pub(crate) stand_in: Option<Vec<u8>>,
}

impl Default for Inspector {
    fn default() -> Self {
        Self { state: State::Head, line: Vec::new(), empty: 0 }
    }
}

impl Inspector {
    /// Looks at what came next, and tells how much of it may be passed on: all but the part of a
    /// head that is not whole yet, or what comes behind a question for an upgrade.
    ///
    /// # Errors
    /// The first fault; nothing is looked at after it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Faulty> {
        let (mut at, mut begin) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.line.is_empty() {
                begin = at;
            }
            at += match self.state {
                State::Blind => return Ok(bytes.len()),
                State::Waiting => return Ok(at),
                State::Body(left) | State::Chunk(left) => self.skip(left, rest.len()),
                State::Head | State::Size | State::Trailers => {
                    let is_head = self.state == State::Head;
                    self.line(rest).map_err(|fault| {
                        let stand_in = is_head.then(|| stand_in(&self.line));
                        self.stop();
                        Faulty { before: begin, fault, stand_in }
                    })?
                }
            };
        }
        Ok(if self.is_within_head() { begin } else { at })
    }

    /// Looks no more: what comes is no HTTP.
    pub(crate) fn stop(&mut self) {
        *self = Self { state: State::Blind, line: Vec::new(), empty: 0 };
    }

    /// What comes after a question for an upgrade is HTTP.
    pub(crate) fn go_on(&mut self) {
        if self.is_waiting() {
            self.state = State::Head;
        }
    }

    /// Whether it must be told what comes next.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Whether a part of a head has come.
    pub(crate) fn is_within_head(&self) -> bool {
        self.state == State::Head && !self.line.is_empty()
    }

    fn skip(&mut self, left: u64, there: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left - taken as u64;
        self.state = match self.state {
            State::Chunk(_) if left == 0 => State::Size,
            State::Chunk(_) => State::Chunk(left),
            _ if left == 0 => State::Head,
            _ => State::Body(left),
        };
        taken
    }

    /// Takes bytes up to the end of a line.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let end = memchr(b'\n', bytes).map(|end| end + 1);
        let taken = end.unwrap_or(bytes.len());
        self.line.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.line.len() > MAX_HEAD {
            return Err(match self.state {
                State::Head if memchr(b'\n', &self.line).is_some_and(|end| end < MAX_HEAD) => {
                    Fault::LongHead
                }
                State::Head => Fault::LongTarget,
                _ => Fault::Size,
            });
        }
        if end.is_none() {
            return Ok(taken);
        }
        if !self.line.ends_with(b"\r\n") {
            return Err(Fault::LineEnd);
        }
        match self.state {
            State::Head if self.line == b"\r\n" => {
                self.empty += 1;
                if self.empty > MAX_EMPTY {
                    return Err(Fault::EmptyLines);
                }
            }
            State::Head if self.line.ends_with(b"\r\n\r\n") => {
                self.empty = 0;
                self.state = match judge(&self.line)? {
                    Follows::Head => State::Head,
                    Follows::Body(size) => State::Body(size),
                    Follows::Chunks => State::Size,
                    Follows::Upgrade => State::Waiting,
                };
            }
            State::Head => return Ok(taken),
            State::Size => {
                self.state = match size(&self.line).ok_or(Fault::Size)? {
                    0 => State::Trailers,
                    size => State::Chunk(size.saturating_add(2)),
                };
            }
            State::Trailers if self.line == b"\r\n" => self.state = State::Head,
            _ => {}
        }
        self.line.clear();
        Ok(taken)
    }
}

/// The size in a line before a chunk; extensions may follow it.
fn size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    if memchr(b'\r', line).is_some() {
        return None;
    }
    let digits = line.split(|byte| *byte == b';').next()?;
    plain(digits, 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(text: &[u8]) -> Result<Inspector, Fault> {
        let mut inspector = Inspector::default();
        inspector.feed(text).map_err(|faulty| faulty.fault)?;
        Ok(inspector)
    }

    const GOOD: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 39\r\n\r\nGET / HTTP/1.1\nTransfer-Encoding: x\r\n\r\n",
    ];

    #[test]
    fn requests_that_follow_each_other_are_told_apart() {
        let inspector = judged(&GOOD.concat()).unwrap();
        assert_eq!((inspector.state, inspector.line.len()), (State::Head, 0));
        assert!(!inspector.is_within_head());
        assert!(judged(b"GET / HTTP/1.1\r\nHos").unwrap().is_within_head());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use Fault as F;
        let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        for (text, why) in [
            (head("Content-Length: 5\r\nTransfer-Encoding: chunked"), F::Both),
            (head("Transfer-Encoding: chunked\r\nContent-Length: 5"), F::Both),
            (head("Content-Length: 5\r\nContent-Length: 5"), F::Lengths),
            (head("Content-Length: 5\r\nContent-Length: 6"), F::Lengths),
            (head("Content-Length: 5, 5"), F::Length),
            (head("Content-Length: +5"), F::Length),
            (head("Content-Length: 0x5"), F::Length),
            (head("Content-Length: "), F::Length),
            (head("Content-Length: 99999999999999999999"), F::Length),
            (head("Content-Length : 5\r\nTransfer-Encoding: chunked"), F::Header),
            (head("Transfer-Encoding: chunked, identity"), F::Coding),
            (head("Transfer-Encoding: gzip, chunked"), F::Coding),
            (head("Transfer-Encoding: xchunked"), F::Coding),
            (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), F::Coding),
            (head("Transfer-Encoding:\u{b}chunked"), F::Header),
            (head("X: a\r\n Transfer-Encoding: chunked"), F::Fold),
            (head("X: a\r\n\tb"), F::Fold),
            (head("X: a\nTransfer-Encoding: chunked"), F::LineEnd),
            (head("X: a\rTransfer-Encoding: chunked"), F::LineEnd),
            (head("Transfer-Encoding: chunked") + "5x\r\n", F::Size),
            (head("Transfer-Encoding: chunked") + "-1\r\n", F::Size),
            (head("Transfer-Encoding: chunked") + " 5\r\n", F::Size),
            (head("Transfer-Encoding: chunked") + "\r\n", F::Size),
            (head("Transfer-Encoding: chunked") + "5\n", F::LineEnd),
            (head("Transfer-Encoding: chunked") + "fffffffffffffffff\r\n", F::Size),
        ] {
            assert_eq!(judged(text.as_bytes()).err(), Some(why), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_whole_or_not_known_to_be_http_is_kept_back() {
        let mut inspector = Inspector::default();
        let fed = |inspector: &mut Inspector, text: &str| inspector.feed(text.as_bytes());
        let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(fed(&mut inspector, "GET / HTTP/1.1\r\nHo"), Ok(0));
        assert_eq!(fed(&mut inspector, "st: a\r\n\r"), Ok(0));
        assert_eq!(fed(&mut inspector, &format!("\n{whole}GET ")), Ok(1 + whole.len()));
        let post = "/ HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(fed(&mut inspector, &format!("{post}hello")), Ok(post.len() + 5));
        let upgrade = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        assert_eq!(fed(&mut inspector, &format!("more{upgrade}\0\0")), Ok(4 + upgrade.len()));
        assert!(inspector.is_waiting());
        assert_eq!(fed(&mut inspector, "\0\0"), Ok(0));
        inspector.go_on();
        let bad = format!("{whole}GET /x HTTP/1.1\r\n\0\r\n\r\n");
        let faulty = Faulty {
            before: whole.len(),
            fault: Fault::Header,
            stand_in: Some(b"GET /x HTTP/1.1\r\n\r\n".to_vec()),
        };
        assert_eq!(fed(&mut inspector, &bad), Err(faulty));
        // Nothing is looked at after a fault.
        assert_eq!(fed(&mut inspector, "\0"), Ok(1));
        let mut inspector = Inspector::default();
        inspector.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1").unwrap();
        let faulty = Faulty { before: 0, fault: Fault::Size, stand_in: None };
        assert_eq!(fed(&mut inspector, "x\r\n"), Err(faulty));
    }

    #[test]
    fn a_head_is_not_longer_than_it_may_be() {
        let long = |prefix: &str, size: usize| prefix.to_owned() + &"x".repeat(size);
        for (text, fault) in [
            (long("GET /", MAX_HEAD), Fault::LongTarget),
            (long("GET / HTTP/1.1\r\nX: ", MAX_HEAD), Fault::LongHead),
            ("\r\n".repeat(MAX_EMPTY + 1), Fault::EmptyLines),
        ] {
            assert_eq!(judged(text.as_bytes()).err(), Some(fault));
        }
        let text = "\r\n".repeat(MAX_EMPTY) + "GET / HTTP/1.1\r\n\r\n";
        assert!(judged(text.repeat(3).as_bytes()).is_ok());
        let mut largest = long("GET / HTTP/1.1\r\nX: ", MAX_HEAD - 23);
        largest += "\r\n\r\n";
        assert_eq!(largest.len(), MAX_HEAD);
        assert!(judged(largest.as_bytes()).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_does_not_matter_in_which_pieces_the_bytes_come(
            picks in prop::collection::vec(0..GOOD.len(), 1..5),
            cuts in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let text: Vec<u8> = picks.iter().flat_map(|pick| GOOD[*pick].iter().copied()).collect();
            let mut inspector = Inspector::default();
            let mut rest = text.as_slice();
            let mut passed = 0;
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                let held = if inspector.is_within_head() { inspector.line.len() } else { 0 };
                let count = inspector.feed(now).unwrap();
                // What was held goes before what has come.
                passed += if count > 0 { held + count } else { 0 };
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(passed, text.len());
            prop_assert_eq!(inspector.state, State::Head);
            prop_assert!(inspector.line.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = judged(&bytes);
        }
    }
}
