//! Whose look is due: pinned routes by themselves, for whom clients wait, and all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::routing::route::Route;

/// Whether somebody is led by what a look shows. Looks that are waited for never stand behind others,
/// which may all be at backends that do not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Of pinned routes.
    Pinned,
    /// Of all others.
    Other,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::Pinned, Self::Other];

    pub(super) fn of(route: &Route) -> Self {
        if route.pin().is_some() { Self::Pinned } else { Self::Other }
    }
}

/// When routes are looked at next, soonest first.
#[derive(Debug, Default)]
pub(super) struct Due {
    pinned: BTreeSet<(Instant, Arc<str>)>,
    others: BTreeSet<(Instant, Arc<str>)>,
}

impl Due {
    pub(super) fn of(&mut self, class: Class) -> &mut BTreeSet<(Instant, Arc<str>)> {
        match class {
            Class::Pinned => &mut self.pinned,
            Class::Other => &mut self.others,
        }
    }
}
