//! What a proxy keeps: keys and values that outlast it, and that a fleet may share.
//!
//! One contract ([`Store`]) with two implementations: a file of this proxy alone, and the etcd of
//! a fleet. Both number their changes with one rising [`Revision`], change several keys at once
//! or none, and tell every change in its order to whoever watches. Nothing here knows what the
//! values mean.

pub mod choice;
pub mod embedded;
pub mod etcd;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The number of a transaction that changed something; only rises. 0 is before the first.
pub type Revision = u64;

/// What a call of a [`Store`] gives, in a box: stores are chosen at run time, and asked rarely.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// A key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key: printable, with `/` between its parts.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Which transaction wrote it last.
    pub revision: Revision,
}

/// Everything under a prefix, as it was at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// The newest transaction of the whole store by then.
    pub revision: Revision,
    /// The entries, by their keys.
    pub entries: Vec<Entry>,
}

/// Changes that happen together, if everything checked is as expected, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What changes then; each key at most once. A value that is written once more is a change.
    pub changes: Vec<Change>,
}

/// A key that must not have been touched since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The key.
    pub key: String,
    /// Which transaction must have written it last; 0: there must be no such key.
    pub revision: Revision,
}

/// A key that is written or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// What it holds from then on; none: it is gone.
    pub value: Option<Vec<u8>>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is durable, under this revision. What changes nothing (there are no changes, or what is
    /// to be removed is not there) is told to no watcher, and done as of an earlier revision.
    Done(Revision),
    /// A check did not hold; nothing was changed.
    Conflict,
}

/// All that one transaction changed under a watched prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The transaction.
    pub revision: Revision,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// Tells batches in the order of their revisions, without a gap and without repeats.
pub trait Watch: Send {
    /// The next batch, as soon as there is one. Cancel safe. After an error there are no more:
    /// begin anew, with [`Error::TooOld`] by ranging again.
    fn next(&mut self) -> Answer<'_, Batch>;
}

/// Keys and values that outlast the process.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What a key holds.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>>;

    /// Everything under a prefix, all as of one revision.
    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range>;

    /// Changes several keys at once. The answer comes when it is durable. After any error but
    /// [`Error::Refused`] it is unknown whether it happened. Refused are an empty key, a key twice,
    /// and what is longer or more than it may be.
    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed>;

    /// Tells every later change under a prefix. `after` is the revision of a range, or that of the
    /// last batch seen.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>>;

    /// How many changes one transaction may hold.
    fn most_changes(&self) -> usize;
}

/// A store that somebody else uses as well.
pub type Shared = Arc<dyn Store>;

/// Why a store does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too late to tell what came after this revision; range again.
    #[error("changes after revision {after} are no longer kept, the oldest is {oldest}")]
    TooOld {
        /// What was asked for.
        after: Revision,
        /// The oldest revision that is still told.
        oldest: Revision,
    },
    /// A watcher did not keep up, and has missed changes.
    #[error("the watcher was too slow, and its changes are no longer kept for it")]
    TooSlow,
    /// It cannot be reached, or does not answer in time.
    #[error("the store does not answer: {why}")]
    Unavailable {
        /// What was tried, and what came of it.
        why: String,
        /// How long it was tried.
        tried: Duration,
    },
    /// It will not do that, and has not: nothing was changed.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// What is on its disk is not what was written there.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}
