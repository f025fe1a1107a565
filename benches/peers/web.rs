//! The same origin as a server of HTTP/1.1 in the clear, behind proxies that end TLS: a small
//! answer, or one without end.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::send;

/// Where the small answer is, and how long its body is.
pub(crate) const SMALL: &str = "/small";
pub(crate) const ANSWER: usize = 1 << 10;
/// Where the answer without end is.
pub(crate) const ENDLESS: &str = "/endless";
/// What it says of its length.
const MOST_BYTES: u64 = 1 << 40;

/// Answers one request after the other.
pub(crate) async fn serve(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = head(ANSWER as u64);
    answer.resize(answer.len() + ANSWER, b'x');
    let mut request = [0; 4 << 10];
    loop {
        if !read_request(stream, &mut request).await? {
            return Ok(());
        }
        let path = request.strip_prefix(b"GET ").unwrap_or_default();
        if path.starts_with(ENDLESS.as_bytes()) {
            stream.write_all(&head(MOST_BYTES)).await?;
            return send(stream, MOST_BYTES, b'x').await;
        }
        stream.write_all(&answer).await?;
    }
}

fn head(length: u64) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Whether another request came before the end.
async fn read_request(stream: &mut TcpStream, space: &mut [u8]) -> io::Result<bool> {
    let mut have = 0;
    loop {
        let free = space.get_mut(have..).filter(|free| !free.is_empty());
        let free = free.ok_or_else(|| io::Error::other("a request that is too long"))?;
        match stream.read(free).await? {
            0 => return Ok(false),
            count => have += count,
        }
        if space.get(..have).is_some_and(|seen| seen.ends_with(b"\r\n\r\n")) {
            return Ok(true);
        }
    }
}
