//! The watch: every now and then a look at what the backends of all sealed routes show.
//!
//! Each proxy watches by itself and judges by itself: there is nothing to agree upon, and a backend
//! has one short handshake an hour from each. Nothing of a look lies on the path of a connection; what
//! follows of it goes to the one writer of the table as words on routes. What was seen is forgotten
//! with the process, and a look that saw nothing changes nothing.

mod book;
mod due;
mod leaves;
mod sightings;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use crate::admission::certificate::Chain;
use crate::admission::sight::Notice;
use crate::admission::watch::name_of;
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::probe::certificate::{Onlooker, Unseen};
use crate::resolve::Resolve;
use crate::routing::route::Route;
use crate::routing::table::Table;
use crate::routing::words::Words;
use crate::units::Period;
use book::Book;
use due::Class;

pub use sightings::{Odd, Seen, Sightings};

/// How long words gather before they go to the table, where nobody waits for them: making a table
/// costs more than a look.
const GATHERED: Duration = Duration::from_secs(5);

/// The same where clients wait: many pinned routes may come at once.
const GATHERED_BRIEFLY: Duration = Duration::from_millis(10);

/// The section `probe` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often the backends of a route are looked at; zero is never, but for pinned routes.
    pub interval: Period,
    /// How often those of a pinned route are; never zero.
    pub pinned_interval: PinnedInterval,
    /// How many looks there are at once; and as many of pinned routes.
    pub at_once: NonZeroU32,
}

/// How often the backends of pinned routes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Period", into = "Period")]
pub struct PinnedInterval(Duration);

/// A pin that nobody ever looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pinned routes let nobody through whose key is not looked at: at least 100ms")]
pub struct NeverLooked;

impl TryFrom<Period> for PinnedInterval {
    type Error = NeverLooked;

    fn try_from(Period(interval): Period) -> Result<Self, NeverLooked> {
        if interval < Duration::from_millis(100) { Err(NeverLooked) } else { Ok(Self(interval)) }
    }
}

impl From<PinnedInterval> for Period {
    fn from(PinnedInterval(interval): PinnedInterval) -> Self {
        Self(interval)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A certificate lasts for days at least, and backends may serve one client at a time: an
            // hour costs them a handshake, and 100,000 routes 28 looks a second.
            interval: Period(Duration::from_hours(1)),
            // Whoever pins wants to be told soon.
            pinned_interval: PinnedInterval(Duration::from_mins(1)),
            // Most of a look is waiting; those that wait for ten seconds leave room for others.
            at_once: NonZeroU32::MIN.saturating_add(15),
        }
    }
}

/// Something odd about a backend that is new.
#[derive(Debug)]
pub struct News<'a> {
    /// Its route.
    pub route: &'a Route,
    /// The backend.
    pub backend: &'a Endpoint,
    /// What.
    pub notice: &'a Notice,
}

/// Who watches.
#[derive(Debug)]
pub struct Watch<R> {
    settings: Settings,
    table: Table,
    clock: Arc<dyn Clock>,
    resolver: R,
    words: watch::Sender<Words>,
    sightings: Sightings,
}

/// What one look at a backend of a route has shown.
struct Looked {
    route: Arc<Route>,
    place: usize,
    shown: Result<Chain, Unseen>,
}

impl<R: Resolve + Clone> Watch<R> {
    /// A watch over the routes of a table.
    #[must_use]
    pub fn new(
        settings: &Settings,
        table: Table,
        clock: Arc<dyn Clock>,
        resolver: R,
        words: watch::Sender<Words>,
    ) -> Self {
        let sightings = Sightings::default();
        Self { settings: settings.clone(), table, clock, resolver, words, sightings }
    }

    /// What was seen in all.
    #[must_use]
    pub fn sightings(&self) -> Sightings {
        self.sightings.clone()
    }

    /// Watches until the table has no publisher; tells what is new.
    pub async fn run(self, tell: impl Fn(&News<'_>)) {
        let onlooker = match Onlooker::new() {
            Ok(onlooker) => onlooker,
            Err(error) => return warn!(%error, "nobody looks at certificates of backends"),
        };
        let mut changes = self.table.subscribe();
        let mut book = Book::new(&self.settings, self.sightings.clone());
        let mut looks: JoinSet<Looked> = JoinSet::new();
        let most = usize::try_from(self.settings.at_once.get()).unwrap_or(usize::MAX);
        // How many there are of each class.
        let mut running = [0; Class::ALL.len()];
        book.adopt(&self.table.current().snapshot, Instant::now());
        let mut due_words: Option<Instant> = None;
        loop {
            let mut next = due_words;
            for (class, running) in Class::ALL.into_iter().zip(&mut running) {
                while *running < most
                    && let Some(route) = book.next(class, Instant::now(), self.clock.now())
                {
                    for place in 0..route.backends.len() {
                        *running += 1;
                        let (onlooker, resolver) = (onlooker.clone(), self.resolver.clone());
                        looks.spawn(look(Arc::clone(&route), place, onlooker, resolver));
                    }
                }
                let due = book.next_due(class).filter(|_| *running < most);
                next = next.into_iter().chain(due).min();
            }
            let until = next.unwrap_or_else(|| Instant::now() + GATHERED);
            tokio::select! {
                told = changes.changed() => {
                    if told.is_err() {
                        return;
                    }
                    book.adopt(&self.table.current().snapshot, Instant::now());
                }
                Some(looked) = looks.join_next() => {
                    let Looked { route, place, shown } = match looked {
                        Ok(looked) => looked,
                        Err(error) => return error!(%error, "certificates are watched no more"),
                    };
                    let of_class = Class::ALL.into_iter().zip(&mut running);
                    of_class
                        .filter(|(class, _)| *class == Class::of(&route))
                        .for_each(|(_, running)| *running -= 1);
                    book.learn((&route, place), shown, Instant::now(), self.clock.now(), &tell);
                }
                () = sleep_until(until) => {}
            }
            let now = Instant::now();
            if let Some(wait) = book.words_wait() {
                let due = now + if wait.is_urgent() { GATHERED_BRIEFLY } else { GATHERED };
                due_words = Some(due_words.map_or(due, |earlier| earlier.min(due)));
            }
            if due_words.is_some_and(|due| due <= now) {
                due_words = None;
                self.words.send_replace(book.words());
            }
        }
    }
}

/// Looks at one backend of a route.
async fn look(
    route: Arc<Route>,
    place: usize,
    onlooker: Onlooker,
    resolver: impl Resolve,
) -> Looked {
    let shown = match (name_of(&route), route.backends.get(place)) {
        (Some(name), Some(backend)) => {
            onlooker.look_offering(route.alpn(), backend, &name, &resolver).await
        }
        _ => Err(Unseen::NoPath),
    };
    if let Err(why) = &shown {
        debug!(route = %route.id, place, %why, "a backend shows no certificate");
    }
    Looked { route, place, shown }
}
