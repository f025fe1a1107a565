//! The record of a session in the making, and how a refused client is seen off: both end a session,
//! and whatever happens there is exactly one record.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::outcome::record::Record;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::house::House;
use crate::proxy::peek::PlainHttp;
use crate::proxy::refuse::{Manners, refuse};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::snapshot::Miss;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Tally, Visit};
use crate::wire::alert::Answer;
use crate::wire::client_hello::{Alpn, ClientHello};

/// How much of a list of protocols a record keeps, in bytes. Real lists have 15; strangers can send
/// 64 KiB, which neither every live session nor every record in a queue should hold.
const RECORDED_ALPN: usize = 256;

/// The record in the making, as small as it can be kept; written when it is dropped, however that
/// comes about.
pub(super) struct Draft {
    pub(super) time: Timestamp,
    pub(super) began: Instant,
    pub(super) session: u64,
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
    pub(super) hello: Option<Shown>,
    pub(super) route: Option<Arc<Route>>,
    /// The place of the backend among those of the route.
    pub(super) endpoint: Option<u16>,
    pub(super) revision: Option<NonZeroU64>,
    pub(super) store_revision: Option<NonZeroU64>,
    pub(super) hello_took: Option<Took>,
    pub(super) connect_took: Option<Took>,
    pub(super) first_byte: Option<Instant>,
    pub(super) reason: Option<&'static str>,
    pub(super) to_backend_bytes: u64,
    pub(super) to_client_bytes: u64,
    pub(super) outcome: Outcome,
    pub(super) manners: Manners,
    pub(super) log: AccessLog,
    pub(super) tally: Rc<Tally>,
    pub(super) visit: Option<Visit>,
}

/// What a record keeps of a hello.
pub(super) struct Shown {
    sni: Option<Hostname>,
    alpn: Alpn,
    size: u32,
    ech: bool,
}

impl Shown {
    /// What is kept of it beside the route, if it has found one: the letters of a name that the route
    /// claims as it is are kept once for all sessions.
    pub(super) fn of(hello: ClientHello, route: Option<&Route>) -> Self {
        let ClientHello { sni, alpn, size, ech, .. } = hello;
        let sni = sni.map(|name| route.and_then(|route| route.own(&name)).unwrap_or(name));
        Self { sni, alpn: alpn.shortened(RECORDED_ALPN), size, ech }
    }
}

/// How long a step before the relay took, in microseconds. None takes an hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took(u32);

impl Took {
    pub(super) fn since(began: Instant) -> Self {
        Self(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Took> for Duration {
    fn from(took: Took) -> Self {
        Self::from_micros(took.0.into())
    }
}

impl Draft {
    pub(super) fn new<C>(client: SocketAddr, listener: SocketAddr, house: &House<C>) -> Self {
        Self {
            time: house.clock.now(),
            began: Instant::now(),
            session: house.numbers.fetch_add(1, Ordering::Relaxed),
            client,
            listener,
            hello: None,
            route: None,
            endpoint: None,
            revision: None,
            store_revision: None,
            hello_took: None,
            connect_took: None,
            first_byte: None,
            reason: None,
            to_backend_bytes: 0,
            to_client_bytes: 0,
            outcome: Outcome::Internal,
            manners: Manners { answer: house.answer, plain_http: house.hello.plain_http },
            log: house.log.clone(),
            tally: Rc::clone(&house.tally),
            visit: None,
        }
    }

    pub(super) fn took(&mut self, route: &Arc<Route>) {
        self.visit = Some(self.tally.visit(&route.id));
        self.manners.answer = route.refusal().unwrap_or(self.manners.answer);
        self.route = Some(Arc::clone(route));
    }

    pub(super) fn missed(&mut self, miss: Miss) -> Outcome {
        let outcome = Outcome::from(&miss);
        match miss {
            Miss::NotYet(route) | Miss::Expired(route) | Miss::Held(route, _) => self.took(&route),
            Miss::Unknown => {}
        }
        outcome
    }

    pub(super) async fn refuse<T: Transport>(
        &mut self,
        client: T,
        outcome: Outcome,
        timer: &mut Deadline,
    ) {
        self.outcome = outcome;
        // In a box: few sessions need it, and all would hold its place.
        Box::pin(refuse(client, outcome, self.manners, timer)).await;
    }

    /// Ends a session whose client was answered before, or has to be told nothing more.
    pub(super) async fn see_off<T: Transport>(
        &mut self,
        client: T,
        outcome: Outcome,
        timer: &mut Deadline,
    ) {
        self.manners = Manners { answer: Answer::Close, plain_http: PlainHttp::Close };
        self.refuse(client, outcome, timer).await;
    }

    /// The name that the client asked for.
    pub(super) fn name(&self) -> Option<&Hostname> {
        self.hello.as_ref()?.sni.as_ref()
    }

    /// The protocols that it offered, as far as they are kept.
    pub(super) fn alpn(&self) -> Alpn {
        self.hello.as_ref().map_or_else(Alpn::default, |hello| hello.alpn.clone())
    }

    fn record(&mut self) -> Record {
        let hello = self.hello.take();
        let route = self.route.take();
        let endpoint = route.as_ref().zip(self.endpoint);
        let mut record = Record::new(self.time, self.session, self.client, self.listener);
        record.ech = hello.as_ref().is_some_and(|hello| hello.ech);
        record.hello_bytes = hello.as_ref().map(|hello| hello.size);
        (record.sni, record.alpn) =
            hello.map_or((None, Alpn::default()), |hello| (hello.sni, hello.alpn));
        record.endpoint =
            endpoint.and_then(|(route, place)| route.backends.get(usize::from(place)).cloned());
        record.app = route.as_ref().and_then(|route| route.app().cloned());
        record.route = route.map(|route| Arc::clone(&route.id));
        record.revision = self.revision.map(NonZeroU64::get);
        record.store_revision = self.store_revision.map(NonZeroU64::get);
        record.outcome = self.outcome;
        record.reason = self.reason;
        record.hello = self.hello_took.map(Duration::from);
        record.connect = self.connect_took.map(Duration::from);
        record.first_byte = self.first_byte.map(|at| at - self.began);
        record.duration = self.began.elapsed();
        record.to_backend_bytes = self.to_backend_bytes;
        record.to_client_bytes = self.to_client_bytes;
        record
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let record = self.record();
        // Counted before it is written: whoever has read a record finds it counted.
        self.tally.ended(&record, self.visit.take());
        self.log.write(record);
    }
}
