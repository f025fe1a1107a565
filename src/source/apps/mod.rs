//! Routes of deployed apps: what the store holds of projects, apps and their domains, followed while
//! the proxy runs.
//!
//! Each of the three is watched by itself, so for a moment one may be ahead of another. That harms
//! nobody: a name is let through only while all of them agree that it may be. What cannot be read is
//! left out, with a fault that names its key. A store that does not answer, or that is suddenly
//! empty, takes nothing away: the last good set stays, with a fault, and ends when it ends.

mod known;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::info;

use crate::registry::app::App;
use crate::registry::record::{APPS, DOMAINS, PROJECTS};
use crate::source::fault::{Fault, FaultKind};
use crate::source::pauses::Pauses;
use crate::source::place::Place;
use crate::source::teller::{Closed, Teller};
use crate::source::{RouteSet, Source};
use crate::store::{self, Batch, Change, Entry, Revision};
use known::Known;

/// The name of this source.
pub const NAME: &str = "apps";
/// What is followed.
const WATCHED: [&str; 3] = [PROJECTS, APPS, DOMAINS];
/// Faults that are told of single keys.
const MAX_FAULTS: usize = 1000;

/// The apps of a store, followed.
#[derive(Debug)]
pub struct Apps {
    store: store::Shared,
    known: Known,
    /// Why the store could not be read.
    trouble: Option<FaultKind>,
    initializing: watch::Sender<Arc<[App]>>,
}

impl Apps {
    /// Follows a store.
    #[must_use]
    pub fn new(store: store::Shared) -> Self {
        let initializing = watch::channel(Arc::from([])).0;
        Self { store, known: Known::default(), trouble: None, initializing }
    }

    /// The apps that initialize and are somewhere, whenever these change.
    #[must_use]
    pub fn initializing(&self) -> watch::Receiver<Arc<[App]>> {
        self.initializing.subscribe()
    }

    /// Says which apps initialize.
    fn note(&self) {
        let now = self.known.initializing();
        self.initializing.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }

    /// Reads all; gives from where each part is to be watched.
    async fn load(&mut self) -> Result<[Revision; 3], FaultKind> {
        let kept = self.known.apps();
        let (mut known, mut revisions) = (Known::default(), [0; 3]);
        for (prefix, revision) in WATCHED.into_iter().zip(&mut revisions) {
            let range = self.store.range(prefix).await;
            let range = range.map_err(|why| FaultKind::Store { why, kept })?;
            *revision = range.revision;
            known.revision = known.revision.max(range.revision);
            for Entry { key, value, revision } in range.entries {
                known.take(Change { key, value: Some(value) }, revision);
            }
        }
        if known.is_empty() && !self.known.is_empty() {
            return Err(FaultKind::StoreHollow { kept });
        }
        self.known = known;
        self.note();
        Ok(revisions)
    }

    fn take(&mut self, Batch { revision, changes }: Batch) {
        for change in changes {
            self.known.take(change, revision);
        }
        self.note();
    }

    /// What is wanted now.
    fn set(&mut self) -> RouteSet {
        let at = |source: String, kind: &FaultKind| Fault {
            place: Place::of_source(&source.into()),
            kind: kind.clone(),
        };
        let claims = self.known.claims();
        let faults = self.known.faults.iter();
        let single = faults.take(MAX_FAULTS).map(|(key, kind)| at(format!("store {key}"), kind));
        let whole = self.trouble.iter().map(|kind| at(NAME.to_owned(), kind));
        RouteSet {
            source: NAME.into(),
            claims,
            faults: whole.chain(single).collect(),
            left_out: self.known.faults.len(),
            revision: Some(self.known.revision),
        }
    }

    /// Tells every change, until the store cannot tell them any more, or nobody listens.
    async fn follow(
        &mut self,
        [projects, apps, domains]: [Revision; 3],
        teller: &mut Teller,
    ) -> Result<(), store::Error> {
        let store = Arc::clone(&self.store);
        let mut projects = store.watch(PROJECTS, projects).await?;
        let mut apps = store.watch(APPS, apps).await?;
        let mut domains = store.watch(DOMAINS, domains).await?;
        loop {
            let batch = tokio::select! {
                batch = projects.next() => batch?,
                batch = apps.next() => batch?,
                batch = domains.next() => batch?,
                turn = teller.turn() => match turn {
                    Ok(()) => {
                        teller.tell(self.set());
                        continue;
                    }
                    Err(Closed) => return Ok(()),
                },
            };
            self.take(batch);
            teller.is_due = true;
        }
    }
}

impl Source for Apps {
    async fn run(mut self, sets: mpsc::Sender<RouteSet>) {
        let mut teller = Teller::new(sets);
        let mut pauses = Pauses::default();
        loop {
            let began = Instant::now();
            let loaded = self.load().await;
            teller.is_due = true;
            match loaded {
                Ok(revisions) => {
                    self.trouble = None;
                    match self.follow(revisions, &mut teller).await {
                        Ok(()) => return,
                        Err(why) => info!(%why, "the store no longer tells its apps"),
                    }
                }
                Err(trouble) => self.trouble = Some(trouble),
            }
            let pause = pauses.after(began.elapsed());
            if teller.rest(pause, || self.set()).await.is_err() {
                return;
            }
        }
    }
}
