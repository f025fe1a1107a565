//! Where a proxy's routes come from, and where they are changed: the sources and the store, as the
//! configuration names them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::admission::certificate::Roots;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::write;
use crate::proxy::terminate::certificates::Certificates;
use crate::reconcile::{Reconciler, Report};
use crate::registrar::Registrar;
use crate::registry::app::App;
use crate::resolve::dns::Dns;
use crate::source::apps::Apps;
use crate::source::file::{self, Reload};
use crate::source::stored::{self, Handle, Stored};
use crate::source::{RouteSet, Source};
use crate::store;

/// Sets that wait for the reconciler; sources send rarely and may wait.
const SETS: usize = 16;

/// The apps that are asked whether they run.
type Initializing = watch::Receiver<Arc<[App]>>;

/// Where routes come from.
pub(super) struct Supply {
    /// How many will tell a first set.
    pub(super) sources: usize,
    pub(super) reload: Reload,
    /// Where routes are kept that can be changed, and by which rules.
    pub(super) store: Option<(Handle, write::Settings)>,
    /// Who keeps apps and projects there, and the apps that initialize.
    pub(super) registrar: Option<(Arc<Registrar<Dns>>, Initializing)>,
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
        sources += 1;
        let apps = Apps::new(Arc::clone(handle.store()));
        let initializing = apps.initializing();
        control.spawn(apps.run(sets.clone()));
        (handle, initializing)
    });
    let registrar = store.as_ref().and_then(|(handle, initializing)| {
        Some((registrar(handle, config)?, initializing.clone()))
    });
    let store = store.map(|(handle, _)| (handle, rules(config)));
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
    Supply { sources, reload, store, registrar }
}

/// Who keeps apps and projects in a store; nobody, if DNS cannot be asked where their domains lead.
fn registrar(store: &Handle, config: &Config) -> Option<Arc<Registrar<Dns>>> {
    let platform = &config.platform;
    let dns = Dns::new(&platform.resolvers).inspect_err(|error| {
        warn!(%error, "apps cannot be deployed: name DNS servers (platform.resolvers)");
    });
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots = roots.iter().map(AsRef::as_ref).collect::<Roots>();
    let store = Arc::clone(store.store());
    let registrar = Registrar::new(store, dns.ok()?, platform.clone(), roots);
    Some(Arc::new(registrar.within(config.terminate.zones.clone())))
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
