//! Where one HTTP/1.1 request ends and the next begins, read strictly.
//!
//! hyper reads the same bytes and is lenient where RFC 9112 lets it be: a request with both a length
//! and chunks, a length said twice, lines that end in a bare LF. Whoever stands behind us may read
//! these differently, so such requests are refused (RFC 9112 §11.2). The inspector only looks on: it
//! keeps the head that is coming in, and nothing of bodies. Pure.

use memchr::memchr;

/// The longest head. hyper refuses what is longer, so that the rest need not be looked at.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Follows the requests of one connection.
#[derive(Debug)]
pub(crate) struct Inspector {
    state: State,
    /// The head, or a line of the chunks, as far as it has come.
    line: Vec<u8>,
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
    /// Nothing is looked at any more.
    Blind,
}

/// What makes a request ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ambiguity {
    /// A line that ends without CR, or a CR within one.
    LineEnd,
    /// A header that goes on in the next line.
    Fold,
    /// A length and a transfer coding.
    Both,
    /// A length said twice.
    Lengths,
    /// A length that is no plain number.
    Length,
    /// Another transfer coding than chunked, or several.
    Coding,
    /// A chunk whose size is no plain number.
    Size,
}

impl Ambiguity {
    /// What is told of it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::LineEnd => "a line does not end in CR LF",
            Self::Fold => "a header is folded",
            Self::Both => "both Content-Length and Transfer-Encoding",
            Self::Lengths => "more than one Content-Length",
            Self::Length => "Content-Length is no number",
            Self::Coding => "a Transfer-Encoding other than chunked",
            Self::Size => "the size of a chunk is no number",
        }
    }
}

impl Default for Inspector {
    fn default() -> Self {
        Self { state: State::Head, line: Vec::new() }
    }
}

impl Inspector {
    /// Looks at what came next.
    ///
    /// # Errors
    /// The first ambiguity; nothing is looked at after it.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguity> {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Blind => return Ok(()),
                State::Body(left) | State::Chunk(left) => Ok(self.skip(left, bytes.len())),
                State::Head | State::Size | State::Trailers => self.line(bytes),
            };
            bytes = match taken {
                Ok(taken) => bytes.get(taken..).unwrap_or_default(),
                Err(why) => {
                    self.stop();
                    return Err(why);
                }
            };
        }
        Ok(())
    }

    /// Looks no more: what comes is no HTTP.
    pub(crate) fn stop(&mut self) {
        *self = Self { state: State::Blind, line: Vec::new() };
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
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Ambiguity> {
        let end = memchr(b'\n', bytes).map(|end| end + 1);
        let taken = end.unwrap_or(bytes.len());
        self.line.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.line.len() > MAX_HEAD {
            // hyper has refused it by now.
            self.stop();
            return Ok(taken);
        }
        if end.is_none() {
            return Ok(taken);
        }
        if !self.line.ends_with(b"\r\n") {
            return Err(Ambiguity::LineEnd);
        }
        match self.state {
            State::Head if self.line == b"\r\n" => self.line.clear(),
            State::Head if self.line.ends_with(b"\r\n\r\n") => {
                self.state = judge(&self.line)?;
                self.line.clear();
            }
            State::Size => {
                self.state = match size(&self.line).ok_or(Ambiguity::Size)? {
                    0 => State::Trailers,
                    size => State::Chunk(size.saturating_add(2)),
                };
                self.line.clear();
            }
            State::Trailers => {
                if self.line == b"\r\n" {
                    self.state = State::Head;
                }
                self.line.clear();
            }
            _ => {}
        }
        Ok(taken)
    }
}

/// What follows a whole head.
fn judge(head: &[u8]) -> Result<State, Ambiguity> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let (mut length, mut is_chunked) = (None, false);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
            return Err(Ambiguity::Fold);
        }
        if memchr(b'\r', line).is_some() {
            return Err(Ambiguity::LineEnd);
        }
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            let said = plain(value, 10).ok_or(Ambiguity::Length)?;
            if length.replace(said).is_some() {
                return Err(Ambiguity::Lengths);
            }
        } else if name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding")
            && (std::mem::replace(&mut is_chunked, true) || !value.eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Ambiguity::Coding);
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Ambiguity::Both),
        (None, true) => Ok(State::Size),
        (Some(length @ 1..), false) => Ok(State::Body(length)),
        (Some(0) | None, false) => Ok(State::Head),
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

/// A number without sign, space or anything else that `parse` would take.
fn plain(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() || !text.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(text: &[u8]) -> Result<Inspector, Ambiguity> {
        let mut inspector = Inspector::default();
        inspector.feed(text)?;
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
        use Ambiguity as A;
        let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        for (text, why) in [
            (head("Content-Length: 5\r\nTransfer-Encoding: chunked"), A::Both),
            (head("Transfer-Encoding: chunked\r\nContent-Length: 5"), A::Both),
            (head("Content-Length: 5\r\nContent-Length: 5"), A::Lengths),
            (head("Content-Length: 5\r\nContent-Length: 6"), A::Lengths),
            (head("Content-Length: 5, 5"), A::Length),
            (head("Content-Length: +5"), A::Length),
            (head("Content-Length: 0x5"), A::Length),
            (head("Content-Length: "), A::Length),
            (head("Content-Length: 99999999999999999999"), A::Length),
            (head("Content-Length : 5\r\nTransfer-Encoding: chunked"), A::Both),
            (head("Transfer-Encoding: chunked, identity"), A::Coding),
            (head("Transfer-Encoding: gzip, chunked"), A::Coding),
            (head("Transfer-Encoding: xchunked"), A::Coding),
            (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), A::Coding),
            (head("Transfer-Encoding:\u{b}chunked"), A::Coding),
            (head("X: a\r\n Transfer-Encoding: chunked"), A::Fold),
            (head("X: a\r\n\tb"), A::Fold),
            (head("X: a\nTransfer-Encoding: chunked"), A::LineEnd),
            (head("X: a\rTransfer-Encoding: chunked"), A::LineEnd),
            (head("Transfer-Encoding: chunked") + "5x\r\n", A::Size),
            (head("Transfer-Encoding: chunked") + "-1\r\n", A::Size),
            (head("Transfer-Encoding: chunked") + " 5\r\n", A::Size),
            (head("Transfer-Encoding: chunked") + "\r\n", A::Size),
            (head("Transfer-Encoding: chunked") + "5\n", A::LineEnd),
            (head("Transfer-Encoding: chunked") + "fffffffffffffffff\r\n", A::Size),
        ] {
            assert_eq!(judged(text.as_bytes()).err(), Some(why), "{text:?}");
        }
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
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                prop_assert!(inspector.feed(now).is_ok());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(inspector.state, State::Head);
            prop_assert!(inspector.line.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = judged(&bytes);
        }
    }
}
