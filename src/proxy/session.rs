//! THE JOURNEY: one client, from accept to the record that it leaves behind.
//!
//! `peek` the hello, find the route, `connect`, `relay`. Each step takes what the step before has
//! made; each step's failure becomes an [`Outcome`]. Whatever happens, a session ends in exactly
//! one outcome and writes exactly one record, and a refused client is answered before it is let go.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::Entry;
use crate::proxy::draft::{Draft, Took};
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::house::House;
use crate::proxy::limits::{Pending, Permit, Slot};
use crate::proxy::passage::Passage;
use crate::proxy::peek::{PeekError, Peeked, peek};
use crate::proxy::relay::copy::Relay;
use crate::proxy::terminate::journey::{Guest, receive};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::telemetry::metrics::Moved;
use crate::wire::client_hello::ClientHello;

/// How often a lookup is repeated because the table changed under it.
const LOOKUPS: u32 = 16;
/// How much of a list of protocols a record keeps, in bytes. Real lists have 15; strangers can send
/// 64 KiB, which neither every live session nor every record in a queue should hold.
const RECORDED_ALPN: usize = 256;

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

/// How far a client has come that was not refused.
enum Travelled<B> {
    /// To the backend, sealed.
    There(Connected<B>),
    /// As far as it gets: TLS ends here.
    Here { prefix: Vec<u8>, route: Arc<Route>, permit: Permit },
}

/// What becomes of a client after its way.
enum Arrived<T, B> {
    /// It was refused, and has been seen off.
    Not,
    /// It is carried.
    Carried(Box<Passage<T, B>>),
    /// It is received here. Few are: the others must not hold the place.
    Received(Pin<Box<dyn Future<Output = ()>>>),
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
            Self::After(Arrived::Received(guest)) => guest.as_mut().poll(cx),
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
    Stage::Way(Box::pin(arrive(client, arrival, house)))
}

/// Brings a client to where its TLS ends.
async fn arrive<T: Transport, C: Connect>(
    mut client: T,
    arrival: Arrival,
    house: Rc<House<C>>,
) -> Arrived<T, C::Stream> {
    let Arrival { client: address, listener, slot } = arrival;
    let mut draft = Draft::new(address, listener, &house);
    let mut timer = house.deadlines.unset();
    let pending = match house.limits.admit(slot, address.ip()) {
        Ok(pending) => pending,
        Err((outcome, _slot)) => {
            draft.refuse(client, outcome, &mut timer).await;
            return Arrived::Not;
        }
    };
    let mut entry = house.ledger.enter(draft.session);
    match travel(&mut client, pending, &mut entry, &mut draft, &house, &mut timer).await {
        Ok(Travelled::There(Connected { backend, prefix, permit })) => {
            let relay = Relay::new(client, backend, prefix, Rc::clone(&house.idle), &mut timer);
            let told = Moved::default();
            Arrived::Carried(Box::new(Passage { relay, told, timer, entry, _held: permit, draft }))
        }
        Ok(Travelled::Here { prefix, route, permit }) => {
            let guest = Guest { client, prefix, route, permit, entry, draft, timer };
            Arrived::Received(Box::pin(receive(guest, house)))
        }
        Err((outcome, _held)) => {
            draft.refuse(client, outcome, &mut timer).await;
            Arrived::Not
        }
    }
}

/// What a session holds when it is refused: given back only once the client has been seen off.
type Held = Result<Permit, Pending>;

/// From the first byte to an open backend, or to a route whose TLS is ended here.
async fn travel<T: Transport, C: Connect>(
    client: &mut T,
    mut pending: Pending,
    entry: &mut Entry,
    draft: &mut Draft,
    house: &House<C>,
    timer: &mut Deadline,
) -> Result<Travelled<C::Stream>, (Outcome, Held)> {
    timer.set(draft.began + house.hello.timeout.0);
    let peeked = tokio::select! {
        peeked = timer.bound(peek(client, house.hello.max_size, &mut pending)) => peeked,
        outcome = entry.handle().wait() => return Err((outcome, Err(pending))),
    };
    let Peeked { hello, prefix } = match peeked {
        Ok(Ok(peeked)) => peeked,
        Ok(Err(error)) => {
            draft.reason = reason(&error);
            return Err((Outcome::from(&error), Err(pending)));
        }
        Err(Passed) => return Err((Outcome::HelloTimeout, Err(pending))),
    };
    draft.hello_took = Some(Took::since(draft.began));
    let permit = pending.named();
    let found = find(&hello, entry, draft, house);
    draft.hello = Some(ClientHello { alpn: hello.alpn.shortened(RECORDED_ALPN), ..hello });
    let route = match found {
        Ok(route) => route,
        Err(outcome) => return Err((outcome, Ok(permit))),
    };
    if route.termination().is_some() {
        return Ok(Travelled::Here { prefix, route, permit });
    }
    let dialled = Instant::now();
    let connected = tokio::select! {
        // In a box: who has not shown a name yet must not hold its place.
        connected = Box::pin(house.dialer.connect(&route, timer)) => connected,
        outcome = entry.handle().wait() => return Err((outcome, Ok(permit))),
    };
    draft.connect_took = Some(Took::since(dialled));
    match connected {
        Ok((backend, endpoint)) => {
            draft.endpoint = u16::try_from(endpoint).ok();
            Ok(Travelled::There(Connected { backend, prefix, permit }))
        }
        Err(error) => {
            tracing::debug!(route = %route.id, %error, "no backend could be reached");
            draft.endpoint = Some(0);
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
        draft.revision = NonZeroU64::new(table.revision);
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

    fn size_of_what_it_gives<F>(_: impl FnOnce(Socket, Arrival, Rc<House<Dialer>>) -> F) -> usize {
        size_of::<F>()
    }

    /// Beside these bytes a connection costs some 400 more, in tables and the allocator.
    #[test]
    fn a_session_is_small() {
        let both = size_of_what_it_gives(session::<Socket, Dialer>);
        assert!(both <= 32, "{both} bytes");
        let arriving = size_of_what_it_gives(arrive::<Socket, Dialer>);
        assert!(arriving <= 1536, "{arriving} bytes");
        let relaying = size_of::<Passage<Socket, Socket>>();
        assert!(relaying <= 624, "{relaying} bytes");
    }
}
