//! `/status.json`: everything that the status page shows, for programs as well.
//!
//! A summary of the whole, and the routes that a person wants to see first: those that are at
//! fault, then those whose end is nearest. Every list is bounded and tells how long it would be.

use jiff::SignedDuration;
use serde::Serialize;

use crate::admin::eyes::Eyes;
use crate::admin::query::Query;
use crate::admin::told::{MOST_FAULTS, Told, time};
use crate::admin::watched::{Latest, Watched};
use crate::clock::Timestamp;
use crate::outcome::{Blame, Outcome, Stage};
use crate::proxy::terminate::certificates::{Bare, Certificates, Trouble};
use crate::reconcile::{Report, Standing};
use crate::routing::explain::shortcomings;
use crate::routing::route::{Claim, Phase, Route};
use crate::routing::snapshot::{Conflict, Snapshot};
use crate::telemetry::almanac::{DAY, HOUR};
use crate::telemetry::metrics::Totals;

/// How many names of one certificate are told.
const MOST_NAMES: usize = 10;

/// All that is told.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    name: &'static str,
    version: &'static str,
    /// `starting`, `ready` or `draining`.
    state: &'static str,
    /// Why it is not ready, if it is not.
    why: Option<String>,
    now: String,
    started: String,
    uptime_s: f64,
    revision: u64,
    /// The newest transaction of the store that is in force.
    store_revision: Option<u64>,
    sessions: Sessions,
    bytes: Bytes,
    outcomes: Vec<Ended>,
    sources: Vec<Source>,
    conflict_count: usize,
    conflicts: Vec<Told>,
    certificates: Ends,
    probe: Watched,
    /// The newest things that happened to apps, projects, domains and certificates of backends.
    events: Vec<Latest>,
    routes: Routes,
}

/// The certificates for terminated names.
#[derive(Debug, Serialize)]
struct Ends {
    good: usize,
    fault_count: usize,
    faults: Vec<Told>,
    bare_count: usize,
    /// Names of routes for which none is good.
    bare: Vec<Told>,
    /// Those that end first.
    nearest: Vec<End>,
}

/// When a certificate ends.
#[derive(Debug, Serialize)]
struct End {
    file: String,
    names: Vec<String>,
    not_after: String,
    days: i64,
}

impl Ends {
    fn of(certificates: &Certificates, now: Timestamp) -> Self {
        let (pairs, troubles) = (certificates.pairs(), certificates.troubles());
        let faults = troubles.iter().take(MOST_FAULTS);
        let bare = certificates.bare();
        let nearest = pairs.iter().rev().take(MOST_FAULTS).map(|pair| End {
            file: pair.file.to_string(),
            names: pair.names.iter().take(MOST_NAMES).map(ToString::to_string).collect(),
            not_after: time(pair.not_after),
            days: pair.not_after.duration_since(now).as_hours().div_euclid(24),
        });
        Self {
            good: pairs.iter().filter(|pair| pair.is_valid(now)).count(),
            fault_count: troubles.len(),
            faults: faults
                .map(|Trouble { file, why, .. }| Told {
                    at: file.to_string(),
                    message: why.clone(),
                })
                .collect(),
            bare_count: bare.len(),
            bare: bare.iter().take(MOST_FAULTS).map(Told::from).collect(),
            nearest: nearest.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Sessions {
    open: usize,
    limit: usize,
    pending_hellos: usize,
    total: u64,
    access_records_dropped: u64,
}

#[derive(Debug, Serialize)]
struct Bytes {
    to_backend: u64,
    to_client: u64,
}

/// How many sessions ended in one way.
#[derive(Debug, Serialize)]
struct Ended {
    outcome: Outcome,
    blame: Blame,
    stage: Stage,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Source {
    name: String,
    routes: usize,
    left_out: usize,
    conflicts: usize,
    /// The newest transaction of a store that it has told.
    revision: Option<u64>,
    told: String,
    last_success: Option<String>,
    fault_count: usize,
    faults: Vec<Told>,
}

impl From<&Bare> for Told {
    fn from(Bare { route, pattern }: &Bare) -> Self {
        let message = format!("no certificate is good for {pattern}: its clients are refused");
        Self { at: format!("route {route}"), message }
    }
}

#[derive(Debug, Serialize)]
struct Routes {
    live: usize,
    pending: usize,
    expired: usize,
    faulty: usize,
    ending_1h: usize,
    ending_24h: usize,
    /// How many the filter lets through.
    matching: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    hosts: Vec<String>,
    app: Option<String>,
    backends: Vec<String>,
    /// `live`, `pending`, `expired` or `faulty`.
    state: &'static str,
    not_before: Option<String>,
    expires_at: Option<String>,
    /// Until it begins, if it is pending, else until it ends; negative if that is past.
    remaining_s: Option<f64>,
    open: usize,
    /// Counts are kept for `telemetry.max_routes` routes.
    sessions: Option<u64>,
    to_backend_bytes: Option<u64>,
    to_client_bytes: Option<u64>,
    at: String,
    /// What is wrong with it.
    fault: Option<String>,
    /// What else is to be known of it.
    note: Option<String>,
}

impl Status {
    pub(super) fn of(eyes: &Eyes, query: &Query) -> Self {
        let (facts, report, totals) = (eyes.facts(), eyes.report(), eyes.metrics.totals());
        let now = facts.now;
        eyes.metrics.adopt(&facts.table.snapshot);
        let calendar = facts.table.snapshot.calendar();
        let phases = calendar.phases(now);
        let (matching, rows) = rows(eyes, &facts.table.snapshot, &report, query, now);
        let conflicts = report.conflicts.iter().take(MOST_FAULTS);
        Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            state: eyes.readiness().word(),
            why: eyes.why_not_ready(),
            now: time(now),
            started: time(eyes.started),
            uptime_s: now.duration_since(eyes.started).as_secs_f64(),
            revision: facts.table.revision,
            store_revision: facts.table.snapshot.store_revision(),
            sessions: Sessions {
                open: facts.sessions_open,
                limit: facts.sessions_limit,
                pending_hellos: facts.hellos_pending,
                total: totals.ended.iter().sum(),
                access_records_dropped: facts.dropped_records,
            },
            bytes: Bytes { to_backend: totals.to_backend, to_client: totals.to_client },
            outcomes: ended(&totals),
            sources: report.sources.iter().map(Source::from).collect(),
            conflict_count: report.conflicts.len(),
            conflicts: conflicts.map(Told::from).collect(),
            certificates: Ends::of(&eyes.certificates, now),
            probe: Watched::of(&eyes.sightings.now()),
            events: eyes.chronicle.newest(MOST_FAULTS).into_iter().map(Latest::from).collect(),
            routes: Routes {
                live: phases.live,
                pending: phases.pending,
                expired: phases.expired,
                faulty: facts.faulty_routes,
                ending_1h: calendar.ends_within(now, HOUR).len(),
                ending_24h: calendar.ends_within(now, DAY).len(),
                matching,
                rows,
            },
        }
    }

    pub(super) fn to_json(&self) -> String {
        // Plain values and text keys: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn ended(totals: &Totals) -> Vec<Ended> {
    let all = Outcome::ALL.into_iter().zip(&totals.ended);
    let met = all.filter(|(_, count)| **count > 0);
    met.map(|(outcome, count)| Ended {
        outcome,
        blame: outcome.blame(),
        stage: outcome.stage(),
        count: *count,
    })
    .collect()
}

impl From<&Standing> for Source {
    fn from(standing: &Standing) -> Self {
        let faults = standing.faults.iter().take(MOST_FAULTS);
        Self {
            name: standing.name.to_string(),
            routes: standing.routes,
            left_out: standing.left_out,
            conflicts: standing.conflicts,
            revision: standing.revision,
            told: time(standing.told),
            last_success: standing.last_success.map(time),
            fault_count: standing.faults.len(),
            faults: faults
                .map(|fault| Told {
                    at: fault.place.origin.to_string(),
                    message: fault.kind.to_string(),
                })
                .collect(),
        }
    }
}

impl From<&(Claim, Conflict)> for Told {
    fn from((claim, conflict): &(Claim, Conflict)) -> Self {
        Self { at: claim.origin.to_string(), message: conflict.to_string() }
    }
}

/// A route on its way to a row, with what it is sorted by.
struct Candidate<'a> {
    order: (u8, i128),
    route: &'a Route,
    conflict: Option<&'a (Claim, Conflict)>,
}

impl<'a> Candidate<'a> {
    fn new(route: &'a Route, conflict: Option<&'a (Claim, Conflict)>, now: Timestamp) -> Self {
        let lifetime = route.lifetime();
        let at = |time: Option<Timestamp>| time.map_or(i128::MAX, Timestamp::as_nanosecond);
        let order = match (conflict, lifetime.phase(now), lifetime.expires_at) {
            (Some(_), ..) => (0, 0),
            (None, Phase::Live, Some(end)) => (1, end.as_nanosecond()),
            (None, Phase::Live, None) => (2, 0),
            (None, Phase::NotYet, _) => (3, at(lifetime.not_before)),
            // What ended last is asked about first.
            (None, Phase::Expired, end) => (4, at(end).saturating_neg()),
        };
        Self { order, route, conflict }
    }

    fn state(&self, now: Timestamp) -> &'static str {
        match (self.conflict, self.route.phase(now)) {
            (Some(_), _) => "faulty",
            (None, Phase::Live) => "live",
            (None, Phase::NotYet) => "pending",
            (None, Phase::Expired) => "expired",
        }
    }

    fn contains(&self, words: &str, now: Timestamp) -> bool {
        let route = self.route;
        let has = |text: &str| text.to_lowercase().contains(words);
        words.is_empty()
            || has(&route.id)
            || route.app().is_some_and(|app| has(app))
            || self.state(now) == words
            || route.hosts.iter().any(|host| has(&host.to_string()))
            || route.backends.iter().any(|backend| has(&backend.to_string()))
    }
}

/// How many routes match, and the first of them.
fn rows(
    eyes: &Eyes,
    snapshot: &Snapshot,
    report: &Report,
    query: &Query,
    now: Timestamp,
) -> (usize, Vec<Row>) {
    let faulty = report.conflicts.iter().map(|one| Candidate::new(&one.0.route, Some(one), now));
    let good = snapshot.claims().map(|claim| Candidate::new(&claim.route, None, now));
    let mut all: Vec<_> =
        faulty.chain(good).filter(|one| one.contains(&query.filter, now)).collect();
    let matching = all.len();
    let order = |one: &Candidate<'_>, other: &Candidate<'_>| {
        (one.order, &one.route.id).cmp(&(other.order, &other.route.id))
    };
    if query.limit < all.len() {
        // Most of a large table is never shown: it is parted, not sorted.
        all.select_nth_unstable_by(query.limit, order);
        all.truncate(query.limit);
    }
    all.sort_unstable_by(order);
    (matching, all.iter().map(|one| row(eyes, snapshot, one, now)).collect())
}

fn row(eyes: &Eyes, snapshot: &Snapshot, one: &Candidate<'_>, now: Timestamp) -> Row {
    let route = one.route;
    let lifetime = route.lifetime();
    let is_faulty = one.conflict.is_some();
    let at = match one.conflict {
        Some((claim, _)) => Some(claim.origin.clone()),
        None => snapshot.origin(&route.id),
    };
    let counts = if is_faulty { None } else { eyes.metrics.of_route(&route.id) };
    let next = match lifetime.phase(now) {
        Phase::NotYet => lifetime.not_before,
        Phase::Live | Phase::Expired => lifetime.expires_at,
    };
    Row {
        id: route.id.to_string(),
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        app: route.app().map(ToString::to_string),
        backends: route.backends.iter().map(ToString::to_string).collect(),
        state: one.state(now),
        not_before: lifetime.not_before.map(time),
        expires_at: lifetime.expires_at.map(time),
        remaining_s: next.map(|next| SignedDuration::as_secs_f64(&next.duration_since(now))),
        open: if is_faulty { 0 } else { eyes.ledger.open_of(&route.id) },
        sessions: counts.map(|counts| counts.ended),
        to_backend_bytes: counts.map(|counts| counts.to_backend),
        to_client_bytes: counts.map(|counts| counts.to_client),
        at: at.map(|origin| origin.to_string()).unwrap_or_default(),
        fault: one.conflict.map(|(_, conflict)| conflict.to_string()),
        note: shortcomings(route),
    }
}
