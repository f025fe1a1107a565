//! The one writer of the table: whole sets come in from the sources, one table goes out.
//!
//! The newest set of each source counts. Where two sources claim the same name, the one that is
//! declared to go first has it, on every node and after every restart; within one source the route
//! that is already in the table keeps it: a new configuration never harms a good old one. Routes
//! that did not change stay the very same value, so that their sessions need no second look. What
//! changed is logged.
//!
//! A table is made as a whole, which takes longer the larger it is. So after each one there is a
//! rest: what comes meanwhile is gathered, and however often routes change, making tables takes a
//! bounded share of one core.

mod changes;
mod precedence;
mod witness;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::clock::{Clock, Timestamp};
use crate::reconcile::changes::{Changes, reusing};
use crate::reconcile::witness::Witness;
use crate::routing::claims::Claims;
use crate::routing::route::Claim;
use crate::routing::snapshot::{Conflict, LeftOut, Snapshot};
use crate::routing::table::{Publisher, Table};
use crate::routing::words::Words;
use crate::source::{Fault, RouteSet};
use crate::store::Revision;
use crate::telemetry::logging::Named;

pub use precedence::{NoPrecedence, Precedence};

/// How long the rest after a table is, in times of the processor time that making it took: at most
/// a fifth of a core is spent.
const REST: u32 = 4;
/// The longest rest: a table that takes more than a second is no reason to wait for long.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How many conflicts one table writes to the log; the status page shows as many.
const MAX_LOGGED: usize = 50;

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
    /// If it is a store that was read: the newest transaction that it told.
    pub revision: Option<Revision>,
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
    precedence: Precedence,
    sets: BTreeMap<Arc<str>, RouteSet>,
    standings: BTreeMap<Arc<str>, Standing>,
    /// What is seen of the backends of routes.
    witness: Witness,
    reports: watch::Sender<Report>,
}

impl Reconciler {
    /// A writer to an empty table.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        table: Table,
        clock: Arc<dyn Clock>,
        precedence: Precedence,
    ) -> Self {
        let reports = watch::channel(Report::default()).0;
        let (sets, standings) = (BTreeMap::new(), BTreeMap::new());
        let witness = Witness::default();
        Self { publisher, table, clock, precedence, sets, standings, witness, reports }
    }

    /// The same, which also puts into its routes what is seen of their backends.
    #[must_use]
    pub fn seeing(self, words: watch::Receiver<Words>) -> Self {
        Self { witness: Witness::new(words), ..self }
    }

    /// Tells what became of each set.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.subscribe()
    }

    /// Takes sets until no source is left. The table stays as it was then.
    pub async fn run(mut self, mut sets: mpsc::Receiver<RouteSet>) {
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                set = sets.recv() => match set {
                    Some(set) => self.take(set),
                    None => return,
                },
                () = self.witness.wait() => {}
            }
            loop {
                tokio::select! {
                    set = sets.recv() => match set {
                        Some(set) => self.take(set),
                        None => break,
                    },
                    () = sleep_until(rested) => break,
                }
            }
            while let Ok(set) = sets.try_recv() {
                self.take(set);
            }
            let began = spent();
            self.reconcile();
            rested = Instant::now() + rest_after(spent().saturating_sub(began));
        }
    }

    /// Counts the conflicts of each source. `ranked` are the sources by their ranks.
    fn judge(&mut self, ranked: &[Arc<str>], left_out: &[LeftOut]) {
        let mut counts = vec![0; ranked.len()];
        for one in left_out {
            if let Some(count) = counts.get_mut(one.set) {
                *count += 1;
            }
        }
        for (name, count) in ranked.iter().zip(counts) {
            let Some(standing) = self.standings.get_mut(name) else { continue };
            standing.conflicts = count;
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
            revision: set.revision,
            told: self.clock.now(),
            last_success: before.and_then(|before| before.last_success),
        };
        self.standings.insert(Arc::clone(&set.source), standing);
        self.sets.insert(Arc::clone(&set.source), set);
    }

    /// The sources by their ranks, and those of one rank by their names.
    fn ranked(&self) -> Vec<Arc<str>> {
        let mut ranked: Vec<_> = self.sets.keys().cloned().collect();
        ranked.sort_by_key(|name| self.precedence.rank(name));
        ranked
    }

    fn reconcile(&mut self) {
        let old = self.table.current().snapshot;
        let ranked = self.ranked();
        let sets = ranked.iter().filter_map(|name| self.sets.get(name));
        let seen = self.witness.put_into(sets.clone().map(|set| &set.claims), &old);
        let wanted: Vec<Claims> = seen.iter().map(|claims| reusing(claims, &old)).collect();
        let (new, left_out) = Snapshot::merge(&old, &wanted);
        let new = new.as_of(sets.filter_map(|set| set.revision).max());
        self.tell_conflicts(&left_out);
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
        self.judge(&ranked, &left_out);
        let conflicts = left_out.into_iter().map(|one| (one.claim, one.conflict)).collect();
        let sources = self.standings.values().cloned().collect();
        let report = Report { revision, sources, conflicts };
        self.reports.send_replace(report);
    }

    /// Logs what was not known before.
    fn tell_conflicts(&self, left_out: &[LeftOut]) {
        if left_out.is_empty() {
            return;
        }
        let report = self.reports.borrow();
        let key = |claim: &Claim| (Arc::clone(&claim.route.id), claim.origin.clone());
        let known = report.conflicts.iter().map(|(claim, conflict)| (key(claim), conflict));
        let known: HashMap<_, _> = known.collect();
        let is_new = |one: &&LeftOut| known.get(&key(&one.claim)) != Some(&&one.conflict);
        let mut fresh = left_out.iter().filter(is_new);
        for LeftOut { claim, conflict, .. } in fresh.by_ref().take(MAX_LOGGED) {
            warn!(route = %claim.route.id, origin = %claim.origin, "route left out: {conflict}");
        }
        let more = fresh.count();
        if more > 0 {
            warn!(more, "routes were left out as well, because of others");
        }
    }
}

/// The processor time of this thread so far: unlike the time that passes, it does not grow with
/// what else the machine does.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long nothing is made after making something took so much processor time.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(REST).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::routing::route::Route;
    use crate::routing::seen::Seen;
    use crate::routing::table::table;
    use crate::routing::words::Word;
    use crate::source::document::read;

    /// A reconciler, its table, and a way to hand it a document.
    fn scene(precedence: Precedence) -> (Reconciler, Table) {
        let (publisher, table) = table();
        (Reconciler::new(publisher, table.clone(), Arc::new(SystemClock), precedence), table)
    }

    fn say(reconciler: &mut Reconciler, source: &str, text: &str) {
        hand(reconciler, source, text, None);
        reconciler.reconcile();
    }

    fn hand(reconciler: &mut Reconciler, source: &str, text: &str, revision: Option<Revision>) {
        let source: Arc<str> = source.into();
        let document = read(&source, text);
        assert!(document.faults.is_empty(), "{:?}", document.faults);
        let claims = document.claims;
        reconciler.take(RouteSet { source, claims, faults: Vec::new(), left_out: 0, revision });
    }

    fn route(id: &str, host: &str) -> String {
        format!("[[route]]\nid = \"{id}\"\nhosts = [\"{host}\"]\nbackends = [\"127.0.0.1:1\"]\n")
    }

    fn store_first() -> Precedence {
        vec!["store".to_owned(), "file".to_owned()].try_into().unwrap()
    }

    /// The ids in force, and who was left out because of whom.
    fn outcome(reconciler: &Reconciler, table: &Table) -> (Vec<String>, Vec<String>) {
        let snapshot = table.current().snapshot;
        let mut ids: Vec<_> = snapshot.claims().map(|one| one.route.id.to_string()).collect();
        ids.sort_unstable();
        let report = reconciler.reports().borrow().clone();
        let told = report
            .conflicts
            .iter()
            .map(|(claim, conflict)| format!("{} at {}: {conflict}", claim.route.id, claim.origin));
        (ids, told.collect())
    }

    #[test]
    fn what_did_not_change_is_neither_published_nor_replaced() {
        let (mut reconciler, table) = scene(Precedence::default());
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
    fn what_is_seen_of_backends_is_put_in_once_and_lifted_again() {
        let (mut reconciler, table) = scene(Precedence::default());
        let (say_words, heard) = watch::channel(Words::default());
        reconciler.witness = Witness::new(heard);
        say(&mut reconciler, "file", &(route("a", "a.test") + &route("b", "b.test")));
        say(&mut reconciler, "store", &route("c", "c.test"));
        let in_force = |id: &str| Arc::clone(&table.current().snapshot.by_id(id).unwrap().route);
        let (plain, b, c) = (in_force("a"), in_force("b"), in_force("c"));
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let word = |of: &Arc<Route>| {
            let seen = Seen { ends_at: Some(end), ..Seen::default() };
            (Arc::clone(&of.id), Word { of: Arc::clone(of), seen })
        };
        say_words.send_replace([word(&plain), word(&c)].into_iter().collect());
        reconciler.reconcile();
        let capped = in_force("a");
        assert_eq!((capped.seen_end(), in_force("c").seen_end()), (Some(end), Some(end)));
        assert!(Arc::ptr_eq(&in_force("b"), &b));

        // Neither another word nor another set of another source touches it.
        let revision = table.current().revision;
        say_words.send_replace([word(&capped), word(&c)].into_iter().collect());
        reconciler.reconcile();
        assert_eq!(table.current().revision, revision);
        let addresses = table.current().snapshot.whole_passages();
        say(&mut reconciler, "store", &(route("c", "c.test") + &route("d", "d.test")));
        assert!(Arc::ptr_eq(&in_force("a"), &capped) && in_force("c").seen_end() == Some(end));
        assert_eq!(table.current().snapshot.whole_passages().intersection(&addresses).count(), 1);

        // A route that leads elsewhere is not concerned.
        let moved = route("a", "a.test").replace("127.0.0.1:1", "127.0.0.1:2");
        say(&mut reconciler, "file", &(moved + &route("b", "b.test")));
        assert_eq!(in_force("a").seen_end(), None);
        say(&mut reconciler, "file", &(route("a", "a.test") + &route("b", "b.test")));
        assert_eq!(in_force("a").seen_end(), Some(end));
        say_words.send_replace(Words::default());
        reconciler.reconcile();
        assert_eq!(in_force("a"), plain);
        assert_eq!(in_force("c"), c);
    }

    #[test]
    fn within_one_source_an_incumbent_keeps_its_name_against_a_newcomer() {
        let (mut reconciler, table) = scene(Precedence::default());
        say(&mut reconciler, "store", &route("first", "a.test"));
        // The newcomer stands above, and still does not take what is in force.
        let both = route("a-newcomer", "a.test") + &route("first", "a.test");
        say(&mut reconciler, "store", &both);
        let (ids, told) = outcome(&reconciler, &table);
        let words = "a-newcomer at store:1:1: a.test is already claimed by the route \"first\" at store:5:1";
        assert_eq!((ids, told), (vec!["first".to_owned()], vec![words.to_owned()]));
        // When the incumbent goes, the other one may have the name.
        say(&mut reconciler, "store", &route("a-newcomer", "a.test"));
        assert_eq!(outcome(&reconciler, &table), (vec!["a-newcomer".to_owned()], vec![]));
    }

    #[test]
    fn between_sources_the_declared_one_wins_whoever_spoke_first_and_after_a_restart() {
        let texts = [
            ("file", route("f", "a.test") + &route("same", "f.test") + &route("mine", "m.test")),
            ("store", route("s", "a.test") + &route("same", "s.test") + &route("own", "o.test")),
            ("demo", route("d", "a.test") + &route("more", "n.test")),
        ];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (precedence, winner, loser, kept) in
            [(Precedence::default(), "f", "s", "f.test"), (store_first(), "s", "f", "s.test")]
        {
            for order in orders {
                let (mut reconciler, table) = scene(precedence.clone());
                for place in order {
                    let (source, text) = &texts[place];
                    say(&mut reconciler, source, text);
                }
                let (ids, told) = outcome(&reconciler, &table);
                let mut expected = [winner, "same", "mine", "own", "more"];
                expected.sort_unstable();
                assert_eq!(ids, expected, "{order:?}");
                let same = table.current().snapshot.by_id("same").unwrap().route.hosts[0].clone();
                assert_eq!(same.to_string(), kept);
                let told = told.join("\n");
                let named = format!("{loser} at ");
                assert!(told.contains(&named) && told.contains("d at demo"), "{told}");
                assert!(told.contains(&format!("already claimed by the route \"{winner}\"")));
                let report = reconciler.reports().borrow().clone();
                let conflicts = report.sources.iter().map(|one| (&*one.name, one.conflicts));
                let (file, store) = if winner == "f" { (0, 2) } else { (2, 0) };
                let expected = [("demo", 1), ("file", file), ("store", store)];
                assert_eq!(conflicts.collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_route_in_force_gives_way_to_a_source_that_goes_first_and_comes_back() {
        let (mut reconciler, table) = scene(Precedence::default());
        say(&mut reconciler, "store", &route("s", "a.test"));
        say(&mut reconciler, "file", &route("f", "a.test"));
        assert_eq!(outcome(&reconciler, &table).0, ["f"]);
        say(&mut reconciler, "file", "");
        assert_eq!(outcome(&reconciler, &table), (vec!["s".to_owned()], vec![]));
    }

    #[test]
    fn a_table_knows_the_newest_transaction_that_is_in_it() {
        let (mut reconciler, table) = scene(Precedence::default());
        say(&mut reconciler, "file", &route("f", "f.test"));
        assert_eq!(table.current().snapshot.store_revision(), None);
        hand(&mut reconciler, "store", &route("s", "s.test"), Some(7));
        reconciler.reconcile();
        assert_eq!(table.current().snapshot.store_revision(), Some(7));
        say(&mut reconciler, "file", "");
        assert_eq!(table.current().snapshot.store_revision(), Some(7));
        // What changes no route changes no table.
        hand(&mut reconciler, "store", &route("s", "s.test"), Some(8));
        reconciler.reconcile();
        assert_eq!(table.current().snapshot.store_revision(), Some(7));
        let standing = reconciler.reports().borrow().sources[1].clone();
        assert_eq!((&*standing.name, standing.revision), ("store", Some(8)));
    }

    #[test]
    fn an_empty_first_set_is_published_too() {
        let (mut reconciler, table) = scene(Precedence::default());
        say(&mut reconciler, "file", "");
        assert_eq!(table.current().revision, 1);
        assert_eq!(reconciler.reports().borrow().sources.len(), 1);
    }

    #[test]
    fn a_rest_is_four_times_the_work_and_bounded() {
        assert_eq!(rest_after(Duration::from_millis(25)), Duration::from_millis(100));
        assert_eq!(rest_after(Duration::MAX), LONGEST_REST);
    }
}
