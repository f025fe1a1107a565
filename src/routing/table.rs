//! The table: one writer publishes whole snapshots, any number of readers see the newest.
//!
//! A [`Reader`] keeps the snapshot that it saw last and compares one atomic number at each use, so
//! that the path of a connection takes no lock that anybody else holds unless the table has just
//! changed. There is one [`Publisher`] and it cannot be cloned: revisions only rise, and no reader
//! sees an older one after a newer one, nor after another reader saw a newer one.
//!
//! Freeing a snapshot of a million routes takes a fifth of a second, and a reader that has nothing
//! to do would keep it for hours. So the publisher itself puts the new snapshot into the hands of
//! every reader, and only then lets go of the old one: no reader is ever the last to hold it.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// What each reader holds.
    hands: Mutex<Vec<Weak<Mutex<Revised>>>>,
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
    /// Locked by this thread, and for a moment by the publisher after each publication.
    hand: Arc<Mutex<Revised>>,
}

/// A look at the newest snapshot. The publisher waits for its end, so it must be short; a thread
/// must not take a second one from the same reader meanwhile.
#[derive(Debug)]
pub struct Look<'a>(MutexGuard<'a, Revised>);

impl Deref for Look<'_> {
    type Target = Revised;

    fn deref(&self) -> &Revised {
        &self.0
    }
}

/// Makes an empty table in which TLS is nowhere ended.
#[must_use]
pub fn table() -> (Publisher, Table) {
    table_from(Snapshot::default())
}

/// Makes a table that begins with this snapshot.
#[must_use]
pub fn table_from(first: Snapshot) -> (Publisher, Table) {
    let empty = Revised { revision: 0, snapshot: Arc::new(first) };
    let shared = Arc::new(Shared {
        revision: AtomicU64::new(0),
        current: Mutex::new(empty),
        hands: Mutex::default(),
        changes: watch::channel(0).0,
    });
    (Publisher { shared: Arc::clone(&shared) }, Table { shared })
}

/// Nothing that is locked here can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn current(&self) -> Revised {
        lock(&self.current).clone()
    }

    /// Puts what is newest into the hands of every reader that holds something older.
    fn hand_out(&self, newest: &Revised) {
        let mut hands = lock(&self.hands);
        hands.retain(|hand| {
            let Some(hand) = hand.upgrade() else { return false };
            let mut held = lock(&hand);
            if held.revision < newest.revision {
                *held = newest.clone();
            }
            true
        });
    }
}

impl Publisher {
    /// Puts a snapshot in the place of the one before and gives its revision.
    pub fn publish(&mut self, snapshot: Snapshot) -> u64 {
        let fresh = Arc::new(snapshot);
        let (newest, old) = {
            let mut current = lock(&self.shared.current);
            let newest = Revised { revision: current.revision + 1, snapshot: fresh };
            let old = std::mem::replace(&mut *current, newest.clone());
            // Within the lock: whoever reads this number finds at least that snapshot.
            self.shared.revision.store(newest.revision, Ordering::Release);
            (newest, old)
        };
        self.shared.changes.send_replace(newest.revision);
        self.shared.hand_out(&newest);
        // Now nobody on the path of a connection holds it.
        drop(old);
        newest.revision
    }
}

impl Table {
    /// A view for one thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let mut hands = lock(&self.shared.hands);
        // Within the lock: a publication from here on finds this reader.
        let hand = Arc::new(Mutex::new(self.shared.current()));
        hands.push(Arc::downgrade(&hand));
        Reader { shared: Arc::clone(&self.shared), hand }
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
    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Look<'_> {
        let mut held = lock(&self.hand);
        if self.shared.revision.load(Ordering::Acquire) != held.revision {
            *held = self.shared.current();
        }
        Look(held)
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
    fn an_old_snapshot_is_freed_although_its_readers_do_nothing() {
        let (mut publisher, table) = table();
        let readers = [table.reader(), table.reader()];
        let old = Arc::downgrade(&readers[0].current().snapshot);
        publisher.publish(Snapshot::default());
        assert!(old.upgrade().is_none());
        assert!(readers.iter().all(|reader| reader.current().revision == 1));
    }

    #[test]
    fn a_snapshot_that_is_being_looked_at_is_freed_by_the_publisher_afterwards() {
        let (mut publisher, table) = table();
        let reader = table.reader();
        let look = reader.current();
        let old = Arc::downgrade(&look.snapshot);
        let publishing = std::thread::spawn(move || publisher.publish(Snapshot::default()));
        // In force while the look goes on, and the publisher has its hand on the old one.
        while table.current().revision < 1 {
            std::thread::yield_now();
        }
        assert!(Arc::strong_count(&look.snapshot) >= 2);
        drop(look);
        assert_eq!(publishing.join().unwrap(), 1);
        assert!(old.upgrade().is_none());
    }

    #[test]
    fn a_reader_that_is_gone_is_forgotten() {
        let (mut publisher, table) = table();
        drop(table.reader());
        let _stays = table.reader();
        publisher.publish(Snapshot::default());
        assert_eq!(table.shared.hands.lock().unwrap().len(), 1);
    }
}
