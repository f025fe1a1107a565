//! The sessions of one route, by the version of it that they began under, and when they have to go.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::outcome::Outcome;
use crate::proxy::handle::Handle;
use crate::routing::route::Route;

/// Sessions that began under one version of a route.
#[derive(Debug)]
pub(super) struct Cohort {
    /// Governs their end; replaced by a newer version that leads to the same place.
    pub(super) route: Arc<Route>,
    pub(super) sessions: HashMap<u64, Arc<Handle>, foldhash::fast::RandomState>,
    /// When the rest of them are cut, once their route was taken away.
    pub(super) leaving: Option<Instant>,
    /// Whether they were asked to leave, because their route is over and only its grace is left.
    pub(super) is_asked: bool,
}

impl Cohort {
    /// The next instant at which the route's end has something to say to them.
    fn next_end(&self) -> Option<Timestamp> {
        let lifetime = self.route.lifetime();
        if self.is_asked { lifetime.cut_at() } else { lifetime.expires_at }
    }

    pub(super) fn ask_to_leave(&self) {
        self.sessions.values().for_each(|handle| handle.ask_to_leave());
    }

    pub(super) fn retire(&self, outcome: Outcome) {
        for handle in self.sessions.values() {
            handle.retire(outcome);
        }
    }
}

/// All the sessions of one route id.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) cohorts: Vec<Cohort>,
}

/// The soonest deadlines of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupDeadlines {
    pub(super) end: Option<Timestamp>,
    pub(super) drain: Option<Instant>,
}

impl Group {
    pub(super) fn len(&self) -> usize {
        self.cohorts.iter().map(|cohort| cohort.sessions.len()).sum()
    }

    pub(super) fn deadlines(&self) -> GroupDeadlines {
        let ends = self.cohorts.iter().filter_map(Cohort::next_end);
        let drains = self.cohorts.iter().filter_map(|cohort| cohort.leaving);
        GroupDeadlines { end: ends.min(), drain: drains.min() }
    }

    /// Takes a session in, under the version of the route that it found.
    pub(super) fn join(&mut self, route: &Arc<Route>, session: u64, handle: &Arc<Handle>) {
        let same = self
            .cohorts
            .iter_mut()
            .find(|cohort| cohort.leaving.is_none() && Arc::ptr_eq(&cohort.route, route));
        if let Some(cohort) = same {
            cohort.sessions.insert(session, Arc::clone(handle));
        } else {
            let mut cohort = Cohort {
                route: Arc::clone(route),
                sessions: HashMap::default(),
                leaving: None,
                is_asked: false,
            };
            cohort.sessions.insert(session, Arc::clone(handle));
            self.cohorts.push(cohort);
        }
    }

    /// Lets a session go.
    pub(super) fn leave(&mut self, session: u64) {
        for cohort in &mut self.cohorts {
            cohort.sessions.remove(&session);
        }
        self.tidy();
    }

    /// Forgets cohorts of which nobody is left.
    pub(super) fn tidy(&mut self) {
        self.cohorts.retain(|cohort| !cohort.sessions.is_empty());
    }
}
