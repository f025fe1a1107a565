//! The byte streams that a session stands between.
//!
//! The journey is written once for whatever can be read and written; what only a real socket can
//! do, such as turning its close into a reset, is asked for through [`Transport`]. In-memory
//! streams are transports too, so that time can be simulated.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Silence after which the kernel asks a peer whether it is still there. Shorter than the 350 s
/// after which large NATs and load balancers forget an idle flow.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
/// Pause between two such questions; nine without an answer (tcp(7)) end the connection.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// A byte stream between us and a peer.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Makes the coming close a reset instead of a clean end, where the stream knows the
    /// difference. Data that the kernel has not yet sent is thrown away: never on a clean path.
    fn reset_on_close(&self);
}

/// What every TCP socket of ours gets: no Nagle delay, and keepalive. Accepted sockets inherit
/// both from their listener.
///
/// # Errors
/// What the kernel says.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // A socket that is already gone has nothing left to reset.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Transport for DuplexStream {
    fn reset_on_close(&self) {}
}

/// A connection to a backend: TCP, or a Unix stream socket.
#[derive(Debug)]
pub enum BackendStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket, which has no reset.
    Unix(UnixStream),
}

impl Transport for BackendStream {
    fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => stream.reset_on_close(),
            Self::Unix(_) => {}
        }
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
