//! The byte streams that a session stands between.
//!
//! The journey is written once for whatever can be read and written; what only a real socket can
//! do, such as turning its close into a reset or moving bytes without copying them, is asked for
//! through [`Transport`]. In-memory streams are transports too, so that time can be simulated.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use crate::proxy::engine::socket::Socket;

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

    /// Lets the kernel find out whether a silent peer is still there.
    fn keep_alive(&self);

    /// The socket behind it, if there is one that carries these very bytes.
    fn as_socket(&self) -> Option<&Socket>;

    /// Whether its end is a message of its own, without which a close looks like a broken line.
    fn says_goodbye(&self) -> bool {
        false
    }
}

/// What every listening TCP socket gets, and accepted ones inherit: no Nagle delay, and keepalive.
///
/// # Errors
/// What the kernel says.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keep_alive(socket)
}

fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)
}

impl Transport for Socket {
    fn reset_on_close(&self) {
        // A socket that is already gone has nothing left to reset, and a Unix one has no reset.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn keep_alive(&self) {
        // A Unix socket needs none: its peer cannot vanish without a word.
        let _ = keep_alive(&SockRef::from(self));
    }

    fn as_socket(&self) -> Option<&Socket> {
        Some(self)
    }
}

impl Transport for DuplexStream {
    fn reset_on_close(&self) {}

    fn keep_alive(&self) {}

    fn as_socket(&self) -> Option<&Socket> {
        None
    }
}
