//! The one writer of the table: whole sets come in from the sources, one table goes out.
//!
//! The newest set of each source counts. Where two routes claim the same name, the one that is
//! already in the table keeps it: a new configuration never harms a good old one. Routes that did
//! not change stay the very same value, so that their sessions need no second look. What changed
//! is logged.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::clock::{Clock, Timestamp};
use crate::routing::claims::{Claims, Passage};
use crate::routing::route::{Claim, Origin};
use crate::routing::snapshot::{Conflict, Snapshot};
use crate::routing::table::{Publisher, Table};
use crate::source::{Fault, RouteSet};
use crate::telemetry::logging::Named;

/// What became of the sets that are in force.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The revision of the table.
    pub revision: u64,
    /// The sources that have told their routes.
    pub sources: Vec<Standing>,
    /// The claims that could not stand beside others.
    pub conflicts: Vec<(Claim, Conflict)>,
}

/// How one source stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its name.
    pub name: Arc<str>,
    /// How many sets it has told so far.
    pub sets: u64,
    /// How many routes it wants.
    pub routes: usize,
    /// How many more it would want if nothing were wrong with them.
    pub left_out: usize,
    /// What is wrong with what it told last.
    pub faults: Arc<[Fault]>,
    /// How many of its routes cannot stand beside others.
    pub conflicts: usize,
    /// When it told that.
    pub told: Timestamp,
    /// When it last told a set without a fault, if it ever did.
    pub last_success: Option<Timestamp>,
}

impl Standing {
    /// Whether anything is wrong with what it told last.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        !self.faults.is_empty() || self.conflicts > 0
    }
}

/// The one writer.
#[derive(Debug)]
pub struct Reconciler {
    publisher: Publisher,
    table: Table,
    clock: Arc<dyn Clock>,
    sets: BTreeMap<Arc<str>, RouteSet>,
    standings: BTreeMap<Arc<str>, Standing>,
    reports: watch::Sender<Report>,
}

impl Reconciler {
    /// A writer to an empty table.
    #[must_use]
    pub fn new(publisher: Publisher, table: Table, clock: Arc<dyn Clock>) -> Self {
        let reports = watch::channel(Report::default()).0;
        let (sets, standings) = (BTreeMap::new(), BTreeMap::new());
        Self { publisher, table, clock, sets, standings, reports }
    }

    /// Tells what became of each set.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.subscribe()
    }

    /// Takes sets until no source is left. The table stays as it was then.
    pub async fn run(mut self, mut sets: mpsc::Receiver<RouteSet>) {
        while let Some(set) = sets.recv().await {
            self.take(set);
            while let Ok(set) = sets.try_recv() {
                self.take(set);
            }
            self.reconcile();
        }
    }

    /// Counts the conflicts of each source.
    fn judge(&mut self, conflicts: &[(Claim, Conflict)]) {
        let out: HashSet<&Origin> = conflicts.iter().map(|(claim, _)| &claim.origin).collect();
        for (name, standing) in &mut self.standings {
            standing.conflicts = match self.sets.get(name) {
                Some(set) if !out.is_empty() => {
                    set.claims.iter().filter(|claim| out.contains(&claim.origin)).count()
                }
                _ => 0,
            };
            if !standing.has_fault() {
                standing.last_success = Some(standing.told);
            }
        }
    }

    fn take(&mut self, set: RouteSet) {
        let before = self.standings.get(&set.source);
        let standing = Standing {
            name: Arc::clone(&set.source),
            sets: before.map_or(0, |before| before.sets) + 1,
            routes: set.claims.len(),
            left_out: set.left_out,
            faults: set.faults.clone().into(),
            conflicts: 0,
            told: self.clock.now(),
            last_success: before.and_then(|before| before.last_success),
        };
        self.standings.insert(Arc::clone(&set.source), standing);
        self.sets.insert(Arc::clone(&set.source), set);
    }

    fn reconcile(&mut self) {
        let old = self.table.current().snapshot;
        let wanted = self.sets.values().flat_map(|set| set.claims.passages());
        let (new, conflicts) = Snapshot::after(&old, &reusing(wanted, &old));
        let known = &self.reports.borrow().conflicts.clone();
        for (claim, conflict) in conflicts.iter().filter(|conflict| !known.contains(conflict)) {
            warn!(route = %claim.route.id, origin = %claim.origin, "route left out: {conflict}");
        }
        let changes = Changes::between(&old, &new);
        let revision = self.reports.borrow().revision;
        let revision = if changes.are_none() && revision > 0 {
            revision
        } else {
            let routes = new.len();
            let revision = self.publisher.publish(new);
            info!(
                revision,
                routes,
                added = %Named(&changes.added),
                changed = %Named(&changes.changed),
                removed = %Named(&changes.removed),
                "routes"
            );
            revision
        };
        self.judge(&conflicts);
        let sources = self.standings.values().cloned().collect();
        let report = Report { revision, sources, conflicts };
        self.reports.send_replace(report);
    }
}

/// Puts the value in force in the place of each equal one, so that a route that did not change
/// stays one value, wherever it is told from now.
fn reusing<'a>(passages: impl Iterator<Item = &'a Passage>, old: &Snapshot) -> Claims {
    let whole = old.whole_passages();
    let reuse = |passage: &Passage| {
        if whole.contains(&passage.address()) {
            return None;
        }
        passage.reusing(|id| old.by_id(id).map(|written| &written.route))
    };
    passages.map(|passage| reuse(passage).unwrap_or_else(|| passage.clone())).collect()
}

#[derive(Debug, Default)]
struct Changes {
    added: Vec<Arc<str>>,
    changed: Vec<Arc<str>>,
    removed: Vec<Arc<str>>,
}

impl Changes {
    fn between(old: &Snapshot, new: &Snapshot) -> Self {
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

    fn are_none(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::routing::table::table;
    use crate::source::document::read;

    /// A reconciler, its table, and a way to hand it a document.
    fn scene() -> (Reconciler, Table) {
        let (publisher, table) = table();
        (Reconciler::new(publisher, table.clone(), Arc::new(SystemClock)), table)
    }

    fn say(reconciler: &mut Reconciler, source: &str, text: &str) {
        let source: Arc<str> = source.into();
        let document = read(&source, text);
        assert!(document.faults.is_empty(), "{:?}", document.faults);
        let claims = document.claims;
        reconciler.take(RouteSet {
            source,
            claims,
            faults: Vec::new(),
            left_out: 0,
            revision: None,
        });
        reconciler.reconcile();
    }

    fn route(id: &str, host: &str) -> String {
        format!("[[route]]\nid = \"{id}\"\nhosts = [\"{host}\"]\nbackends = [\"127.0.0.1:1\"]\n")
    }

    #[test]
    fn what_did_not_change_is_neither_published_nor_replaced() {
        let (mut reconciler, table) = scene();
        say(&mut reconciler, "file", &(route("a", "a.test") + &route("b", "b.test")));
        let before = table.current();
        assert_eq!(before.revision, 1);
        say(&mut reconciler, "file", &(route("a", "a.test") + &route("b", "b.test")));
        assert_eq!(table.current().revision, 1);
        say(&mut reconciler, "file", &(route("b", "b.test") + &route("a", "c.test")));
        let after = table.current();
        assert_eq!(after.revision, 2);
        let same = |id| {
            Arc::ptr_eq(
                &before.snapshot.by_id(id).unwrap().route,
                &after.snapshot.by_id(id).unwrap().route,
            )
        };
        assert!(same("b") && !same("a"));
    }

    #[test]
    fn an_incumbent_keeps_its_name_against_a_newcomer_from_wherever() {
        let (mut reconciler, table) = scene();
        say(&mut reconciler, "z", &route("first", "a.test"));
        // The other source comes first by name, and still does not take what is in force.
        say(&mut reconciler, "a", &route("second", "a.test"));
        let snapshot = table.current().snapshot;
        assert!(snapshot.by_id("first").is_some() && snapshot.by_id("second").is_none());
        assert_eq!(reconciler.reports().borrow().conflicts.len(), 1);
        // When the incumbent goes, the other one may have the name.
        say(&mut reconciler, "z", "");
        let snapshot = table.current().snapshot;
        assert!(snapshot.by_id("first").is_none() && snapshot.by_id("second").is_some());
        assert!(reconciler.reports().borrow().conflicts.is_empty());
    }

    #[test]
    fn an_empty_first_set_is_published_too() {
        let (mut reconciler, table) = scene();
        say(&mut reconciler, "file", "");
        assert_eq!(table.current().revision, 1);
        assert_eq!(reconciler.reports().borrow().sources.len(), 1);
    }
}
