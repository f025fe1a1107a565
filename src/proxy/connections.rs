//! The ledger of live connections: who is here, and who has to go.
//!
//! Every session holds a [`Handle`] through which it can be ended from outside. Once it has a
//! route it stands in the ledger under that route's id, in the cohort of those that began under
//! the same version of the route. When the table changes, [`Ledger::adopt`] lets cohorts whose
//! route still leads to the same place go on under the new end date, and retires the others by
//! policy; [`Ledger::retire_due`] ends whatever is due. The next deadline is read off an ordered
//! index. Time is an argument; nothing here knows a socket.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::outcome::Outcome;
use crate::proxy::cohort::{Cohort, Group, GroupDeadlines};
use crate::proxy::handle::Handle;
use crate::routing::route::Route;
use crate::routing::table::Revised;

/// What happens to the live connections of a route that is removed or leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRemove {
    /// They stay until they end by themselves or the route's last known end date comes.
    Keep,
    /// They may finish within `drain.timeout`, then they are cut.
    #[default]
    Drain,
    /// They are cut at once.
    Cut,
}

/// Deadlines of groups, soonest first.
#[derive(Debug, Default)]
struct Deadlines {
    ends: BTreeSet<(Timestamp, Arc<str>)>,
    drains: BTreeSet<(Instant, Arc<str>)>,
}

/// A hello follows the last packet of the TCP handshake at once; on a busy machine it may still have
/// to wait for its turn.
const JUST_COME: Duration = Duration::from_millis(200);

/// All live sessions.
#[derive(Debug)]
pub struct Ledger {
    /// Sessions that have not shown a name yet, and since when.
    nameless: DashMap<u64, (Instant, Arc<Handle>)>,
    groups: DashMap<Arc<str>, Group>,
    deadlines: Mutex<Deadlines>,
    deadline_set: Notify,
    /// The revision that live sessions were judged by.
    adopted: AtomicU64,
    open: AtomicUsize,
    emptied: Notify,
    default_max: u32,
}

/// The route has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFull;

impl From<RouteFull> for Outcome {
    fn from(_: RouteFull) -> Self {
        Self::LimitRoute
    }
}

/// A session's place in the ledger, given back by dropping it.
#[derive(Debug)]
pub struct Entry {
    ledger: Arc<Ledger>,
    session: u64,
    handle: Arc<Handle>,
    route: Option<Arc<str>>,
}

impl Ledger {
    /// An empty ledger; `default_max` is `limits.connections_per_route` (0: no limit).
    #[must_use]
    pub fn new(default_max: u32) -> Self {
        Self {
            nameless: DashMap::new(),
            groups: DashMap::new(),
            deadlines: Mutex::default(),
            deadline_set: Notify::new(),
            adopted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            emptied: Notify::new(),
            default_max,
        }
    }

    /// Enters a session that has not shown a name yet, and began at an instant.
    #[must_use]
    pub fn enter(self: &Arc<Self>, session: u64, began: Instant) -> Entry {
        let handle = Arc::new(Handle::default());
        self.open.fetch_add(1, Ordering::AcqRel);
        self.nameless.insert(session, (began, Arc::clone(&handle)));
        Entry { ledger: Arc::clone(self), session, handle, route: None }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// How many of them stand under the route with this id.
    #[must_use]
    pub fn open_of(&self, route: &str) -> usize {
        self.groups.get(route).map_or(0, |group| group.len())
    }

    /// How many of those under the route with this id began under a version of it for which this is
    /// so.
    #[must_use]
    pub fn count_of(&self, route: &str, is_so: impl Fn(&Route) -> bool) -> usize {
        let Some(group) = self.groups.get(route) else { return 0 };
        let cohorts = group.cohorts.iter().filter(|cohort| is_so(&cohort.route));
        cohorts.map(|cohort| cohort.sessions.len()).sum()
    }

    /// Waits until no session is open.
    pub async fn wait_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Asks every session that has shown a name to come to an end by itself.
    pub fn ask_all(&self) {
        for group in &self.groups {
            group.value().cohorts.iter().for_each(Cohort::ask_to_leave);
        }
    }

    /// Ends every session.
    pub fn retire_all(&self, outcome: Outcome) {
        for entry in &self.nameless {
            entry.value().1.retire(outcome);
        }
        for group in &self.groups {
            for cohort in &group.value().cohorts {
                cohort.retire(outcome);
            }
        }
    }

    /// Ends the oldest sessions that have shown no name, at most `most` of them, to free what they
    /// hold. Gives their number. Who has only just come is left alone: its name may be on the way,
    /// and it would be in vain that it was accepted. Looks at every nameless session: for
    /// emergencies.
    pub fn shed(&self, most: usize, now: Instant) -> usize {
        let there = self.nameless.iter().filter(|entry| {
            let (began, _) = entry.value();
            now.saturating_duration_since(*began) >= JUST_COME
        });
        // Numbers rise with time.
        let mut oldest: Vec<(u64, Arc<Handle>)> =
            there.map(|entry| (*entry.key(), Arc::clone(&entry.value().1))).collect();
        oldest.sort_unstable_by_key(|(session, _)| *session);
        let fresh = oldest.iter().filter(|(_, handle)| handle.retired().is_none());
        let shed = fresh.take(most).map(|(_, handle)| handle.retire(Outcome::LimitConnections));
        shed.count()
    }

    /// Judges the live sessions by a table that was just published. Costs a step for each route
    /// that has live sessions. Gives the number of sessions whose route was taken away.
    pub fn adopt(&self, table: &Revised, policy: OnRemove, drain: Duration, now: Instant) -> usize {
        if self.adopted.swap(table.revision, Ordering::AcqRel) >= table.revision {
            return 0;
        }
        let mut taken_away = 0;
        for mut entry in self.groups.iter_mut() {
            let (id, group) = entry.pair_mut();
            let before = group.deadlines();
            let current = table.snapshot.by_id(id).map(|claim| &claim.route);
            for cohort in &mut group.cohorts {
                match current {
                    // Whoever holds it back means now.
                    Some(route) if route.hold().is_some() => {
                        if cohort.leaving.is_none_or(|end| end > now) {
                            taken_away += cohort.sessions.len();
                            cohort.leaving = Some(now);
                        }
                    }
                    Some(route) if cohort.route.leads_like(route) => {
                        cohort.route = Arc::clone(route);
                        cohort.leaving = None;
                        cohort.is_asked = false;
                    }
                    _ if cohort.leaving.is_some() => {}
                    _ => {
                        taken_away += cohort.sessions.len();
                        match policy {
                            OnRemove::Keep => {}
                            OnRemove::Drain => {
                                cohort.leaving = Some(now + drain);
                                cohort.ask_to_leave();
                            }
                            OnRemove::Cut => cohort.leaving = Some(now),
                        }
                    }
                }
            }
            self.reschedule(id, before, group.deadlines());
        }
        taken_away
    }

    /// Ends the sessions whose route has reached its end, or whose time to finish is over. Gives
    /// their number.
    pub fn retire_due(&self, wall: Timestamp, now: Instant) -> usize {
        let due: Vec<Arc<str>> = {
            let deadlines = self.lock_deadlines();
            let ended = deadlines.ends.iter().take_while(|(end, _)| *end <= wall);
            let drained = deadlines.drains.iter().take_while(|(end, _)| *end <= now);
            ended.map(|(_, id)| id).chain(drained.map(|(_, id)| id)).cloned().collect()
        };
        let mut count = 0;
        for id in due {
            let Some(mut group) = self.groups.get_mut(&id) else { continue };
            let before = group.deadlines();
            for cohort in &mut group.cohorts {
                let outcome = if cohort.route.lifetime().cut_at().is_some_and(|end| end <= wall) {
                    Outcome::RouteExpired
                } else if cohort.leaving.is_some_and(|end| end <= now) {
                    Outcome::RouteRemoved
                } else {
                    if cohort.route.lifetime().expires_at.is_some_and(|end| end <= wall) {
                        cohort.is_asked = true;
                        cohort.ask_to_leave();
                    }
                    continue;
                };
                count += cohort.sessions.len();
                cohort.retire(outcome);
                // Out of sight, so that their deadline is not met again; they leave by themselves.
                cohort.sessions.clear();
            }
            group.tidy();
            self.reschedule(&id, before, group.deadlines());
            drop(group);
            self.groups.remove_if(&id, |_, group| group.cohorts.is_empty());
        }
        count
    }

    /// Whether any session has an end to wait for.
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        let deadlines = self.lock_deadlines();
        !deadlines.ends.is_empty() || !deadlines.drains.is_empty()
    }

    /// Waits until some session has an end to wait for.
    pub async fn wait_deadline(&self) {
        loop {
            let set = self.deadline_set.notified();
            if self.has_deadlines() {
                return;
            }
            set.await;
        }
    }

    fn lock_deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reschedule(&self, id: &Arc<str>, before: GroupDeadlines, after: GroupDeadlines) {
        if before == after {
            return;
        }
        let mut deadlines = self.lock_deadlines();
        if let Some(end) = before.end {
            deadlines.ends.remove(&(end, Arc::clone(id)));
        }
        if let Some(drain) = before.drain {
            deadlines.drains.remove(&(drain, Arc::clone(id)));
        }
        if let Some(end) = after.end {
            deadlines.ends.insert((end, Arc::clone(id)));
        }
        if let Some(drain) = after.drain {
            deadlines.drains.insert((drain, Arc::clone(id)));
        }
        drop(deadlines);
        self.deadline_set.notify_one();
    }

    fn join(
        &self,
        route: &Arc<Route>,
        session: u64,
        handle: &Arc<Handle>,
    ) -> Result<(), RouteFull> {
        let mut group = self.groups.entry(Arc::clone(&route.id)).or_default();
        let max = match route.max_connections() {
            0 => self.default_max,
            own => own,
        };
        if max > 0 && group.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(RouteFull);
        }
        let before = group.deadlines();
        group.join(route, session, handle);
        self.reschedule(&route.id, before, group.deadlines());
        Ok(())
    }

    fn leave(&self, id: &Arc<str>, session: u64) {
        if let Some(mut group) = self.groups.get_mut(id) {
            let before = group.deadlines();
            group.leave(session);
            self.reschedule(id, before, group.deadlines());
        }
        self.groups.remove_if(id, |_, group| group.cohorts.is_empty());
    }
}

impl Entry {
    /// The string by which this session can be ended.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Moves the session under a route.
    ///
    /// # Errors
    /// [`RouteFull`], and the session stands under no route then.
    pub fn take_route(&mut self, route: &Arc<Route>) -> Result<(), RouteFull> {
        if let Some(old) = self.route.take() {
            self.ledger.leave(&old, self.session);
        }
        self.ledger.join(route, self.session, &self.handle)?;
        self.ledger.nameless.remove(&self.session);
        self.route = Some(Arc::clone(&route.id));
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.route {
            Some(id) => self.ledger.leave(id, self.session),
            None => drop(self.ledger.nameless.remove(&self.session)),
        }
        if self.ledger.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ledger.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::route::{Claim, Hold, Lifetime, Origin, Terms};
    use crate::routing::snapshot::Snapshot;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn route(id: &str, backend: &str, end: Option<i64>) -> Arc<Route> {
        let lifetime = Lifetime { expires_at: end.map(at), ..Lifetime::default() };
        let terms = Terms { lifetime, ..Terms::default() };
        let (hosts, backends) = (vec![id.parse().unwrap()], vec![backend.parse().unwrap()]);
        Arc::new(Route::new(id.into(), hosts, backends, terms))
    }

    fn table(revision: u64, routes: &[&Arc<Route>]) -> Revised {
        let origin = Origin { source: "test".into(), line: 0, column: 0 };
        let claims =
            routes.iter().map(|route| Claim { route: Arc::clone(route), origin: origin.clone() });
        Revised { revision, snapshot: Arc::new(Snapshot::build(claims).0) }
    }

    fn enter(ledger: &Arc<Ledger>, session: u64, route: &Arc<Route>) -> Entry {
        let mut entry = ledger.enter(session, Instant::now());
        entry.take_route(route).unwrap();
        entry
    }

    const DRAIN: Duration = Duration::from_secs(30);

    #[test]
    fn a_route_that_is_held_back_cuts_its_connections_whatever_the_policy() {
        for policy in [OnRemove::Keep, OnRemove::Drain, OnRemove::Cut] {
            let ledger = Arc::new(Ledger::new(0));
            let open = route("a.test", "127.0.0.1:1", Some(100));
            let entry = enter(&ledger, 1, &open);
            let terms = Terms { hold: Some(Hold::Suspended), ..open.terms() };
            let (hosts, backends) = (open.hosts.clone(), open.backends.clone());
            let held = Arc::new(Route::new("a.test".into(), hosts, backends, terms));
            let now = Instant::now();
            assert_eq!(ledger.adopt(&table(1, &[&open]), policy, DRAIN, now), 0);
            assert_eq!(ledger.adopt(&table(2, &[&held]), policy, DRAIN, now), 1);
            assert_eq!(ledger.adopt(&table(3, &[&held]), policy, DRAIN, now), 0, "told once");
            assert_eq!(ledger.retire_due(at(1), now), 1);
            assert_eq!(entry.handle().retired(), Some(Outcome::RouteRemoved));
        }
    }

    #[test]
    fn ten_thousand_sessions_of_one_route_end_together_and_leave_nothing_behind() {
        let ledger = Arc::new(Ledger::new(0));
        let (ending, staying) =
            (route("a.test", "127.0.0.1:1", Some(100)), route("b.test", "127.0.0.1:1", None));
        let mut entries: Vec<_> = (0..10_000).map(|n| enter(&ledger, n, &ending)).collect();
        let other = enter(&ledger, 10_000, &staying);
        let now = Instant::now();
        assert_eq!(ledger.retire_due(at(99), now), 0);
        assert_eq!(ledger.retire_due(at(100), now), 10_000);
        assert_eq!(ledger.retire_due(at(101), now), 0, "each is ended once");
        assert!(
            entries.iter().all(|entry| entry.handle().retired() == Some(Outcome::RouteExpired))
        );
        assert_eq!(other.handle().retired(), None);
        assert!(!ledger.has_deadlines());
        entries.clear();
        drop(other);
        assert_eq!(ledger.open(), 0);
        assert!(ledger.groups.is_empty() && ledger.nameless.is_empty());
    }

    #[test]
    fn a_newer_version_of_a_route_moves_the_end_of_its_sessions() {
        let ledger = Arc::new(Ledger::new(0));
        let now = Instant::now();
        let entry = enter(&ledger, 1, &route("a.test", "127.0.0.1:1", Some(100)));
        let longer = route("a.test", "127.0.0.1:1", Some(200));
        assert_eq!(ledger.adopt(&table(1, &[&longer]), OnRemove::Cut, DRAIN, now), 0);
        assert_eq!(ledger.retire_due(at(150), now), 0);
        let shorter = route("a.test", "127.0.0.1:1", Some(150));
        ledger.adopt(&table(2, &[&shorter]), OnRemove::Cut, DRAIN, now);
        assert_eq!(ledger.retire_due(at(150), now), 1);
        assert_eq!(entry.handle().retired(), Some(Outcome::RouteExpired));
    }

    #[test]
    fn a_route_that_leads_elsewhere_retires_its_sessions_by_policy() {
        let now = Instant::now();
        for (policy, at_once, later) in
            [(OnRemove::Keep, 0, 0), (OnRemove::Drain, 0, 1), (OnRemove::Cut, 1, 0)]
        {
            let ledger = Arc::new(Ledger::new(0));
            let old = route("a.test", "127.0.0.1:1", Some(100));
            let new = route("a.test", "127.0.0.1:2", None);
            let entry = enter(&ledger, 1, &old);
            ledger.adopt(&table(1, &[&new]), policy, DRAIN, now);
            // One that begins under the new version is none of the policy's business.
            let fresh = enter(&ledger, 2, &new);
            assert_eq!(ledger.retire_due(at(0), now), at_once, "{policy:?}");
            assert_eq!(ledger.retire_due(at(0), now + DRAIN), later, "{policy:?}");
            assert_eq!(fresh.handle().retired(), None);
            if policy == OnRemove::Keep {
                assert_eq!(ledger.retire_due(at(100), now), 1, "the last known end still holds");
                assert_eq!(entry.handle().retired(), Some(Outcome::RouteExpired));
            }
        }
    }

    #[test]
    fn sessions_that_leave_are_spared_when_their_route_comes_back() {
        let ledger = Arc::new(Ledger::new(0));
        let now = Instant::now();
        let there = route("a.test", "127.0.0.1:1", None);
        let entry = enter(&ledger, 1, &there);
        assert_eq!(ledger.adopt(&table(1, &[]), OnRemove::Drain, DRAIN, now), 1);
        assert!(ledger.has_deadlines());
        ledger.adopt(&table(2, &[&there]), OnRemove::Drain, DRAIN, now);
        assert!(!ledger.has_deadlines());
        assert_eq!(ledger.retire_due(at(0), now + DRAIN), 0);
        assert_eq!(entry.handle().retired(), None);
    }

    #[test]
    fn in_need_the_oldest_without_a_name_go_first_and_nobody_else() {
        let ledger = Arc::new(Ledger::new(0));
        let named = enter(&ledger, 0, &route("a.test", "127.0.0.1:1", None));
        let began = Instant::now();
        let entries: Vec<_> = [5, 3, 9].map(|session| ledger.enter(session, began)).into();
        assert_eq!(ledger.shed(2, began), 0, "they have only just come");
        let later = began + JUST_COME;
        let newest = ledger.enter(10, later);
        assert_eq!(ledger.shed(2, later), 2);
        let gone: Vec<_> = entries.iter().map(|entry| entry.handle().retired().is_some()).collect();
        assert_eq!(gone, [true, true, false]);
        assert_eq!(ledger.shed(2, later), 1, "nobody is shed twice");
        assert_eq!(newest.handle().retired(), None);
        assert_eq!(named.handle().retired(), None);
    }

    #[test]
    fn an_older_table_changes_nothing_any_more() {
        let ledger = Arc::new(Ledger::new(0));
        let there = route("a.test", "127.0.0.1:1", None);
        let _entry = enter(&ledger, 1, &there);
        let now = Instant::now();
        ledger.adopt(&table(5, &[&there]), OnRemove::Cut, DRAIN, now);
        assert_eq!(ledger.adopt(&table(4, &[]), OnRemove::Cut, DRAIN, now), 0);
        assert_eq!(ledger.retire_due(at(0), now), 0);
    }

    #[test]
    fn a_route_takes_as_many_sessions_as_it_may() {
        let ledger = Arc::new(Ledger::new(2));
        let route = route("a.test", "127.0.0.1:1", None);
        let held = [enter(&ledger, 1, &route), enter(&ledger, 2, &route)];
        assert_eq!(ledger.enter(3, Instant::now()).take_route(&route), Err(RouteFull));
        drop(held);
        assert!(ledger.enter(4, Instant::now()).take_route(&route).is_ok());
        assert_eq!(ledger.open(), 0);
    }
}
