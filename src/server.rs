//! The wiring: from a configuration to a running proxy, and back to a stopped one.
//!
//! Control (sources, table, time, DNS, signals) runs on the caller's runtime; each worker is an
//! operating-system thread with a runtime of its own that shares every listening socket with the
//! others. Workers start when all sources have told their routes, so that no client is refused
//! for a table that is not there yet.

mod lobby;
mod rounds;
mod supply;
mod terminating;
mod watching;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::admin::{Admin, Eyes, Readiness};
use crate::clock::{Clock, Forward};
use crate::config::Config;
use crate::control::address::Address;
use crate::control::{self, Control};
use crate::proxy::backend::addresses::Addresses;
use crate::proxy::connections::Ledger;
use crate::proxy::drain::{self, drain};
use crate::proxy::fresh::Newcomers;
use crate::proxy::handover::colleagues;
use crate::proxy::limits::Limits;
use crate::proxy::listener::{Door, ListenError, listen};
use crate::proxy::pulse::Pulses;
use crate::proxy::retire::{Policy, retire};
use crate::proxy::terminate;
use crate::reconcile::{Reconciler, Report};
use crate::resolve::SystemResolver;
use crate::routing::snapshot::Snapshot;
use crate::routing::table::{Table, table_from};
use crate::source::RouteSet;
use crate::source::file::{self, Reload};
use crate::store::choice;
use crate::systemd;
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::almanac;
use crate::telemetry::chronicle::Chronicle;
use crate::telemetry::metrics::Metrics;
use lobby::Lobby;
use rounds::Telling;
use supply::{Supply, become_ready, supply, wait_for_sources};
use terminating::keep_certificates;
use workers::{Plan, first_number, hire};

pub use workers::workers;

/// How long the access log gets to be written out at the end.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// Why a proxy cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address of the status page and metrics cannot be had.
    #[error("admin.http: {0}")]
    Admin(ListenError),
    /// The control service cannot be had where it was asked for.
    #[error("admin.grpc = \"{address}\": {error}")]
    Control {
        /// Where.
        address: Address,
        /// Why not.
        #[source]
        error: control::OpenError,
    },
    /// The store cannot be had.
    #[error(transparent)]
    Store(#[from] choice::OpenError),
    /// The access log cannot be opened.
    #[error("log.access: {0}")]
    AccessLog(#[from] access_log::OpenError),
    /// The system gives no thread or no runtime.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    reload: Reload,
    reports: watch::Receiver<Report>,
    vitals: Vitals,
    log: AccessLog,
    drain: drain::Settings,
    readiness: watch::Sender<Readiness>,
    stop: watch::Sender<bool>,
    close: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    control: JoinSet<()>,
    admin: Option<Admin>,
    grpc: Option<Control>,
}

/// What can be seen of a proxy from outside, also while it stops. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// Its routes.
    pub table: Table,
    /// Its live sessions.
    pub ledger: Arc<Ledger>,
    /// The loops that have to turn.
    pub pulses: Pulses,
    /// Where in its life it is.
    pub readiness: watch::Receiver<Readiness>,
}

/// How often the watchdog is fed while it waits: twice may be missed.
const FEEDS: u32 = 3;

/// How often somebody looks whether the data path turns, if anybody does.
#[must_use]
pub fn look_every() -> Option<Duration> {
    systemd::watchdog().map(|interval| interval / FEEDS)
}

/// Starts a proxy where the configuration says. `fixed` are routes that are known from the start,
/// beside those that the configuration leads to.
///
/// # Errors
/// Whatever keeps it from listening; nothing is left running then.
pub async fn start(
    config: &Config,
    clock: Arc<dyn Clock>,
    fixed: Vec<RouteSet>,
) -> Result<Running, StartError> {
    start_on(listen(&config.listen, workers())?, config, clock, fixed).await
}

/// Starts a proxy on sockets that already listen.
///
/// # Errors
/// As [`start`].
pub async fn start_on(
    doors: Vec<Door>,
    config: &Config,
    clock: Arc<dyn Clock>,
    fixed: Vec<RouteSet>,
) -> Result<Running, StartError> {
    let addresses: Vec<_> = doors.iter().map(Door::address).collect();
    let lobby = Lobby::open(config)?;
    let store = choice::open(config.store.path.as_deref(), &config.store.etcd).await?;
    let log = AccessLog::open(&config.log)?;
    let (publisher, table) = table_from(Snapshot::within(config.terminate.zones.clone()));
    let ledger = Arc::new(Ledger::new(config.limits.connections_per_route));
    let mut control = JoinSet::new();

    let forward = Arc::new(Forward::new(clock));
    let clock: Arc<dyn Clock> = Arc::clone(&forward) as _;
    let reconciler = Reconciler::new(
        publisher,
        table.clone(),
        Arc::clone(&clock),
        config.routes.precedence.clone(),
    );
    let (reconciler, words) = watching::heard_by(reconciler);
    let mut reports = reconciler.reports();
    let Supply { sources, reload, store, registrar } =
        supply(reconciler, config, &clock, fixed, store, &mut control).await;
    let names = tend(config, &table, &ledger, &forward, &mut control);
    let shared = terminate::Shared::default();
    keep_certificates(config, &shared.certificates, &clock, &mut control);
    let limits = Arc::new(Limits::new(config.limits.clone()));
    let metrics = Arc::new(Metrics::new(&config.telemetry));
    let chronicle = Arc::new(Chronicle::default());
    let sightings = watching::begin(config, &table, &clock, words, &chronicle, &mut control);
    let telling = Telling { metrics: Arc::clone(&metrics), chronicle: Arc::clone(&chronicle) };
    let registrar = registrar.map(|both| rounds::begin(both, &clock, &telling, &mut control));
    let (colleagues, loads) = colleagues(workers());
    let (readiness, in_life) = watch::channel(Readiness::Starting { sources });
    let eyes = Arc::new(Eyes {
        table: table.clone(),
        ledger: Arc::clone(&ledger),
        limits: Arc::clone(&limits),
        loads,
        log: log.clone(),
        metrics: Arc::clone(&metrics),
        reports: reports.clone(),
        readiness: in_life.clone(),
        certificates: shared.certificates.clone(),
        sightings,
        chronicle,
        started: clock.now(),
        clock: forward,
    });
    let on_remove = config.routes.on_remove;
    let (admin, grpc) = lobby.serve(control::Subject { eyes, on_remove, store, registrar })?;
    wait_for_sources(&mut reports, sources).await;
    terminating::begin(config, &shared, (&table, &clock), &mut control);

    let (stop, stopping) = watch::channel(false);
    let (close, closing) = watch::channel(false);
    let pulses = Pulses::new(look_every());
    let vitals = Vitals { table, ledger: Arc::clone(&ledger), pulses, readiness: in_life };
    let certificates = shared.certificates.clone();
    let plan = Plan {
        vitals: vitals.clone(),
        limits,
        metrics,
        names,
        terminating: shared,
        newcomers: Arc::new(Newcomers::new(&config.admission, config.backend.connect_timeout.0)),
        clock,
        log: log.clone(),
        numbers: Arc::new(AtomicU64::new(first_number())),
        config: config.clone(),
        stopping,
        closing,
    };
    let workers = hire(colleagues, &plan, &doors).map_err(StartError::Thread)?;
    // Before it is said: whoever has read the log finds it so.
    become_ready(&readiness, reports.clone(), certificates, &mut control);
    for address in &addresses {
        info!(%address, workers = workers.len(), "listening");
    }
    Ok(Running {
        addresses,
        reload,
        reports,
        vitals,
        log,
        drain: config.drain.clone(),
        readiness,
        stop,
        close,
        workers,
        control,
        admin,
        grpc,
    })
}

/// Does what routes ask for beside the path of connections: their ends, what is told of these, and
/// the addresses of named backends.
fn tend(
    config: &Config,
    table: &Table,
    ledger: &Arc<Ledger>,
    clock: &Arc<Forward>,
    control: &mut JoinSet<()>,
) -> Addresses {
    let policy = Policy { on_remove: config.routes.on_remove, drain: config.drain.timeout.0 };
    let now: Arc<dyn Clock> = Arc::clone(clock) as _;
    control.spawn(retire(Arc::clone(ledger), table.clone(), now, policy));
    control.spawn(almanac::tell(table.clone(), Arc::clone(clock)));
    let names = Addresses::default();
    let (fresh, all) = (names.clone(), table.clone());
    control.spawn(async move { fresh.keep_fresh(all, SystemResolver).await });
    names
}

impl Running {
    /// Where it listens, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Makes it read its routes again.
    #[must_use]
    pub fn reload(&self) -> &Reload {
        &self.reload
    }

    /// Opens its access log and reads its routes again, and waits until what was found is in force.
    /// Whoever renamed the log may do with the old file what he likes then.
    pub async fn reload_now(&self) {
        tokio::join!(self.log.reopen(), self.reread());
    }

    async fn reread(&self) {
        let Some(number) = self.reload.read_again().await else { return };
        let is_taken = |report: &Report| {
            report.sources.iter().any(|told| &*told.name == file::NAME && told.sets >= number)
        };
        // Fails only when the reconciler is gone, and then nothing more will come.
        let _ = self.reports.clone().wait_for(is_taken).await;
    }

    /// What can be seen of it, for as long as anybody likes to look.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        self.vitals.clone()
    }

    /// Where its status page and metrics are, if anywhere.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Where its control service is, if anywhere.
    #[must_use]
    pub fn grpc(&self) -> Option<&Address> {
        self.grpc.as_ref().map(Control::address)
    }

    /// Its routes.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.vitals.table
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.vitals.ledger.open()
    }

    /// Stops accepting, lets live sessions finish as configured (until `hurry` is ready), cuts the
    /// rest, and writes out every record.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        self.readiness.send_replace(Readiness::Draining);
        self.stop.send_replace(true);
        drain(&self.vitals.ledger, &self.drain, hurry).await;
        self.close.send_replace(true);
        let (workers, log) = (std::mem::take(&mut self.workers), self.log.clone());
        let (admin, grpc) = (self.admin.take(), self.grpc.take());
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                // A worker that panicked has said so already.
                let _ = worker.join();
            }
            log.close(LOG_PATIENCE);
            // Last, so that a stop can be watched to its end.
            if let Some(grpc) = grpc {
                grpc.close();
            }
            if let Some(admin) = admin {
                admin.close();
            }
        });
        let _ = joined.await;
        self.control.shutdown().await;
    }
}
