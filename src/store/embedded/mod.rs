//! The store of one proxy alone: one file, in which nothing that was acknowledged gets lost.
//!
//! Readers see what is committed and never wait for a writer. One thread writes, and answers after
//! the fsync. A full disk refuses writes and nothing else. Calls are made on a tokio runtime with
//! its timer; [`Embedded::open`] and dropping wait for the disk. The file is that of the `redb`
//! database; one process at a time may have it open, and nobody else should write to its folder.

mod disk;
mod file;
mod log;
mod tables;
mod vault;
mod writer;

use std::collections::HashSet;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc as signal};
use std::thread;
use std::time::{Duration, Instant};

use redb::ReadTransaction;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use self::file::Found;
pub use self::file::OpenError;
use self::log::{Log, weigh};
use self::vault::Vault;
use self::writer::{Job, Writer};
use crate::store::{
    Answer, Committed, Entry, Error, MAX_KEY, MAX_VALUE, Range, Revision, Store, Transaction, Watch,
};

/// How many changes one transaction may hold: every one of 100,000 routes replaced by another,
/// and some more.
const MOST_CHANGES: usize = 1 << 18;
/// How many bytes of changes may wait to be written, in one transaction or in many.
const MOST_BYTES: usize = 64 << 20;
/// How many transactions may wait.
const MOST_WAITING: usize = 16 << 10;
/// What a transaction takes of the queue: bytes in units, so that so many small ones fill it.
const UNIT: usize = MOST_BYTES / MOST_WAITING;

/// How many may read at once: more would only wait for the same disk.
const MOST_READERS: usize = 4;

/// How long a caller waits for an answer. A commit takes milliseconds, and one of everything a
/// second or two; what takes longer is a disk that stands still.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store in a file.
#[derive(Debug)]
pub struct Embedded {
    vault: Arc<Vault>,
    log: Arc<Log>,
    readers: Arc<Semaphore>,
    /// Room in the queue, in units.
    room: Arc<Semaphore>,
    queue: Option<mpsc::Sender<Job>>,
    /// Says nothing, but ends with the writer; in a lock only to be shared.
    ended: Mutex<signal::Receiver<()>>,
}

impl Embedded {
    /// Opens the store in this file; a missing or empty file becomes a new, empty store. Reads the
    /// whole file once, to be sure of it: some 2 s a GB.
    ///
    /// # Errors
    /// When there is anything else than a store in order, or another process has it. What the file
    /// holds is as it was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let Found { room, database, revision } = file::open(path)?;
        let vault = Arc::new(Vault::new(room, database));
        let log = Log::after(revision);
        let (queue, jobs) = mpsc::channel(MOST_WAITING);
        let writer = Writer::new(path.to_owned(), Arc::clone(&vault), Arc::clone(&log));
        let (end, ended) = signal::channel();
        let run = move || {
            writer.run(jobs);
            drop(end);
        };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(run)
            .map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
        Ok(Self {
            vault,
            log,
            readers: Arc::new(Semaphore::new(MOST_READERS)),
            room: Arc::new(Semaphore::new(MOST_WAITING)),
            queue: Some(queue),
            ended: Mutex::new(ended),
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl Fn(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let vault = Arc::clone(&self.vault);
        let readers = Arc::clone(&self.readers);
        in_time(async move {
            let permit = readers.acquire_owned().await.map_err(|_| closed())?;
            let read = spawn_blocking(move || {
                let _permit = permit;
                vault.read(job)
            });
            read.await.map_err(|_| closed())?
        })
        .await
    }

    async fn write(&self, transaction: Transaction) -> Result<Committed, Error> {
        let bytes = judge(&transaction)?;
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let room = Arc::clone(&self.room);
        in_time(async move {
            let place = room.acquire_many_owned(units).await.map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel();
            queue.send(Job { transaction, reply, place }).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
        .await
    }

    async fn follow(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, Error> {
        // Whoever has just read may be ahead of the log, but not of the file.
        if after > self.log.newest() {
            let newest = self.read(tables::revision).await?;
            if after > newest {
                return Err(Error::Refused(format!(
                    "revision {after} is still to come, the newest is {newest}: range again (an \
                     older file was put in place of the store's)"
                )));
            }
        }
        Ok(Box::new(self.log.watch(prefix, after)?))
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(self.read(move |transaction| tables::get(transaction, &key)))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        let prefix = prefix.to_owned();
        Box::pin(self.read(move |transaction| tables::range(transaction, &prefix)))
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        Box::pin(self.write(transaction))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        Box::pin(self.follow(prefix, after))
    }

    fn most_changes(&self) -> usize {
        MOST_CHANGES
    }
}

/// What waits is written before the file is let go, unless the disk stands still.
impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(PATIENCE) == Err(signal::RecvTimeoutError::Timeout) {
            warn!("the disk of the store stands still: what waits to be written is given up");
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begun = Instant::now();
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        Err(Error::Unavailable { why: "its disk is too slow".to_owned(), tried: begun.elapsed() })
    })
}

/// Nobody serves it any more.
fn closed() -> Error {
    Error::Unavailable { why: "it was closed".to_owned(), tried: Duration::ZERO }
}

/// How many bytes a transaction takes, if its form is that of one.
fn judge(transaction: &Transaction) -> Result<usize, Error> {
    let refuse = |why: String| Err(Error::Refused(why));
    let Transaction { checks, changes } = transaction;
    let most = checks.len().max(changes.len());
    if most > MOST_CHANGES {
        return refuse(format!("{most} changes at once, at most {MOST_CHANGES} are taken"));
    }
    let mut seen = HashSet::with_capacity(changes.len());
    for change in changes {
        let key = &change.key;
        let size = change.value.as_ref().map_or(0, Vec::len);
        if key.is_empty() {
            return refuse("a key is empty".to_owned());
        }
        if key.len() > MAX_KEY {
            return refuse(format!("a key of {} bytes, at most {MAX_KEY} are taken", key.len()));
        }
        if size > MAX_VALUE {
            return refuse(format!(
                "{key}: a value of {size} bytes, at most {MAX_VALUE} are taken"
            ));
        }
        if !seen.insert(key) {
            return refuse(format!("{key}: changed twice at once"));
        }
    }
    let bytes = weigh(changes) + checks.iter().map(|check| check.key.len()).sum::<usize>();
    if bytes > MOST_BYTES {
        return refuse(format!("{bytes} bytes at once, at most {MOST_BYTES} are taken"));
    }
    Ok(bytes)
}
