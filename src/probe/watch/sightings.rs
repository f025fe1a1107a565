//! What was seen in all, for whoever asks: counts, and what is odd now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::admission::sight::{Kind, Notice};
use crate::admission::watch::Faults;
use crate::endpoint::Endpoint;

/// How many oddities are kept in words; of the others there are counts.
const MOST_ODD: usize = 1000;

/// What was seen in all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sightings(Arc<Mutex<Seen>>);

/// What was seen in all, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Routes that are watched.
    pub watched: usize,
    /// Looks that showed a certificate.
    pub looks: u64,
    /// Looks that showed nothing.
    pub failures: u64,
    /// What was told, by the places of its kinds.
    pub events: [u64; Kind::ALL.len()],
    /// Routes about which something is odd now, by the places of its kinds.
    pub faults: [usize; Kind::ALL.len()],
    /// What is odd now, by the route and the place of its backend.
    pub odd: BTreeMap<(Arc<str>, usize), Odd>,
}

/// What is odd about one backend.
#[derive(Debug, Clone)]
pub struct Odd {
    /// The backend.
    pub backend: Endpoint,
    /// All of it.
    pub notices: Vec<Notice>,
}

impl Sightings {
    /// What was seen in all so far.
    #[must_use]
    pub fn now(&self) -> Seen {
        self.lock().clone()
    }

    pub(super) fn watches(&self, routes: usize) {
        self.lock().watched = routes;
    }

    pub(super) fn failed(&self) {
        self.lock().failures += 1;
    }

    /// A look at a backend: what is new of it, and what is odd about it now.
    pub(super) fn looked(
        &self,
        at: (Arc<str>, usize),
        backend: &Endpoint,
        news: &[Notice],
        notices: Vec<Notice>,
    ) {
        let mut seen = self.lock();
        seen.looks += 1;
        for notice in news {
            if let Some(count) = seen.events.get_mut(notice.kind().index()) {
                *count += 1;
            }
        }
        let notices: Vec<_> = notices.into_iter().filter(|notice| notice.kind().stands()).collect();
        if notices.is_empty() {
            seen.odd.remove(&at);
        } else if seen.odd.len() < MOST_ODD || seen.odd.contains_key(&at) {
            seen.odd.insert(at, Odd { backend: backend.clone(), notices });
        }
    }

    /// What is odd about a route is no more, or is this now.
    pub(super) fn turned(&self, before: Faults, now: Faults) {
        let mut seen = self.lock();
        for (kind, count) in Kind::ALL.into_iter().zip(&mut seen.faults) {
            *count += usize::from(now.have(kind));
            *count = count.saturating_sub(usize::from(before.have(kind)));
        }
    }

    /// A route is watched no more, or leads elsewhere.
    pub(super) fn forget(&self, route: &Arc<str>, backends: usize) {
        let mut seen = self.lock();
        for place in 0..backends {
            seen.odd.remove(&(Arc::clone(route), place));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
