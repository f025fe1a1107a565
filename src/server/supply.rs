//! Where a proxy's routes come from, and where they are changed: the sources, the store and the
//! door of the control service, as the configuration names them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, write};
use crate::proxy::terminate::certificates::Certificates;
use crate::reconcile::{Reconciler, Report};
use crate::server::StartError;
use crate::source::file::{self, Reload};
use crate::source::stored::{self, Handle, Stored};
use crate::source::{RouteSet, Source};
use crate::store;

/// Sets that wait for the reconciler; sources send rarely and may wait.
const SETS: usize = 16;

/// Where routes come from.
pub(super) struct Supply {
    /// How many will tell a first set.
    pub(super) sources: usize,
    pub(super) reload: Reload,
    /// Where routes are kept that can be changed, and by which rules.
    pub(super) store: Option<(Handle, write::Settings)>,
}

/// Starts the reconciler, and all that tells it routes.
pub(super) async fn supply(
    reconciler: Reconciler,
    config: &Config,
    clock: &Arc<dyn Clock>,
    fixed: Vec<RouteSet>,
    store: Option<store::Shared>,
    control: &mut JoinSet<()>,
) -> Supply {
    let (sets, incoming) = mpsc::channel(SETS);
    let reload = Reload::default();
    let mut sources = fixed.len();
    control.spawn(reconciler.run(incoming));
    for set in fixed {
        // The reconciler was started just above and lives as long as the proxy.
        let _ = sets.send(set).await;
    }
    let store = store.map(|store| {
        let (source, handle) = Stored::new(store);
        sources += 1;
        control.spawn(source.run(sets.clone()));
        (handle, rules(config))
    });
    let file = file::Watched::new(
        &config.routes.source(&config.terminate.zones),
        reload.clone(),
        Arc::clone(clock),
    );
    if let Some(source) = file {
        sources += 1;
        control.spawn(source.run(sets));
    }
    if sources == 0 {
        warn!("no source of routes is configured (routes.path, store.path): every name is unknown");
    }
    Supply { sources, reload, store }
}

/// What writes to the store are judged by.
fn rules(config: &Config) -> write::Settings {
    write::Settings {
        zones: config.terminate.zones.clone(),
        max_removed_percent: config.routes.max_removed_percent,
        history: config.store.bounds(),
        yields: config.routes.precedence.store_yields(),
    }
}

/// Waits until so many sources have told their first sets.
pub(super) async fn wait_for_sources(reports: &mut watch::Receiver<Report>, sources: usize) {
    // Fails only when the reconciler is gone, and then nothing more will come.
    let _ = reports.wait_for(|report| report.sources.len() >= sources).await;
}

/// Says that it is ready, or will be as soon as the store was read and certificates were.
pub(super) fn become_ready(
    readiness: &watch::Sender<Readiness>,
    mut reports: watch::Receiver<Report>,
    certificates: Certificates,
    control: &mut JoinSet<()>,
) {
    let first = stage(&reports.borrow(), &certificates);
    readiness.send_replace(first);
    if first == Readiness::Ready {
        return;
    }
    if first == Readiness::Unread {
        warn!("the store was not read yet: other routes are served, and it is not ready before");
    }
    let (readiness, mut sets) = (readiness.clone(), certificates.subscribe());
    control.spawn(async move {
        let mut before = first;
        while before != Readiness::Ready {
            tokio::select! {
                told = reports.changed() => if told.is_err() { return },
                // Ends no sooner than we let go of the certificates.
                _ = sets.changed() => {}
            }
            let now = stage(&reports.borrow_and_update(), &certificates);
            if before == Readiness::Unread && now != before {
                info!("the store was read");
            }
            // Unless it drains by now.
            readiness.send_if_modified(|known| {
                let waits = *known == before && now != before;
                if waits {
                    *known = now;
                }
                waits
            });
            before = now;
        }
        info!("ready");
    });
}

/// Where in its life a proxy is that takes clients.
fn stage(report: &Report, certificates: &Certificates) -> Readiness {
    if !knows_store(report) {
        Readiness::Unread
    } else if certificates.are_expected() {
        Readiness::Uncertified
    } else {
        Readiness::Ready
    }
}

/// Whether what the store keeps is in force, if there is one.
fn knows_store(report: &Report) -> bool {
    let store = report.sources.iter().find(|source| *source.name == *stored::NAME);
    store.is_none_or(|store| store.revision.is_some())
}

/// Opens the control service. At its usual place it is a comfort that a proxy can do without: one
/// that may not write to /run serves all the same.
pub(super) fn open_control(config: &Config) -> Result<Option<control::Door>, StartError> {
    let address = &config.admin.grpc;
    match control::open(address, &config.admin.tls) {
        Ok(door) => Ok(door),
        Err(error) if address.is_usual() => {
            warn!(%error, "no control service: set admin.grpc to another place, or to \"\"");
            Ok(None)
        }
        Err(error) => Err(StartError::Control { address: address.clone(), error }),
    }
}
