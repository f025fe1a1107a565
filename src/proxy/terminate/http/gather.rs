//! Writes that leave together. The library for HTTP/2 writes and flushes every frame of a body by
//! itself; over TLS each such write is a record and a system call of its own, which for small
//! answers cost more than all the rest. So writes are kept until the session has nothing else to
//! do, and leave as one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept at most: what one TLS record can carry (RFC 8446, section 5.1).
const MOST: usize = 16 * 1024;

/// A stream whose writes are kept until [`Kept::poll_send`] is called, or too many are.
#[derive(Debug)]
pub(crate) struct Gather<T>(Rc<RefCell<Writing<T>>>);

/// What a [`Gather`] keeps.
#[derive(Debug)]
pub(crate) struct Kept<T>(Rc<RefCell<Writing<T>>>);

#[derive(Debug)]
struct Writing<T> {
    stream: T,
    /// Takes no memory while it is empty.
    bytes: Vec<u8>,
    /// How many of the bytes are written.
    sent: usize,
    /// Whether the stream may hold back something of what was written: TLS does, when its socket
    /// takes no more.
    is_owing: bool,
}

impl<T> Gather<T> {
    /// A stream, and the hold on what is kept of its writes.
    pub(crate) fn new(stream: T) -> (Self, Kept<T>) {
        let writing = Writing { stream, bytes: Vec::new(), sent: 0, is_owing: false };
        let writing = Rc::new(RefCell::new(writing));
        (Self(Rc::clone(&writing)), Kept(writing))
    }
}

impl<T: AsyncWrite + Unpin> Kept<T> {
    /// Writes what is kept. To be called whenever nobody can write more.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Writing<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        if self.is_owing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_owing = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.is_owing = true;
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= MOST {
            ready!(self.poll_empty(cx))?;
        }
        if self.bytes.is_empty() {
            if slices.iter().map(|slice| slice.len()).sum::<usize>() >= MOST {
                self.is_owing = true;
                return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            }
            self.bytes.reserve_exact(MOST);
        }
        let before = self.bytes.len();
        for slice in slices {
            let room = MOST - self.bytes.len();
            self.bytes.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        Poll::Ready(Ok(self.bytes.len() - before))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes at once: whoever holds [`Kept`] sees to it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writing = self.0.borrow_mut();
        ready!(writing.poll_send(cx))?;
        Pin::new(&mut writing.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::IoSlice;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};

    #[tokio::test]
    async fn writes_leave_as_one_when_they_are_let_go() {
        let (near, mut far) = duplex(64 * 1024);
        let (mut stream, kept) = Gather::new(near);
        stream.write_all(b"one, ").await.unwrap();
        stream.flush().await.unwrap();
        let slices = [IoSlice::new(b"two, "), IoSlice::new(b"three")];
        assert_eq!(stream.write_vectored(&slices).await.unwrap(), 10);
        let mut seen = [0; 64];
        let early = futures_util::FutureExt::now_or_never(far.read(&mut seen));
        assert!(early.is_none(), "{early:?}");
        poll_fn(|cx| kept.poll_send(cx)).await.unwrap();
        assert_eq!(far.read(&mut seen).await.unwrap(), 15);
        assert_eq!(&seen[..15], b"one, two, three");
        assert_eq!(stream.0.borrow().bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_leaves_before_it() {
        let (near, mut far) = duplex(64);
        let (mut stream, _kept) = Gather::new(near);
        stream.write_all(b"goodbye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"goodbye");
    }

    /// As with TLS: what the stream has taken may still wait in it for the socket.
    #[tokio::test]
    async fn what_the_stream_holds_back_is_let_go_too() {
        for size in [100, MOST - 1, MOST, MOST + 1, 5 * MOST + 7] {
            let (near, mut far) = duplex(1000);
            let (mut stream, kept) = Gather::new(BufWriter::with_capacity(4 * MOST, near));
            let bytes: Vec<u8> = b"gathered ".iter().copied().cycle().take(size).collect();
            let write = async {
                stream.write_all(&bytes).await.unwrap();
                assert!(stream.0.borrow().bytes.len() <= MOST);
                poll_fn(|cx| kept.poll_send(cx)).await.unwrap();
            };
            let mut seen = vec![0; size];
            let read = async { far.read_exact(&mut seen).await.unwrap() };
            let both = async { tokio::join!(write, read) };
            tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
            assert_eq!(seen, bytes);
        }
    }
}
