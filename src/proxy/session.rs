//! THE JOURNEY: one client, from accept to the record that it leaves behind.
//!
//! `peek` the hello, find the route, `connect`, `relay`. Each step takes what the step before has
//! made; each step's failure becomes an [`Outcome`]. Whatever happens, a session ends in exactly
//! one outcome and writes exactly one record, and a refused client is answered before it is let go.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::hostname::Hostname;
use crate::outcome::{Outcome, Record};
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::{Entry, Ledger};
use crate::proxy::engine::deadlines::{Deadline, Deadlines, Passed};
use crate::proxy::fresh::{Newcomer, Newcomers};
use crate::proxy::limits::{Limits, Permit, Slot};
use crate::proxy::peek::{self, PeekError, Peeked, peek};
use crate::proxy::refuse::{Manners, refuse};
use crate::proxy::relay::idle;
use crate::proxy::relay::pump::{End, Relay};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::snapshot::Miss;
use crate::routing::table::Reader;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Moved, Tally, Visit};
use crate::wire::alert::Answer;
use crate::wire::client_hello::{Alpn, ClientHello};

/// How often a lookup is repeated because the table changed under it.
const LOOKUPS: u32 = 16;
/// How much of a list of protocols a record keeps, in bytes. Real lists have 15; strangers can send
/// 64 KiB, which neither every live session nor every record in a queue should hold.
const RECORDED_ALPN: usize = 256;

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
    /// The worker's deadlines.
    pub deadlines: Deadlines,
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
    pub idle: Rc<idle::Limits>,
    /// Who is new to an app that serves one client at a time.
    pub newcomers: Arc<Newcomers>,
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

/// A client that has arrived at its backend: all that a session holds from then on. Its size is
/// what an idle connection costs.
struct Passage<T, B> {
    relay: Relay<T, B>,
    told: Moved,
    timer: Deadline,
    entry: Entry,
    permit: Permit,
    /// While it is new to such an app.
    newcomer: Option<Box<Newcomer>>,
    draft: Draft,
}

/// Sees one client through.
pub fn session<T: Transport, C: Connect>(
    client: T,
    arrival: Arrival,
    house: Rc<House<C>>,
) -> impl Future<Output = ()> + 'static {
    let Arrival { client: address, listener, slot } = arrival;
    let draft = Draft::new(address, listener, &house);
    // Two boxes, so that nobody holds room for both: who is on the way, and who has arrived.
    let way = match house.limits.admit(slot, address.ip()) {
        Ok(permit) => Either::Left(Box::pin(arrive(client, permit, draft, house))),
        Err((outcome, slot)) => {
            Either::Right(Box::pin(see_off(client, slot, draft, outcome, house)))
        }
    };
    async {
        let Some(mut passage) = way.await else { return };
        let end = std::future::poll_fn(|cx| passage.poll(cx)).await;
        (*passage).end(end);
    }
}

/// Refuses a client that is over a limit; it gives what [`arrive`] gives a client that was refused.
async fn see_off<T: Transport, C: Connect>(
    client: T,
    slot: Slot,
    mut draft: Draft,
    outcome: Outcome,
    house: Rc<House<C>>,
) -> Option<Box<Passage<T, C::Stream>>> {
    draft.refuse(client, outcome, &mut house.deadlines.unset()).await;
    // Before the record is written: whoever reads it finds everything given back.
    drop(slot);
    None
}

/// Brings a client to its backend. None, if it was refused: then it has been seen off. Written
/// as a block, which keeps what it is given where it is: an `async fn` has room for it twice.
fn arrive<T: Transport, C: Connect>(
    mut client: T,
    mut permit: Permit,
    mut draft: Draft,
    house: Rc<House<C>>,
) -> impl Future<Output = Option<Box<Passage<T, C::Stream>>>> {
    let mut timer = house.deadlines.unset();
    let mut entry = house.ledger.enter(draft.session);
    async move {
        match travel(&mut client, &mut permit, &mut entry, &mut draft, &house, &mut timer).await {
            Ok((backend, prefix, newcomer)) => {
                let idle = match &newcomer {
                    None => Rc::clone(&house.idle),
                    Some(_) => Newcomer::silence(),
                };
                let relay = Relay::new(client, backend, prefix, idle, &mut timer);
                let told = Moved::default();
                Some(Box::new(Passage { relay, told, timer, entry, permit, newcomer, draft }))
            }
            Err(outcome) => {
                draft.refuse(client, outcome, &mut timer).await;
                // Not before it has been seen off, and before the record is written: whoever reads
                // that finds everything given back.
                drop((entry, permit));
                None
            }
        }
    }
}

impl<T: Transport, B: Transport> Passage<T, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut polled = self.relay.poll(cx, self.entry.handle(), &mut self.timer);
        let settled = self.newcomer.as_ref().and_then(|one| one.settled(self.relay.moved()));
        if let Some(limits) = settled {
            self.relay.relax(limits, &mut self.timer);
            self.newcomer = None;
            if polled.is_pending() {
                // The timer was set anew.
                polled = self.relay.poll(cx, self.entry.handle(), &mut self.timer);
            }
        }
        let Draft { tally, visit, .. } = &self.draft;
        tally.carried(visit.as_ref(), &mut self.told, self.relay.moved());
        polled
    }

    fn end(self, end: End) {
        let Self { relay, entry, permit, newcomer, mut draft, .. } = self;
        let relayed = relay.end(end);
        // Before the record is written, as above.
        drop((entry, permit, newcomer));
        draft.to_backend_bytes = relayed.to_backend;
        draft.to_client_bytes = relayed.to_client;
        draft.first_byte = relayed.first_byte;
        draft.outcome = relayed.into();
    }
}

/// An open backend, the bytes that it is owed, and what a client holds that is new to it.
type Arrived<B> = (B, Vec<u8>, Option<Box<Newcomer>>);

/// From the first byte to an open backend, and the bytes that it is owed.
#[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
fn travel<T: Transport, C: Connect>(
    client: &mut T,
    permit: &mut Permit,
    entry: &mut Entry,
    draft: &mut Draft,
    house: &House<C>,
    timer: &mut Deadline,
) -> impl Future<Output = Result<Arrived<C::Stream>, Outcome>> {
    async move {
        timer.set(draft.began + house.hello.timeout.0);
        let peeked = {
            // Pinned here, as whoever is given a future by value has room for it twice.
            let peeking = pin!(peek(client, house.hello.max_size, permit));
            tokio::select! {
                peeked = timer.bound(peeking) => peeked,
                outcome = entry.handle().wait() => return Err(outcome),
            }
        };
        let Peeked { hello, prefix } = match peeked {
            Ok(Ok(peeked)) => peeked,
            Ok(Err(error)) => {
                draft.reason = reason(&error);
                return Err(Outcome::from(&error));
            }
            Err(Passed) => return Err(Outcome::HelloTimeout),
        };
        draft.hello_took = Some(Took::since(draft.began));
        permit.show_name();
        let found = find(&hello, entry, draft, house);
        draft.hello = Some(hello.into());
        let route = found?;
        let dialled = Instant::now();
        let reached = tokio::select! {
            // In a box: who has not shown a name yet must not hold its place.
            reached = Box::pin(reach(&route, prefix.len(), house, timer)) => reached,
            outcome = entry.handle().wait() => return Err(outcome),
        };
        draft.connect_took = Some(Took::since(dialled));
        match reached {
            Ok((backend, endpoint, newcomer)) => {
                draft.endpoint = u16::try_from(endpoint).ok();
                Ok((backend, prefix, newcomer))
            }
            Err(outcome) => {
                draft.endpoint = Some(0);
                Err(outcome)
            }
        }
    }
}

/// Connects to a route's backend, in its turn where that serves one client at a time. Tells which of
/// its endpoints that is.
async fn reach<C: Connect>(
    route: &Route,
    said: usize,
    house: &House<C>,
    timer: &mut Deadline,
) -> Result<(C::Stream, usize, Option<Box<Newcomer>>), Outcome> {
    let newcomer = if route.is_initializing() {
        let place = house.newcomers.wait(route, timer).await?;
        Some(Box::new(Newcomer::new(place, said, &house.idle)))
    } else {
        None
    };
    match house.dialer.connect(route, timer).await {
        Ok((backend, endpoint)) => Ok((backend, endpoint, newcomer)),
        Err(error) => {
            tracing::debug!(route = %route.id, %error, "no backend could be reached");
            Err(Outcome::from(&error))
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
        draft.revision = NonZeroU64::new(table.revision);
        draft.store_revision = table.snapshot.store_revision().and_then(NonZeroU64::new);
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

/// The record in the making, as small as it can be kept; written when it is dropped, however that
/// comes about.
struct Draft {
    time: Timestamp,
    began: Instant,
    session: u64,
    client: SocketAddr,
    listener: SocketAddr,
    hello: Option<Shown>,
    route: Option<Arc<Route>>,
    /// The place of the backend among those of the route.
    endpoint: Option<u16>,
    revision: Option<NonZeroU64>,
    store_revision: Option<NonZeroU64>,
    hello_took: Option<Took>,
    connect_took: Option<Took>,
    first_byte: Option<Instant>,
    reason: Option<&'static str>,
    to_backend_bytes: u64,
    to_client_bytes: u64,
    outcome: Outcome,
    manners: Manners,
    log: AccessLog,
    tally: Rc<Tally>,
    visit: Option<Visit>,
}

/// What a record keeps of a hello.
struct Shown {
    sni: Option<Hostname>,
    alpn: Alpn,
    size: u32,
    ech: bool,
}

impl From<ClientHello> for Shown {
    fn from(hello: ClientHello) -> Self {
        let ClientHello { sni, alpn, size, ech, .. } = hello;
        Self { sni, alpn: alpn.shortened(RECORDED_ALPN), size, ech }
    }
}

/// How long a step before the relay took, in microseconds. None takes an hour.
#[derive(Debug, Clone, Copy)]
struct Took(u32);

impl Took {
    fn since(began: Instant) -> Self {
        Self(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Took> for Duration {
    fn from(took: Took) -> Self {
        Self::from_micros(took.0.into())
    }
}

impl Draft {
    fn new<C>(client: SocketAddr, listener: SocketAddr, house: &House<C>) -> Self {
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

    fn took(&mut self, route: &Arc<Route>) {
        self.visit = Some(self.tally.visit(&route.id));
        self.manners.answer = route.refusal().unwrap_or(self.manners.answer);
        self.route = Some(Arc::clone(route));
    }

    fn missed(&mut self, miss: Miss) -> Outcome {
        let outcome = Outcome::from(&miss);
        match miss {
            Miss::NotYet(route) | Miss::Expired(route) | Miss::Held(route, _) => self.took(&route),
            Miss::Unknown => {}
        }
        outcome
    }

    async fn refuse<T: Transport>(&mut self, client: T, outcome: Outcome, timer: &mut Deadline) {
        self.outcome = outcome;
        // In a box: few sessions need it, and all would hold its place.
        Box::pin(refuse(client, outcome, self.manners, timer)).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::backend::connect::Dialer;
    use crate::proxy::engine::socket::Socket;

    fn size_of_session<F>(_: impl FnOnce(Socket, Arrival, Rc<House<Dialer>>) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_way<F>(_: impl FnOnce(Socket, Permit, Draft, Rc<House<Dialer>>) -> F) -> usize {
        size_of::<F>()
    }

    /// Beside these bytes a connection costs some 400 more, in tables and the allocator.
    #[test]
    fn a_session_is_small() {
        let both = size_of_session(session::<Socket, Dialer>);
        assert!(both <= 40, "{both} bytes");
        let arriving = size_of_way(arrive::<Socket, Dialer>);
        assert!(arriving <= 984, "{arriving} bytes");
        let relaying = size_of::<Passage<Socket, Socket>>();
        assert!(relaying <= 624, "{relaying} bytes");
    }
}
