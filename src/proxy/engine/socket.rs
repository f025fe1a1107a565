//! Stream sockets of a worker: TCP and Unix, and TCP sockets that listen.
//!
//! Plain system calls on non-blocking descriptors, guarded by what the [`Reactor`] knows to be
//! ready. A short read means that the socket is drained and a short write that it is full, so
//! neither is followed by a call that could only fail (as epoll(7) says for edge-triggered use).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, ipproto,
};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reactor::{Reactor, Ready, Registration};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    registration: Registration,
    fd: OwnedFd,
}

impl Socket {
    /// Takes over a socket that is connected and non-blocking.
    ///
    /// # Errors
    /// See [`Reactor::register`].
    pub fn adopt(reactor: &Reactor, fd: OwnedFd) -> io::Result<Self> {
        let registration = reactor.register(&fd)?;
        Ok(Self { registration, fd })
    }

    /// Connects over TCP, prepared by `prepare`.
    ///
    /// # Errors
    /// The kernel has no socket, or what it says of the other side.
    pub async fn connect(
        reactor: &Reactor,
        address: SocketAddr,
        prepare: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = net::socket_with(family, SocketType::STREAM, FLAGS, Some(ipproto::TCP))?;
        prepare(fd.as_fd())?;
        Self::finish(reactor, fd, &address).await
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// As [`Socket::connect`]; would block, if its queue is full.
    pub async fn connect_unix(reactor: &Reactor, path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        Self::finish(reactor, fd, &address).await
    }

    async fn finish(
        reactor: &Reactor,
        fd: OwnedFd,
        address: &impl SocketAddrArg,
    ) -> io::Result<Self> {
        match net::connect(&fd, address) {
            // Not before: a socket that is not connecting yet reads as hung up.
            Ok(()) => Self::adopt(reactor, fd),
            Err(Errno::INPROGRESS) => {
                let socket = Self::adopt(reactor, fd)?;
                let wait = |cx: &mut Context<'_>| socket.registration.poll_ready(cx, Ready::WRITE);
                if std::future::poll_fn(wait).await.has(Ready::FAILED) {
                    net::sockopt::socket_error(&socket.fd)??;
                }
                Ok(socket)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ready once reading would not wait.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.poll_ready(cx, Ready::READ).map(drop)
    }

    /// Whether the other side is known to have finished or broken off: reading does not wait any
    /// more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.registration.ready().has(Ready::ENDED)
    }

    /// Writes what only a shutdown or the close follows, at once: the FIN then leaves with these
    /// bytes and not in a packet of its own (`MSG_MORE`, send(2)).
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_write_last(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::MORE)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        let send = || net::send(&self.fd, bytes, flags | SendFlags::NOSIGNAL);
        let count = ready!(self.poll_io(cx, Ready::WRITE, send))?;
        if 0 < count && count < bytes.len() {
            self.registration.exhausted(Ready::WRITE);
        }
        Poll::Ready(Ok(count))
    }

    /// Moves bytes that have arrived into a pipe, without copying them; 0 is the end.
    ///
    /// # Errors
    /// What the socket says, or the pipe.
    pub fn poll_splice_into(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Ready::READ, || splice(&self.fd, None, pipe, None, most, SPLICE))
    }

    /// Moves bytes out of a pipe that has that many.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_splice_from(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Ready::WRITE, || splice(pipe, None, &self.fd, None, most, SPLICE))
    }

    /// Does something that would not wait, once that may be so.
    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        wanted: Ready,
        mut act: impl FnMut() -> rustix::io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.registration.poll_ready(cx, wanted));
            match act() {
                Ok(done) => return Poll::Ready(Ok(done)),
                Err(Errno::AGAIN) => {
                    let was_ended = self.registration.ready().has(Ready::ENDED);
                    self.registration.exhausted(wanted);
                    if was_ended && wanted == Ready::READ {
                        // Announced, and not yet there: it will be in a moment, without an event.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Pages are moved where the kernel can, and a full or empty pipe never waits.
const SPLICE: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // First, so that what is asked in vain zeroes no buffer.
        ready!(self.registration.poll_ready(cx, Ready::READ));
        let free = buffer.initialize_unfilled();
        let room = free.len();
        let receive =
            || net::recv(&self.fd, &mut *free, RecvFlags::empty()).map(|(count, _)| count);
        let count = ready!(self.poll_io(cx, Ready::READ, receive))?;
        if 0 < count && count < room {
            self.registration.exhausted(Ready::READ);
        }
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::empty())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = slices {
            // Cheaper for the kernel to take in.
            return self.poll_write(cx, one);
        }
        let nothing = &mut SendAncillaryBuffer::default();
        let send = || net::sendmsg(&self.fd, slices, nothing, SendFlags::NOSIGNAL);
        let count = ready!(self.poll_io(cx, Ready::WRITE, send))?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if 0 < count && count < all {
            self.registration.exhausted(Ready::WRITE);
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(net::shutdown(&self.fd, Shutdown::Write).map_err(Into::into))
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    reactor: Reactor,
    registration: Option<Registration>,
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes over a socket that listens and is non-blocking.
    ///
    /// # Errors
    /// See [`Reactor::register_listener`].
    pub fn adopt(reactor: &Reactor, socket: std::net::TcpListener) -> io::Result<Self> {
        let registration = Some(reactor.register_listener(&socket)?);
        let address = socket.local_addr()?;
        Ok(Self { reactor: reactor.clone(), registration, socket, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of ours by which somebody came in here.
    #[must_use]
    pub fn reached_by(&self, socket: impl AsFd) -> SocketAddr {
        if !self.address.ip().is_unspecified() {
            // There is only one, and the kernel need not be asked.
            return self.address;
        }
        // A socket that cannot name its own address is already gone.
        let named = net::getsockname(socket).ok();
        named.and_then(|address| address.try_into().ok()).unwrap_or(self.address)
    }

    /// Waits until somebody connects. At most one is taken at each turn of the worker.
    ///
    /// # Errors
    /// What accept(2) says.
    pub async fn accept(&mut self) -> io::Result<(OwnedFd, SocketAddr)> {
        if self.registration.is_none() {
            self.registration = Some(self.reactor.register_listener(&self.socket)?);
        }
        std::future::poll_fn(|cx| {
            let Some(registration) = &self.registration else { return Poll::Pending };
            ready!(registration.poll_ready(cx, Ready::READ));
            // Whether somebody else waits is told at the next turn.
            registration.exhausted(Ready::READ);
            match self.accept_waiting() {
                // Another worker was faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(registration.poll_ready(cx, Ready::READ));
                    Poll::Pending
                }
                accepted => Poll::Ready(accepted),
            }
        })
        .await
    }

    /// Takes somebody who waits in the queue.
    ///
    /// # Errors
    /// What accept(2) says; would block, if nobody waits.
    pub fn accept_waiting(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let (fd, address) = net::acceptfrom_with(&self.socket, FLAGS)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let address = address.ok_or(io::ErrorKind::InvalidData)?;
        Ok((fd, address))
    }

    /// Does not look at the queue until [`Listener::accept`] is called again: being told of
    /// somebody who cannot be let in would keep the worker turning.
    pub fn look_away(&mut self) {
        if self.registration.take().is_some() {
            self.reactor.unregister(&self.socket);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.look_away();
    }
}
