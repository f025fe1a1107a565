//! Connections to backends that wait for requests, of one worker.
//!
//! They stand under the route and the name that they were opened for, and are never lent to another.
//! One of HTTP/1.1 is lent to one exchange at a time; one of HTTP/2 to many. A request that could
//! not be written because its connection had just been closed is given back, and goes out by a
//! fresh one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::engine::deadlines::Deadlines;
use crate::proxy::engine::tasks::Spawner;
use crate::proxy::house::House;
use crate::proxy::terminate::dial::{Dialled, Undialled, dial};
use crate::proxy::terminate::http::body::Upload;
use crate::proxy::terminate::http::crew::Errands;
use crate::proxy::terminate::http::framing::MAX_HEAD;
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::termination::Termination;

/// How many connections of a route and name wait: twice what one client of HTTP/2 can use at once.
/// (With 64, four clients of 32 requests at once made every second request dial.)
const WAITING: usize = 256;
/// How many wait in all; further ones are closed after their exchange.
const WAITING_IN_ALL: usize = 1024;
/// How long one waits: less than what servers commonly grant (nginx: 75 s, Apache: 5 s, Node: 5 s),
/// and those that grant less are found closed.
const IDLE: Duration = Duration::from_secs(30);
/// How often those that waited for so long are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Windows of HTTP/2 towards backends: what one response may have under way, and all together.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// What is buffered of one request towards a backend of HTTP/2.
const SEND_BUFFER: usize = 64 * 1024;

/// Whose a connection is.
type Key = (Arc<str>, Hostname);

/// The connections of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    shared: Rc<Shared>,
}

struct Shared {
    waiting: RefCell<HashMap<Key, Vec<Waiting>, foldhash::fast::RandomState>>,
    count: Cell<usize>,
    is_swept: Cell<bool>,
    errands: Errands,
    deadlines: Deadlines,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("count", &self.shared.count).finish_non_exhaustive()
    }
}

/// A connection that waits.
struct Waiting {
    route: Arc<Route>,
    sender: Sender,
    endpoint: usize,
    since: Instant,
}

impl Waiting {
    /// One of HTTP/2 may be lent and wait on.
    fn share(&self) -> Option<Lease> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => {
                let sender = Sender::H2(sender.clone());
                Some(Lease { sender, endpoint: self.endpoint, is_fresh: false })
            }
        }
    }
}

/// The sending end of a connection.
enum Sender {
    H1(http1::SendRequest<Upload>),
    H2(http2::SendRequest<Upload>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_ready(),
            Self::H2(sender) => sender.is_ready(),
        }
    }
}

/// A connection that is lent to one exchange.
pub(crate) struct Lease {
    sender: Sender,
    /// The place of its backend among those of the route.
    pub(crate) endpoint: usize,
    /// Whether nobody has used it before.
    pub(crate) is_fresh: bool,
}

/// For whom a connection is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) route: &'a Arc<Route>,
    pub(crate) how: &'a Termination,
    pub(crate) name: &'a Hostname,
}

/// Why a request got no answer.
pub(crate) enum Unanswered {
    /// It was not sent, and may be sent by another connection.
    Unsent(Box<Request<Upload>>),
    /// It was, or its body is spent.
    Broken(hyper::Error),
}

impl Pool {
    /// An empty pool whose connections are tasks of this worker.
    #[must_use]
    pub fn new(spawner: Spawner, deadlines: Deadlines) -> Self {
        let shared = Shared {
            waiting: RefCell::default(),
            count: Cell::new(0),
            is_swept: Cell::new(false),
            errands: Errands(spawner),
            deadlines,
        };
        Self { shared: Rc::new(shared) }
    }

    /// Where tasks of connections go.
    pub(crate) fn errands(&self) -> &Errands {
        &self.shared.errands
    }

    /// A connection for an exchange: one that waits, unless a fresh one is asked for.
    pub(crate) async fn lease<C: Connect>(
        &self,
        house: &House<C>,
        wanted: Wanted<'_>,
        is_fresh: bool,
    ) -> Result<Lease, Undialled> {
        if !is_fresh && let Some(lease) = self.take(wanted) {
            return Ok(lease);
        }
        let Wanted { route, how, name } = wanted;
        let protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let Dialled { stream, endpoint } = dial(house, route, how, name, protocols).await?;
        stream.keep_alive();
        let broken = |error: hyper::Error| {
            tracing::debug!(route = %route.id, %error, "a backend does not speak HTTP");
            Undialled { outcome: Outcome::BackendProtocol, reason: None }
        };
        let sender = if stream.protocol() == Some(b"h2") {
            let shaken = http2::Builder::new(self.shared.errands.clone())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .handshake(TokioIo::new(stream))
                .await;
            let (sender, connection) = shaken.map_err(broken)?;
            self.shared.errands.0.spawn(connection.map(drop));
            // Others may share it from here on.
            self.put(
                wanted,
                Lease { sender: Sender::H2(sender.clone()), endpoint, is_fresh: true },
            );
            Sender::H2(sender)
        } else {
            let shaken =
                http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(broken)?;
            self.shared.errands.0.spawn(connection.map(drop));
            Sender::H1(sender)
        };
        Ok(Lease { sender, endpoint, is_fresh: true })
    }

    fn take(&self, wanted: Wanted<'_>) -> Option<Lease> {
        let key = (Arc::clone(&wanted.route.id), wanted.name.clone());
        let mut all = self.shared.waiting.borrow_mut();
        let waiting = all.get_mut(&key)?;
        // The one that was used last is the least likely to be closed meanwhile; those that were
        // used long before are left to the sweep.
        for place in (0..waiting.len()).rev() {
            let one = waiting.get(place)?;
            let is_usable = !one.sender.is_closed() && one.route.leads_like(wanted.route);
            if is_usable && !one.sender.is_ready() {
                continue;
            }
            if is_usable && let Some(lease) = one.share() {
                return Some(lease);
            }
            self.shared.count.set(self.shared.count.get() - 1);
            let Waiting { sender, endpoint, .. } = waiting.remove(place);
            if is_usable {
                return Some(Lease { sender, endpoint, is_fresh: false });
            }
        }
        None
    }

    /// Lets a connection wait for another exchange, once it is done with this one.
    pub(crate) fn put(&self, wanted: Wanted<'_>, lease: Lease) {
        let key = (Arc::clone(&wanted.route.id), wanted.name.clone());
        let mut all = self.shared.waiting.borrow_mut();
        let waiting = all.entry(key).or_default();
        if waiting.len() >= WAITING || self.shared.count.get() >= WAITING_IN_ALL {
            return;
        }
        let Lease { sender, endpoint, .. } = lease;
        let (route, since) = (Arc::clone(wanted.route), Instant::now());
        waiting.push(Waiting { route, sender, endpoint, since });
        self.shared.count.set(self.shared.count.get() + 1);
        drop(all);
        if !self.shared.is_swept.replace(true) {
            let shared = Rc::clone(&self.shared);
            self.shared.errands.0.spawn(async move { shared.sweep_until_empty().await });
        }
    }
}

impl Shared {
    async fn sweep_until_empty(&self) {
        while self.count.get() > 0 {
            self.deadlines.sleep(SWEEP).await;
            let mut count = 0;
            self.waiting.borrow_mut().retain(|_, waiting| {
                waiting.retain(|one| {
                    let is_stale = one.sender.is_ready() && one.since.elapsed() > IDLE;
                    !one.sender.is_closed() && !is_stale
                });
                count += waiting.len();
                !waiting.is_empty()
            });
            self.count.set(count);
        }
        self.is_swept.set(false);
    }
}

impl Lease {
    /// Sends a request, in the form that its connection wants.
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
        authority: &Authority,
    ) -> Result<Response<Incoming>, Unanswered> {
        let request = self.fit(request, authority);
        let sent = match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request)),
            None => Unanswered::Broken(error.into_error()),
        })
    }

    fn fit(&self, mut request: Request<Upload>, authority: &Authority) -> Request<Upload> {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = Uri::default().into_parts();
        uri.path_and_query = Some(path);
        match self.sender {
            Sender::H1(_) => {
                *request.version_mut() = Version::HTTP_11;
                if let Ok(host) = authority.as_str().parse() {
                    request.headers_mut().insert(HOST, host);
                }
            }
            Sender::H2(_) => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                uri.scheme = Some(Scheme::HTTPS);
                uri.authority = Some(authority.clone());
            }
        }
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        request
    }

    /// Whether it is of no use to others, since it is lent to this exchange alone.
    pub(crate) fn is_exclusive(&self) -> bool {
        matches!(self.sender, Sender::H1(_))
    }
}
