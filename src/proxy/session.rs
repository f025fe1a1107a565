//! THE JOURNEY: one client, from accept to the record that it leaves behind.
//!
//! `peek` the hello, find the route, `connect`, `relay`. Each step takes what the step before has
//! made; each step's failure becomes an [`Outcome`]. Whatever happens, a session ends in exactly
//! one outcome and writes exactly one record, and a refused client is answered before it is let go.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::Entry;
use crate::proxy::draft::{Draft, Shown, Took};
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::fresh::Newcomer;
use crate::proxy::house::House;
use crate::proxy::limits::{Permit, Slot};
use crate::proxy::passage::Passage;
use crate::proxy::peek::{PeekError, Peeked, peek};
use crate::proxy::pinned::proven;
use crate::proxy::relay::pump::Relay;
use crate::proxy::terminate::journey::{Guest, receive};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::telemetry::metrics::Moved;
use crate::wire::client_hello::ClientHello;

/// How often a lookup is repeated because the table changed under it.
const LOOKUPS: u32 = 16;

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

/// How far a client has come that was not refused, and the bytes that were read of it.
enum Travelled<B> {
    /// To the backend, sealed; and what a client holds that is new to it.
    There(B, Vec<u8>, Option<Box<Newcomer>>),
    /// As far as it gets: TLS ends here.
    Here(Arc<Route>, Vec<u8>),
}

/// What becomes of a client after its way.
enum Arrived<T, B> {
    /// It was refused, and has been seen off.
    Not,
    /// It is carried.
    Carried(Box<Passage<T, B>>),
    /// It is received here, or seen off at once. Few are: the others must not hold the place.
    Apart(Pin<Box<dyn Future<Output = ()>>>),
}

/// The stages of a session, a box each, so that nobody holds room for two of them.
enum Stage<W, T, B> {
    Way(Pin<Box<W>>),
    After(Arrived<T, B>),
}

impl<T: Transport, B: Transport, W: Future<Output = Arrived<T, B>>> Future for Stage<W, T, B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Way(way) = &mut *self {
            let arrived = ready!(way.as_mut().poll(cx));
            *self = Self::After(arrived);
        }
        match &mut *self {
            Self::After(Arrived::Carried(passage)) => {
                let end = ready!(passage.poll(cx));
                if let Self::After(Arrived::Carried(passage)) =
                    std::mem::replace(&mut *self, Self::After(Arrived::Not))
                {
                    passage.end(end);
                }
                Poll::Ready(())
            }
            Self::After(Arrived::Apart(rest)) => rest.as_mut().poll(cx),
            Self::After(Arrived::Not) | Self::Way(_) => Poll::Ready(()),
        }
    }
}

/// Sees one client through.
pub fn session<T: Transport, C: Connect>(
    client: T,
    arrival: Arrival,
    house: Rc<House<C>>,
) -> impl Future<Output = ()> + 'static {
    let Arrival { client: address, listener, slot } = arrival;
    let draft = Draft::new(address, listener, &house);
    match house.limits.admit(slot, address.ip()) {
        Ok(permit) => Stage::Way(Box::pin(arrive(client, permit, draft, house))),
        Err((outcome, slot)) => {
            let refused = see_off(client, slot, draft, outcome, house);
            Stage::After(Arrived::Apart(Box::pin(refused)))
        }
    }
}

/// Refuses a client that is over a limit.
async fn see_off<T: Transport, C: Connect>(
    client: T,
    slot: Slot,
    mut draft: Draft,
    outcome: Outcome,
    house: Rc<House<C>>,
) {
    draft.refuse(client, outcome, &mut house.deadlines.unset()).await;
    // Before the record is written: whoever reads it finds everything given back.
    drop(slot);
}

/// Brings a client to where its TLS ends. Written as a block, which keeps what it is given where it
/// is: an `async fn` has room for it twice.
fn arrive<T: Transport, C: Connect>(
    mut client: T,
    mut permit: Permit,
    mut draft: Draft,
    house: Rc<House<C>>,
) -> impl Future<Output = Arrived<T, C::Stream>> {
    let mut timer = house.deadlines.unset();
    let mut entry = house.ledger.enter(draft.session, draft.began);
    async move {
        match travel(&mut client, &mut permit, &mut entry, &mut draft, &house, &mut timer).await {
            Ok(Travelled::There(backend, prefix, newcomer)) => {
                let idle = match &newcomer {
                    None => Rc::clone(&house.idle),
                    Some(_) => Newcomer::silence(),
                };
                let relay = Relay::new(client, backend, prefix, idle, &mut timer);
                let told = Moved::default();
                let passage = Passage { relay, told, timer, entry, permit, newcomer, draft };
                Arrived::Carried(Box::new(passage))
            }
            Ok(Travelled::Here(route, prefix)) => {
                let guest = Guest { client, prefix, route, permit, entry, draft, timer };
                Arrived::Apart(Box::pin(receive(guest, house)))
            }
            Err(outcome) => {
                draft.refuse(client, outcome, &mut timer).await;
                // Not before it has been seen off, and before the record is written: whoever reads
                // that finds everything given back.
                drop((entry, permit));
                Arrived::Not
            }
        }
    }
}

/// From the first byte to an open backend, or to a route whose TLS is ended here.
#[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
fn travel<T: Transport, C: Connect>(
    client: &mut T,
    permit: &mut Permit,
    entry: &mut Entry,
    draft: &mut Draft,
    house: &House<C>,
    timer: &mut Deadline,
) -> impl Future<Output = Result<Travelled<C::Stream>, Outcome>> {
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
        draft.hello = Some(Shown::of(hello, draft.route.as_deref()));
        let route = found?;
        if route.termination().is_some() {
            return Ok(Travelled::Here(route, prefix));
        }
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
                Ok(Travelled::There(backend, prefix, newcomer))
            }
            Err(outcome) => {
                draft.endpoint = Some(0);
                // Of a sealed backend nothing else is known that would be told so.
                draft.reason = (outcome == Outcome::BackendTls).then_some("pin");
                Err(outcome)
            }
        }
    }
}

/// Connects to a route's backend, in its turn where that serves one client at a time. Tells which of
/// its endpoints that is.
async fn reach<C: Connect>(
    route: &Arc<Route>,
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
    let newer = if route.pin().is_some() { Some(proven(route, house, timer).await?) } else { None };
    let route = newer.as_deref().unwrap_or(route);
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
        assert!(both <= 32, "{both} bytes");
        let arriving = size_of_way(arrive::<Socket, Dialer>);
        assert!(arriving <= 984, "{arriving} bytes");
        let relaying = size_of::<Passage<Socket, Socket>>();
        assert!(relaying <= 624, "{relaying} bytes");
    }
}
