//! Keeping systemd told while a proxy serves: the STATUS line, and the watchdog's food.
//!
//! Both look at the proxy from outside and never make it wait. READY, RELOADING and STOPPING are
//! the business of `serve`, which knows when they are true. Without systemd nothing runs here.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info};

use super::words::plural;
use crate::admin::Readiness;
use crate::server::{self, Vitals};
use crate::systemd::{self, Notice};

/// How often the STATUS line may change.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// While stopping, systemd is asked for this much more time with each look. It outlasts what comes
/// after the drain: the last words of cut sessions and of the access log, 5 s each.
const EXTENSION: Duration = Duration::from_secs(20);

/// Tells systemd about a proxy until the returned set is dropped.
pub(super) fn keep_told(vitals: &Vitals) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if systemd::is_told() {
        tasks.spawn(tell_status(vitals.clone()));
        if let Some(every) = server::look_every() {
            tasks.spawn(feed_watchdog(vitals.clone(), every));
        }
    }
    tasks
}

async fn tell_status(mut vitals: Vitals) {
    let mut told = String::new();
    loop {
        let readiness = *vitals.readiness.borrow_and_update();
        let stops = readiness == Readiness::Draining;
        let mut notices = Vec::new();
        let line = status(&vitals, readiness);
        if line != told {
            told.clone_from(&line);
            notices.push(Notice::Status(line));
        }
        // drain.timeout may be longer than the unit's TimeoutStopSec; as long as we turn, systemd
        // has no reason to kill what an operator has allowed.
        if stops {
            notices.push(Notice::Extend(EXTENSION));
        }
        if !notices.is_empty() {
            systemd::tell(notices).await;
        }
        // That a stop has begun is told at once.
        tokio::select! {
            () = sleep(STATUS_EVERY) => {}
            Ok(()) = vitals.readiness.changed() => {}
        }
    }
}

fn status(vitals: &Vitals, readiness: Readiness) -> String {
    let sessions = vitals.ledger.open();
    let sessions_word = plural(sessions, "session");
    if readiness == Readiness::Draining {
        return format!("draining: {sessions} {sessions_word} left");
    }
    let routes = vitals.table.current().snapshot.len();
    let without = match readiness {
        Readiness::Unread => "without its store, ",
        Readiness::Uncertified => "certificates are being read, ",
        Readiness::Starting { .. } | Readiness::Ready | Readiness::Draining => "",
    };
    let word = plural(routes, "route");
    format!("serving: {without}{routes} {word}, {sessions} open {sessions_word}")
}

async fn feed_watchdog(vitals: Vitals, every: Duration) {
    let mut observer = vitals.pulses.observe();
    let mut missed = Vec::new();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = observer.silent();
        if silent.is_empty() {
            systemd::tell(vec![Notice::Watchdog]).await;
        }
        if silent != missed {
            tell_log(&silent);
            missed = silent;
        }
    }
}

/// If systemd restarts us, this is the line that says why.
fn tell_log(silent: &[String]) {
    if silent.is_empty() {
        info!("the data path turns again, and systemd is told so");
    } else {
        error!(loops = %silent.join("; "), "the data path stands still: systemd's watchdog is not fed");
    }
}
