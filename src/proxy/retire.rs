//! Ending sessions as time passes and the table changes.
//!
//! Both loops run beside the data path. While any live session has an end to wait for, the time is
//! looked at every [`TICK`]: that holds the promise of 100 ms, and a wall clock that was set or a
//! machine that slept is seen at the next look instead of when some timer had been due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::clock::{Clock, StepWatch};
use crate::proxy::connections::{Ledger, OnRemove};
use crate::routing::table::Table;

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(40);

/// Ends sessions when their time has come. Never returns.
pub async fn keep_time(ledger: Arc<Ledger>, clock: Arc<dyn Clock>) {
    let mut steps = StepWatch::new(clock.now(), clock.since_boot());
    loop {
        ledger.wait_deadline().await;
        let now = clock.now();
        let retired = ledger.retire_due(now, Instant::now());
        if retired > 0 {
            info!(sessions = retired, "sessions were ended: their route is over");
        }
        if let Some(step) = steps.observe(now, clock.since_boot()) {
            warn!(seconds = step.as_secs_f64(), "the wall clock was set");
        }
        sleep(TICK).await;
    }
}

/// Lets live sessions follow the table until it has no publisher any more.
pub async fn follow(ledger: Arc<Ledger>, table: Table, policy: OnRemove, drain: Duration) {
    let mut changes = table.subscribe();
    while changes.changed().await.is_ok() {
        let current = table.current();
        let count = ledger.adopt(&current.snapshot, policy, drain, Instant::now());
        if count > 0 {
            info!(
                sessions = count,
                revision = current.revision,
                policy = ?policy,
                "the route of live sessions was taken away"
            );
        }
    }
}
