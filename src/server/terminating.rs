//! What ending TLS here rests on: the operator's certificates, and whom backends are judged by.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;

use crate::clock::Clock;
use crate::config::Config;
use crate::proxy::terminate::certificates::Certificates;
use crate::proxy::terminate::folder::{self, Folder};
use crate::proxy::terminate::policies::provider;
use crate::proxy::terminate::{self, bare};
use crate::routing::table::Table;

/// Keeps the certificates of the configured path, if there is one; tells when they were looked at.
pub(super) fn keep_certificates(
    config: &Config,
    certificates: &Certificates,
    clock: &Arc<dyn Clock>,
    control: &mut JoinSet<()>,
) -> Option<oneshot::Receiver<()>> {
    if let Some(path) = &config.terminate.certificates {
        let folder = Folder::new(path, provider());
        let (told, is_in) = oneshot::channel();
        control.spawn(folder::keep(folder, certificates.clone(), Arc::clone(clock), told));
        return Some(is_in);
    }
    if !config.terminate.zones.are_none() {
        warn!("names may be terminated (terminate.zones), but terminate.certificates names none");
    }
    None
}

/// Waits until certificates were looked at, if they are kept, and until it is known whom the routes
/// that are in trust; keeps both true from then on.
pub(super) async fn be_ready(
    config: &Config,
    terminating: &terminate::Shared,
    first_look: Option<oneshot::Receiver<()>>,
    (table, clock): (&Table, &Arc<dyn Clock>),
    control: &mut JoinSet<()>,
) {
    if let Some(first_look) = first_look {
        // Fails only when looking failed, which has been said.
        let _ = first_look.await;
    }
    // Before the first client: whoever asks for a route finds whom it trusts.
    let (first, all) = (terminating.trusts.clone(), table.clone());
    let _ = tokio::task::spawn_blocking(move || first.refresh(&all)).await;
    control.spawn(terminating.trusts.clone().keep_fresh(table.clone()));
    if !config.terminate.zones.are_none() {
        let (certificates, clock) = (terminating.certificates.clone(), Arc::clone(clock));
        control.spawn(bare::keep_told(certificates, table.clone(), clock));
    }
}
