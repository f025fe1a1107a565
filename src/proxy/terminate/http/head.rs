//! One whole head of HTTP/1.1, judged strictly: what follows it, or what is wrong.
//!
//! No head passes that hyper would refuse: it would answer by itself, in words that are not ours.
//! Pure.

use hyper::Uri;
use memchr::memchr;

use crate::proxy::terminate::http::fault::Fault;

/// How many headers are taken; hyper takes no more.
const MAX_HEADERS: usize = 100;

/// How long a first line may be to be repeated. Records keep less.
const MAX_REPEATED: usize = 4096;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The next head.
    Head,
    /// So many bytes.
    Body(u64),
    /// Chunks.
    Chunks,
    /// What comes next is HTTP only if no upgrade is granted.
    Upgrade,
}

/// What follows this head, which ends with an empty line.
pub(crate) fn judge(head: &[u8]) -> Result<Follows, Fault> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = whole(lines.next().unwrap_or_default())?;
    let version = request_line(first)?;
    let (mut length, mut is_chunked, mut is_upgrade, mut count) = (None, false, false, 0);
    for line in lines {
        if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
            return Err(Fault::Fold);
        }
        let line = match line {
            // Behind the last line end.
            b"" => break,
            line => whole(line)?,
        };
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(Fault::ManyHeaders);
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let said = plain(value, 10).ok_or(Fault::Length)?;
            if length.replace(said).is_some() {
                return Err(Fault::Lengths);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_second = std::mem::replace(&mut is_chunked, true);
            if is_second || version == Version::V10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            is_upgrade = true;
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Fault::Both),
        (None, true) => Ok(Follows::Chunks),
        (Some(length @ 1..), false) => Ok(Follows::Body(length)),
        (Some(0) | None, false) if is_upgrade => Ok(Follows::Upgrade),
        (Some(0) | None, false) => Ok(Follows::Head),
    }
}

/// A line without its CR, which must be its only one.
fn whole(line: &[u8]) -> Result<&[u8], Fault> {
    let line = line.strip_suffix(b"\r").ok_or(Fault::LineEnd)?;
    if memchr(b'\r', line).is_some() { Err(Fault::LineEnd) } else { Ok(line) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V10,
    V11,
}

/// RFC 9112 §3.
fn request_line(line: &[u8]) -> Result<Version, Fault> {
    let (_, target, version) = parts(line).ok_or(Fault::RequestLine)?;
    let version = match version {
        b"HTTP/1.1" => Version::V11,
        b"HTTP/1.0" => Version::V10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Fault::Version);
        }
        _ => return Err(Fault::RequestLine),
    };
    if is_target(target) { Ok(version) } else { Err(Fault::RequestLine) }
}

/// Method, target and version.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && is_token(method) && !target.is_empty();
    is_whole.then_some((method, target, version))
}

fn is_target(target: &[u8]) -> bool {
    const PLAIN: [bool; 256] = letters(b"/-._~!$&'()*+,;=:@%?");
    let is_plain = target.starts_with(b"/") && all(target, &PLAIN);
    let is_visible = || target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    is_plain
        || (is_visible()
            && str::from_utf8(target).is_ok_and(|target| target.parse::<Uri>().is_ok()))
}

/// Name and value of a header (RFC 9112 §5).
fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let colon = memchr(b':', line).ok_or(Fault::Header)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    // Looks at all of them, many at a time.
    let is_control =
        |byte: u8| u8::from(byte < b' ') & u8::from(byte != b'\t') | u8::from(byte == 0x7f);
    let bad = value.iter().fold(0, |bad, byte| bad | is_control(*byte));
    if bad > 0 || !is_token(name) { Err(Fault::Header) } else { Ok((name, value.trim_ascii())) }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = letters(b"!#$%&'*+-.^_`|~");
    !text.is_empty() && all(text, &TOKEN)
}

fn all(text: &[u8], table: &[bool; 256]) -> bool {
    text.iter().all(|byte| table.get(usize::from(*byte)) == Some(&true))
}

/// Letters, digits and these.
#[allow(clippy::indexing_slicing, reason = "at compile time, when a fault would be seen")]
const fn letters(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < marks.len() {
        table[marks[place] as usize] = true;
        place += 1;
    }
    table
}

/// A number without sign, space or anything else that `parse` would take.
pub(crate) fn plain(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() || !text.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        return None;
    }
    // No body is longer; some take numbers beyond it for negative ones.
    let most = i64::MAX.unsigned_abs();
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok().filter(|number| *number <= most)
}

/// A request without headers that stands in for one that is not passed on: it has the same method
/// and target, if these can be told. As it names no host, nobody would pass it on.
pub(crate) fn stand_in(head: &[u8]) -> Vec<u8> {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = first.strip_suffix(b"\r").unwrap_or(first);
    let known = parts(first).filter(|(method, target, _)| {
        let is_short = first.len() <= MAX_REPEATED;
        is_short && target.starts_with(b"/") && is_target(target) && *method != b"CONNECT"
    });
    let (method, target, _) = known.unwrap_or((b"-", b"*", b""));
    [method, b" ", target, b" HTTP/1.1\r\n\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::proxy::terminate::http::framing::MAX_HEAD;

    /// What hyper answers to a head: 299 if it asks its service, else what it says by itself.
    fn answered(head: &[u8]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(2 * MAX_HEAD);
            client.write_all(head).await.unwrap();
            let ours = service_fn(async |_: Request<hyper::body::Incoming>| {
                Ok::<_, Infallible>(Response::builder().status(299).body(String::new()).unwrap())
            });
            let mut hyper = http1::Builder::new();
            hyper.max_buf_size(MAX_HEAD).header_read_timeout(None);
            tokio::spawn(hyper.serve_connection(TokioIo::new(server), ours));
            let mut told = Vec::new();
            while !told.ends_with(b"\r\n\r\n") {
                match client.read_u8().await {
                    Ok(byte) => told.push(byte),
                    Err(_) => break,
                }
            }
            String::from_utf8(told).unwrap()
        })
    }

    #[test]
    fn what_follows_a_head_is_told_by_it() {
        for (head, follows) in [
            ("GET / HTTP/1.1\r\n\r\n", Follows::Head),
            ("OPTIONS * HTTP/1.0\r\nA: \r\nB:\tx \u{e4}\r\n\r\n", Follows::Head),
            ("GET http://a.test/\u{e4}?x={y} HTTP/1.1\r\n\r\n", Follows::Head),
            ("CONNECT a.test:443 HTTP/1.1\r\n\r\n", Follows::Head),
            ("P!T / HTTP/1.1\r\ncontent-length:7\r\nUpgrade: x\r\n\r\n", Follows::Body(7)),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Follows::Chunks),
            ("GET / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n", Follows::Upgrade),
        ] {
            assert_eq!(judge(head.as_bytes()), Ok(follows), "{head:?}");
            let told = answered(head.as_bytes());
            assert!(told.contains(" 299 "), "{head:?}: {told}");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let lines = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
        let first = |first: &str| format!("{first}\r\nHost: a\r\n\r\n");
        for (head, fault) in [
            (first("GET /"), Fault::RequestLine),
            (first("GET  / HTTP/1.1"), Fault::RequestLine),
            (first("GET / HTTP/1.1 "), Fault::RequestLine),
            (first("GET /a b HTTP/1.1"), Fault::RequestLine),
            (first("GET /\u{1} HTTP/1.1"), Fault::RequestLine),
            (first("GET // HTTP/1.1x"), Fault::RequestLine),
            (first("G\u{1}T / HTTP/1.1"), Fault::RequestLine),
            (first("G(T / HTTP/1.1"), Fault::RequestLine),
            (first(" / HTTP/1.1"), Fault::RequestLine),
            (first("GET /< HTTP/1.1"), Fault::RequestLine),
            (first("GET x:y:z HTTP/1.1"), Fault::RequestLine),
            (first("GET / http/1.1"), Fault::RequestLine),
            (first("GET / HTTP/2.0"), Fault::Version),
            (first("GET / HTTP/0.9"), Fault::Version),
            (lines("X y"), Fault::Header),
            (lines(": y"), Fault::Header),
            (lines("X : y"), Fault::Header),
            (lines("X(: y"), Fault::Header),
            (lines("X\u{e4}: y"), Fault::Header),
            (lines("X: \u{7f}"), Fault::Header),
            (lines("X: \0"), Fault::Header),
            (lines("X: \u{b}y"), Fault::Header),
            (lines(&["X: y"; 101].join("\r\n")), Fault::ManyHeaders),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Fault::Coding),
            (lines("Content-Length: 9223372036854775808"), Fault::Length),
        ] {
            assert_eq!(judge(head.as_bytes()), Err(fault), "{head:?}");
        }
        assert_eq!(judge(lines(&["X: y"; 100].join("\r\n")).as_bytes()), Ok(Follows::Head));
    }

    #[test]
    fn what_stands_in_says_what_was_asked() {
        for (head, stand_in) in [
            ("GET /a?b HTTP/1.1\r\nX y\r\n\r\n", "GET /a?b HTTP/1.1\r\n\r\n"),
            ("HEAD / HTTP/9.9\nX", "HEAD / HTTP/1.1\r\n\r\n"),
            ("GET /a b HTTP/1.1\r\n\r\n", "- * HTTP/1.1\r\n\r\n"),
            ("CONNECT /a HTTP/1.1\r\n\r\n", "- * HTTP/1.1\r\n\r\n"),
            ("GET http://a.test/ HTTP/1.1\r\n\r\n", "- * HTTP/1.1\r\n\r\n"),
            ("", "- * HTTP/1.1\r\n\r\n"),
        ] {
            assert_eq!(super::stand_in(head.as_bytes()), stand_in.as_bytes(), "{head:?}");
            assert!(answered(stand_in.as_bytes()).starts_with("HTTP/1.1 299 "), "{head:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of a good head, any one byte is changed, and any is put in.
        #[test]
        fn whatever_passes_here_passes_hyper(
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            other in any::<prop::sample::Index>(),
            fresh in any::<u8>(),
        ) {
            let mut head = b"GET /a?b=%20 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nX:\ty\r\n\r\n".to_vec();
            let changed = place.index(head.len() - 4);
            head[changed] = byte;
            head.insert(other.index(head.len() - 4), fresh);
            if judge(&head).is_ok() {
                let told = answered(&head);
                prop_assert!(told.contains(" 299 "), "{:?}: {told}", String::from_utf8_lossy(&head));
            }
        }
    }
}
