//! THE JOURNEY: one client, from accept to the record that it leaves behind.
//!
//! `peek` the hello, find the route, `connect`, `relay`. Each step takes what the step before has
//! made; each step's failure becomes an [`Outcome`]. Whatever happens, a session ends in exactly
//! one outcome and writes exactly one record, and a refused client is answered before it is let go.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::outcome::{Outcome, Record};
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::{Entry, Ledger};
use crate::proxy::limits::{Limits, Pending, Permit, Slot};
use crate::proxy::peek::{self, PeekError, Peeked, peek};
use crate::proxy::refuse::{Manners, refuse};
use crate::proxy::relay::copy::relay;
use crate::proxy::relay::idle;
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::snapshot::Miss;
use crate::routing::table::Reader;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Tally, Visit};
use crate::wire::alert::Answer;
use crate::wire::client_hello::ClientHello;

/// How often a lookup is repeated because the table changed under it.
const LOOKUPS: u32 = 16;

/// What all sessions of one worker share.
#[derive(Debug)]
pub struct House<C> {
    /// The routes.
    pub table: Reader,
    /// Who is here.
    pub ledger: Arc<Ledger>,
    /// Who may come in.
    pub limits: Arc<Limits>,
    /// The way to the backends.
    pub dialer: C,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where records go.
    pub log: AccessLog,
    /// Where this worker counts.
    pub tally: Rc<Tally>,
    /// The number of the next session, shared by all workers.
    pub numbers: Arc<AtomicU64>,
    /// How hellos are read.
    pub hello: peek::Settings,
    /// How refused clients are answered.
    pub answer: Answer,
    /// How long a relay may stand still.
    pub idle: idle::Limits,
}

/// Who came in, and by which slot.
#[derive(Debug)]
pub struct Arrival {
    /// The client's address.
    pub client: SocketAddr,
    /// Ours.
    pub listener: SocketAddr,
    /// Taken before the connection was accepted.
    pub slot: Slot,
}

/// A client on its way to a backend.
struct Connected<B> {
    backend: B,
    prefix: Vec<u8>,
    permit: Permit,
}

/// Sees one client through.
pub async fn session<T: Transport, C: Connect>(client: T, arrival: Arrival, house: Rc<House<C>>) {
    let mut draft = Draft::new(&arrival, &house);
    let source = arrival.client.ip();
    let pending = match house.limits.admit(arrival.slot, source) {
        Ok(pending) => pending,
        Err((outcome, _slot)) => return draft.refuse(client, outcome).await,
    };
    let mut client = client;
    let mut entry = house.ledger.enter(draft.record.session);
    match travel(&mut client, pending, &mut entry, &mut draft, &house).await {
        Ok(Connected { backend, prefix, permit: _held }) => {
            let mut meter = draft.tally.meter(draft.visit.as_ref());
            let handle = entry.handle();
            let relayed = relay(client, backend, prefix, house.idle, handle, &mut meter).await;
            draft.record.to_backend_bytes = relayed.to_backend;
            draft.record.to_client_bytes = relayed.to_client;
            draft.record.first_byte = relayed.first_byte.map(|at| at - draft.began);
            draft.record.outcome = relayed.into();
        }
        Err((outcome, _held)) => draft.refuse(client, outcome).await,
    }
}

/// What a session holds when it is refused: given back only once the client has been seen off.
type Held = Result<Permit, Pending>;

/// From the first byte to an open backend.
async fn travel<T: Transport, C: Connect>(
    client: &mut T,
    mut pending: Pending,
    entry: &mut Entry,
    draft: &mut Draft,
    house: &House<C>,
) -> Result<Connected<C::Stream>, (Outcome, Held)> {
    let deadline = draft.began + house.hello.timeout.0;
    let peeked = tokio::select! {
        peeked = timeout_at(deadline, peek(client, house.hello.max_size, &mut pending)) => peeked,
        outcome = entry.handle().wait() => return Err((outcome, Err(pending))),
    };
    let Peeked { hello, prefix } = match peeked {
        Ok(Ok(peeked)) => peeked,
        Ok(Err(error)) => {
            draft.record.reason = reason(&error);
            return Err((Outcome::from(&error), Err(pending)));
        }
        Err(_) => return Err((Outcome::HelloTimeout, Err(pending))),
    };
    draft.saw(&hello);
    let permit = pending.named();
    let route = match find(&hello, entry, draft, house) {
        Ok(route) => route,
        Err(outcome) => return Err((outcome, Ok(permit))),
    };
    let dialled = Instant::now();
    let connected = tokio::select! {
        connected = house.dialer.connect(&route) => connected,
        outcome = entry.handle().wait() => return Err((outcome, Ok(permit))),
    };
    draft.record.connect = Some(dialled.elapsed());
    match connected {
        Ok((backend, endpoint)) => {
            draft.record.endpoint = Some(endpoint);
            Ok(Connected { backend, prefix, permit })
        }
        Err(error) => {
            tracing::debug!(route = %route.id, %error, "no backend could be reached");
            draft.record.endpoint = route.backends.first().cloned();
            Err((Outcome::from(&error), Ok(permit)))
        }
    }
}

fn reason(error: &PeekError) -> Option<&'static str> {
    match error {
        PeekError::Left | PeekError::NoRoom => None,
        PeekError::Rejected(reject) => Some(reject.word()),
    }
}

/// Finds the route and stands under it in the ledger. Entering comes before the last look at the
/// table: whoever takes the route away later finds this session in the ledger.
fn find<C>(
    hello: &ClientHello,
    entry: &mut Entry,
    draft: &mut Draft,
    house: &House<C>,
) -> Result<Arc<Route>, Outcome> {
    let name = hello.sni.as_ref().ok_or(Outcome::NoSni)?;
    for _ in 0..LOOKUPS {
        let table = house.table.current();
        draft.record.revision = Some(table.revision);
        let found = table.snapshot.lookup(name, &hello.alpn, house.clock.now());
        let route = found.map_err(|miss| draft.missed(miss))?;
        draft.took(route);
        entry.take_route(route)?;
        if let Some(visit) = &mut draft.visit {
            visit.open();
        }
        if house.table.revision() == table.revision {
            return Ok(Arc::clone(route));
        }
    }
    Err(Outcome::Internal)
}

impl From<&Miss> for Outcome {
    fn from(miss: &Miss) -> Self {
        match miss {
            Miss::Unknown => Self::UnknownName,
            Miss::NotYet(_) => Self::NotYetValid,
            Miss::Expired(_) => Self::ExpiredName,
        }
    }
}

/// The record in the making; written when it is dropped, however that comes about.
struct Draft {
    record: Record,
    began: Instant,
    manners: Manners,
    log: AccessLog,
    tally: Rc<Tally>,
    visit: Option<Visit>,
}

impl Draft {
    fn new<C>(arrival: &Arrival, house: &House<C>) -> Self {
        let number = house.numbers.fetch_add(1, Ordering::Relaxed);
        let now = house.clock.now();
        Self {
            record: Record::new(now, number, arrival.client, arrival.listener),
            began: Instant::now(),
            manners: Manners { answer: house.answer, plain_http: house.hello.plain_http },
            log: house.log.clone(),
            tally: Rc::clone(&house.tally),
            visit: None,
        }
    }

    fn saw(&mut self, hello: &ClientHello) {
        self.record.hello = Some(self.began.elapsed());
        self.record.hello_bytes = Some(hello.size);
        self.record.sni.clone_from(&hello.sni);
        self.record.alpn.clone_from(&hello.alpn);
        self.record.ech = hello.ech;
    }

    fn took(&mut self, route: &Route) {
        self.record.route = Some(Arc::clone(&route.id));
        self.record.app = route.app().cloned();
        self.visit = Some(self.tally.visit(&route.id));
        self.manners.answer = route.refusal().unwrap_or(self.manners.answer);
    }

    fn missed(&mut self, miss: Miss) -> Outcome {
        let outcome = Outcome::from(&miss);
        match miss {
            Miss::NotYet(route) | Miss::Expired(route) => self.took(&route),
            Miss::Unknown => {}
        }
        outcome
    }

    async fn refuse<T: Transport>(&mut self, client: T, outcome: Outcome) {
        self.record.outcome = outcome;
        refuse(client, outcome, self.manners).await;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.record.duration = self.began.elapsed();
        // Counted before it is written: whoever has read a record finds it counted.
        self.tally.ended(&self.record, self.visit.take());
        self.log.write(self.record.clone());
    }
}
