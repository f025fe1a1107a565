//! The access log: one record a connection, written by a thread of its own.
//!
//! The data path hands records over through a bounded queue and never waits. A record that finds
//! the queue full, because the reader of the log stands still, and one that cannot be written are
//! counted as lost. Closing the log writes out what is queued. `line` knows the forms,
//! `journal` the journal's protocol.

mod journal;
mod line;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::outcome::record::Record;
use crate::telemetry::logging::{Access, Settings};
use crate::telemetry::scribe::{Pen, Scribe, Unwritten};
use crate::telemetry::stream::Stream;
use journal::Journal;

/// How many records may wait: a second of a busy proxy, in about 6 MiB; what strangers can put into
/// a record is bounded, and makes 20 MiB at the most.
const QUEUE: usize = 16_384;
/// Of a new file: it tells who visited whom.
const MODE: u32 = 0o640;

/// Hands records to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    scribe: Option<Arc<Scribe<Box<Record>>>>,
}

/// Why the access log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file cannot be opened for appending.
    #[error("the access log {path} cannot be opened: {error}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// No journald listens there.
    #[error("journald cannot be reached at {path}: {error}", path = .path.display())]
    Journald {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// Standard output, or a thread to write to it, is not to be had.
    #[error("the access log cannot be written: {0}")]
    Own(#[from] io::Error),
}

impl AccessLog {
    /// Opens the log where the settings say.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let is_text = settings.format.is_text(&io::stdout());
        let scribe = match &settings.access {
            Access::Off => None,
            Access::Stdout => {
                let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Some(start(Lines::new(file, None, is_text))?)
            }
            Access::File(path) => {
                let error = |error| OpenError::File { path: path.clone(), error };
                let file = append(path).map_err(error)?;
                Some(start(Lines::new(file, Some(path.clone()), is_text))?)
            }
            Access::Journald(path) => {
                let error = |error| OpenError::Journald { path: path.clone(), error };
                Some(start(Journal::open(path).map_err(error)?)?)
            }
        };
        Ok(Self { scribe: scribe.map(Arc::new) })
    }

    /// Whether records are written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.scribe.is_some()
    }

    /// Hands a record over, or drops it if the queue is full.
    pub fn write(&self, record: Record) {
        let Some(scribe) = &self.scribe else { return };
        if let Err(dropped) = scribe.hand_over(Box::new(record))
            && dropped.is_first
        {
            warn!("whoever reads the access log stands still: records are dropped and counted");
        }
    }

    /// How many records were dropped or could not be written so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.scribe.as_ref().map_or(0, |scribe| scribe.lost())
    }

    /// Opens the log's file again, which may have been renamed, and waits until that is done. What
    /// cannot be opened again goes on being written as before.
    pub async fn reopen(&self) {
        if let Some(scribe) = &self.scribe {
            scribe.reopen().await;
        }
    }

    /// Writes out what is queued, for at most `patience`; later records go nowhere.
    pub fn close(&self, patience: Duration) {
        let left = self.scribe.as_ref().map_or(0, |scribe| scribe.close(patience));
        if left > 0 {
            error!(records = left, ?patience, "the access log could not be written to its end");
        }
    }
}

fn start(pen: impl Pen<Item = Box<Record>>) -> io::Result<Scribe<Box<Record>>> {
    Scribe::start("access log", QUEUE, pen)
}

/// Every write goes to the end, wherever that is by then: `logrotate`'s copytruncate relies on it.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// Writes lines to a file or to standard output.
struct Lines {
    stream: Stream,
    /// What to open again.
    path: Option<PathBuf>,
    is_text: bool,
    bytes: Vec<u8>,
}

impl Lines {
    fn new(file: File, path: Option<PathBuf>, is_text: bool) -> Self {
        Self { stream: Stream::new(file), path, is_text, bytes: Vec::new() }
    }
}

impl Pen for Lines {
    type Item = Box<Record>;

    fn write(&mut self, records: &[Box<Record>]) -> Result<(), Unwritten> {
        self.bytes.clear();
        for record in records {
            if self.is_text {
                line::text(&mut self.bytes, record);
            } else {
                line::json(&mut self.bytes, record);
            }
        }
        self.stream.write(&self.bytes)
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(file) => {
                self.stream = Stream::new(file);
                info!(path = %path.display(), "the access log was opened again");
            }
            Err(error) => error!(
                path = %path.display(),
                %error,
                "the access log cannot be opened again: the file that was open goes on being written"
            ),
        }
    }
}
