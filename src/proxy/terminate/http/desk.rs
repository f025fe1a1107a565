//! What the exchanges of one client's connection share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::Request;
use hyper::http::uri::Authority;

use crate::clock::Timestamp;
use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::outcome::record::Record;
use crate::proxy::house::House;
use crate::proxy::terminate::http::crew::Hiring;
use crate::proxy::terminate::http::gate::Traffic;
use crate::proxy::terminate::http::headers::Way;
use crate::proxy::terminate::http::line::Line;
use crate::proxy::terminate::stream::Tunnel;
use crate::routing::route::{Phase, Route};
use crate::wire::client_hello::Alpn;

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
    /// The revision of the table in which that was looked up last.
    pub(crate) seen: Cell<u64>,
    /// Where tasks of the connection are taken.
    pub(crate) hiring: Hiring,
    /// What passes on the client's side.
    pub(crate) traffic: Rc<Traffic>,
    /// How many exchanges are under way.
    pub(crate) under_way: Rc<Cell<usize>>,
    /// The way of the last request.
    pub(crate) way: RefCell<Option<(Authority, Rc<Way>)>>,
    /// Whether no further request is wanted.
    pub(crate) is_closing: Cell<bool>,
    /// The other end, once the client's HTTP/1.1 connection has become something else.
    pub(crate) tunnel: RefCell<Option<(Tunnel, Rc<Line>)>>,
}

impl<C> Desk<C> {
    /// The route of a request that comes now: that of the connection, if it is still live and leads
    /// to the same place.
    pub(crate) fn route(&self, now: Timestamp) -> Result<Arc<Route>, Outcome> {
        let mut own = self.route.borrow_mut();
        if self.house.table.revision() != self.seen.get() {
            let table = self.house.table.current();
            let found = table.snapshot.find(&self.name, &self.alpn);
            match found.filter(|route| route.id == own.id && route.leads_like(&own)) {
                Some(route) if !Arc::ptr_eq(route, &own) => *own = Arc::clone(route),
                Some(_) => {}
                None => return Err(Outcome::RouteRemoved),
            }
            self.seen.set(table.revision);
        }
        match own.phase(now) {
            Phase::Live => Ok(Arc::clone(&own)),
            Phase::NotYet => Err(Outcome::NotYetValid),
            Phase::Expired => Err(Outcome::RouteExpired),
        }
    }

    /// Begins the line of an exchange.
    pub(crate) fn line<B>(&self, request: &Request<B>, now: Timestamp) -> Rc<Line> {
        let mut record = Record::new(now, self.session, self.client, self.listener);
        let route = self.route.borrow();
        record.sni = Some(self.name.clone());
        record.route = Some(Arc::clone(&route.id));
        record.app = route.app().cloned();
        let (log, tally) = (self.house.log.clone(), Rc::clone(&self.house.tally));
        Rc::new(Line::begin(record, request, &self.under_way, &self.traffic, log, tally))
    }

    /// The way of a request that names this authority.
    pub(crate) fn way(&self, authority: &Authority) -> Rc<Way> {
        let mut last = self.way.borrow_mut();
        if let Some((known, way)) = &*last
            && known.as_str() == authority.as_str()
        {
            return Rc::clone(way);
        }
        let way = Rc::new(Way::new(self.client, authority.as_str(), self.listener.port()));
        *last = Some((authority.clone(), Rc::clone(&way)));
        way
    }
}
