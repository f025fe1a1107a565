//! The store of a fleet: its etcd.
//!
//! A thin client of etcd's v3 API. Keys are those of the [`Store`] with a prefix before them,
//! revisions are etcd's own, and a transaction is etcd's: durable when most members have it.
//! Opening never waits for etcd; whoever asks while it is gone is told so within a deadline.

mod calls;
mod commit;
mod files;
mod follow;
mod gather;
mod link;
mod login;
mod members;
mod patience;
mod range;
mod rpc;
mod settings;
mod verdict;

use std::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::store::{Answer, Committed, Entry, Range, Revision, Store, Transaction, Watch};
use calls::Calls;
use follow::{Plan, follow};
use members::Members;

pub use files::{OpenError, Unfit};
pub use settings::{Address, MaxChanges, Prefix, Settings, Timeout};

/// A fleet's store.
pub struct Etcd {
    settings: Arc<Settings>,
    members: Arc<Members>,
    calls: Calls,
}

impl Etcd {
    /// Makes a client of etcd; asks it nothing yet.
    ///
    /// # Errors
    /// The settings contradict each other, or name files that cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        files::check(settings)?;
        if settings.user.is_some() && settings.endpoints.iter().any(Address::is_readable_by_others)
        {
            warn!("the password for etcd goes over the network unencrypted; use https://");
        }
        let settings = Arc::new(settings.clone());
        let members = Arc::new(Members::new(Arc::clone(&settings)));
        let calls = Calls::new(Arc::clone(&members), settings.timeout.0.0);
        Ok(Self { settings, members, calls })
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("endpoints", &self.settings.endpoints)
            .field("prefix", &self.settings.prefix)
            .finish_non_exhaustive()
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(range::get(&self.calls, &self.settings.prefix, key))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(range::range(&self.calls, &self.settings.prefix, prefix))
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        let most = self.most_changes();
        Box::pin(commit::commit(&self.calls, &self.settings.prefix, transaction, most))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        let plan = Plan {
            members: Arc::clone(&self.members),
            prefix: self.settings.prefix.clone(),
            under: prefix.to_owned(),
            timeout: self.settings.timeout.0.0,
        };
        Box::pin(follow(plan, after))
    }

    fn most_changes(&self) -> usize {
        usize::try_from(self.settings.max_changes.0).unwrap_or(usize::MAX)
    }
}
