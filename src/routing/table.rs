//! The table: one writer publishes whole snapshots, any number of readers see the newest.
//!
//! A [`Reader`] keeps the snapshot that it saw last and compares one atomic number at each use, so
//! that the path of a connection takes no lock unless the table has just changed. There is one
//! [`Publisher`] and it cannot be cloned: revisions only rise, and no reader sees an older one
//! after a newer one.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::routing::snapshot::Snapshot;

/// A snapshot and its number.
#[derive(Debug, Clone)]
pub struct Revised {
    /// Only ever rises; 0 is the empty table before the first publication.
    pub revision: u64,
    /// The routes.
    pub snapshot: Arc<Snapshot>,
}

#[derive(Debug)]
struct Shared {
    revision: AtomicU64,
    current: Mutex<Revised>,
    changes: watch::Sender<u64>,
}

/// The reading side, cheap to clone.
#[derive(Debug, Clone)]
pub struct Table {
    shared: Arc<Shared>,
}

/// The one writing side.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// One thread's view of a table.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    seen: RefCell<Revised>,
}

/// Makes an empty table.
#[must_use]
pub fn table() -> (Publisher, Table) {
    let empty = Revised { revision: 0, snapshot: Arc::default() };
    let shared = Arc::new(Shared {
        revision: AtomicU64::new(0),
        current: Mutex::new(empty),
        changes: watch::channel(0).0,
    });
    (Publisher { shared: Arc::clone(&shared) }, Table { shared })
}

impl Shared {
    fn current(&self) -> Revised {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Publisher {
    /// Puts a snapshot in the place of the one before and gives its revision.
    pub fn publish(&mut self, snapshot: Snapshot) -> u64 {
        let fresh = Arc::new(snapshot);
        let (revision, old) = {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            let revision = current.revision + 1;
            let next = Revised { revision, snapshot: fresh };
            (revision, std::mem::replace(&mut *current, next))
        };
        self.shared.revision.store(revision, Ordering::Release);
        // Freeing a large table takes long: after the new one is in sight, and outside the lock.
        drop(old);
        self.shared.changes.send_replace(revision);
        revision
    }
}

impl Table {
    /// A view for one thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared), seen: RefCell::new(self.shared.current()) }
    }

    /// The newest snapshot, for those who ask rarely.
    #[must_use]
    pub fn current(&self) -> Revised {
        self.shared.current()
    }

    /// Tells the revision after each publication; a slow listener misses those in between.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl Reader {
    /// The newest snapshot. Lock-free unless the table changed since the last call.
    #[must_use]
    pub fn current(&self) -> Revised {
        let mut seen = self.seen.borrow_mut();
        if self.shared.revision.load(Ordering::Acquire) != seen.revision {
            *seen = self.shared.current();
        }
        seen.clone()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_publication_and_never_an_older_one() {
        let (mut publisher, table) = table();
        let reader = table.reader();
        assert_eq!(reader.current().revision, 0);
        let writer = std::thread::spawn(move || {
            for _ in 0..10_000 {
                publisher.publish(Snapshot::default());
            }
        });
        let mut last = 0;
        while last < 10_000 {
            let now = reader.current().revision;
            assert!(now >= last);
            last = now;
        }
        writer.join().unwrap();
        assert_eq!(*table.subscribe().borrow(), 10_000);
    }

    #[test]
    fn an_old_snapshot_is_freed_when_its_last_reader_moves_on() {
        let (mut publisher, table) = table();
        let reader = table.reader();
        let old = Arc::downgrade(&reader.current().snapshot);
        publisher.publish(Snapshot::default());
        assert!(old.upgrade().is_some());
        assert_eq!(reader.current().revision, 1);
        assert!(old.upgrade().is_none());
    }
}
