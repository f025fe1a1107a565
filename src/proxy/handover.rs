//! Handing a client that was just accepted to a worker that has less to do.
//!
//! The kernel divides clients among the workers' sockets by a hash of their addresses. Among many
//! that is even; among few it is not: of two long downloads, both come to the same worker as often
//! as not, and a core stands idle for as long as they last. So whoever accepts looks how many live
//! sessions each worker has, and hands the client on if another has clearly fewer. A worker that
//! accepts many does not look: the hash is even then, and waking another worker is not free.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

use crate::proxy::backend::connect::Connect;
use crate::proxy::engine::Engine;
use crate::proxy::engine::socket::Socket;
use crate::proxy::limits::Slot;
use crate::proxy::session::{Arrival, House, session};

/// Clients that wait for a worker to take them over; it does so at its next turn.
const WAITING: usize = 64;
/// A worker that has accepted so many within a [`WINDOW`] hands none on.
const MANY: u32 = 64;
/// The time in which a worker counts the clients that it accepts.
const WINDOW: Duration = Duration::from_millis(100);
/// The tasks of a worker that are no sessions: it accepts, and it takes over.
const OTHER_TASKS: usize = 2;
/// One session more or less in so many is as good as even.
const EVEN: usize = 8;

/// A client that was accepted and has no session yet.
#[derive(Debug)]
pub struct Fresh {
    /// Its socket, connected and non-blocking.
    pub socket: OwnedFd,
    /// Its address.
    pub client: SocketAddr,
    /// Ours.
    pub listener: SocketAddr,
    /// Taken before it was accepted.
    pub slot: Slot,
}

/// One worker among the others.
#[derive(Debug)]
pub struct Colleague {
    own: usize,
    all: Arc<[Desk]>,
    waiting: mpsc::Receiver<Fresh>,
}

/// What the others see of a worker.
#[derive(Debug)]
struct Desk {
    /// How many tasks it has; there once it has begun.
    load: OnceLock<Arc<AtomicUsize>>,
    waiting: mpsc::Sender<Fresh>,
}

/// So many workers that know each other.
#[must_use]
pub fn colleagues(count: usize) -> (Vec<Colleague>, Loads) {
    let (desks, inboxes): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (waiting, inbox) = mpsc::channel(WAITING);
            (Desk { load: OnceLock::new(), waiting }, inbox)
        })
        .unzip();
    let all: Arc<[Desk]> = desks.into();
    let one = |(own, waiting)| Colleague { own, all: Arc::clone(&all), waiting };
    (inboxes.into_iter().enumerate().map(one).collect(), Loads(Arc::clone(&all)))
}

/// How many sessions each worker has. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loads(Arc<[Desk]>);

impl Loads {
    /// In the order of the workers' numbers.
    #[must_use]
    pub fn each(&self) -> Vec<usize> {
        self.0.iter().map(|desk| desk.load().unwrap_or(0)).collect()
    }
}

impl Desk {
    /// How many sessions the worker had at the end of its last turn; none before it has begun.
    fn load(&self) -> Option<usize> {
        let tasks = self.load.get()?.load(Ordering::Relaxed);
        Some(tasks.saturating_sub(OTHER_TASKS))
    }
}

impl Colleague {
    /// Begins work on an engine. The others may hand clients on from now on: [`take_over`] must
    /// follow.
    #[must_use]
    pub fn begin<C: Connect>(self, engine: &Engine, house: Rc<House<C>>) -> (Rc<Office<C>>, Inbox) {
        let Self { own, all, waiting } = self;
        if let Some(desk) = all.get(own) {
            let _ = desk.load.set(engine.spawner.load());
        }
        let (since, accepted) = (Instant::now(), 0);
        let recent = std::cell::Cell::new(Recent { since, accepted });
        (Rc::new(Office { own, all, recent, engine: engine.clone(), house }), Inbox(waiting))
    }
}

/// The clients that others hand to a worker.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Fresh>);

/// Where a worker receives its clients.
#[derive(Debug)]
pub struct Office<C> {
    own: usize,
    all: Arc<[Desk]>,
    recent: std::cell::Cell<Recent>,
    /// What the worker turns.
    pub engine: Engine,
    /// What its sessions share.
    pub house: Rc<House<C>>,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    since: Instant,
    accepted: u32,
}

impl<C: Connect> Office<C> {
    /// Begins a client's session, here or with a worker that has less to do.
    pub fn receive(&self, client: Fresh) {
        let kept = match self.idler() {
            Some(desk) => desk.waiting.try_send(client).map_err(TrySendError::into_inner),
            None => Err(client),
        };
        if let Err(client) = kept {
            self.begin(client);
        }
    }

    fn begin(&self, Fresh { socket, client, listener, slot }: Fresh) {
        // Without memory for it in the kernel, the connection ends here.
        let Ok(socket) = Socket::adopt(&self.engine.reactor, socket) else { return };
        let arrival = Arrival { client, listener, slot };
        self.engine.spawner.spawn(session(socket, arrival, Rc::clone(&self.house)));
    }

    /// The worker that should have the next client in our place.
    fn idler(&self) -> Option<&Desk> {
        if self.all.len() < 2 || self.accepts_many() {
            return None;
        }
        let own = self.engine.spawner.count().saturating_sub(OTHER_TASKS);
        let others = self.all.iter().enumerate().filter(|(number, _)| *number != self.own);
        let loads = others.filter_map(|(_, desk)| Some((desk.load()?, desk)));
        let (least, desk) = loads.min_by_key(|(load, _)| *load)?;
        (own > least + own / EVEN).then_some(desk)
    }

    fn accepts_many(&self) -> bool {
        let now = Instant::now();
        let mut recent = self.recent.get();
        if now - recent.since > WINDOW {
            recent = Recent { since: now, accepted: 0 };
        }
        recent.accepted = recent.accepted.saturating_add(1);
        self.recent.set(recent);
        recent.accepted > MANY
    }
}

/// Takes over what others hand on, until they are all gone.
pub async fn take_over<C: Connect>(mut inbox: Inbox, office: Rc<Office<C>>) {
    while let Some(client) = inbox.0.recv().await {
        office.begin(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desks(loads: &[usize]) -> Loads {
        let (_, all) = colleagues(loads.len());
        for (desk, sessions) in all.0.iter().zip(loads) {
            desk.load.set(Arc::new((sessions + OTHER_TASKS).into())).unwrap();
        }
        all
    }

    #[test]
    fn the_loads_are_those_of_sessions() {
        assert_eq!(desks(&[0, 3, 17]).each(), [0, 3, 17]);
        assert_eq!(colleagues(2).1.each(), [0, 0]);
    }
}
