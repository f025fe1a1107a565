//! The thread that writes: what waits together is committed together.
//!
//! A commit costs two fsyncs, however much is in it. So all transactions that wait when the thread
//! is free form a group: each is judged by what those before it have changed, has a revision of
//! its own and is whole or not at all, and one commit makes them durable. Nobody is answered
//! before it, not even who was refused by a check: that, too, may rest on what only the group has
//! changed. A lone transaction waits for nobody.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use redb::WriteTransaction;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{info, warn};

use super::log::{Log, weigh};
use super::tables::{self, Entries};
use super::vault::{Failure, Vault};
use crate::store::{Batch, Committed, Error, Revision, Transaction};

/// How many transactions one commit may hold: few enough that the first of them does not wait
/// long, and far more than wait together when each waits for one fsync.
const MOST_IN_GROUP: usize = 1024;
/// How many bytes one commit may hold, but for a single transaction: an eighth of what the log
/// keeps, so that a watcher which keeps up is not overtaken by one group.
const MOST_BYTES_IN_GROUP: usize = 4 << 20;

/// A transaction, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) transaction: Transaction,
    pub(super) reply: oneshot::Sender<Result<Committed, Error>>,
    /// Its place in the queue, given back with it.
    pub(super) place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    vault: Arc<Vault>,
    log: Arc<Log>,
    /// The newest revision in the file.
    newest: Revision,
    /// A group of which it is not known whether it is in the file.
    unsettled: Option<Vec<Batch>>,
    /// Whether the last write was refused because the disk was full.
    is_full: bool,
}

/// A group on its way into the file.
#[derive(Default)]
struct Draft {
    ends: Vec<Committed>,
    batches: Vec<Batch>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, vault: Arc<Vault>, log: Arc<Log>) -> Self {
        let newest = log.newest();
        Self { path, vault, log, newest, unsettled: None, is_full: false }
    }

    /// Writes until nobody can ask any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = weigh(&first.transaction.changes);
            let mut group = vec![first];
            while group.len() < MOST_IN_GROUP
                && bytes < MOST_BYTES_IN_GROUP
                && let Ok(next) = queue.try_recv()
            {
                bytes += weigh(&next.transaction.changes);
                group.push(next);
            }
            // Who has given up waiting would not learn what came of it.
            group.retain(|job| !job.reply.is_closed());
            if !group.is_empty() {
                self.answer(group);
            }
        }
        self.log.close();
    }

    fn answer(&mut self, group: Vec<Job>) {
        let ends = self.commit(&group);
        match ends {
            Ok(ends) => {
                for (job, end) in group.into_iter().zip(ends) {
                    // Who has left meanwhile is as good as answered.
                    drop(job.reply.send(Ok(end)));
                    drop(job.place);
                }
            }
            Err(error) => {
                for job in group {
                    drop(job.reply.send(Err(error.clone())));
                }
            }
        }
    }

    fn commit(&mut self, group: &[Job]) -> Result<Vec<Committed>, Error> {
        self.settle()?;
        self.is_in_place()?;
        // Trying costs reading the whole file, when it fails; so first ask for what was lacking.
        if let Err(error) = self.vault.suffices() {
            return Err(self.full(&error.to_string()));
        }
        let mut draft = Draft::default();
        let newest = self.newest;
        let written = self.vault.write(|transaction| draft.fill(transaction, group, newest));
        match written {
            Ok(()) => {
                self.tell(draft.batches);
                if std::mem::take(&mut self.is_full) {
                    info!(path = %self.path.display(), "the store can be written again");
                }
                Ok(draft.ends)
            }
            Err(Failure::Shut(why)) => Err(why),
            Err(Failure::Broken { is_full, why }) => {
                self.unsettled = Some(draft.batches);
                match self.settle()? {
                    Settled::Undone if is_full => Err(self.full(&why.to_string())),
                    // Seen, but perhaps not durable: that is for the caller to look up.
                    Settled::Undone | Settled::Done => Err(why),
                }
            }
        }
    }

    /// Whether what is written would be found by the next who opens the path.
    fn is_in_place(&self) -> Result<(), Error> {
        let ours = self.vault.file();
        let is_ours = match (fs::metadata(&self.path), ours.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            (_, Err(_)) => true,
        };
        if is_ours {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{} is not the file that was opened any more, and what is written to that one would \
             be lost; nothing was changed: start the proxy anew, or put the file back",
            self.path.display()
        )))
    }

    /// Learns what became of a group whose commit failed.
    fn settle(&mut self) -> Result<Settled, Error> {
        let Some(batches) = self.unsettled.take() else { return Ok(Settled::Undone) };
        match self.vault.read(tables::revision) {
            Ok(revision) if revision == self.newest => Ok(Settled::Undone),
            Ok(revision) => {
                if batches.last().is_some_and(|last| last.revision == revision) {
                    self.tell(batches);
                } else {
                    self.newest = revision;
                    self.log.skip_to(revision);
                }
                Ok(Settled::Done)
            }
            Err(error) => {
                self.unsettled = Some(batches);
                Err(error)
            }
        }
    }

    fn tell(&mut self, batches: Vec<Batch>) {
        if let Some(last) = batches.last() {
            self.newest = last.revision;
        }
        self.log.tell(batches);
    }

    /// The refusal of a write that the disk has no room for.
    fn full(&mut self, why: &str) -> Error {
        let path = self.path.display();
        if !std::mem::replace(&mut self.is_full, true) {
            warn!(%path, why, "the disk is full: the store cannot be written, and is still read");
        }
        Error::Refused(format!(
            "{path} cannot grow ({why}), and nothing was changed: make room on its disk, then try \
             again"
        ))
    }
}

/// What became of a group.
enum Settled {
    Undone,
    Done,
}

impl Draft {
    /// Writes a group, and tells whether there is anything to commit.
    fn fill(
        &mut self,
        transaction: &WriteTransaction,
        group: &[Job],
        newest: Revision,
    ) -> Result<bool, redb::Error> {
        let mut entries = Entries::open(transaction)?;
        let mut newest = newest;
        for Job { transaction: Transaction { checks, changes }, .. } in group {
            if !entries.are(checks)? {
                self.ends.push(Committed::Conflict);
                continue;
            }
            let real = entries.change(changes, newest + 1)?;
            if !real.is_empty() {
                newest += 1;
                self.batches.push(Batch { revision: newest, changes: real });
            }
            self.ends.push(Committed::Done(newest));
        }
        drop(entries);
        if self.batches.is_empty() {
            return Ok(false);
        }
        tables::set_revision(transaction, newest)?;
        Ok(true)
    }
}
