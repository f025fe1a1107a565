//! The client's stream as hyper sees it: everything that passes is counted, and what comes in over
//! HTTP/1.1 is looked at by the [`Inspector`].

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::engine::socket::Socket;
use crate::proxy::terminate::http::framing::{Ambiguity, Inspector};
use crate::proxy::transport::Transport;
use crate::telemetry::metrics::Moved;

/// What passes through a gate, for those behind it.
#[derive(Debug)]
pub(crate) struct Traffic {
    moved: Cell<Moved>,
    last: Cell<Instant>,
    /// Since when a head has been coming in.
    head_since: Cell<Option<Instant>>,
    ambiguity: Cell<Option<Ambiguity>>,
    inspector: RefCell<Inspector>,
}

impl Traffic {
    /// Nothing has passed. Only HTTP/1.1 can be looked at.
    pub(crate) fn new(is_http1: bool) -> Self {
        let mut inspector = Inspector::default();
        if !is_http1 {
            inspector.stop();
        }
        Self {
            moved: Cell::default(),
            last: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            ambiguity: Cell::new(None),
            inspector: RefCell::new(inspector),
        }
    }

    /// How much has passed so far.
    pub(crate) fn moved(&self) -> Moved {
        self.moved.get()
    }

    /// When something passed last.
    pub(crate) fn last(&self) -> Instant {
        self.last.get()
    }

    /// Something passed that does not go through the gate, or work was done.
    pub(crate) fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Since when a head has been coming in that is not whole yet.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// What is wrong with what came in, if anything.
    pub(crate) fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity.get()
    }

    /// What comes from now on is no HTTP.
    pub(crate) fn look_away(&self) {
        self.inspector.borrow_mut().stop();
        self.head_since.set(None);
    }

    fn read(&self, bytes: &[u8]) {
        let before = self.moved.get();
        let to_backend = before.to_backend + bytes.len() as u64;
        self.moved.set(Moved { to_backend, ..before });
        self.touch();
        let mut inspector = self.inspector.borrow_mut();
        if let Err(why) = inspector.feed(bytes) {
            self.ambiguity.set(Some(why));
        }
        let since = self.head_since.get().unwrap_or(self.last.get());
        self.head_since.set(inspector.is_within_head().then_some(since));
    }

    fn wrote(&self, count: usize) {
        let before = self.moved.get();
        self.moved.set(Moved { to_client: before.to_client + count as u64, ..before });
        self.touch();
    }
}

/// A client's stream that is counted.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    stream: T,
    traffic: Rc<Traffic>,
}

impl<T: Transport> Gate<T> {
    pub(crate) fn new(stream: T, traffic: Rc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    /// The stream itself.
    pub(crate) fn stream(&self) -> &T {
        &self.stream
    }
}

impl<T: Transport> Transport for Gate<T> {
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn keep_alive(&self) {
        self.stream.keep_alive();
    }

    fn as_socket(&self) -> Option<&Socket> {
        // What passes is counted.
        None
    }

    fn says_goodbye(&self) -> bool {
        self.stream.says_goodbye()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gate<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.traffic.read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.traffic.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.traffic.wrote(count);
        Poll::Ready(Ok(count))
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
