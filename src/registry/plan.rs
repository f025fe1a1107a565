//! From wishes to one transaction, or to why not.
//!
//! A [`Plan`] is judged against an image and carries checks for all that it was judged by: if the
//! store has moved on, it does not commit, and is made anew. Several requests may share one
//! transaction as long as no two of them touch the same route; each leaves its own record. A request
//! that changes everything stands alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::digest::digest;
use crate::registry::history::{Answered, Bounds, Change, Head, Kept, Old, Record};
use crate::registry::image::{Image, Stored, Value};
use crate::registry::keys;
use crate::registry::refusal::{MAX_ROUTE, Refusal};
use crate::registry::wish::{Difference, Effect, Others, Request, Wish, differences};
use crate::routing::removal::{self, Removal};
use crate::routing::route::{Claim, Origin, Route};
use crate::routing::snapshot::{Conflict, Snapshot};
use crate::routing::text;
use crate::routing::zones::Zones;
use crate::store::{self, Check, Revision, Transaction};
use crate::units::Percent;

/// The longest name of whoever asks, in characters.
const MAX_BY: usize = 256;
/// The changes of one record: what is left of a value is for everything else that stands there.
const MAX_RECORD: usize = store::MAX_VALUE - 4 * 1024;
/// How many old records one transaction removes: more than it adds, so that a bound that was lowered
/// is reached.
pub const MOST_REMOVED_RECORDS: usize = 4;
/// Head and format.
const ALWAYS: usize = 2;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the transaction.
    Planned(Effect),
    /// There is nothing to write for it.
    Idle(Effect),
    /// It does not go together with what is planned already.
    Later,
    /// It cannot be done.
    Refused(Refusal),
}

/// What a plan is judged by, beside the image.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The time.
    pub now: Timestamp,
    /// Where routes may have TLS ended.
    pub zones: &'a Zones,
    /// How many changes the store takes in one step.
    pub most_changes: usize,
    /// How many of the routes an Apply may remove without being asked again.
    pub max_removed_percent: Percent,
    /// How much of the history is kept.
    pub history: Bounds,
    /// Whether a route from elsewhere, which goes before stored ones, has what a route claims.
    pub elsewhere: &'a dyn Fn(&Route) -> Option<Conflict>,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("now", &self.now).finish_non_exhaustive()
    }
}

/// A transaction in the making.
#[derive(Debug)]
pub struct Plan<'a> {
    image: &'a Image,
    rules: Rules<'a>,
    /// What was stored under each id that is touched, and its new text.
    touched: BTreeMap<Arc<str>, Touched>,
    /// What the new routes claim.
    claimed: HashMap<Pattern, Vec<Arc<Route>>>,
    entries: Vec<Entry>,
    /// How many keys change, old records aside.
    changes: usize,
    /// Whether no other request may join.
    is_closed: bool,
}

#[derive(Debug)]
struct Touched {
    revision: Revision,
    text: Option<String>,
}

/// What one request leaves in the history.
#[derive(Debug)]
struct Entry {
    request: String,
    asked: String,
    by: String,
    /// The changes of each record; at least one, though it may be empty.
    parts: Vec<Vec<Change>>,
    unchanged: u64,
    answered: Option<Revision>,
}

impl<'a> Plan<'a> {
    /// A plan of nothing.
    #[must_use]
    pub fn new(image: &'a Image, rules: Rules<'a>) -> Self {
        Self {
            image,
            rules,
            touched: BTreeMap::new(),
            claimed: HashMap::new(),
            entries: Vec::new(),
            changes: ALWAYS,
            is_closed: false,
        }
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a request, if it can be done. Whoever has a request id must have asked before whether it
    /// was answered already.
    pub fn add(&mut self, request: &Request) -> Verdict {
        if !request.has_good_id() {
            return Verdict::Refused(Refusal::RequestId);
        }
        if self.image.has_lost_head() {
            return Verdict::Refused(Refusal::NoHead);
        }
        let is_apply = matches!(request.wish, Wish::Apply { .. });
        if self.is_closed || (is_apply && !self.is_empty()) {
            return Verdict::Later;
        }
        if self.entries.iter().any(|entry| !entry.request.is_empty() && entry.request == request.id)
        {
            return Verdict::Later;
        }
        let effect = match &request.wish {
            Wish::Set { route, if_revision } => {
                if self.touched.contains_key(&route.id) {
                    return Verdict::Later;
                }
                self.set(route, *if_revision)
            }
            Wish::Remove { id, if_revision } => {
                if self.touched.contains_key(id) {
                    return Verdict::Later;
                }
                self.remove(id, *if_revision)
            }
            Wish::Apply { routes, if_revision, allow_removal, others } => {
                self.replace(routes, *if_revision, *allow_removal, others)
            }
        };
        match effect {
            Err(refusal) => Verdict::Refused(refusal),
            Ok(effect) => self.enter(request, effect, is_apply),
        }
    }

    fn set(&self, route: &Arc<Route>, if_revision: Option<Revision>) -> Result<Effect, Refusal> {
        let id = &route.id;
        let stored = self.image.of(id);
        let current = stored.as_ref().map_or(0, |stored| stored.revision);
        fresh(id, if_revision, current)?;
        if let Some(Stored { value: Value::Route(known), revision }) = &stored
            && known == route
        {
            return Ok(Effect { unchanged: 1, standing: Some(*revision), ..Effect::default() });
        }
        self.seal(route)?;
        // A stored rival that this very plan takes away or changes is judged by what it becomes.
        let mut rivals = self.image.rivals(route);
        let stored_rival = rivals.find(|(_, rival)| !self.touched.contains_key(&rival.id));
        let planned = route.hosts.iter().find_map(|pattern| {
            let rivals = self.claimed.get(pattern)?;
            Some((pattern, rivals.iter().find(|rival| rival.overlaps(route))?))
        });
        if let Some((pattern, rival)) = stored_rival.or(planned) {
            let (pattern, rival) = (pattern.clone(), Arc::clone(&rival.id));
            return Err(Refusal::Taken { id: Arc::clone(id), pattern, rival });
        }
        if let Some(conflict) = (self.rules.elsewhere)(route) {
            return Err(Refusal::Elsewhere { id: Arc::clone(id), conflict });
        }
        let before = stored.map(|stored| stored.value);
        let after = Some(Arc::clone(route));
        let differences = vec![Difference { id: Arc::clone(id), before, after }];
        Ok(Effect { differences, ..Effect::default() })
    }

    fn remove(&self, id: &Arc<str>, if_revision: Option<Revision>) -> Result<Effect, Refusal> {
        let stored = self.image.of(id).ok_or_else(|| Refusal::NotFound { id: Arc::clone(id) })?;
        fresh(id, if_revision, stored.revision)?;
        let before = Some(stored.value);
        let differences = vec![Difference { id: Arc::clone(id), before, after: None }];
        Ok(Effect { differences, ..Effect::default() })
    }

    fn replace(
        &self,
        routes: &[Arc<Route>],
        if_revision: Option<Revision>,
        allow_removal: bool,
        others: &Others,
    ) -> Result<Effect, Refusal> {
        let current = self.written_last();
        if let Some(asked) = if_revision.filter(|asked| *asked < current) {
            return Err(Refusal::Stale { id: None, asked, current });
        }
        routes.iter().try_for_each(|route| self.seal(route))?;
        let origin = Origin { source: Arc::from("this set"), line: 0, column: 0 };
        let claim = |route: &Arc<Route>| Claim { route: Arc::clone(route), origin: origin.clone() };
        let nothing = Snapshot::within(self.rules.zones.clone());
        let (_, conflicts) = Snapshot::after(&nothing, &routes.iter().map(claim).collect());
        if let Some((claim, conflict)) = conflicts.into_iter().next() {
            return Err(Refusal::Within { id: Arc::clone(&claim.route.id), conflict });
        }
        if let Others::StayBut(_) = others {
            self.make_way(routes, others)?;
        }
        let effect = differences(self.image, routes, others);
        if !allow_removal {
            self.spare(&effect)?;
        }
        let fresh = effect.differences.iter().filter_map(|one| one.after.as_ref());
        for route in fresh {
            if let Some(conflict) = (self.rules.elsewhere)(route) {
                return Err(Refusal::Elsewhere { id: Arc::clone(&route.id), conflict });
            }
        }
        let standing = effect.differences.is_empty().then_some(current);
        Ok(Effect { standing, ..effect })
    }

    /// Refuses a route that would end TLS where nobody has opened it for that.
    fn seal(&self, route: &Route) -> Result<(), Refusal> {
        let Some(pattern) = self.rules.zones.first_outside(route) else { return Ok(()) };
        let conflict = Conflict::OutsideZones { pattern: pattern.clone() };
        Err(Refusal::Sealed { id: Arc::clone(&route.id), conflict })
    }

    /// Refuses names that a route has which stays as it is.
    fn make_way(&self, routes: &[Arc<Route>], others: &Others) -> Result<(), Refusal> {
        let named: HashSet<&str> = routes.iter().map(|route| &*route.id).collect();
        for route in routes {
            let stays = |id: &str| !named.contains(id) && !others.goes(id);
            let rival = self.image.rivals(route).find(|(_, rival)| stays(&rival.id));
            if let Some((pattern, rival)) = rival {
                let (id, rival) = (Arc::clone(&route.id), Arc::clone(&rival.id));
                return Err(Refusal::Taken { id, pattern: pattern.clone(), rival });
            }
        }
        Ok(())
    }

    /// The newest revision under which a route was written or removed.
    fn written_last(&self) -> Revision {
        let head = self.image.head_revision();
        let routes = self.image.routes().map(|(_, revision)| revision);
        let others = self.image.unreadable().map(|(_, revision)| revision);
        routes.chain(others).fold(head, Revision::max)
    }

    /// Refuses to remove more than may go without being asked again.
    fn spare(&self, effect: &Effect) -> Result<(), Refusal> {
        let percent = self.rules.max_removed_percent;
        let counts = |route: &Route| removal::counts(route, self.rules.now);
        let of = self.image.routes().filter(|(route, _)| counts(route)).count();
        let is_removed = |one: &&Difference| match &one.before {
            Some(Value::Route(route)) => one.after.is_none() && counts(route),
            _ => false,
        };
        let removed = effect.differences.iter().filter(is_removed).count();
        if (Removal { removed, of }).exceeds(percent) {
            return Err(Refusal::TooMuchRemoved { removed, of, percent });
        }
        Ok(())
    }

    /// Makes a request part of the transaction.
    fn enter(&mut self, request: &Request, effect: Effect, is_apply: bool) -> Verdict {
        if effect.differences.is_empty() && request.id.is_empty() {
            return Verdict::Idle(effect);
        }
        let entry = match Entry::new(request, &effect) {
            Ok(entry) => entry,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        let asked = usize::from(!request.id.is_empty());
        let more = effect.differences.len() + entry.parts.len() + asked;
        // One old record may go with each transaction, however small the store's steps are.
        let changes = self.changes + more;
        if changes + 2 > self.rules.most_changes {
            let most = self.rules.most_changes;
            let alone = ALWAYS + more;
            return if self.is_empty() || alone + 2 > most {
                Verdict::Refused(Refusal::TooMany { changes: alone, most })
            } else {
                Verdict::Later
            };
        }
        self.changes = changes;
        self.is_closed = is_apply;
        for Difference { id, before, after } in &effect.differences {
            let revision = if before.is_some() {
                self.image.of(id).map_or(0, |stored| stored.revision)
            } else {
                0
            };
            let text = after.as_ref().map(|route| text::write(route));
            self.touched.insert(Arc::clone(id), Touched { revision, text });
            // The routes of a whole set were judged together.
            if let Some(route) = after.as_ref().filter(|_| !is_apply) {
                for pattern in &route.hosts {
                    self.claimed.entry(pattern.clone()).or_default().push(Arc::clone(route));
                }
            }
        }
        self.entries.push(entry);
        Verdict::Planned(effect)
    }

    /// The transaction. `oldest` are the oldest records that are kept, as far as they are known.
    #[must_use]
    pub fn finish(self, oldest: &[Old]) -> Transaction {
        let head = self.image.head();
        let mut transaction = Transaction::default();
        let check = |key: String, revision| Check { key, revision };
        transaction.checks.push(check(keys::HEAD.into(), self.image.head_revision()));
        let mut write = |key: String, value: Option<Vec<u8>>| {
            transaction.changes.push(store::Change { key, value });
        };
        if head.is_none() {
            write(keys::FORMAT.into(), Some(keys::FORMAT_VALUE.into()));
        }
        for (id, touched) in self.touched {
            transaction.checks.push(check(keys::route(&id), touched.revision));
            write(keys::route(&id), touched.text.map(String::into_bytes));
        }
        let mut tail = head.map_or_else(
            || Head { number: 0, digest: String::new(), oldest: 1 },
            |(head, _)| head.clone(),
        );
        for entry in self.entries {
            let answered = Answered { number: tail.number + 1, asked: entry.asked.clone() };
            if !entry.request.is_empty() {
                let key = keys::request(&entry.request);
                transaction.checks.push(check(key.clone(), 0));
                write(key, Some(answered.to_bytes()));
            }
            for record in entry.records(self.rules.now, &mut tail) {
                write(keys::record(record.0), Some(record.1));
            }
        }
        let room = self.rules.most_changes.saturating_sub(self.changes) / 2;
        let mut requests = HashSet::new();
        for old in outdated(oldest, &tail, self.rules).take(room.min(MOST_REMOVED_RECORDS)) {
            tail.oldest = old.number + 1;
            write(keys::record(old.number), None);
            if !old.request.is_empty() && requests.insert(&old.request) {
                write(keys::request(&old.request), None);
            }
        }
        write(keys::HEAD.into(), Some(tail.to_bytes()));
        transaction
    }
}

/// The records that are no longer to be kept, from the oldest on.
fn outdated<'o>(
    oldest: &'o [Old],
    tail: &Head,
    rules: Rules<'_>,
) -> impl Iterator<Item = &'o Old> + use<'o> {
    let first = tail.oldest;
    let surplus = (tail.number + 1).saturating_sub(first).saturating_sub(rules.history.max_records);
    let horizon = rules.now.checked_sub(rules.history.max_age).unwrap_or(Timestamp::MIN);
    let newest = tail.number;
    let in_row = oldest.iter().skip_while(move |old| old.number < first).zip(first..);
    in_row
        .take_while(move |(old, number)| {
            let is_next = old.number == *number && *number < newest;
            is_next && (number - first < surplus || old.at < horizon)
        })
        .map(|(old, _)| old)
}

impl Entry {
    fn new(request: &Request, effect: &Effect) -> Result<Self, Refusal> {
        let mut parts: Vec<Vec<Change>> = vec![Vec::new()];
        let mut room = MAX_RECORD;
        for Difference { id, before, after } in &effect.differences {
            let change = Change {
                id: id.to_string(),
                before: before.as_ref().map(Value::text),
                after: after.as_ref().map(|route| text::write(route)),
            };
            if let Some(text) = change.after.as_ref().filter(|text| text.len() > MAX_ROUTE) {
                return Err(Refusal::TooLong { id: Arc::clone(id), bytes: text.len() });
            }
            if !keys::fits(id) {
                return Err(Refusal::Id { id: Arc::clone(id) });
            }
            let size = serde_json::to_vec(&change).map_or(0, |bytes| bytes.len() + 1);
            if size > room {
                parts.push(Vec::new());
                room = MAX_RECORD;
            }
            room = room.saturating_sub(size);
            if let Some(part) = parts.last_mut() {
                part.push(change);
            }
        }
        let asked = if request.id.is_empty() { String::new() } else { request.wish.digest() };
        Ok(Self {
            request: request.id.clone(),
            asked,
            by: request.by.chars().take(MAX_BY).collect(),
            parts,
            unchanged: effect.unchanged,
            answered: effect.standing,
        })
    }

    /// Its records by number, each chained to the one before; the tail moves on to the last.
    fn records(self, at: Timestamp, tail: &mut Head) -> Vec<(u64, Vec<u8>)> {
        let Self { request, by, parts, unchanged, answered, .. } = self;
        let record = |changes| {
            let record = Record {
                number: tail.number + 1,
                at,
                by: by.clone(),
                request: request.clone(),
                changes,
                unchanged,
                answered,
                previous: std::mem::take(&mut tail.digest),
            };
            let bytes = record.to_bytes();
            (tail.number, tail.digest) = (record.number, digest(&bytes));
            (record.number, bytes)
        };
        parts.into_iter().map(record).collect()
    }
}

/// Whether the caller knows what is there.
fn fresh(id: &Arc<str>, asked: Option<Revision>, current: Revision) -> Result<(), Refusal> {
    match asked {
        Some(asked) if asked != current => {
            Err(Refusal::Stale { id: Some(Arc::clone(id)), asked, current })
        }
        _ => Ok(()),
    }
}
