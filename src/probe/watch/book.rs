//! What is known of each watched route, and when it is looked at next.
//!
//! Of a route there are its backends' leaves as digests and some instants, so that a hundred thousand
//! fit. A route that is not changed by a new table costs nothing then: passages that both tables have
//! are not looked through.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::due::{Class, Due};
use super::leaves::Leaves;
use super::sightings::Sightings;
use super::{News, Settings};
use crate::admission::certificate::Chain;
use crate::admission::watch::{Faults, Glimpse, Leaf, Verdict, is_sealed, may_be_looked_at, seen};
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::probe::certificate::Unseen;
use crate::routing::claims::Passage;
use crate::routing::route::Route;
use crate::routing::seen::Seen;
use crate::routing::snapshot::Snapshot;
use crate::routing::words::{Word, Words};

/// The first pause after a look at a pinned route that saw nothing; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long one waits for a backend that is being looked at for another route: as long as a look may
/// take, so that many routes of one dead backend cost little.
const BUSY: Duration = Duration::from_secs(10);
/// The same for whom clients wait.
const BUSY_BRIEFLY: Duration = Duration::from_millis(50);
/// How often it is asked whether a route can be looked at whose time is not now: it may come without
/// a new table.
const ASKED_AGAIN: Duration = Duration::from_mins(1);
/// The earliest place of a first look in the interval: one part of so many. A route that has just
/// come gets its first look at a random place of the interval, so that many do not come at once,
/// and not at its very beginning, when its backend may still be starting.
const EARLIEST: u32 = 20;

/// A longer interval is no watch; and instants can be counted with this one.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// What is known of a route.
#[derive(Debug)]
struct Page {
    route: Arc<Route>,
    /// Of its backends, in their order.
    glimpses: Box<[Option<Glimpse>]>,
    due: Instant,
    /// How many of its backends are being looked at.
    looks: usize,
    /// Rounds of looks in a row that left some of its backends unseen, this one included.
    failures: u8,
    has_failed: bool,
}

/// Words that have not gone to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Patient,
    Urgent,
}

impl Waiting {
    pub(super) fn is_urgent(self) -> bool {
        self == Self::Urgent
    }
}

/// What is known of all routes.
#[derive(Debug)]
pub(super) struct Book {
    settings: Settings,
    pages: HashMap<Arc<str>, Page, RandomState>,
    /// When which is looked at next.
    due: Due,
    /// Who shows which leaf.
    leaves: Leaves,
    /// Backends that are being looked at: each has one look at a time.
    busy: HashSet<Endpoint>,
    waiting: Option<Waiting>,
    /// What was adopted last.
    table: Arc<Snapshot>,
    sightings: Sightings,
    /// Where chance comes from.
    chance: RandomState,
    /// How often it was asked.
    draws: u64,
}

impl Book {
    pub(super) fn new(settings: &Settings, sightings: Sightings) -> Self {
        Self {
            settings: settings.clone(),
            pages: HashMap::default(),
            due: Due::default(),
            leaves: Leaves::default(),
            busy: HashSet::new(),
            waiting: None,
            table: Arc::default(),
            sightings,
            chance: RandomState::default(),
            draws: 0,
        }
    }

    /// Takes the routes of a new table.
    pub(super) fn adopt(&mut self, table: &Arc<Snapshot>, now: Instant) {
        let old = std::mem::replace(&mut self.table, Arc::clone(table));
        let (before, after) = (old.whole_passages(), table.whole_passages());
        let is_touched = |passage: &&Passage| {
            let address = passage.address();
            !(before.contains(&address) && after.contains(&address))
        };
        for written in old.passages().iter().filter(is_touched).flat_map(Passage::written) {
            if table.by_id(&written.route.id).is_none() {
                self.forget(&written.route.id);
            }
        }
        for written in table.passages().iter().filter(is_touched).flat_map(Passage::written) {
            let in_force = table.by_id(&written.route.id);
            if in_force.is_some_and(|is| std::ptr::eq(is, written)) {
                self.take(&written.route, now);
            }
        }
        self.sightings.watches(self.pages.len());
    }

    fn take(&mut self, route: &Arc<Route>, now: Instant) {
        let is_watched = is_sealed(route) && self.every(route).is_some();
        let known = self.pages.get_mut(&route.id);
        match known {
            Some(page) if is_watched && is_same(&page.route, route) => {
                page.route = Arc::clone(route);
                return;
            }
            Some(_) => self.forget(&route.id),
            None => {}
        }
        if !is_watched {
            return;
        }
        let due = now + self.first(route);
        let glimpses = route.backends.iter().map(|_| None).collect();
        let page = Page {
            route: Arc::clone(route),
            glimpses,
            due,
            looks: 0,
            failures: 0,
            has_failed: false,
        };
        self.due.of(Class::of(route)).insert((due, Arc::clone(&route.id)));
        self.pages.insert(Arc::clone(&route.id), page);
    }

    fn forget(&mut self, id: &Arc<str>) {
        let Some(page) = self.pages.remove(id) else { return };
        self.due.of(Class::of(&page.route)).remove(&(page.due, Arc::clone(id)));
        for glimpse in page.glimpses.iter().flatten() {
            self.leaves.remove(glimpse.leaf, &page.route);
        }
        self.sightings.turned(faults(&page.glimpses), Faults::default());
        self.sightings.forget(id, page.glimpses.len());
        if said(&page.route, &page.glimpses).is_some() {
            self.wait(Waiting::Patient);
        }
    }

    /// How often a route is looked at, if it is.
    fn every(&self, route: &Route) -> Option<Duration> {
        let every = match route.pin() {
            Some(_) => self.settings.pinned_interval.0,
            None => self.settings.interval.0,
        };
        Some(every.min(LONGEST)).filter(|every| !every.is_zero())
    }

    /// When a route that has come is looked at first: at once, if clients wait for it.
    fn first(&mut self, route: &Route) -> Duration {
        if route.pin().is_some() {
            return Duration::ZERO;
        }
        let every = self.every(route).unwrap_or(LONGEST);
        let earliest = every / EARLIEST;
        earliest + every.saturating_sub(earliest).mul_f64(self.random(&route.id))
    }

    /// A number from 0 to 1.
    fn random(&mut self, id: &str) -> f64 {
        self.draws += 1;
        let hash = self.chance.hash_one((id, self.draws));
        f64::from(u32::try_from(hash >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    /// When the next look of a class is due.
    pub(super) fn next_due(&mut self, class: Class) -> Option<Instant> {
        self.due.of(class).first().map(|(due, _)| *due)
    }

    /// The next route of a class to look at, if one is due.
    pub(super) fn next(
        &mut self,
        class: Class,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Arc<Route>> {
        loop {
            let due = self.due.of(class);
            if due.first()?.0 > now {
                return None;
            }
            let (_, id) = due.pop_first()?;
            let Some(page) = self.pages.get(&id) else { continue };
            let route = Arc::clone(&page.route);
            let every = self.every(&route).unwrap_or(LONGEST);
            let pause = if !may_be_looked_at(&route, wall) {
                ASKED_AGAIN.min(every).min(until_start(&route, wall))
            } else if route.backends.iter().any(|backend| self.busy.contains(backend)) {
                match class {
                    Class::Pinned => BUSY_BRIEFLY,
                    Class::Other => BUSY.min(every),
                }
            } else {
                self.busy.extend(route.backends.iter().cloned());
                if let Some(page) = self.pages.get_mut(&id) {
                    (page.looks, page.has_failed) = (route.backends.len(), false);
                }
                // The last result sets it anew.
                return Some(route);
            };
            self.put_off(&id, now + pause);
        }
    }

    fn put_off(&mut self, id: &Arc<str>, due: Instant) {
        if let Some(page) = self.pages.get_mut(id) {
            let all = self.due.of(Class::of(&page.route));
            all.remove(&(page.due, Arc::clone(id)));
            page.due = due;
            all.insert((due, Arc::clone(id)));
        }
    }

    /// Takes in what a look at one backend of a route has shown.
    pub(super) fn learn(
        &mut self,
        (looked_at, place): (&Arc<Route>, usize),
        shown: Result<Chain, Unseen>,
        now: Instant,
        wall: Timestamp,
        tell: &impl Fn(&News<'_>),
    ) {
        let Some(backend) = looked_at.backends.get(place) else { return };
        self.busy.remove(backend);
        let id = &looked_at.id;
        // What has changed meanwhile is looked at by itself.
        let Some(page) = self.pages.get_mut(id).filter(|page| is_same(&page.route, looked_at))
        else {
            return;
        };
        page.looks = page.looks.saturating_sub(1);
        page.has_failed |= shown.is_err();
        let route = Arc::clone(&page.route);
        match shown {
            Ok(chain) => self.see(&route, place, &chain, wall, tell),
            Err(_) => self.sightings.failed(),
        }
        self.rest(&route, now);
    }

    /// Takes in what a backend shows.
    fn see(
        &mut self,
        route: &Arc<Route>,
        place: usize,
        chain: &Chain,
        wall: Timestamp,
        tell: &impl Fn(&News<'_>),
    ) {
        let (Some(page), Some(backend)) = (self.pages.get(&route.id), route.backends.get(place))
        else {
            return;
        };
        let mut glimpses = page.glimpses.clone();
        let Some(glimpse) = glimpses.get_mut(place) else { return };
        let sharer = self.leaves.sharer(route, Leaf::of(chain));
        let verdict = Verdict::of(route, chain, glimpse.as_ref(), sharer, wall);
        let news: Vec<_> = verdict.news(glimpse.as_ref()).cloned().collect();
        for notice in &news {
            tell(&News { route, backend, notice });
        }
        *glimpse = Some(verdict.glimpse);
        self.sightings.looked((Arc::clone(&route.id), place), backend, &news, verdict.notices);
        self.turn(route, &glimpses);
        if let Some(page) = self.pages.get_mut(&route.id) {
            page.glimpses = glimpses;
        }
    }

    /// Sets the next look at a route, once all of its backends were looked at.
    fn rest(&mut self, route: &Arc<Route>, now: Instant) {
        let every = self.every(route).unwrap_or(LONGEST);
        // Never quite regular, so that routes that came together drift apart.
        let regular = every.mul_f64(0.9 + 0.2 * self.random(&route.id));
        let Some(page) = self.pages.get_mut(&route.id).filter(|page| page.looks == 0) else {
            return;
        };
        page.failures = if page.has_failed { page.failures.saturating_add(1) } else { 0 };
        let is_waited_for = route.pin().is_some() && page.glimpses.iter().any(Option::is_none);
        let soon = FIRST_PAUSE.saturating_mul(1 << page.failures.min(16));
        self.put_off(&route.id, now + if is_waited_for { soon.min(every) } else { regular });
    }

    /// Draws from what was seen of a route before, and is seen now, what has changed.
    fn turn(&mut self, route: &Arc<Route>, now: &[Option<Glimpse>]) {
        let Some(page) = self.pages.get(&route.id) else { return };
        for glimpse in page.glimpses.iter().flatten() {
            self.leaves.remove(glimpse.leaf, route);
        }
        for glimpse in now.iter().flatten() {
            self.leaves.add(glimpse.leaf, route);
        }
        self.sightings.turned(faults(&page.glimpses), faults(now));
        let (before, now) = (said(route, &page.glimpses), said(route, now));
        if before != now {
            let fits = |seen: Option<Seen>| seen.map(|seen| seen.fits).unwrap_or_default();
            let is_waited_for = fits(before) != fits(now);
            self.wait(if is_waited_for { Waiting::Urgent } else { Waiting::Patient });
        }
    }

    fn wait(&mut self, how: Waiting) {
        if self.waiting != Some(Waiting::Urgent) {
            self.waiting = Some(how);
        }
    }

    /// Whether there are new words, and whether somebody waits for them. Asked once for each.
    pub(super) fn words_wait(&mut self) -> Option<Waiting> {
        self.waiting.take()
    }

    /// All words.
    pub(super) fn words(&self) -> Words {
        let words = self.pages.iter().filter_map(|(id, page)| {
            let seen = said(&page.route, &page.glimpses)?;
            Some((Arc::clone(id), Word { of: Arc::clone(&page.route), seen }))
        });
        words.collect()
    }
}

/// What is said of a route, if anything is.
fn said(route: &Route, glimpses: &[Option<Glimpse>]) -> Option<Seen> {
    Some(seen(route, glimpses)).filter(|seen| route.heeds(seen))
}

/// How long it is until a route begins; for ever, if it has begun.
fn until_start(route: &Route, wall: Timestamp) -> Duration {
    let start = route.lifetime().not_before.filter(|start| *start > wall);
    let left = start.and_then(|start| Duration::try_from(start.duration_since(wall)).ok());
    left.unwrap_or(LONGEST)
}

/// What is odd about any backend of a route.
fn faults(glimpses: &[Option<Glimpse>]) -> Faults {
    let all = glimpses.iter().flatten().map(|glimpse| glimpse.faults);
    all.fold(Faults::default(), Faults::and)
}

/// Whether what was seen of a route holds for a newer version of it.
fn is_same(one: &Route, other: &Route) -> bool {
    one.hosts == other.hosts
        && one.leads_like(other)
        && one.app() == other.app()
        && one.is_initializing() == other.is_initializing()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::source::document;

    const HOUR: Duration = Duration::from_hours(1);

    /// A table of routes: their hosts, the ports of their backends, and further lines.
    fn table(routes: &[(&str, u16, &str)]) -> Arc<Snapshot> {
        let text = routes.iter().fold(String::new(), |mut text, (host, port, more)| {
            let _ = writeln!(text, "[[route]]\nhosts = [\"{host}\"]");
            let _ = writeln!(text, "backends = [\"127.0.0.1:{port}\"]\n{more}");
            text
        });
        let document = document::read(&"r.toml".into(), &text);
        assert!(document.faults.is_empty(), "{:?}", document.faults);
        Arc::new(Snapshot::build(document.claims.iter()).0)
    }

    fn book() -> Book {
        Book::new(&Settings::default(), Sightings::default())
    }

    fn pin() -> String {
        format!("pin = \"sha256:{}\"", "00".repeat(32))
    }

    fn chain(host: &str) -> Chain {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        Chain::from_pem(made.cert.pem().as_bytes()).unwrap()
    }

    /// What is looked at by an instant, of both classes.
    fn looked_at(book: &mut Book, at: Instant) -> Vec<Arc<Route>> {
        let wall = Timestamp::UNIX_EPOCH;
        let next = |class| std::iter::from_fn(|| book.next(class, at, wall)).collect::<Vec<_>>();
        Class::ALL.into_iter().flat_map(next).collect()
    }

    #[test]
    fn first_looks_are_spread_over_the_interval_and_those_at_pins_come_at_once() {
        let (mut book, now) = (book(), Instant::now());
        let hosts: Vec<_> = (0..200).map(|number| format!("a{number}.test")).collect();
        let pin = pin();
        let mut routes: Vec<_> =
            hosts.iter().zip(1..).map(|(host, port)| (&**host, port, "")).collect();
        routes.push(("pinned.test", 1000, &pin));
        book.adopt(&table(&routes), now);
        let first = looked_at(&mut book, now);
        assert_eq!(first.iter().map(|route| &*route.id).collect::<Vec<_>>(), ["pinned.test"]);
        let before = |book: &mut Book, part: u32| looked_at(book, now + HOUR / 20 * part).len();
        assert_eq!(before(&mut book, 1), 0, "a backend may still be starting");
        // Of 200, half are due in each half: 60 and 140 are more than five deviations away.
        let half = before(&mut book, 10);
        assert!((50..150).contains(&half), "{half}");
        assert_eq!(half + before(&mut book, 20), 200);
    }

    #[test]
    fn a_backend_has_one_look_at_a_time() {
        let (mut book, now) = (book(), Instant::now());
        let pin = pin();
        book.adopt(&table(&[("a.test", 1, &pin), ("b.test", 1, &pin), ("c.test", 2, &pin)]), now);
        let first = looked_at(&mut book, now);
        assert_eq!(first.len(), 2);
        let later = now + Duration::from_secs(1);
        assert!(looked_at(&mut book, later).is_empty());
        let of_one = first.iter().find(|route| *route.id != *"c.test").unwrap();
        book.learn((of_one, 0), Err(Unseen::Silent), later, Timestamp::UNIX_EPOCH, &|_| ());
        let later = later + BUSY_BRIEFLY;
        let next = looked_at(&mut book, later);
        assert_eq!(next.len(), 1);
        assert!(*next[0].id != *of_one.id && *next[0].id != *"c.test");
        // One of which clients wait for the first sight is looked at again soon, and later and later.
        book.learn((&next[0], 0), Err(Unseen::Silent), later, Timestamp::UNIX_EPOCH, &|_| ());
        assert_eq!(looked_at(&mut book, later + FIRST_PAUSE).len(), 0);
        assert_eq!(looked_at(&mut book, later + FIRST_PAUSE * 2).len(), 1);
    }

    #[test]
    fn a_route_is_looked_at_when_it_begins() {
        let (mut book, now) = (book(), Instant::now());
        let more = pin() + "\nnot_before = 1970-01-01T00:00:30Z";
        book.adopt(&table(&[("a.test", 1, &more)]), now);
        assert!(looked_at(&mut book, now).is_empty());
        let start = now + Duration::from_secs(30);
        assert_eq!(book.next_due(Class::Pinned), Some(start));
        let wall = Timestamp::from_second(30).unwrap();
        assert!(book.next(Class::Pinned, start, wall).is_some());
    }

    #[test]
    fn what_was_seen_holds_while_the_route_stays_and_is_forgotten_with_it() {
        let (mut book, now) = (book(), Instant::now());
        let wall = Timestamp::UNIX_EPOCH;
        let text = |more: &str, port| table(&[("a.test", port, more), ("b.test", 9, "")]);
        let look = |book: &mut Book, chain: &Chain| {
            let route = Arc::clone(&book.pages["a.test"].route);
            book.learn((&route, 0), Ok(chain.clone()), now, wall, &|_| ());
        };
        book.adopt(&text("", 1), now);
        let chain = chain("a.test");
        look(&mut book, &chain);
        assert_eq!(book.words_wait(), Some(Waiting::Patient));
        let says = |book: &Book| !book.words().are_none();
        assert!(says(&book));
        // Nothing new is nothing to tell.
        look(&mut book, &chain);
        assert_eq!(book.words_wait(), None);
        // It still leads to the same place.
        book.adopt(&text("max_connections = 7", 1), now);
        assert!(says(&book) && book.words_wait().is_none());
        book.adopt(&text("max_connections = 7", 2), now);
        assert!(!says(&book));
        assert_eq!(book.words_wait(), Some(Waiting::Patient));
        look(&mut book, &chain);
        let known = book.pages["a.test"].glimpses[0].unwrap();
        let other = table(&[("c.test", 9, "")]);
        let stranger = Arc::clone(&other.by_id("c.test").unwrap().route);
        assert_eq!(book.leaves.sharer(&stranger, known.leaf).as_deref(), Some("a.test"));
        book.adopt(&table(&[("b.test", 9, "")]), now);
        assert_eq!((book.pages.len(), book.leaves.sharer(&stranger, known.leaf)), (1, None));
        assert_eq!(book.due.of(Class::Other).len(), 1);
    }

    #[test]
    fn a_look_at_what_has_changed_meanwhile_counts_for_nothing() {
        let (mut book, now) = (book(), Instant::now());
        book.adopt(&table(&[("a.test", 1, &pin())]), now);
        let route = looked_at(&mut book, now).remove(0);
        book.adopt(&table(&[("a.test", 2, &pin())]), now);
        let chain = chain("a.test");
        book.learn((&route, 0), Ok(chain), now, Timestamp::UNIX_EPOCH, &|_| ());
        assert_eq!(book.pages["a.test"].glimpses[0], None);
        assert_eq!((looked_at(&mut book, now).len(), book.busy.len()), (1, 1));
    }
}
