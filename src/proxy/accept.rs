//! Taking connections from a listening socket and sending each on its journey.
//!
//! A slot is taken before a connection is. Accepting never fails: what is wrong with one
//! connection ends that one, and when descriptors or memory run out the loop waits, longer each
//! time, instead of spinning, and gives up sessions that have not shown a name. When told to stop,
//! it first takes what already waits in the kernel's queue, because closing the socket would reset
//! it. It beats wherever it may wait.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::proxy::backend::connect::Connect;
use crate::proxy::descriptors::is_shortage;
use crate::proxy::limits::Slot;
use crate::proxy::pulse::Pulse;
use crate::proxy::session::{Arrival, House, session};
use crate::telemetry::metrics::AcceptFailure;

/// The first pause after the machine had no descriptor or memory for a connection.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How many sessions without a name are given up at each pause.
const SHED: usize = 32;
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until `stop` says true, or its sender is gone.
pub async fn accept<C: Connect>(
    listener: TcpListener,
    house: Rc<House<C>>,
    mut stop: watch::Receiver<bool>,
    mut pulse: Pulse,
) {
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        let slot = tokio::select! {
            slot = pulse.during(house.limits.slot()) => slot,
            _ = stop.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = pulse.during(listener.accept()) => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                pause = FIRST_PAUSE;
                begin(&house, stream, client, slot);
            }
            Err(error) if is_shortage(&error) => {
                drop(slot);
                house.tally.accept_failed(kind(&error));
                let shed = house.ledger.shed(SHED);
                warn!(%error, ?pause, shed, "cannot accept: the machine is short of something");
                tokio::select! {
                    () = pulse.during(sleep(pause)) => {}
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
    accept_waiting(&listener, &house).await;
    pulse.rest();
}

/// Takes what waits in the queue, and waits for nothing.
async fn accept_waiting<C: Connect>(listener: &TcpListener, house: &Rc<House<C>>) {
    while let Some(slot) = house.limits.try_slot() {
        let accepted = std::future::poll_fn(|cx| match listener.poll_accept(cx) {
            std::task::Poll::Ready(accepted) => std::task::Poll::Ready(accepted.ok()),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        });
        let Some((stream, client)) = accepted.await else { return };
        begin(house, stream, client, slot);
    }
}

fn begin<C: Connect>(
    house: &Rc<House<C>>,
    stream: TcpStream,
    client: std::net::SocketAddr,
    slot: Slot,
) {
    // A socket that cannot name its own address is already gone; the unspecified one stands in.
    let listener =
        stream.local_addr().unwrap_or_else(|_| (std::net::Ipv6Addr::UNSPECIFIED, 0).into());
    let arrival = Arrival { client, listener, slot };
    tokio::task::spawn_local(session(stream, arrival, Rc::clone(house)));
}

fn kind(error: &io::Error) -> AcceptFailure {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => AcceptFailure::Descriptors,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptFailure::Memory,
        _ => AcceptFailure::Aborted,
    }
}
