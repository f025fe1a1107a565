//! What turns a worker: readiness of sockets, deadlines, and the tasks that wait for them.
//!
//! One engine a worker thread, written for the one thing that this proxy does all day. It knows no
//! route and no session. Measured against a current-thread tokio runtime for the same relay it
//! takes fewer system calls for each connection and a third of the memory; `ARCHITECTURE.md` has
//! the figures. Whatever is not on the path of a connection runs on tokio, elsewhere.

pub mod deadlines;
pub mod reactor;
pub mod socket;
pub mod tasks;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::time::Instant;

use deadlines::Deadlines;
use reactor::Reactor;
use tasks::{Alarm, Spawner};

/// A worker's engine. Cheap to clone, and never leaves its thread.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its sockets.
    pub reactor: Reactor,
    /// Its deadlines.
    pub deadlines: Deadlines,
    /// Its tasks.
    pub spawner: Spawner,
    /// Made with it, not when it begins to turn: descriptors may have run out by then.
    alarm: Arc<Alarm>,
}

impl Engine {
    /// An engine that stands still.
    ///
    /// # Errors
    /// The kernel has no descriptors for it.
    pub fn new() -> io::Result<Self> {
        let reactor = Reactor::new()?;
        let deadlines = Deadlines::new(Instant::now());
        let alarm = Arc::new(Alarm::of(&reactor)?);
        Ok(Self { reactor, deadlines, spawner: Spawner::default(), alarm })
    }

    /// Turns until `main` is over.
    ///
    /// # Errors
    /// The kernel does not let it wait for events.
    pub fn run<T: 'static>(&self, main: impl Future<Output = T> + 'static) -> io::Result<T> {
        tasks::run(&self.reactor, &self.deadlines, &self.spawner, &self.alarm, main)
    }
}
