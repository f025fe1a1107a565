//! What the proxy counts, in the form that Prometheus reads.
//!
//! Each worker counts on a [`Tally`] of its own, and whoever asks adds them up: a session costs its
//! worker a dozen additions in memory that no other core writes, and a scrape takes no lock that
//! the data path waits for. What others know already (open sessions, the table, the sources) is not
//! counted twice: it is handed over as [`Facts`] at the moment of a scrape. There is no registry
//! and nothing global. Only configured routes become labels, never a name that a client sent.

mod family;
mod histogram;
mod process;
mod routes;
mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::outcome::request::StatusClass;
use crate::outcome::{HANDSHAKE_REASONS, Outcome};
use crate::routing::snapshot::Snapshot;
use crate::routing::table::Revised;
use crate::telemetry::almanac::{DAY, HOUR};
use family::{counter, gauge, histogram};
use process::Process;
use routes::Book;
use tally::Sheet;

pub use routes::{OTHER, RouteCounts};
pub use tally::{AcceptFailure, Moved, Tally, Visit};

/// How Prometheus calls the form of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The section `telemetry` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many routes have series of their own; the others share one. A thousand routes make
    /// about ten thousand series, which a small Prometheus takes without a thought.
    pub max_routes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_routes: 1000 }
    }
}

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    sheets: Mutex<Vec<Arc<Sheet>>>,
    routes: Arc<Book>,
    process: Process,
    /// What the registry did by itself, by words of its own.
    events: Mutex<BTreeMap<&'static str, u64>>,
}

/// What is read off elsewhere at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The instant by which routes are judged.
    pub now: Timestamp,
    /// How far that is ahead of a wall clock that was set back.
    pub clock_lead: SignedDuration,
    /// The routes.
    pub table: Revised,
    /// Routes that were left out because something is wrong with them.
    pub faulty_routes: usize,
    /// Every source that has told its routes.
    pub sources: Vec<SourceFacts>,
    /// How many sessions are open.
    pub sessions_open: usize,
    /// How many each worker has, refused ones that linger included.
    pub worker_sessions: Vec<usize>,
    /// How many there may be.
    pub sessions_limit: usize,
    /// How many of the open ones have not shown a name.
    pub hellos_pending: usize,
    /// How many access records were dropped.
    pub dropped_records: u64,
    /// Whether new clients are welcome.
    pub is_ready: bool,
    /// The certificates for terminated names.
    pub certificates: CertificateFacts,
    /// What is seen of the certificates of backends.
    pub watch: WatchFacts,
}

/// How the certificates for terminated names stand.
#[derive(Debug, Clone)]
pub struct CertificateFacts {
    /// How many may answer now.
    pub good: usize,
    /// How many there are, those included that have ended since they were read.
    pub all: usize,
    /// How many files of certificates something is wrong with.
    pub faulty: usize,
    /// Those whose end is nearest, as many as may have series of their own, and when they end.
    pub nearest: Vec<(String, Timestamp)>,
    /// How many routes have names for which none is good.
    pub bare_routes: usize,
}

/// What is seen of the certificates of backends.
#[derive(Debug, Clone)]
pub struct WatchFacts {
    /// How many routes are watched.
    pub routes: usize,
    /// Looks that showed a certificate.
    pub looks: u64,
    /// Looks that showed none.
    pub failures: u64,
    /// What was told of them, by its kind.
    pub events: Vec<(&'static str, u64)>,
    /// How many routes have which fault now.
    pub faults: Vec<(&'static str, usize)>,
}

/// How one source stands.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Whether anything in what it told last is wrong.
    pub has_fault: bool,
    /// When it last told a set without a fault, if it ever did.
    pub last_success: Option<Timestamp>,
    /// How many of its routes others keep out.
    pub conflicts: usize,
    /// If it is a store: the newest transaction that it told.
    pub revision: Option<u64>,
}

/// Sums over all workers since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Sessions that ended, by the place of their outcome in [`Outcome::ALL`].
    pub ended: Vec<u64>,
    /// Bytes relayed to backends.
    pub to_backend: u64,
    /// Bytes relayed to clients.
    pub to_client: u64,
    /// Bytes of both directions that the kernel moved through pipes.
    pub spliced: u64,
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let most = usize::try_from(settings.max_routes).unwrap_or(usize::MAX);
        Self {
            sheets: Mutex::default(),
            routes: Arc::new(Book::new(most)),
            process: Process::new(),
            events: Mutex::default(),
        }
    }

    /// Counts from 0 on what the registry may do by itself: a rate needs a first value.
    pub fn expect(&self, events: &[&'static str]) {
        let mut counts = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            counts.entry(event).or_default();
        }
    }

    /// Counts something that the registry did by itself.
    pub fn note(&self, event: &'static str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        *events.entry(event).or_default() += 1;
    }

    /// What it did so far, by those words.
    #[must_use]
    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A tally for one more worker.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let sheet = Arc::new(Sheet::default());
        let mut sheets = self.sheets.lock().unwrap_or_else(PoisonError::into_inner);
        sheets.push(Arc::clone(&sheet));
        Tally::new(sheet, Arc::clone(&self.routes), sheets.len() - 1)
    }

    fn sheets(&self) -> Vec<Arc<Sheet>> {
        self.sheets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sheets = self.sheets();
        let ended = |outcome: &Outcome| sheets.iter().map(|sheet| sheet.ended(*outcome)).sum();
        Totals {
            ended: Outcome::ALL.iter().map(ended).collect(),
            to_backend: sheets.iter().map(|sheet| sheet.to_backend()).sum(),
            to_client: sheets.iter().map(|sheet| sheet.to_client()).sum(),
            spliced: sheets.iter().map(|sheet| sheet.spliced()).sum(),
        }
    }

    /// Gives the routes of a table series of their own, if all of them fit, and takes them from
    /// those that are gone.
    pub fn adopt(&self, table: &Snapshot) {
        self.routes.adopt(table);
    }

    /// How many routes, and certificates, have series of their own.
    #[must_use]
    pub fn most_routes(&self) -> usize {
        self.routes.most()
    }

    /// What was counted under a route, if it has series of its own.
    #[must_use]
    pub fn of_route(&self, id: &str) -> Option<RouteCounts> {
        self.routes.counts_of(id)
    }

    /// Everything in the text form. Looks at each route of the table once.
    #[must_use]
    pub fn text(&self, facts: &Facts) -> String {
        self.adopt(&facts.table.snapshot);
        let mut families = self.of_sessions(facts);
        families.extend(of_table(facts));
        families.extend(of_certificates(&facts.certificates));
        families.extend(of_watch(&facts.watch));
        families.extend(self.routes.families(&facts.table.snapshot, facts.now));
        let events = self.events();
        families.push(counter(
            "mse_proxy_registry_events_total",
            "What this proxy did for projects, apps and domains as time passed.",
            events.iter().map(|(event, count)| (vec![("event", *event)], amount(*count))),
        ));
        families.push(gauge(
            "mse_proxy_build_info",
            "What runs: always 1, labelled by the version.",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ));
        families.extend(self.process.families());
        families.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        // Until a source has told its routes, nothing is to be said of sources; the encoder takes
        // no family without a sample, and gives up on all others.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn of_sessions(&self, facts: &Facts) -> Vec<MetricFamily> {
        let (sheets, totals) = (self.sheets(), self.totals());
        let ended = Outcome::ALL
            .iter()
            .zip(&totals.ended)
            .map(|(outcome, count)| (vec![("outcome", outcome.word())], amount(*count)));
        let failures = AcceptFailure::ALL.map(|kind| {
            let count = sheets.iter().map(|sheet| sheet.accept_failures(kind)).sum();
            (vec![("kind", kind.word())], amount(count))
        });
        let workers: Vec<_> = (0..facts.worker_sessions.len()).map(|n| n.to_string()).collect();
        let of_workers = workers.iter().zip(&facts.worker_sessions);
        let mut families = vec![
            counter(
                "mse_proxy_sessions_total",
                "Sessions that ended, refused ones included, by how they ended.",
                ended,
            ),
            counter(
                "mse_proxy_requests_total",
                "Requests inside of terminated connections, by the class of their answer.",
                StatusClass::ALL.map(|class| {
                    let count = sheets.iter().map(|sheet| sheet.requests(class)).sum();
                    (vec![("class", class.word())], amount(count))
                }),
            ),
            counter(
                "mse_proxy_handshake_failures_total",
                "Handshakes with clients that failed, by the client's alert or by what was wrong.",
                HANDSHAKE_REASONS.iter().enumerate().map(|(place, reason)| {
                    let count = sheets.iter().map(|sheet| sheet.handshake_failures(place)).sum();
                    (vec![("reason", *reason)], amount(count))
                }),
            ),
            gauge(
                "mse_proxy_sessions_open",
                "Sessions that are open now.",
                [(vec![], size(facts.sessions_open))],
            ),
            gauge(
                "mse_proxy_worker_sessions_open",
                "Open sessions of each worker, refused ones that linger included.",
                of_workers.map(|(worker, open)| (vec![("worker", worker.as_str())], size(*open))),
            ),
            gauge(
                "mse_proxy_sessions_limit",
                "Sessions that may be open at once (limits.connections).",
                [(vec![], size(facts.sessions_limit))],
            ),
            gauge(
                "mse_proxy_hellos_pending",
                "Open sessions whose client has not shown a name yet.",
                [(vec![], size(facts.hellos_pending))],
            ),
            counter(
                "mse_proxy_relayed_bytes_total",
                "Bytes that were relayed, hellos included; grows while sessions run.",
                [
                    (vec![("direction", "to_backend")], amount(totals.to_backend)),
                    (vec![("direction", "to_client")], amount(totals.to_client)),
                ],
            ),
            counter(
                "mse_proxy_splice_bytes_total",
                "Relayed bytes, of both directions, that were spliced instead of copied.",
                [(vec![], amount(totals.spliced))],
            ),
            counter(
                "mse_proxy_accept_errors_total",
                "Connections that could not be accepted, by what was missing.",
                failures,
            ),
            counter(
                "mse_proxy_access_records_dropped_total",
                "Access records that were lost: their reader stood still, or they could not be written.",
                [(vec![], amount(facts.dropped_records))],
            ),
            gauge(
                "mse_proxy_ready",
                "Whether new clients are welcome (1), or the proxy is starting or draining (0).",
                [(vec![], f64::from(u8::from(facts.is_ready)))],
            ),
        ];
        families.extend(tally::TIMES.map(|(name, help, of)| {
            histogram(name, help, histogram::sum(sheets.iter().map(|sheet| of(sheet))))
        }));
        families
    }
}

fn of_certificates(facts: &CertificateFacts) -> Vec<MetricFamily> {
    let states = [
        ("good", facts.good),
        ("expired", facts.all.saturating_sub(facts.good)),
        ("faulty", facts.faulty),
    ];
    let ends = facts.nearest.iter();
    vec![
        gauge(
            "mse_proxy_certificates",
            "Certificates for terminated names; of faulty ones the last good one may still answer.",
            states.map(|(state, count)| (vec![("state", state)], size(count))),
        ),
        gauge(
            "mse_proxy_certificate_expiry_timestamp_seconds",
            "When a certificate for terminated names ends, for those whose end is nearest.",
            ends.map(|(file, end)| (vec![("certificate", &**file)], family::unix(*end))),
        ),
        gauge(
            "mse_proxy_routes_without_certificate",
            "Terminating routes with names for which no certificate is good.",
            [(vec![], size(facts.bare_routes))],
        ),
    ]
}

fn of_watch(watch: &WatchFacts) -> Vec<MetricFamily> {
    vec![
        gauge(
            "mse_proxy_probe_routes",
            "Sealed routes whose backends' certificates are watched.",
            [(vec![], size(watch.routes))],
        ),
        counter(
            "mse_proxy_probe_looks_total",
            "Looks at certificates of backends, by whether one was seen or the look failed.",
            [("seen", watch.looks), ("failed", watch.failures)]
                .map(|(result, count)| (vec![("result", result)], amount(count))),
        ),
        counter(
            "mse_proxy_probe_events_total",
            "What was new and odd about certificates of backends.",
            watch.events.iter().map(|(kind, count)| (vec![("event", *kind)], amount(*count))),
        ),
        gauge(
            "mse_proxy_probe_faulty_routes",
            "Routes whose backends' certificates have this fault now.",
            watch.faults.iter().map(|(fault, count)| (vec![("fault", *fault)], size(*count))),
        ),
    ]
}

fn of_table(facts: &Facts) -> Vec<MetricFamily> {
    let phases = facts.table.snapshot.calendar().phases(facts.now);
    let states = [
        ("live", phases.live),
        ("pending", phases.pending),
        ("expired", phases.expired),
        ("faulty", facts.faulty_routes),
    ];
    let by_source = |value: fn(&SourceFacts) -> f64| {
        let of = move |source| (vec![("source", SourceFacts::name(source))], value(source));
        facts.sources.iter().map(of).collect::<Vec<_>>()
    };
    vec![
        gauge(
            "mse_proxy_routes",
            "Routes by state; faulty ones were left out of the table.",
            states.map(|(state, count)| (vec![("state", state)], size(count))),
        ),
        gauge(
            "mse_proxy_routes_ending",
            "Routes whose end comes within this time.",
            [("1h", HOUR), ("24h", DAY)].map(|(within, time)| {
                let ends = facts.table.snapshot.calendar().ends_within(facts.now, time);
                (vec![("within", within)], size(ends.len()))
            }),
        ),
        gauge(
            "mse_proxy_clock_lead_seconds",
            "How far the time that routes are judged by is ahead of a wall clock that was set back.",
            [(vec![], facts.clock_lead.as_secs_f64())],
        ),
        gauge(
            "mse_proxy_table_revision",
            "The number of the routing table in force; rises with each change.",
            [(vec![], amount(facts.table.revision))],
        ),
        gauge(
            "mse_proxy_source_fault",
            "Whether something is wrong with what a source of routes told last (1) or not (0).",
            by_source(|source| f64::from(u8::from(source.has_fault))),
        ),
        gauge(
            "mse_proxy_source_last_success_timestamp_seconds",
            "When a source of routes last told a set without a fault; 0 is never.",
            by_source(|source| source.last_success.map_or(0.0, family::unix)),
        ),
        gauge(
            "mse_proxy_source_conflicts",
            "Routes of a source that are left out because others claim the same.",
            by_source(|source| size(source.conflicts)),
        ),
        gauge(
            "mse_proxy_source_revision",
            "The newest transaction that a source of routes has told; 0 if it counts none.",
            by_source(|source| amount(source.revision.unwrap_or(0))),
        ),
    ]
}

impl SourceFacts {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Prometheus knows only floating point; whole numbers stay exact to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the form asks for it")]
fn amount(count: u64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    amount(u64::try_from(count).unwrap_or(u64::MAX))
}
