//! Descriptors that are kept back, so that the admin port can be reached when there are no others.
//!
//! A descriptor that is free belongs to whichever thread asks first, so being frugal elsewhere
//! would not help: this room holds a few that lead to nothing. When a client cannot be accepted,
//! one is closed and the client takes its number at once; when that client goes, its descriptor is
//! turned into a spare again in one step (`dup3`), in which nobody can come between. Only the first
//! of these leaves a moment, of about a microsecond, in which a worker may be faster; then the
//! next spare is tried.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::io::{DupFlags, dup3};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// As many clients are served at once when the machine is short of descriptors: a scrape, a
/// probe, a person, and one to spare.
const MOST: usize = 4;

/// The descriptors that are kept back.
#[derive(Debug)]
pub(super) struct Spares {
    /// Leads to nothing; all others are copies.
    origin: File,
    kept: Mutex<Vec<OwnedFd>>,
}

/// What became of a client that could not be accepted in the ordinary way.
#[derive(Debug)]
pub(super) enum Rescue {
    /// It is in, on a spare.
    Accepted(TcpStream),
    /// Nobody waits: `accept` asks for a descriptor before it looks.
    NobodyWaits,
    /// No spare is left.
    Exhausted,
}

impl Spares {
    /// All of them.
    ///
    /// # Errors
    /// Not even one descriptor can be had.
    pub(super) fn new() -> io::Result<Self> {
        let spares = Self { origin: File::open("/dev/null")?, kept: Mutex::default() };
        spares.refill();
        Ok(spares)
    }

    /// Gets back what others have taken, as far as there is any.
    pub(super) fn refill(&self) {
        let mut kept = self.kept();
        while kept.len() < MOST {
            let Ok(spare) = self.origin.try_clone() else { return };
            kept.push(spare.into());
        }
    }

    /// Lets a client in that cannot be accepted for want of a descriptor.
    pub(super) async fn accept(&self, listener: &TcpListener) -> Rescue {
        while let Some(spare) = self.take() {
            drop(spare);
            match accept_now(listener).await {
                Some(Ok(stream)) => return Rescue::Accepted(stream),
                // Somebody else was faster, or the client has gone.
                Some(Err(_)) => {}
                None => {
                    self.refill();
                    return Rescue::NobodyWaits;
                }
            }
        }
        Rescue::Exhausted
    }

    fn take(&self) -> Option<OwnedFd> {
        self.kept().pop()
    }

    /// Keeps a descriptor that is no longer needed, if too few are kept.
    fn keep(&self, mut done: OwnedFd) {
        let mut kept = self.kept();
        if kept.len() < MOST && dup3(&self.origin, &mut done, DupFlags::CLOEXEC).is_ok() {
            kept.push(done);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts whoever waits, and waits for nobody.
async fn accept_now(listener: &TcpListener) -> Option<io::Result<TcpStream>> {
    std::future::poll_fn(|context| match listener.poll_accept(context) {
        Poll::Ready(accepted) => Poll::Ready(Some(accepted.map(|(stream, _)| stream))),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A client's connection, whose descriptor becomes a spare when it is dropped, if one is missing.
#[derive(Debug)]
pub(super) struct Lent {
    /// There until it is dropped.
    stream: Option<TcpStream>,
    spares: Arc<Spares>,
}

impl Lent {
    pub(super) fn new(stream: TcpStream, spares: &Arc<Spares>) -> Self {
        Self { stream: Some(stream), spares: Arc::clone(spares) }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Leaves the runtime's watch first.
        if let Some(Ok(stream)) = self.stream.take().map(TcpStream::into_std) {
            self.spares.keep(stream.into());
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn what_a_client_leaves_is_a_spare_again_and_no_more_are_kept_than_that() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let spares = Arc::new(Spares::new().unwrap());
        assert_eq!(spares.kept().len(), MOST);
        let dial = || std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // As in life: an ordinary accept has waited until somebody came.
        let first = dial();
        drop(listener.accept().await.unwrap());
        drop(first);
        let mut lent = Vec::new();
        for number in 0..MOST {
            let _client = dial();
            let Rescue::Accepted(stream) = spares.accept(&listener).await else {
                panic!("client {number} waits");
            };
            lent.push(Lent::new(stream, &spares));
        }
        let _client = dial();
        assert!(matches!(spares.accept(&listener).await, Rescue::Exhausted));
        drop(lent);
        assert_eq!(spares.kept().len(), MOST);
        let Rescue::Accepted(stream) = spares.accept(&listener).await else { panic!("it waits") };
        spares.refill();
        drop(Lent::new(stream, &spares));
        assert_eq!(spares.kept().len(), MOST);
        assert!(matches!(spares.accept(&listener).await, Rescue::NobodyWaits));
        assert_eq!(spares.kept().len(), MOST, "it was only lent for a look");
    }
}
