//! Bodies on their way: what came is passed on at once, and nothing is kept.
//!
//! The side that reads sets the pace, so a body of any size needs no more memory than the windows
//! of HTTP/2 and the buffers of the sockets. A request's body that does not come is given up; a
//! response's ends its exchange.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::engine::deadlines::{Deadline, Deadlines};
use crate::proxy::terminate::http::line::Line;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The side that sent it left.
    #[error(transparent)]
    Sender(#[from] hyper::Error),
    /// It came too slowly.
    #[error("the body came too slowly")]
    Slow,
}

/// How slowly a body may come while its backend waits for it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So long in any case.
    pub grace: Duration,
    /// And a second more for each so many bytes.
    pub bytes_per_second: u64,
}

/// The body of a request, on its way to the backend.
pub(crate) struct Upload {
    /// None, if there is nothing in it.
    body: Option<Incoming>,
    line: Rc<Line>,
    patience: Option<Patience>,
}

/// What is left of the patience with a client.
struct Patience {
    pace: Pace,
    timer: Deadline,
    /// How long was waited in all.
    waited: Duration,
    since: Option<Instant>,
    bytes: u64,
}

impl Patience {
    /// How long may still be waited.
    fn left(&self) -> Duration {
        let earned = self.bytes.checked_div(self.pace.bytes_per_second).unwrap_or(u64::MAX);
        let whole = self.pace.grace.saturating_add(Duration::from_secs(earned));
        whole.saturating_sub(self.waited)
    }

    fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    fn poll_spent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.timer.set(now + self.left());
        }
        self.timer.poll_passed(cx)
    }
}

impl Upload {
    /// A body that must come at a pace, if one is given, until its backend has answered.
    pub(crate) fn new(
        body: Option<Incoming>,
        line: Rc<Line>,
        pace: Option<(Pace, &Deadlines)>,
    ) -> Self {
        let body = body.filter(|body| !body.is_end_stream());
        let patience = pace.filter(|_| body.is_some()).map(|(pace, deadlines)| Patience {
            pace,
            timer: deadlines.unset(),
            waited: Duration::ZERO,
            since: None,
            bytes: 0,
        });
        Self { body, line, patience }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, Bytes::len);
                this.line.sent(size);
                if let Some(patience) = &mut this.patience {
                    patience.came(size);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.line.broke(Outcome::ClientReset);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                // A backend that has answered may be talking with its client.
                if let Some(patience) = this.patience.as_mut().filter(|_| !this.line.is_answered())
                {
                    ready!(patience.poll_spent(cx));
                    this.line.is_slow();
                    return Poll::Ready(Some(Err(Broken::Slow)));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// The body of a response, on its way to the client.
pub(crate) enum Reply {
    /// A page of ours, once.
    Page(Option<Bytes>),
    /// Nothing, though the exchange goes on for as long as this is held.
    Nothing,
    /// What the backend sends.
    Passed(Download),
}

/// What a backend sends.
pub(crate) struct Download {
    body: Incoming,
    line: Rc<Line>,
}

impl Download {
    /// A body whose end is the end of its exchange.
    pub(crate) fn new(body: Incoming, line: Rc<Line>) -> Self {
        if body.is_end_stream() {
            line.finished();
        }
        Self { body, line }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
            Self::Nothing => Poll::Ready(None),
            Self::Passed(Download { body, line }) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        line.received(frame.data_ref().map_or(0, Bytes::len));
                        if body.is_end_stream() {
                            line.finished();
                        }
                    }
                    Some(Err(_)) => line.broke(Outcome::BackendReset),
                    None => line.finished(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page) => page.is_none(),
            Self::Nothing => true,
            Self::Passed(download) => download.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, Bytes::len) as u64),
            Self::Nothing => SizeHint::with_exact(0),
            Self::Passed(download) => download.body.size_hint(),
        }
    }
}
