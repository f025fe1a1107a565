//! What a new table changes, for the log; and how to leave alone what it does not.

use std::sync::Arc;

use crate::routing::claims::{Claims, Passage};
use crate::routing::snapshot::Snapshot;

/// Puts the value in force in the place of each equal one, so that a route that did not change
/// stays one value, wherever it is told from now.
pub(super) fn reusing(claims: &Claims, old: &Snapshot) -> Claims {
    let whole = old.whole_passages();
    let reuse = |passage: &Passage| {
        if whole.contains(&passage.address()) {
            return None;
        }
        passage.reusing(|id| old.by_id(id).map(|written| &written.route))
    };
    claims
        .passages()
        .iter()
        .map(|passage| reuse(passage).unwrap_or_else(|| passage.clone()))
        .collect()
}

/// The ids of the routes that differ.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Vec<Arc<str>>,
    pub(super) changed: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Changes {
    pub(super) fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut changes = Self::default();
        // In a passage that stands whole in both, nothing has changed.
        let (before, now) = (old.whole_passages(), new.whole_passages());
        let is_touched = |passage: &&Passage| {
            let address = passage.address();
            !(before.contains(&address) && now.contains(&address))
        };
        for written in new.passages().iter().filter(is_touched).flat_map(Passage::written) {
            let id = &written.route.id;
            if !new.by_id(id).is_some_and(|is| std::ptr::eq(is, written)) {
                continue;
            }
            match old.by_id(id) {
                None => changes.added.push(Arc::clone(id)),
                Some(known) if !Arc::ptr_eq(&known.route, &written.route) => {
                    changes.changed.push(Arc::clone(id));
                }
                Some(_) => {}
            }
        }
        for written in old.passages().iter().filter(is_touched).flat_map(Passage::written) {
            let id = &written.route.id;
            let was_in = old.by_id(id).is_some_and(|was| std::ptr::eq(was, written));
            if was_in && new.by_id(id).is_none() {
                changes.removed.push(Arc::clone(id));
            }
        }
        changes
    }

    pub(super) fn are_none(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}
