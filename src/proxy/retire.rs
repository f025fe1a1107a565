//! Ending sessions as time passes and the table changes.
//!
//! One loop beside the data path does both, so that a route that was prolonged is known to be so
//! before its old end is judged. While any live session has an end to wait for, the time is looked
//! at every 40 ms: that holds the promise of 100 ms, and a wall clock that was set or a machine
//! that slept is seen at the next look instead of when some timer had been due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::clock::Clock;
use crate::proxy::connections::{Ledger, OnRemove};
use crate::routing::table::Table;

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(40);

/// What becomes of sessions whose route is taken away.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The way.
    pub on_remove: OnRemove,
    /// How long they may take to finish, where that is the way.
    pub drain: Duration,
}

/// Ends sessions whose time has come or whose route was taken away, until the table has no
/// publisher any more.
pub async fn retire(ledger: Arc<Ledger>, table: Table, clock: Arc<dyn Clock>, policy: Policy) {
    let mut changes = table.subscribe();
    loop {
        tokio::select! {
            told = changes.changed() => if told.is_err() { return },
            () = ledger.wait_deadline() => sleep(TICK).await,
        }
        if *changes.borrow_and_update() > 0 {
            adopt(&ledger, &table, policy);
        }
        let retired = ledger.retire_due(clock.now(), Instant::now());
        if retired > 0 {
            info!(sessions = retired, "sessions were ended: their route is over");
        }
    }
}

fn adopt(ledger: &Ledger, table: &Table, policy: Policy) {
    let current = table.current();
    let now = Instant::now();
    let sessions = ledger.adopt(&current, policy.on_remove, policy.drain, now);
    if sessions > 0 {
        let revision = current.revision;
        let policy = policy.on_remove;
        info!(sessions, revision, ?policy, "the route of live sessions was taken away");
    }
}
