//! Answering a client that may not pass.
//!
//! The answer is one alert record, a short HTTP page, or nothing; then FIN. The socket is not
//! closed while the client may still be sending, because unread bytes would make the kernel turn
//! the close into a reset and the answer would be lost: what comes is read and thrown away until
//! the client closes too, within a bound of time and bytes.

use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadBuf};

use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::peek::PlainHttp;
use crate::proxy::relay::buffer;
use crate::proxy::transport::Transport;
use crate::wire::alert::Answer;

/// How long a refused client may take to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// How much it may still send meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

const PAGE: &str = "This port speaks TLS: ask for it with https:// and a hostname.\n";

/// How refused clients are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// TLS clients.
    pub answer: Answer,
    /// HTTP clients.
    pub plain_http: PlainHttp,
}

/// Answers a client and sees it off.
pub async fn refuse<S: Transport>(
    mut client: S,
    outcome: Outcome,
    manners: Manners,
    timer: &mut Deadline,
) {
    timer.set(Instant::now() + LINGER);
    // Whoever has gone, or does not listen, gets no second try; the bounds hold in any case.
    let _ = timer
        .bound(async {
            if let Some(bytes) = words(outcome, manners) {
                client.write_all(&bytes).await?;
            }
            client.shutdown().await?;
            read_on(&mut client).await
        })
        .await;
}

/// Throws away what comes, up to the bound.
async fn read_on<S: Transport>(client: &mut S) -> io::Result<()> {
    let mut left = LINGER_BYTES;
    while left > 0 {
        let read = std::future::poll_fn(|cx| {
            buffer::with(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *client).poll_read(cx, &mut read))?;
                Poll::Ready(io::Result::Ok(read.filled().len()))
            })
        });
        match read.await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

fn words(outcome: Outcome, manners: Manners) -> Option<Vec<u8>> {
    if outcome == Outcome::PlainHttp && manners.plain_http == PlainHttp::Explain {
        return Some(page());
    }
    manners.answer.record(outcome.alert()?).map(Vec::from)
}

fn page() -> Vec<u8> {
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    )
    .into_bytes()
}
