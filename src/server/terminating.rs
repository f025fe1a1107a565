//! What ending TLS here rests on: the operator's certificates, and whom backends are judged by.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::warn;

use crate::clock::Clock;
use crate::config::Config;
use crate::proxy::terminate::certificates::Certificates;
use crate::proxy::terminate::keep::keep;
use crate::proxy::terminate::paths::Paths;
use crate::proxy::terminate::policies::provider;
use crate::proxy::terminate::{self, bare};
use crate::routing::table::Table;

/// Keeps the certificates of the configured paths, if there are any.
pub(super) fn keep_certificates(
    config: &Config,
    certificates: &Certificates,
    clock: &Arc<dyn Clock>,
    control: &mut JoinSet<()>,
) {
    let Paths(paths) = &config.terminate.certificates;
    if !paths.is_empty() {
        certificates.expect();
        let (paths, clock) = (paths.clone(), Arc::clone(clock));
        control.spawn(keep(paths, certificates.clone(), clock, provider()));
    } else if !config.terminate.zones.are_none() {
        warn!("names may be terminated (terminate.zones), but terminate.certificates names none");
    }
}

/// Begins to keep what the routes that are in ask for: whom they trust, and certificates. Nobody
/// whose TLS stays sealed waits for that.
pub(super) fn begin(
    config: &Config,
    terminating: &terminate::Shared,
    (table, clock): (&Table, &Arc<dyn Clock>),
    control: &mut JoinSet<()>,
) {
    control.spawn(terminating.trusts.clone().keep_fresh(table.clone()));
    if !config.terminate.zones.are_none() {
        let (certificates, clock) = (terminating.certificates.clone(), Arc::clone(clock));
        control.spawn(bare::keep_told(certificates, table.clone(), clock));
    }
}
