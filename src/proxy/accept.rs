//! Taking connections from a listening socket and sending each on its journey.
//!
//! A slot is taken before a connection is. Accepting never fails: what is wrong with one
//! connection ends that one, and when descriptors or memory run out the loop waits, longer each
//! time, instead of spinning, and gives up sessions that have not shown a name. When told to stop,
//! it first takes what already waits in the kernel's queue, because closing the socket would reset
//! it. It beats wherever it may wait.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tracing::warn;

use crate::proxy::backend::connect::Connect;
use crate::proxy::descriptors::is_shortage;
use crate::proxy::engine::Engine;
use crate::proxy::engine::socket::{Listener, Socket};
use crate::proxy::house::House;
use crate::proxy::limits::Slot;
use crate::proxy::pulse::Pulse;
use crate::proxy::session::{Arrival, session};
use crate::telemetry::metrics::AcceptFailure;

/// The first pause after the machine had no descriptor or memory for a connection.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How many sessions without a name are given up at each pause.
const SHED: usize = 32;
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// One more client is accepted at a turn for each so many events that it brought: a busy worker
/// turns slowly, and its queue must not wait for that.
const EVENTS_EACH: usize = 8;

/// Accepts until `stop` says true, or its sender is gone.
pub async fn accept<C: Connect>(
    mut listener: Listener,
    house: Rc<House<C>>,
    engine: Engine,
    mut stop: watch::Receiver<bool>,
    mut pulse: Pulse,
) {
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        let slot = if let Some(slot) = house.limits.try_slot() {
            slot
        } else {
            listener.look_away();
            tokio::select! {
                slot = pulse.during(house.limits.slot()) => slot,
                _ = stop.changed() => break,
            }
        };
        let accepted = tokio::select! {
            accepted = pulse.during(listener.accept()) => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                pause = FIRST_PAUSE;
                begin(&house, &engine, &listener, (stream, client), slot);
                accept_waiting(&listener, &house, &engine, engine.reactor.brought() / EVENTS_EACH);
            }
            Err(error) if is_shortage(&error) => {
                drop(slot);
                house.tally.accept_failed(kind(&error));
                listener.look_away();
                let shed = house.ledger.shed(SHED);
                warn!(%error, ?pause, shed, "cannot accept: the machine is short of something");
                tokio::select! {
                    () = pulse.during(engine.deadlines.sleep(pause)) => {}
                    _ = stop.changed() => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // The client was gone before it was accepted, or the network failed it (accept(2)).
            Err(error) => {
                drop(slot);
                house.tally.accept_failed(kind(&error));
            }
        }
    }
    accept_waiting(&listener, &house, &engine, usize::MAX);
    pulse.rest();
}

/// Takes at most so many of those who wait in the queue, and waits for nobody.
fn accept_waiting<C: Connect>(
    listener: &Listener,
    house: &Rc<House<C>>,
    engine: &Engine,
    most: usize,
) {
    for _ in 0..most {
        let Some(slot) = house.limits.try_slot() else { return };
        let Ok(accepted) = listener.accept_waiting() else { return };
        begin(house, engine, listener, accepted, slot);
    }
}

fn begin<C: Connect>(
    house: &Rc<House<C>>,
    engine: &Engine,
    listener: &Listener,
    (stream, client): (Socket, SocketAddr),
    slot: Slot,
) {
    let arrival = Arrival { client, listener: listener.reached_by(&stream), slot };
    engine.spawner.spawn(session(stream, arrival, Rc::clone(house)));
}

fn kind(error: &io::Error) -> AcceptFailure {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => AcceptFailure::Descriptors,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptFailure::Memory,
        _ => AcceptFailure::Aborted,
    }
}
