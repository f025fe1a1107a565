//! The last changes, kept in memory for those who watch.
//!
//! There is one log, and a watcher is a place in it: a thousand watchers that stand still cost no
//! more memory than one. What no longer fits is forgotten from the old end, whoever has seen it or
//! not; a watcher that is overtaken is told so. After a start the log is empty: the file holds
//! what is, not what was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{Answer, Batch, Change, Error, Revision, Watch};

/// How many bytes of changes are kept: some 100,000 changes of single routes. The newest
/// transaction is kept even if it is larger.
const MOST_BYTES: usize = 32 << 20;

/// What a change takes beside its key and its value, and a batch beside its changes.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    /// The newest revision that is told; a change wakes whoever waits.
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Kept {
    /// One for each revision, without a gap.
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The revision of the first of them, or of the first to come.
    oldest: Revision,
    /// There will be no more.
    is_closed: bool,
}

impl Kept {
    /// What comes after this revision.
    fn after(newest: Revision) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, oldest: newest + 1, is_closed: false }
    }
}

/// What there is to tell after a revision.
enum Found {
    Batch(Batch),
    /// Nothing yet; all up to this revision has been looked at.
    Nothing(Revision),
    /// The log begins later.
    Gone,
    /// Nothing, and there will be nothing.
    Closed,
}

impl Log {
    /// Tells what comes after this revision.
    pub(super) fn after(newest: Revision) -> Arc<Self> {
        let kept = Mutex::new(Kept::after(newest));
        Arc::new(Self { kept, newest: watch::Sender::new(newest) })
    }

    /// Tells these, which follow the newest.
    pub(super) fn tell(&self, batches: impl IntoIterator<Item = Batch>) {
        let mut newest = None;
        self.with(|kept| {
            for batch in batches {
                newest = Some(batch.revision);
                kept.bytes += weight(&batch);
                kept.batches.push_back(Arc::new(batch));
                while kept.bytes > MOST_BYTES && kept.batches.len() > 1 {
                    if let Some(forgotten) = kept.batches.pop_front() {
                        kept.bytes -= weight(&forgotten);
                        kept.oldest = forgotten.revision + 1;
                    }
                }
            }
        });
        if let Some(newest) = newest {
            self.newest.send_replace(newest);
        }
    }

    /// Goes on after this revision: what led there is not known.
    pub(super) fn skip_to(&self, newest: Revision) {
        self.with(|kept| *kept = Kept::after(newest));
        self.newest.send_replace(newest);
    }

    /// Tells nothing any more.
    pub(super) fn close(&self) {
        self.with(|kept| kept.is_closed = true);
        self.newest.send_modify(|_| {});
    }

    /// The newest revision that is told.
    pub(super) fn newest(&self) -> Revision {
        *self.newest.borrow()
    }

    /// A watcher of what comes after this revision under a prefix.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watcher, Error> {
        let oldest = self.with(|kept| kept.oldest);
        if after < oldest - 1 {
            return Err(Error::TooOld { after, oldest });
        }
        Ok(Watcher {
            newest: self.newest.subscribe(),
            log: Arc::clone(self),
            prefix: prefix.to_owned(),
            after,
            ended: None,
        })
    }

    fn find(&self, prefix: &str, after: Revision) -> Found {
        self.with(|kept| {
            let Some(skipped) = after.saturating_add(1).checked_sub(kept.oldest) else {
                return Found::Gone;
            };
            let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
            let mut seen = after;
            for batch in kept.batches.iter().skip(skipped) {
                seen = batch.revision;
                let changes: Vec<Change> = batch
                    .changes
                    .iter()
                    .filter(|change| change.key.starts_with(prefix))
                    .cloned()
                    .collect();
                if !changes.is_empty() {
                    return Found::Batch(Batch { revision: batch.revision, changes });
                }
            }
            if kept.is_closed { Found::Closed } else { Found::Nothing(seen) }
        })
    }

    fn with<T>(&self, job: impl FnOnce(&mut Kept) -> T) -> T {
        job(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many bytes a transaction takes in memory.
pub(super) fn weigh(changes: &[Change]) -> usize {
    let bytes = changes
        .iter()
        .map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len) + OVERHEAD);
    bytes.sum::<usize>() + OVERHEAD
}

fn weight(batch: &Batch) -> usize {
    weigh(&batch.changes)
}

/// A place in the log.
#[derive(Debug)]
pub(super) struct Watcher {
    log: Arc<Log>,
    newest: watch::Receiver<Revision>,
    prefix: String,
    /// Everything up to here was told or did not matter.
    after: Revision,
    ended: Option<Error>,
}

impl Watcher {
    async fn follow(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            // Before the look, so that what comes after it wakes.
            self.newest.borrow_and_update();
            match self.log.find(&self.prefix, self.after) {
                Found::Batch(batch) => {
                    self.after = batch.revision;
                    return Ok(batch);
                }
                Found::Nothing(seen) => {
                    self.after = seen;
                    // Fails only without a log, and we hold it.
                    drop(self.newest.changed().await);
                }
                Found::Gone => self.ended = Some(Error::TooSlow),
                Found::Closed => {
                    let why = "it was closed".to_owned();
                    self.ended = Some(Error::Unavailable { why, tried: Duration::ZERO });
                }
            }
        }
    }
}

impl Watch for Watcher {
    fn next(&mut self) -> Answer<'_, Batch> {
        Box::pin(self.follow())
    }
}
