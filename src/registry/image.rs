//! All stored routes as of one revision, kept by whoever follows the store.
//!
//! Routes lie by their ids in leaves of some hundred, each of which is a passage of claims: a change
//! copies one leaf, and the whole set is handed on by counting references. An index of their names
//! judges in one step whether a new route may stand beside them. What is stored but is no route has
//! a place of its own. How a text becomes a route is not known here.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::hostname::Pattern;
use crate::registry::history::Head;
use crate::routing::claims::{Claims, Passage, Written};
use crate::routing::names::Hasher;
use crate::routing::route::Route;
use crate::routing::text;
use crate::store::Revision;

/// The most routes of a leaf: copying so many references takes some microseconds.
const MOST: usize = 512;
/// Leaves that hold so few together become one.
const FEW: usize = MOST / 4;

/// All stored routes as of one revision.
#[derive(Debug)]
pub struct Image {
    source: Arc<str>,
    /// By the first id that belongs there.
    leaves: BTreeMap<Arc<str>, Leaf>,
    names: HashTable<Claimed>,
    hasher: Hasher,
    /// What is no route, by its id.
    unreadable: BTreeMap<Arc<str>, Unreadable>,
    routes: usize,
    /// None within: what stands there is none.
    head: Option<(Option<Head>, Revision)>,
    revision: Revision,
}

/// What a store holds of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A route.
    Route(Arc<Route>),
    /// Something else; its beginning.
    Unreadable(Arc<str>),
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The route.
    pub id: Arc<str>,
    /// What is stored from then on.
    pub value: Option<Value>,
    /// The transaction that did it.
    pub revision: Revision,
}

/// What is stored under one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub value: Value,
    /// The transaction that wrote it.
    pub revision: Revision,
}

#[derive(Debug)]
struct Leaf {
    passage: Passage,
    /// That of each route of the passage.
    revisions: Vec<Revision>,
}

#[derive(Debug)]
struct Unreadable {
    text: Arc<str>,
    revision: Revision,
}

/// A name and who claims it.
#[derive(Debug)]
struct Claimed {
    route: Arc<Route>,
    /// Its place among the hosts of the route.
    host: u32,
}

impl Claimed {
    fn pattern(&self) -> Option<&Pattern> {
        self.route.hosts.get(usize::try_from(self.host).ok()?)
    }
}

impl Value {
    /// What is stored, as a text.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Route(route) => text::write(route),
            Self::Unreadable(text) => text.to_string(),
        }
    }
}

impl Image {
    /// An image of nothing; `source` is where its routes say they come from.
    #[must_use]
    pub fn new(source: &Arc<str>) -> Self {
        Self {
            source: Arc::clone(source),
            leaves: BTreeMap::new(),
            names: HashTable::new(),
            hasher: Hasher::default(),
            unreadable: BTreeMap::new(),
            routes: 0,
            head: None,
            revision: 0,
        }
    }

    /// The newest transaction that it knows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The head of the history, and which transaction wrote it.
    #[must_use]
    pub fn head(&self) -> Option<(&Head, Revision)> {
        let (head, revision) = self.head.as_ref()?;
        Some((head.as_ref()?, *revision))
    }

    /// Which transaction wrote the head, readable or not; 0, if there is none.
    #[must_use]
    pub fn head_revision(&self) -> Revision {
        self.head.as_ref().map_or(0, |(_, revision)| *revision)
    }

    /// Whether nobody can say where the history ends: nothing can be written then.
    #[must_use]
    pub fn has_lost_head(&self) -> bool {
        matches!(self.head, Some((None, _)))
    }

    /// How many good routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes == 0 && self.unreadable.is_empty()
    }

    /// What is stored under this id.
    #[must_use]
    pub fn of(&self, id: &str) -> Option<Stored> {
        if let Some(Unreadable { text, revision }) = self.unreadable.get(id) {
            let value = Value::Unreadable(Arc::clone(text));
            return Some(Stored { value, revision: *revision });
        }
        let (_, leaf) = self.leaf(id)?;
        let at = leaf.find(id).ok()?;
        let (written, revision) = (leaf.passage.written().get(at)?, leaf.revisions.get(at)?);
        Some(Stored { value: Value::Route(Arc::clone(&written.route)), revision: *revision })
    }

    /// The good routes by their ids, behind this one.
    pub fn after(&self, id: &str) -> impl Iterator<Item = (&Arc<Route>, Revision)> {
        let first = self.leaf(id).map_or_else(|| "".into(), |(first, _)| Arc::clone(first));
        let leaves = self.leaves.range(first..).map(|(_, leaf)| leaf);
        let routes = leaves.flat_map(|leaf| {
            let routes = leaf.passage.written().iter().map(|written| &written.route);
            routes.zip(leaf.revisions.iter().copied())
        });
        let id = id.to_owned();
        routes.skip_while(move |(route, _)| *route.id <= *id)
    }

    /// The good routes by their ids.
    pub fn routes(&self) -> impl Iterator<Item = (&Arc<Route>, Revision)> {
        self.after("")
    }

    /// The ids under which no route is stored, but something else.
    pub fn unreadable(&self) -> impl Iterator<Item = (&Arc<str>, Revision)> {
        self.unreadable.iter().map(|(id, one)| (id, one.revision))
    }

    /// The good routes as a source tells them.
    #[must_use]
    pub fn claims(&self) -> Claims {
        self.leaves.values().map(|leaf| leaf.passage.clone()).collect()
    }

    /// Who has a name that a route wants, other than the route with its id.
    pub fn rivals<'a>(
        &'a self,
        route: &'a Route,
    ) -> impl Iterator<Item = (&'a Pattern, &'a Arc<Route>)> {
        route.hosts.iter().flat_map(move |pattern| {
            let same = self.names.iter_hash(self.hasher.hash_one(pattern));
            let same = same.filter(move |claimed| claimed.pattern() == Some(pattern));
            let others = same.map(|claimed| &claimed.route);
            let others = others.filter(|other| other.id != route.id && other.overlaps(route));
            others.map(move |other| (pattern, other))
        })
    }

    /// Takes over what changed; `changes` have each id once. `head` is told where it changed, and none
    /// within if it cannot be read any more.
    pub fn apply(
        &mut self,
        mut changes: Vec<Change>,
        head: Option<(Option<Head>, Revision)>,
        revision: Revision,
    ) {
        changes.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let mut rest = changes.as_slice();
        while let Some(change) = rest.first() {
            let (first, end) = self.bounds(&change.id);
            let inside = rest.partition_point(|one| end.as_ref().is_none_or(|end| one.id < *end));
            let (run, later) = rest.split_at(inside.max(1));
            self.rewrite(first, run);
            rest = later;
        }
        self.head = head.or(self.head.take());
        self.revision = self.revision.max(revision);
    }

    /// The leaf where an id belongs, by its first id, and where the next one begins.
    fn bounds(&self, id: &Arc<str>) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let first = self.leaf(id).map(|(first, _)| Arc::clone(first));
        // What stands before the first leaf belongs to that one.
        let first = first.or_else(|| self.leaves.keys().next().cloned());
        let next = first.as_ref().and_then(|first| {
            let behind = (std::ops::Bound::Excluded(first), std::ops::Bound::Unbounded);
            self.leaves.range::<Arc<str>, _>(behind).next()
        });
        let end = next.map(|(end, _)| Arc::clone(end));
        (first, end)
    }

    fn leaf(&self, id: &str) -> Option<(&Arc<str>, &Leaf)> {
        let upto = (std::ops::Bound::Unbounded, std::ops::Bound::Included(id));
        self.leaves.range::<str, _>(upto).next_back()
    }

    /// Changes routes that all belong to one leaf.
    fn rewrite(&mut self, first: Option<Arc<str>>, run: &[Change]) {
        let old = first.and_then(|first| self.leaves.remove(&first));
        let (passage, revisions) =
            old.map_or((None, Vec::new()), |leaf| (Some(leaf.passage), leaf.revisions));
        let known = passage.as_ref().map(Passage::written).unwrap_or_default();
        let mut before = known.iter().zip(revisions).peekable();
        let mut now: Vec<(Written, Revision)> = Vec::with_capacity(known.len() + run.len());
        let mut is_same = passage.is_some();
        for Change { id, value, revision } in run {
            while let Some((written, revision)) =
                before.next_if(|(written, _)| written.route.id < *id)
            {
                now.push((written.clone(), revision));
            }
            let old = before.next_if(|(written, _)| written.route.id == *id);
            self.unreadable.remove(id);
            let (route, text) = match value {
                Some(Value::Route(route)) => (Some(route), None),
                Some(Value::Unreadable(text)) => (None, Some(text)),
                None => (None, None),
            };
            if let Some(text) = text {
                let unreadable = Unreadable { text: Arc::clone(text), revision: *revision };
                self.unreadable.insert(Arc::clone(id), unreadable);
            }
            // An equal route stays the value that it was.
            if let (Some((written, _)), Some(route)) = (&old, route)
                && written.route == *route
            {
                now.push(((*written).clone(), *revision));
                continue;
            }
            is_same &= old.is_none() && route.is_none();
            if let Some((written, _)) = old {
                self.forget(&written.route);
            }
            if let Some(route) = route {
                self.learn(route);
                let written = Written { route: Arc::clone(route), line: 0, column: 0 };
                now.push((written, *revision));
            }
        }
        now.extend(before.map(|(written, revision)| (written.clone(), revision)));
        match passage {
            Some(passage) if is_same => {
                let revisions = now.into_iter().map(|(_, revision)| revision).collect();
                self.plant(Leaf { passage, revisions });
            }
            _ => self.plant_all(now),
        }
    }

    /// Puts routes into leaves; where they are few, together with those behind them.
    fn plant_all(&mut self, mut routes: Vec<(Written, Revision)>) {
        let Some((first, _)) = routes.first() else { return };
        let behind = (std::ops::Bound::Included(&*first.route.id), std::ops::Bound::Unbounded);
        let next = self.leaves.range::<str, _>(behind).next();
        let next = next.filter(|(_, leaf)| leaf.revisions.len() + routes.len() <= FEW);
        if let Some(next) = next.map(|(first, _)| Arc::clone(first))
            && let Some(leaf) = self.leaves.remove(&next)
        {
            routes.extend(leaf.passage.written().iter().cloned().zip(leaf.revisions));
        }
        // Two halves rather than a full one and a rest.
        let leaves = routes.len().div_ceil(MOST).max(1);
        for part in routes.chunks(routes.len().div_ceil(leaves)) {
            let (written, revisions) = part.iter().cloned().unzip();
            self.plant(Leaf { passage: Passage::new(&self.source, 0, written), revisions });
        }
    }

    fn plant(&mut self, leaf: Leaf) {
        if let Some(first) = leaf.passage.written().first() {
            self.leaves.insert(Arc::clone(&first.route.id), leaf);
        }
    }

    fn learn(&mut self, route: &Arc<Route>) {
        self.routes += 1;
        let Self { names, hasher, .. } = self;
        for (pattern, host) in route.hosts.iter().zip(0..) {
            let claimed = Claimed { route: Arc::clone(route), host };
            let rehash =
                |claimed: &Claimed| claimed.pattern().map_or(0, |own| hasher.hash_one(own));
            names.insert_unique(hasher.hash_one(pattern), claimed, rehash);
        }
    }

    fn forget(&mut self, route: &Arc<Route>) {
        self.routes -= 1;
        for pattern in &route.hosts {
            let is_it = |claimed: &Claimed| {
                Arc::ptr_eq(&claimed.route, route) && claimed.pattern() == Some(pattern)
            };
            if let Ok(found) = self.names.find_entry(self.hasher.hash_one(pattern), is_it) {
                found.remove();
            }
        }
    }
}

impl Leaf {
    fn find(&self, id: &str) -> Result<usize, usize> {
        self.passage.written().binary_search_by(|written| (*written.route.id).cmp(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::few::Few;
    use crate::routing::route::Terms;
    use proptest::prelude::*;

    fn route(id: &str, host: &str, alpn: &[u8]) -> Arc<Route> {
        let alpn: Box<[Box<[u8]>]> = alpn.iter().map(|name| Box::from([*name])).collect();
        let hosts: Vec<Pattern> = vec![host.parse().unwrap()];
        let terms = Terms { alpn, ..Terms::default() };
        Arc::new(Route::new(id.into(), hosts, Few::default(), terms))
    }

    fn put(id: &str, host: &str, revision: Revision) -> Change {
        let value = Some(Value::Route(route(id, host, b"")));
        Change { id: id.into(), value, revision }
    }

    fn image() -> Image {
        Image::new(&"store".into())
    }

    fn id(number: u16) -> String {
        format!("r{number}")
    }

    #[test]
    fn many_are_read_at_once_and_one_change_copies_one_leaf() {
        let mut image = image();
        let all = (0..10_000).map(|number| put(&format!("r{number:05}"), "a.test", 1)).collect();
        image.apply(all, None, 1);
        let before = image.claims();
        assert_eq!((image.len(), before.len()), (10_000, 10_000));
        assert!(before.passages().len() < 50, "{}", before.passages().len());
        image.apply(vec![put("r05000", "b.test", 2)], None, 2);
        let known: Vec<_> = before.passages().iter().map(Passage::address).collect();
        let after = image.claims();
        let fresh = after.passages().iter().filter(|one| !known.contains(&one.address())).count();
        assert_eq!((fresh, after.len()), (1, 10_000));
        // The same value again changes the revision and nothing else.
        image.apply(vec![put("r05000", "b.test", 3)], None, 3);
        assert_eq!(image.claims(), after);
        assert_eq!(image.claims().passages()[0].address(), after.passages()[0].address());
        assert_eq!(image.of("r05000").unwrap().revision, 3);
        let one = |at: &Passage| at.written().iter().any(|one| &*one.route.id == "r05000");
        let leaf = |claims: &Claims| claims.passages().iter().find(|at| one(at)).unwrap().address();
        assert_eq!(leaf(&image.claims()), leaf(&after));
    }

    #[test]
    fn what_is_no_route_keeps_a_place_of_its_own() {
        let mut image = image();
        let bad = |revision| {
            let value = Some(Value::Unreadable("?".into()));
            Change { id: "a".into(), value, revision }
        };
        image.apply(vec![bad(1), put("b", "b.test", 1)], None, 1);
        assert_eq!((image.len(), image.claims().len(), image.unreadable().count()), (1, 1, 1));
        let stored = Stored { value: Value::Unreadable("?".into()), revision: 1 };
        assert_eq!(image.of("a"), Some(stored));
        image.apply(vec![put("a", "a.test", 2)], None, 2);
        assert_eq!((image.len(), image.unreadable().count()), (2, 0));
        image.apply(vec![bad(3)], None, 3);
        assert_eq!((image.len(), image.unreadable().count()), (1, 1));
        assert_eq!(image.rivals(&route("x", "a.test", b"")).count(), 0);
        image.apply(vec![Change { id: "a".into(), value: None, revision: 4 }], None, 4);
        assert_eq!((image.of("a"), image.is_empty()), (None, false));
    }

    #[test]
    fn a_head_stays_until_another_is_told() {
        let mut image = image();
        let head = Head { number: 1, digest: "d".into(), oldest: 1 };
        image.apply(vec![], Some((Some(head.clone()), 5)), 5);
        image.apply(vec![put("a", "a.test", 6)], None, 6);
        assert_eq!((image.head(), image.head_revision()), (Some((&head, 5)), 5));
        assert_eq!(image.revision(), 6);
        image.apply(vec![], Some((None, 7)), 7);
        assert_eq!((image.head(), image.has_lost_head()), (None, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

        #[test]
        fn it_is_a_plain_map_with_a_plain_rule(
            batches in proptest::collection::vec(
                proptest::collection::btree_map(0..3_000_u16, (0..4_u8, 0..500_u16, 0..3_u8), 0..700),
                1..6,
            ),
            asked in proptest::collection::vec((0..3_000_u16, 0..500_u16, 0..3_u8), 20),
        ) {
            let mut image = image();
            let mut model: BTreeMap<String, (Arc<Route>, Revision)> = BTreeMap::new();
            for (batch, revision) in batches.iter().zip(1..) {
                let mut changes = Vec::new();
                for (number, (kind, host, alpn)) in batch {
                    let id = id(*number);
                    let names: &[u8] = [b"" as &[u8], b"a", b"ab"][usize::from(*alpn)];
                    let route = route(&id, &format!("h{host}.test"), names);
                    let value = if *kind == 0 {
                        model.remove(&id);
                        None
                    } else {
                        model.insert(id.clone(), (Arc::clone(&route), revision));
                        Some(Value::Route(route))
                    };
                    changes.push(Change { id: id.into(), value, revision });
                }
                image.apply(changes, None, revision);
                let all: Vec<_> = image.routes().map(|(route, at)| (Arc::clone(route), at)).collect();
                prop_assert_eq!(&all, &model.values().cloned().collect::<Vec<_>>());
                let claims: Vec<_> = image.claims().routes().cloned().collect();
                prop_assert!(claims.iter().eq(all.iter().map(|(route, _)| route)));
                let sizes = image.leaves.values().map(|leaf| leaf.revisions.len());
                prop_assert!(sizes.clone().all(|size| (1..=MOST).contains(&size)));
                prop_assert_eq!(image.len(), model.len());
            }
            for (number, host, alpn) in asked {
                let id = id(number);
                let stored = image.of(&id).map(|stored| (stored.value, stored.revision));
                let known = model.get(&id).map(|(route, at)| (Value::Route(Arc::clone(route)), *at));
                prop_assert_eq!(stored, known);
                let names: &[u8] = [b"" as &[u8], b"a", b"ab"][usize::from(alpn)];
                let wanted = route(&id, &format!("h{host}.test"), names);
                let mut rivals: Vec<_> = image.rivals(&wanted).map(|(_, rival)| &rival.id).collect();
                rivals.sort_unstable();
                let others = model.values().map(|(route, _)| route);
                let expected: Vec<_> = others
                    .filter(|one| one.id != wanted.id && one.hosts == wanted.hosts)
                    .filter(|one| one.overlaps(&wanted))
                    .map(|one| &one.id)
                    .collect();
                prop_assert_eq!(rivals, expected);
                let behind: Vec<_> = image.after(&id).take(3).map(|(route, _)| &*route.id).collect();
                let later = model.range::<str, _>((std::ops::Bound::Excluded(&*id), std::ops::Bound::Unbounded));
                prop_assert_eq!(behind, later.take(3).map(|(id, _)| &**id).collect::<Vec<_>>());
            }
        }
    }
}
