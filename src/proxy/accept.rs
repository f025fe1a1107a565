//! Taking connections from a listening socket and sending each on its journey.
//!
//! A slot is taken before a connection is. Accepting never fails: what is wrong with one
//! connection ends that one, and when descriptors or memory run out the loop waits, longer each
//! time, instead of spinning, and gives up sessions that have not shown a name. When told to stop,
//! it first takes what already waits in the kernel's queue, because closing the socket would reset
//! it. It beats wherever it may wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::proxy::backend::connect::Connect;
use crate::proxy::descriptors::is_shortage;
use crate::proxy::engine::socket::Listener;
use crate::proxy::handover::{Fresh, Office};
use crate::proxy::limits::Slot;
use crate::proxy::pulse::Pulse;
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
    office: Rc<Office<C>>,
    mut stop: watch::Receiver<bool>,
    mut pulse: Pulse,
) {
    let Office { house, engine, .. } = &*office;
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
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                receive(&office, &listener, accepted, slot);
                accept_waiting(&listener, &office, engine.reactor.brought() / EVENTS_EACH);
            }
            Err(error) if is_shortage(&error) => {
                drop(slot);
                house.tally.accept_failed(kind(&error));
                listener.look_away();
                let shed = house.ledger.shed(SHED, Instant::now());
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
    accept_waiting(&listener, &office, usize::MAX);
    pulse.rest();
}

/// Takes at most so many of those who wait in the queue, and waits for nobody.
fn accept_waiting<C: Connect>(listener: &Listener, office: &Office<C>, most: usize) {
    for _ in 0..most {
        let Some(slot) = office.house.limits.try_slot() else { return };
        let Ok(accepted) = listener.accept_waiting() else { return };
        receive(office, listener, accepted, slot);
    }
}

fn receive<C: Connect>(
    office: &Office<C>,
    listener: &Listener,
    (socket, client): (OwnedFd, SocketAddr),
    slot: Slot,
) {
    let listener = listener.reached_by(&socket);
    office.receive(Fresh { socket, client, listener, slot });
}

fn kind(error: &io::Error) -> AcceptFailure {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => AcceptFailure::Descriptors,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptFailure::Memory,
        _ => AcceptFailure::Aborted,
    }
}
