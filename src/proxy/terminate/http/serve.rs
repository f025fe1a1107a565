//! One client's connection, from the end of its handshake to its own: requests, one after the other
//! or many at once, until somebody is done.
//!
//! The session polls everything that belongs to it: hyper's connection, the tasks of its streams,
//! and, after an upgrade, the tunnel. So whatever ends the session ends all of them. When the
//! session is asked to leave, because its route is over or the proxy stops, hyper says so to the
//! client (`Connection: close`, GOAWAY), and what is under way may finish.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::Entry;
use crate::proxy::draft::Draft;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::house::House;
use crate::proxy::limits::Permit;
use crate::proxy::terminate::http::body::Reply;
use crate::proxy::terminate::http::crew::{Crew, Hiring};
use crate::proxy::terminate::http::desk::Desk;
use crate::proxy::terminate::http::exchange::exchange;
use crate::proxy::terminate::http::framing::MAX_HEAD;
use crate::proxy::terminate::http::gate::{Gate, Traffic};
use crate::proxy::terminate::http::gather::{Gather, Kept};
use crate::proxy::terminate::http::tunnel;
use crate::proxy::terminate::stream::{Ended, Rewind};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::telemetry::metrics::Moved;

/// Streams of one client at once, as nginx and Apache have it. Browsers use fewer.
const STREAMS: u32 = 128;
/// Streams that a client opened and reset before we had looked at them (CVE-2023-44487), and those
/// that we reset for its faults (CVE-2025-8671): beyond these it is cut off.
const RESETS: usize = 32;
/// Windows of HTTP/2 towards clients: what one request's body may have under way, and all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered of one response towards a client of HTTP/2.
const SEND_BUFFER: usize = 64 * 1024;

/// One client, and who serves it.
pub(in crate::proxy) struct Host {
    pub(in crate::proxy) route: Arc<Route>,
    pub(in crate::proxy) name: Hostname,
    pub(in crate::proxy) permit: Permit,
    pub(in crate::proxy) entry: Entry,
    pub(in crate::proxy) draft: Draft,
    pub(in crate::proxy) timer: Deadline,
}

/// Serves a client until one of the two is done.
pub(in crate::proxy) async fn serve<T: Transport, C: Connect>(
    client: Ended<T>,
    host: Host,
    house: Rc<House<C>>,
) {
    let Host { route, name, permit, entry, draft, timer } = host;
    let is_h2 = client.get_ref().1.alpn_protocol() == Some(b"h2");
    let crew = Crew::default();
    let traffic = Rc::new(Traffic::new(!is_h2));
    let desk = Rc::new(Desk {
        house,
        session: draft.session,
        client: draft.client,
        listener: draft.listener,
        name,
        alpn: draft.alpn(),
        route: RefCell::new(route),
        seen: Cell::new(0),
        hiring: crew.hiring(),
        traffic: Rc::clone(&traffic),
        under_way: Rc::new(Cell::new(0)),
        way: RefCell::new(None),
        is_closing: Cell::new(false),
        tunnel: RefCell::new(None),
    });
    let gate = Gate::new(client, traffic);
    let mut shift =
        Shift { desk, crew, entry, _permit: permit, draft, timer, told: Moved::default() };
    let mut connection = Connection::new(gate, &shift.desk);
    let mut outcome = shift.run(&mut connection).await;
    let tunnel = shift.desk.tunnel.take();
    let mut client = connection.into_client();
    if let (Some((backend, line)), Outcome::Closed) = (tunnel, outcome)
        && let Some(client) = client.take()
    {
        let carried = async move { tunnel::carry(client, backend, &line).await };
        outcome = shift.run(&mut Carried(Box::pin(carried))).await;
    }
    shift.end(client, outcome).await;
}

/// What a session polls, and how it is asked to come to an end.
trait Work {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome>;

    fn wind_up(&mut self);
}

/// All that a session has beside its work. It is let go in this order: whoever reads the record
/// finds everything else given back.
struct Shift<C> {
    desk: Rc<Desk<C>>,
    crew: Crew,
    entry: Entry,
    _permit: Permit,
    draft: Draft,
    timer: Deadline,
    told: Moved,
}

impl<C: Connect> Shift<C> {
    async fn run(&mut self, work: &mut impl Work) -> Outcome {
        let mut is_winding_up = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.entry.handle().poll_retired(cx) {
                return Poll::Ready(outcome);
            }
            let is_asked = self.entry.handle().is_asked() || self.desk.is_closing.get();
            if is_asked && !std::mem::replace(&mut is_winding_up, true) {
                work.wind_up();
            }
            let worked = self.poll_all(cx, work);
            let Draft { tally, visit, .. } = &self.draft;
            tally.carried(visit.as_ref(), &mut self.told, self.desk.traffic.moved());
            if worked.is_ready() {
                return worked;
            }
            if self.desk.traffic.is_restless() {
                self.draft.reason = Some("resets");
                return Poll::Ready(Outcome::RequestRefused);
            }
            while let Poll::Ready(due) = self.poll_due(cx) {
                match due {
                    Due::Never => {}
                    Due::Unused if !std::mem::replace(&mut is_winding_up, true) => {
                        work.wind_up();
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Due::SlowHead => {
                        self.draft.reason = Some("slow_head");
                        return Poll::Ready(Outcome::RequestRefused);
                    }
                    Due::Unused | Due::Idle => return Poll::Ready(Outcome::IdleTimeout),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sees the client off, if hyper has left anything of it.
    async fn end(&mut self, client: Option<Rewind<Gate<Ended<impl Transport>>>>, outcome: Outcome) {
        if let Some(client) = client {
            self.desk.traffic.look_away();
            if matches!(outcome, Outcome::Closed | Outcome::RequestRefused) {
                // What it has sent beyond its last request must not turn the answer into a reset.
                self.draft.see_off(client, outcome, &mut self.timer).await;
            } else {
                // A reset cannot be taken for the end of a response.
                client.reset_on_close();
            }
        }
        self.draft.outcome = outcome;
        let Moved { to_backend, to_client, .. } = self.desk.traffic.moved();
        self.draft.to_backend_bytes = to_backend;
        self.draft.to_client_bytes = to_client;
    }

    /// Lets the work and the crew go on until neither can.
    fn poll_all(&mut self, cx: &mut Context<'_>, work: &mut impl Work) -> Poll<Outcome> {
        // Tasks first: what they have for the client leaves in this very turn. And after the work,
        // for what it has brought; also when it is over: that may be their end. What they have for
        // the work then wakes it through the session's own waker.
        let _ = self.crew.poll(cx);
        let worked = work.poll(cx);
        let _ = self.crew.poll(cx);
        if worked.is_ready() {
            return worked;
        }
        if self.desk.is_closing.get() {
            // Said during this very turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// What has been waited for too long, if anything.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let (traffic, terminal) = (&self.desk.traffic, &self.desk.house.terminal);
        let is_used = self.desk.under_way.get() > 0;
        let (end, due) = match traffic.head_since() {
            Some(since) => (since + terminal.request_timeout, Due::SlowHead),
            None if is_used => (traffic.last() + self.desk.house.idle.idle, Due::Idle),
            None => (traffic.last() + terminal.keep_alive, Due::Unused),
        };
        if Instant::now() >= end {
            return Poll::Ready(due);
        }
        self.timer.set(end);
        self.timer.poll_passed(cx).map(|()| Due::Never)
    }
}

/// What has been waited for too long.
enum Due {
    /// Nothing: the timer was set for something that has happened since.
    Never,
    /// The rest of a head.
    SlowHead,
    /// Any byte of the exchanges that are under way.
    Idle,
    /// Another request.
    Unused,
}

type Single<T, C> = http1::Connection<TokioIo<Gate<Ended<T>>>, Exchanges<C>>;
type Streams<T, C> = http2::Connection<TokioIo<Gather<Gate<Ended<T>>>>, Exchanges<C>, Hiring>;

/// hyper's connection with a client.
enum Connection<T: Transport, C: Connect> {
    H1(Box<Single<T, C>>),
    H2(Pin<Box<Streams<T, C>>>, Kept<Gate<Ended<T>>>),
}

impl<T: Transport, C: Connect> Connection<T, C> {
    fn new(gate: Gate<Ended<T>>, desk: &Rc<Desk<C>>) -> Self {
        let is_h2 = gate.stream().get_ref().1.alpn_protocol() == Some(b"h2");
        let exchanges = Exchanges(Rc::clone(desk));
        if is_h2 {
            let (stream, kept) = Gather::new(gate);
            let mut builder = http2::Builder::new(desk.hiring.clone());
            builder
                .enable_connect_protocol()
                .max_concurrent_streams(STREAMS)
                .max_pending_accept_reset_streams(RESETS)
                .max_local_error_reset_streams(RESETS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
            let connection = builder.serve_connection(TokioIo::new(stream), exchanges);
            return Self::H2(Box::pin(connection), kept);
        }
        let mut builder = http1::Builder::new();
        // The time of a head is ours to watch: hyper's timers would have to leave the thread.
        builder.header_read_timeout(None).max_buf_size(MAX_HEAD);
        Self::H1(Box::new(builder.serve_connection(TokioIo::new(gate), exchanges)))
    }

    /// The client's stream after HTTP/1.1, with what it has said since. HTTP/2 says by itself where
    /// each stream ends, and closes its connection.
    fn into_client(self) -> Option<Rewind<Gate<Ended<T>>>> {
        match self {
            Self::H1(connection) => {
                let parts = connection.into_parts();
                Some(Rewind::new(parts.read_buf.to_vec(), parts.io.into_inner()))
            }
            Self::H2(..) => None,
        }
    }
}

impl<T: Transport, C: Connect> Work for Connection<T, C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let ended = match self {
            Self::H1(connection) => ready!(connection.poll_without_shutdown(cx)),
            Self::H2(connection, kept) => match connection.as_mut().poll(cx) {
                Poll::Ready(ended) => ended,
                Poll::Pending => {
                    let sent = ready!(kept.poll_send(cx));
                    return sent.map_or(Poll::Ready(Outcome::ClientReset), |()| Poll::Pending);
                }
            },
        };
        Poll::Ready(ended.err().map_or(Outcome::Closed, |error| of_error(&error)))
    }

    fn wind_up(&mut self) {
        match self {
            Self::H1(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
            Self::H2(connection, _) => connection.as_mut().graceful_shutdown(),
        }
    }
}

/// Whose doing the end of a client's connection is.
fn of_error(error: &hyper::Error) -> Outcome {
    tracing::debug!(%error, "a client's connection ended");
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        Outcome::RequestRefused
    } else {
        Outcome::ClientReset
    }
}

/// What becomes of a connection after an upgrade.
struct Carried(LocalBoxFuture<'static, ()>);

impl Work for Carried {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.0.poll_unpin(cx).map(|()| Outcome::Closed)
    }

    fn wind_up(&mut self) {
        // Nobody here knows the words of what is spoken in it.
    }
}

/// Answers the requests of a connection.
struct Exchanges<C>(Rc<Desk<C>>);

impl<C: Connect> Service<Request<Incoming>> for Exchanges<C> {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Response<Reply>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(exchange(Rc::clone(&self.0), request).map(Ok))
    }
}
