//! Series of routes, and the cap on how many there are.
//!
//! Places are given to whoever comes first: at a scrape to every route if the whole table fits,
//! and in any case to a route that gets a session. All others share [`OTHER`]. A place is free
//! again once its route has left the table and the last of its sessions is gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::proto::MetricFamily;

use crate::clock::Timestamp;
use crate::outcome::Outcome;
use crate::outcome::request::StatusClass;
use crate::routing::snapshot::Snapshot;
use crate::telemetry::metrics::family::{counter, gauge, unix};
use crate::telemetry::metrics::{amount, size};

/// The label of all routes without series of their own.
pub const OTHER: &str = "_other";

/// The most parts that one route's counts are kept in. Workers beyond share; each part has 384
/// bytes, so a thousand routes take 3 MiB at the most.
const MOST_SHARDS: usize = 8;

/// Who has series of their own.
#[derive(Debug)]
pub(super) struct Book {
    most: usize,
    shards: usize,
    places: RwLock<HashMap<Arc<str>, Arc<Series>, foldhash::fast::RandomState>>,
    other: Arc<Series>,
}

/// The counts of one route, in parts that different workers write.
#[derive(Debug)]
pub(super) struct Series {
    shards: Box<[Shard]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    open: AtomicI64,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    ended: [AtomicU64; Outcome::ALL.len()],
    requests: [AtomicU64; StatusClass::ALL.len()],
}

/// What was counted under one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteCounts {
    /// Sessions that are open.
    pub open: usize,
    /// Sessions that ended.
    pub ended: u64,
    /// Bytes relayed to its backends.
    pub to_backend: u64,
    /// Bytes relayed to its clients.
    pub to_client: u64,
}

impl Series {
    fn new(shards: usize) -> Self {
        let shard = || Shard {
            open: AtomicI64::new(0),
            to_backend: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            ended: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
            requests: [const { AtomicU64::new(0) }; StatusClass::ALL.len()],
        };
        Self { shards: (0..shards).map(|_| shard()).collect() }
    }

    pub(super) fn opened(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            shard.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn closed(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            shard.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ended(&self, shard: usize, outcome: Outcome) {
        add(self.shards.get(shard).and_then(|shard| shard.ended.get(outcome.index())), 1);
    }

    pub(super) fn requested(&self, shard: usize, class: StatusClass) {
        add(self.shards.get(shard).and_then(|shard| shard.requests.get(class as usize)), 1);
    }

    fn requests(&self, class: StatusClass) -> u64 {
        let counts = self.shards.iter().filter_map(|shard| shard.requests.get(class as usize));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn carried_to_backend(&self, shard: usize, bytes: u64) {
        add(self.shards.get(shard).map(|shard| &shard.to_backend), bytes);
    }

    pub(super) fn carried_to_client(&self, shard: usize, bytes: u64) {
        add(self.shards.get(shard).map(|shard| &shard.to_client), bytes);
    }

    fn sum(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
    }

    fn ended_by(&self, outcome: Outcome) -> u64 {
        let counts = self.shards.iter().filter_map(|shard| shard.ended.get(outcome.index()));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn counts(&self) -> RouteCounts {
        let open: i64 = self.shards.iter().map(|shard| shard.open.load(Ordering::Relaxed)).sum();
        RouteCounts {
            open: usize::try_from(open).unwrap_or(0),
            ended: Outcome::ALL.into_iter().map(|outcome| self.ended_by(outcome)).sum(),
            to_backend: self.sum(|shard| &shard.to_backend),
            to_client: self.sum(|shard| &shard.to_client),
        }
    }
}

fn add(count: Option<&AtomicU64>, more: u64) {
    if let Some(count) = count {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

impl Book {
    pub(super) fn new(most: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shards = cores.min(MOST_SHARDS);
        Self { most, shards, places: RwLock::default(), other: Arc::new(Series::new(shards)) }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The series of a route, and whether they are its own. Gives it a place if there is one.
    pub(super) fn series(&self, id: &Arc<str>) -> (Arc<Series>, bool) {
        {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(series) = places.get(id) {
                return (Arc::clone(series), true);
            }
            // A route that bears the name of all others is one of them.
            if places.len() >= self.most || **id == *OTHER {
                return (Arc::clone(&self.other), false);
            }
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= self.most && !places.contains_key(id) {
            return (Arc::clone(&self.other), false);
        }
        let place = places.entry(Arc::clone(id));
        (Arc::clone(place.or_insert_with(|| Arc::new(Series::new(self.shards)))), true)
    }

    pub(super) fn counts_of(&self, id: &str) -> Option<RouteCounts> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(id).map(|series| series.counts())
    }

    /// Frees the places of routes that are gone together with their sessions, and gives every
    /// route a place if all of them fit.
    pub(super) fn adopt(&self, table: &Snapshot) {
        // A session, and whoever is about to become one, holds a reference.
        let is_free = |id: &str, series: &Arc<Series>| {
            table.by_id(id).is_none() && Arc::strong_count(series) == 1
        };
        let free: Vec<Arc<str>> = {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            let free = places.iter().filter(|(id, series)| is_free(id, series));
            free.map(|(id, _)| Arc::clone(id)).collect()
        };
        if !free.is_empty() {
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            for id in free {
                if places.get(&id).is_some_and(|series| is_free(&id, series)) {
                    places.remove(&id);
                }
            }
        }
        if table.len() <= self.most {
            for claim in table.claims() {
                self.series(&claim.route.id);
            }
        }
    }

    pub(super) fn families(&self, table: &Snapshot, now: Timestamp) -> Vec<MetricFamily> {
        let mut own: Vec<(Arc<str>, Arc<Series>)> = {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            places.iter().map(|(id, series)| (Arc::clone(id), Arc::clone(series))).collect()
        };
        own.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let mut rows: Vec<(&str, &Series)> =
            own.iter().map(|(id, series)| (&**id, &**series)).collect();
        let mut families = vec![expiry(&rows, table, now)];
        let rest = self.other.counts();
        if table.len() > rows.len() || rest.ended > 0 || rest.open > 0 {
            rows.push((OTHER, &self.other));
        }
        families.extend(counted(&rows));
        families
    }
}

fn counted(rows: &[(&str, &Series)]) -> [MetricFamily; 4] {
    let ended = rows.iter().flat_map(|(id, series)| {
        let counts = Outcome::ALL.into_iter().map(|outcome| (outcome, series.ended_by(outcome)));
        // A route has met few of the outcomes. `closed` is always told, so that there is a series
        // to take a rate of before the first session has ended.
        let met = counts.filter(|(outcome, count)| *count > 0 || *outcome == Outcome::Closed);
        met.map(|(outcome, count)| {
            (vec![("route", *id), ("outcome", outcome.word())], amount(count))
        })
    });
    let counts: Vec<_> = rows.iter().map(|(id, series)| (*id, series.counts())).collect();
    let bytes = counts.iter().flat_map(|(id, counts)| {
        [("to_backend", counts.to_backend), ("to_client", counts.to_client)]
            .map(|(way, count)| (vec![("route", *id), ("direction", way)], amount(count)))
    });
    let requests = rows.iter().flat_map(|(id, series)| {
        let counts = StatusClass::ALL.map(|class| (class, series.requests(class)));
        let met = counts.into_iter().filter(|(_, count)| *count > 0);
        met.map(|(class, count)| (vec![("route", *id), ("class", class.word())], amount(count)))
    });
    [
        counter(
            "mse_proxy_route_requests_total",
            "Requests inside of a route's terminated connections, by the class of their answer.",
            requests,
        ),
        counter(
            "mse_proxy_route_sessions_total",
            "Sessions of a route that ended, by how they ended.",
            ended,
        ),
        gauge(
            "mse_proxy_route_sessions_open",
            "Sessions of a route that are open now.",
            counts.iter().map(|(id, counts)| (vec![("route", *id)], size(counts.open))),
        ),
        counter(
            "mse_proxy_route_relayed_bytes_total",
            "Bytes that were relayed under a route, hellos included.",
            bytes,
        ),
    ]
}

/// The ends of the routes of these rows, and the soonest that is still to come among the rest.
fn expiry(rows: &[(&str, &Series)], table: &Snapshot, now: Timestamp) -> MetricFamily {
    let end_of = |id: &str| table.by_id(id)?.route.lifetime().expires_at;
    let mut ends: Vec<(&str, Timestamp)> =
        rows.iter().filter_map(|(id, _)| Some((*id, end_of(id)?))).collect();
    if table.len() > rows.len() {
        let own: HashSet<&str> = rows.iter().map(|(id, _)| *id).collect();
        let rest = table.claims().filter(|claim| !own.contains(&*claim.route.id));
        let to_come = rest.filter_map(|claim| claim.route.lifetime().expires_at);
        ends.extend(to_come.filter(|end| *end > now).min().map(|end| (OTHER, end)));
    }
    gauge(
        "mse_proxy_route_expiry_timestamp_seconds",
        "When a route with an end date ends; under _other, the next end among the rest.",
        ends.into_iter().map(|(id, end)| (vec![("route", id)], unix(end))),
    )
}
