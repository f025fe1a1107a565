//! The byte streams that come of TLS: one whose first bytes were read before, and either side of a
//! session when TLS lies on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

use crate::proxy::engine::socket::Socket;
use crate::proxy::transport::Transport;

/// A stream that is read from its prefix on.
#[derive(Debug)]
pub struct Rewind<T> {
    prefix: Vec<u8>,
    read: usize,
    stream: T,
}

impl<T> Rewind<T> {
    /// A stream of which these bytes were read before.
    #[must_use]
    pub fn new(prefix: Vec<u8>, stream: T) -> Self {
        Self { prefix, read: 0, stream }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.prefix.get(self.read..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.read += count;
        if self.read == self.prefix.len() {
            self.prefix = Vec::new();
            self.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<T: Transport> Transport for Rewind<T> {
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn keep_alive(&self) {
        self.stream.keep_alive();
    }

    fn as_socket(&self) -> Option<&Socket> {
        // What was read before would be passed over.
        None
    }

    fn says_goodbye(&self) -> bool {
        self.stream.says_goodbye()
    }
}

/// The client's side of a session whose TLS is ended here.
pub type Ended<T> = server::TlsStream<Rewind<T>>;

impl<T: Transport> Transport for Ended<T> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }

    fn keep_alive(&self) {
        self.get_ref().0.keep_alive();
    }

    fn as_socket(&self) -> Option<&Socket> {
        None
    }

    fn says_goodbye(&self) -> bool {
        true
    }
}

/// The backend's end of what was a request once.
pub(crate) type Tunnel = Box<dyn Both>;

/// The backend's side of it.
#[derive(Debug)]
pub enum Opened<B> {
    /// In the clear.
    Plain(B),
    /// In a TLS connection of ours.
    Tls(Box<client::TlsStream<B>>),
}

impl<B: Transport> Opened<B> {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Both> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// The protocol that was agreed upon.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

/// Whatever can be read and written.
pub(crate) trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl<B: Transport> AsyncRead for Opened<B> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl<B: Transport> AsyncWrite for Opened<B> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl<B: Transport> Transport for Opened<B> {
    fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
            Self::Tls(stream) => stream.get_ref().0.reset_on_close(),
        }
    }

    fn keep_alive(&self) {
        match self {
            Self::Plain(stream) => stream.keep_alive(),
            Self::Tls(stream) => stream.get_ref().0.keep_alive(),
        }
    }

    fn as_socket(&self) -> Option<&Socket> {
        // The other side is TLS: nothing can be spliced.
        None
    }

    fn says_goodbye(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn what_was_read_before_is_read_again_and_only_once() {
        let (near, mut far) = duplex(64);
        far.write_all(b"later").await.unwrap();
        drop(far);
        let mut stream = Rewind::new(b"before".to_vec(), near);
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&first, rest.as_slice()), (b"befo", b"relater".as_slice()));
    }
}
