//! The open database, which is opened anew when its disk has failed.
//!
//! After one failed read or write the database refuses everything, because it no longer knows what
//! is on the disk. So it is closed and opened again at once: that reads and judges the whole file,
//! and whoever reads meanwhile waits for it. What was acknowledged is there afterwards; what was
//! being written either happened or did not, and can be looked up. If opening fails as well, it is
//! tried again when somebody asks, but not all the time.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction,
};
use tracing::{error, warn};

use super::disk::{Room, is_full};
use crate::store::Error;

/// How long after a failed attempt the next is made: an attempt reads the whole file.
const PAUSE: Duration = Duration::from_secs(1);

const ANEW: &str = "its file is being opened anew";

#[derive(Debug)]
pub(super) struct Vault {
    room: Arc<Room>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    database: Result<Database, Closed>,
    /// How often it was opened.
    generation: u64,
}

/// Why it is not open.
#[derive(Debug)]
struct Closed {
    why: Error,
    since: Instant,
}

/// Why nothing was written, or nothing that anybody was told of.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was begun.
    Shut(Error),
    /// It went wrong on the way; look what is there now.
    Broken {
        /// The file could not grow.
        is_full: bool,
        why: Error,
    },
}

impl Vault {
    pub(super) fn new(room: Arc<Room>, database: Database) -> Self {
        Self { room, state: RwLock::new(State { database: Ok(database), generation: 0 }) }
    }

    /// Reads what is committed, once more if the database had to be opened anew for it.
    pub(super) fn read<T>(
        &self,
        job: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let (generation, error) = match self.attempt(|database| job(&database.begin_read()?))? {
            Ok(read) => return Ok(read),
            Err(failed) => failed,
        };
        warn!(%error, "the store could not be read; it is opened anew");
        self.mend(generation)?;
        self.attempt(|database| job(&database.begin_read()?))?
            .map_err(|(_, error)| told(error, begun.elapsed()))
    }

    /// Writes and commits durably, if the job says that there is something to commit.
    pub(super) fn write(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<bool, redb::Error>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let run = |database: &Database| {
            let mut transaction = database.begin_write()?;
            // With one phase, a damaged page of the last commit could not be told from a commit
            // that was cut short, and the store would silently go back to the one before.
            transaction.set_two_phase_commit(true);
            if job(&transaction)? {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(())
        };
        let (generation, error) = match self.attempt(run).map_err(Failure::Shut)? {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let is_full = matches!(&error, redb::Error::Io(error) if is_full(error));
        if !is_full {
            error!(%error, "the store could not be written; it is opened anew");
        }
        let why = told(error, begun.elapsed());
        // Whether that works shows when somebody looks.
        drop(self.mend(generation));
        Err(Failure::Broken { is_full, why })
    }

    /// Whether the file could not grow when it had to, and cannot now either.
    pub(super) fn suffices(&self) -> io::Result<()> {
        self.room.suffices()
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        self.room.file()
    }

    /// Does something with the database; if that fails, tells with which opening of it.
    fn attempt<T>(
        &self,
        job: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<Result<T, (u64, redb::Error)>, Error> {
        let state = self.open()?;
        let Ok(database) = &state.database else {
            return Err(Error::Unavailable { why: ANEW.to_owned(), tried: Duration::ZERO });
        };
        // Pages that make no sense may make the database stumble.
        let done = catch_unwind(AssertUnwindSafe(|| job(database)))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("its pages make no sense".into())));
        Ok(done.map_err(|error| (state.generation, error)))
    }

    fn open(&self) -> Result<RwLockReadGuard<'_, State>, Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.database.is_ok() {
            return Ok(state);
        }
        let generation = state.generation;
        drop(state);
        self.mend(generation)?;
        Ok(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the database anew, unless somebody else has since.
    fn mend(&self, generation: u64) -> Result<(), Error> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &state.database {
            Ok(_) if state.generation != generation => return Ok(()),
            Err(closed) if closed.since.elapsed() < PAUSE => return Err(closed.why.clone()),
            _ => {}
        }
        let begun = Instant::now();
        let closed = |why| Closed { why, since: Instant::now() };
        // The old one has to let go of the file before the new one takes it.
        let shut = Error::Unavailable { why: ANEW.to_owned(), tried: Duration::ZERO };
        state.database = Err(closed(shut));
        let opened = match self.file().metadata() {
            // To the database, that is a new one.
            Ok(file) if file.len() == 0 => Err(Error::Damaged("its file is empty".to_owned())),
            Ok(_) => self.room.database().map_err(|error| unopened(error, begun.elapsed())),
            Err(error) => Err(told(redb::Error::Io(error), begun.elapsed())),
        };
        match opened {
            Ok(database) => {
                state.database = Ok(database);
                state.generation += 1;
                Ok(())
            }
            Err(why) => {
                error!(%why, "the store cannot be opened anew");
                state.database = Err(closed(why.clone()));
                Err(why)
            }
        }
    }
}

fn unopened(error: DatabaseError, tried: Duration) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::Unavailable { why: "another process has taken its file".to_owned(), tried }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            Error::Damaged(error.to_string())
        }
        error => told(error.into(), tried),
    }
}

fn told(error: redb::Error, tried: Duration) -> Error {
    match error {
        redb::Error::Corrupted(why) => Error::Damaged(why),
        error => Error::Unavailable { why: error.to_string(), tried },
    }
}
