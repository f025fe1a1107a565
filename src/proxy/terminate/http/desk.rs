//! What the exchanges of one client's connection share, and the line that each of them leaves behind.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::{Request, Version};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Hostname;
use crate::outcome::{Asked, Outcome, Record};
use crate::proxy::house::House;
use crate::proxy::terminate::http::crew::Hiring;
use crate::proxy::terminate::http::gate::Traffic;
use crate::proxy::terminate::http::tunnel::Tunnel;
use crate::routing::route::{Phase, Route};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Tally;
use crate::wire::client_hello::Alpn;

/// How much of a method and a path a record keeps.
const RECORDED_METHOD: usize = 32;
const RECORDED_PATH: usize = 512;

/// What the exchanges of one client's connection share.
pub(crate) struct Desk<C> {
    /// What the worker's sessions share.
    pub(crate) house: Rc<House<C>>,
    /// The number of the session.
    pub(crate) session: u64,
    /// The client.
    pub(crate) client: SocketAddr,
    /// Where it came in.
    pub(crate) listener: SocketAddr,
    /// The name that it asked for, and whose certificate it was shown.
    pub(crate) name: Hostname,
    /// The protocols of its hello, which routing minds.
    pub(crate) alpn: Alpn,
    /// The route by which it came in, or a newer version of it.
    pub(crate) route: RefCell<Arc<Route>>,
    /// Where tasks of the connection are taken.
    pub(crate) hiring: Hiring,
    /// What passes on the client's side.
    pub(crate) traffic: Rc<Traffic>,
    /// How many exchanges are under way.
    pub(crate) under_way: Rc<Cell<usize>>,
    /// Whether no further request is wanted.
    pub(crate) is_closing: Cell<bool>,
    /// The other end, once the client's HTTP/1.1 connection has become something else.
    pub(crate) tunnel: RefCell<Option<(Tunnel, Rc<Line>)>>,
}

impl<C> Desk<C> {
    /// The route of a request that comes now: that of the connection, if it is still live and leads
    /// to the same place.
    pub(crate) fn route(&self) -> Result<Arc<Route>, Outcome> {
        let mut own = self.route.borrow_mut();
        let now = self.house.clock.now();
        {
            let table = self.house.table.current();
            let found = table.snapshot.find(&self.name, &self.alpn);
            match found.filter(|route| route.id == own.id && route.leads_like(&own)) {
                Some(route) if !Arc::ptr_eq(route, &own) => *own = Arc::clone(route),
                Some(_) => {}
                None => return Err(Outcome::RouteRemoved),
            }
        }
        match own.phase(now) {
            Phase::Live => Ok(Arc::clone(&own)),
            Phase::NotYet => Err(Outcome::NotYetValid),
            Phase::Expired => Err(Outcome::RouteExpired),
        }
    }

    /// Begins the line of an exchange.
    pub(crate) fn line<B>(&self, request: &Request<B>) -> Rc<Line> {
        self.under_way.set(self.under_way.get() + 1);
        let cut = |text: &str, most: usize| -> Box<str> {
            text.get(..text.floor_char_boundary(most)).unwrap_or_default().into()
        };
        let protocol = match request.version() {
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        };
        Rc::new(Line {
            time: self.house.clock.now(),
            began: Instant::now(),
            session: self.session,
            client: self.client,
            listener: self.listener,
            name: self.name.clone(),
            route: Arc::clone(&self.route.borrow()),
            endpoint: RefCell::default(),
            asked: Asked {
                method: cut(request.method().as_str(), RECORDED_METHOD),
                path: cut(request.uri().path(), RECORDED_PATH),
                protocol,
                status: None,
            },
            status: Cell::new(None),
            first_byte: Cell::new(None),
            to_backend: Cell::new(0),
            to_client: Cell::new(0),
            outcome: Cell::new(None),
            is_slow: Cell::new(false),
            under_way: Rc::clone(&self.under_way),
            traffic: Rc::clone(&self.traffic),
            log: self.house.log.clone(),
            tally: Rc::clone(&self.house.tally),
        })
    }
}

/// One exchange: held by whatever belongs to it, and written when the last of these is gone.
pub(crate) struct Line {
    time: Timestamp,
    began: Instant,
    session: u64,
    client: SocketAddr,
    listener: SocketAddr,
    name: Hostname,
    route: Arc<Route>,
    endpoint: RefCell<Option<Endpoint>>,
    asked: Asked,
    status: Cell<Option<u16>>,
    first_byte: Cell<Option<Instant>>,
    to_backend: Cell<u64>,
    to_client: Cell<u64>,
    /// None while it is under way.
    outcome: Cell<Option<Outcome>>,
    is_slow: Cell<bool>,
    under_way: Rc<Cell<usize>>,
    traffic: Rc<Traffic>,
    log: AccessLog,
    tally: Rc<Tally>,
}

impl Line {
    /// Which of the route's backends was reached.
    pub(crate) fn reached(&self, endpoint: Option<&Endpoint>) {
        *self.endpoint.borrow_mut() = endpoint.cloned();
    }

    /// An answer goes to the client.
    pub(crate) fn answered(&self, status: u16) {
        self.status.set(Some(status));
        self.first_byte.set(Some(Instant::now()));
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.to_backend.set(self.to_backend.get() + bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.to_client.set(self.to_client.get() + bytes as u64);
    }

    /// The whole response was passed on.
    pub(crate) fn finished(&self) {
        self.ended(Outcome::Closed);
    }

    /// One side left before the end.
    pub(crate) fn broke(&self, outcome: Outcome) {
        self.ended(outcome);
    }

    /// The first end is the one that counts.
    pub(crate) fn ended(&self, outcome: Outcome) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(outcome));
        }
    }

    /// How it ended, if it did.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome.get()
    }

    /// The client's body came too slowly.
    pub(crate) fn is_slow(&self) {
        self.is_slow.set(true);
    }

    pub(crate) fn was_slow(&self) -> bool {
        self.is_slow.get()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        self.traffic.touch();
        let mut record = Record::new(self.time, self.session, self.client, self.listener);
        record.sni = Some(self.name.clone());
        record.route = Some(Arc::clone(&self.route.id));
        record.app = self.route.app().cloned();
        record.endpoint = self.endpoint.take();
        // Whoever drops it before its end is the client's side: its stream or its connection.
        record.outcome = self.outcome.get().unwrap_or(Outcome::ClientReset);
        record.first_byte = self.first_byte.get().map(|at| at - self.began);
        record.duration = self.began.elapsed();
        record.to_backend_bytes = self.to_backend.get();
        record.to_client_bytes = self.to_client.get();
        let asked = std::mem::take(&mut self.asked);
        record.asked = Some(Box::new(Asked { status: self.status.get(), ..asked }));
        self.tally.exchanged(&record);
        self.log.write(record);
    }
}
