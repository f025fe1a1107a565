//! Stopping without harm: let live sessions finish, then cut the rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::outcome::Outcome;
use crate::proxy::connections::Ledger;
use crate::units::Period;

/// How often the log tells how far a drain has come.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long cut sessions get to write their records. They need one turn of their worker each.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The section `drain` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long live sessions may take to finish by themselves.
    pub timeout: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Period(Duration::from_secs(30)) }
    }
}

/// Waits for the live sessions to finish, at most for the configured time or until `hurry` is
/// ready, then cuts those that are left. Accepting must have stopped before.
pub async fn drain(ledger: &Ledger, settings: &Settings, hurry: impl Future<Output = ()>) {
    info!(sessions = ledger.open(), timeout = %settings.timeout, "draining");
    ledger.ask_all();
    tokio::select! {
        _ = timeout(settings.timeout.0, ledger.wait_empty()) => {}
        () = hurry => info!("told again to stop: no more waiting"),
        () = tell_progress(ledger) => {}
    }
    let left = ledger.open();
    ledger.retire_all(Outcome::Drained);
    let _ = timeout(LAST_WORDS, ledger.wait_empty()).await;
    info!(cut = left, "drained");
}

/// Goes on for as long as it is let.
async fn tell_progress(ledger: &Ledger) {
    loop {
        sleep(PROGRESS).await;
        info!(sessions = ledger.open(), "still draining");
    }
}
