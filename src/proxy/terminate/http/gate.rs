//! The client's stream as hyper sees it: everything that passes is counted, and what comes in over
//! HTTP/1.1 is looked at by the [`Inspector`].
//!
//! A head goes on when it is whole and good. In the place of one that is at fault goes a request that
//! nobody would pass on, so that it is answered in its turn and by us: what hyper answers by itself
//! has neither `Proxy-Status` nor a page.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::engine::socket::Socket;
use crate::proxy::terminate::http::fault::Fault;
use crate::proxy::terminate::http::framing::{Faulty, Inspector};
use crate::proxy::transport::Transport;
use crate::telemetry::metrics::Moved;

/// What a person who goes on to the next page takes back has been asked for longer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So many requests of a connection may be taken back at once, and half of all in any case: as Envoy
/// has it. h2 counts only those that were taken back before anybody had looked at them.
const MAX_TAKEN_BACK: u32 = 500;

/// What passes through a gate, for those behind it.
#[derive(Debug)]
pub(crate) struct Traffic {
    moved: Cell<Moved>,
    last: Cell<Instant>,
    /// Since when a head has been coming in.
    head_since: Cell<Option<Instant>>,
    hearing: Cell<Hearing>,
    inspector: RefCell<Inspector>,
    /// How many requests have come, and how many of them were taken back at once.
    asked: Cell<u32>,
    taken_back: Cell<u32>,
}

/// What stands in for a head that is never whole.
const TORN: &[u8] = b"-";

/// What becomes of what comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It is passed on.
    Open,
    /// A head was at fault. It is answered, and nothing after it is heard.
    Refused(Fault),
    /// A body was. What had come of it is with its backend.
    Broken,
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
            hearing: Cell::new(Hearing::Open),
            inspector: RefCell::new(inspector),
            asked: Cell::new(0),
            taken_back: Cell::new(0),
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
        self.touched(Instant::now());
    }

    /// The same, at this instant.
    pub(crate) fn touched(&self, now: Instant) {
        self.last.set(now);
    }

    /// Since when a head has been coming in that is not whole yet.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// A request has come.
    pub(crate) fn asked(&self) {
        self.asked.set(self.asked.get().saturating_add(1));
    }

    /// It was taken back before it was answered, after so long.
    pub(crate) fn taken_back(&self, after: Duration) {
        if after < AT_ONCE {
            self.taken_back.set(self.taken_back.get().saturating_add(1));
        }
    }

    /// Whether the client asks in order to take back: a backend begins with each of its requests.
    pub(crate) fn is_restless(&self) -> bool {
        let taken_back = self.taken_back.get();
        taken_back > MAX_TAKEN_BACK && taken_back > self.asked.get() / 2
    }

    /// What was wrong with the last head, if anything.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.hearing.get() {
            Hearing::Refused(fault) => Some(fault),
            Hearing::Open | Hearing::Broken => None,
        }
    }

    /// What comes from now on is no HTTP, or of no account.
    pub(crate) fn look_away(&self) {
        self.inspector.borrow_mut().stop();
        self.head_since.set(None);
        self.hearing.set(Hearing::Open);
    }

    /// What comes after a question for an upgrade is HTTP all the same.
    pub(crate) fn go_on(&self) {
        self.inspector.borrow_mut().go_on();
    }

    fn read(&self, count: usize) {
        let before = self.moved.get();
        self.moved.set(Moved { to_backend: before.to_backend + count as u64, ..before });
        self.touch();
    }

    fn wrote(&self, count: usize) {
        let before = self.moved.get();
        self.moved.set(Moved { to_client: before.to_client + count as u64, ..before });
        self.touch();
    }

    /// Looks at what came in: how much of it may go on, and what goes on in place of the rest.
    fn judge(&self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        let mut inspector = self.inspector.borrow_mut();
        let judged = inspector.feed(bytes);
        let since = self.head_since.get().unwrap_or(self.last.get());
        self.head_since.set(inspector.is_within_head().then_some(since));
        match judged {
            Ok(count) => (count, None),
            Err(Faulty { before, fault, stand_in }) => {
                let is_head = stand_in.is_some();
                let hearing = if is_head { Hearing::Refused(fault) } else { Hearing::Broken };
                self.hearing.set(hearing);
                (before, stand_in)
            }
        }
    }

    fn is_waiting(&self) -> bool {
        self.inspector.borrow().is_waiting()
    }
}

/// A client's stream that is counted, and held back where it must be.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    stream: T,
    traffic: Rc<Traffic>,
    kept: Kept,
}

/// What came in and has not gone on.
#[derive(Debug, Default)]
struct Kept {
    /// It may, but found no room.
    ready: Vec<u8>,
    given: usize,
    /// A head that is not whole.
    head: Vec<u8>,
    /// What came behind a question for an upgrade, and was not looked at.
    later: Vec<u8>,
}

impl Kept {
    /// Sorts what came in and was judged.
    fn sort(&mut self, bytes: &[u8], judged: (usize, Option<Vec<u8>>), traffic: &Traffic) {
        let (now, rest) = bytes.split_at_checked(judged.0).unwrap_or((bytes, &[]));
        if !now.is_empty() {
            self.ready.append(&mut self.head);
            self.ready.extend_from_slice(now);
        }
        if traffic.hearing.get() != Hearing::Open {
            self.head = Vec::new();
            self.ready.extend_from_slice(&judged.1.unwrap_or_default());
        } else if traffic.is_waiting() {
            self.later.extend_from_slice(rest);
        } else {
            self.head.extend_from_slice(rest);
        }
    }

    /// Gives as much as there is room for. Whether there was anything.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let ready = self.ready.get(self.given..).unwrap_or_default();
        let now = ready.get(..ready.len().min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(now);
        self.given += now.len();
        let is_any = !now.is_empty();
        if self.given == self.ready.len() {
            (self.ready, self.given) = (Vec::new(), 0);
        }
        is_any
    }
}

impl<T: Transport> Gate<T> {
    pub(crate) fn new(stream: T, traffic: Rc<Traffic>) -> Self {
        Self { stream, traffic, kept: Kept::default() }
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
        let Self { stream, traffic, kept } = &mut *self;
        loop {
            if kept.give(buffer) {
                return Poll::Ready(Ok(()));
            }
            match traffic.hearing.get() {
                Hearing::Open => {}
                // Whoever reads has an answer to give first, and does not come back for more.
                Hearing::Refused(_) => return Poll::Pending,
                Hearing::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
            if !kept.later.is_empty() {
                if traffic.is_waiting() {
                    // Whoever knows what it is reads on then.
                    return Poll::Pending;
                }
                let later = std::mem::take(&mut kept.later);
                let judged = traffic.judge(&later);
                kept.sort(&later, judged, traffic);
                continue;
            }
            let before = buffer.filled().len();
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, buffer));
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            if fresh.is_empty() {
                if kept.head.is_empty() {
                    return Poll::Ready(read);
                }
                // Nothing follows. That the head was torn is all that matters of it.
                (kept.head, kept.ready) = (Vec::new(), TORN.to_vec());
                continue;
            }
            traffic.read(fresh.len());
            let judged = traffic.judge(fresh);
            if judged == (fresh.len(), None) && kept.head.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let fresh = fresh.to_vec();
            buffer.set_filled(before);
            kept.sort(&fresh, judged, traffic);
        }
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
