//! What the admin room may look at.
//!
//! Everything here is read at the moment of a question; nobody has to report to this room.

use std::sync::Arc;

use tokio::sync::watch;

use crate::admission::sight::Kind;
use crate::clock::{Clock, Forward, Timestamp};
use crate::probe::watch::{Seen, Sightings};
use crate::proxy::connections::Ledger;
use crate::proxy::handover::Loads;
use crate::proxy::limits::Limits;
use crate::proxy::terminate::certificates::Certificates;
use crate::reconcile::Report;
use crate::routing::table::Table;
use crate::source::stored;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::chronicle::Chronicle;
use crate::telemetry::metrics::{CertificateFacts, Facts, Metrics, SourceFacts, WatchFacts};

/// Where in its life the proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It waits for the first routes of that many sources.
    Starting {
        /// How many sources there are.
        sources: usize,
    },
    /// It takes clients, but its store has not been read since the start: whoever wants a route that
    /// is kept there is better served elsewhere.
    Unread,
    /// It takes clients, but its certificates have not all been looked at since the start: whoever
    /// wants a name whose TLS ends here may have to wait.
    Uncertified,
    /// It takes clients.
    Ready,
    /// It takes no new clients, and live sessions may finish.
    Draining,
}

impl Readiness {
    /// The word that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting { .. } | Self::Unread | Self::Uncertified => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// What the admin room may look at.
#[derive(Debug)]
pub struct Eyes {
    /// The routes.
    pub table: Table,
    /// Who is here.
    pub ledger: Arc<Ledger>,
    /// Who may come in.
    pub limits: Arc<Limits>,
    /// How the sessions are divided among the workers.
    pub loads: Loads,
    /// Where records go.
    pub log: AccessLog,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What became of the sources' sets.
    pub reports: watch::Receiver<Report>,
    /// Where in its life the proxy is.
    pub readiness: watch::Receiver<Readiness>,
    /// The certificates for terminated names.
    pub certificates: Certificates,
    /// What is seen of the certificates of backends.
    pub sightings: Sightings,
    /// What happened beside the paths of connections.
    pub chronicle: Arc<Chronicle>,
    /// The time of day.
    pub clock: Arc<Forward>,
    /// When the proxy started.
    pub started: Timestamp,
}

impl Eyes {
    pub(super) fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    pub(super) fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// Why new clients are not welcome, if they are not.
    pub(super) fn why_not_ready(&self) -> Option<String> {
        match self.readiness() {
            Readiness::Ready => None,
            Readiness::Starting { sources } => {
                let told = self.reports.borrow().sources.len();
                Some(format!("starting: {told} of {sources} sources have told their routes"))
            }
            Readiness::Unread => {
                let report = self.reports.borrow();
                let store = report.sources.iter().find(|source| *source.name == *stored::NAME);
                let fault = store.and_then(|store| store.faults.first());
                let why = fault
                    .map_or_else(|| "no answer yet".to_owned(), |fault| fault.kind.to_string());
                Some(format!(
                    "starting: the store was not read yet, other routes are served: {why}"
                ))
            }
            Readiness::Uncertified => Some(format!(
                "starting: certificates are being read ({} so far); sealed names are served",
                self.certificates.count()
            )),
            Readiness::Draining => Some(match self.ledger.open() {
                1 => "draining: 1 session is still open".to_owned(),
                open => format!("draining: {open} sessions are still open"),
            }),
        }
    }

    /// The numbers of this moment.
    pub(super) fn facts(&self) -> Facts {
        let report = self.report();
        let left_out: usize = report.sources.iter().map(|source| source.left_out).sum();
        let sources = report.sources.iter().map(|source| SourceFacts {
            name: Arc::clone(&source.name),
            has_fault: source.has_fault(),
            last_success: source.last_success,
            conflicts: source.conflicts,
            revision: source.revision,
        });
        let now = self.clock.now();
        Facts {
            now,
            clock_lead: self.clock.lead(),
            table: self.table.current(),
            faulty_routes: left_out + report.conflicts.len(),
            sources: sources.collect(),
            sessions_open: self.ledger.open(),
            worker_sessions: self.loads.each(),
            sessions_limit: self.limits.most(),
            hellos_pending: self.limits.pending(),
            dropped_records: self.log.dropped(),
            is_ready: self.readiness() == Readiness::Ready,
            certificates: self.certificate_facts(now),
            watch: watched(&self.sightings.now()),
        }
    }

    fn certificate_facts(&self, now: Timestamp) -> CertificateFacts {
        let pairs = self.certificates.pairs();
        // Those that end first come last.
        let nearest = pairs.iter().rev().take(self.metrics.most_routes());
        let bare = self.certificates.bare();
        CertificateFacts {
            good: pairs.iter().filter(|pair| pair.is_valid(now)).count(),
            all: pairs.len(),
            faulty: self.certificates.troubles().len(),
            nearest: nearest.map(|pair| (pair.file.to_string(), pair.not_after)).collect(),
            bare_routes: bare.chunk_by(|one, other| one.route == other.route).count(),
        }
    }
}

fn watched(seen: &Seen) -> WatchFacts {
    let faults = Kind::ALL.into_iter().zip(seen.faults).filter(|(kind, _)| kind.stands());
    WatchFacts {
        routes: seen.watched,
        looks: seen.looks,
        failures: seen.failures,
        events: Kind::ALL.into_iter().map(Kind::word).zip(seen.events).collect(),
        faults: faults.map(|(kind, count)| (kind.word(), count)).collect(),
    }
}
