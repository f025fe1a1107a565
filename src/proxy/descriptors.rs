//! File descriptors: as many as the system lets us have, and a word at start if they are too few.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::proxy::limits::Settings;

/// What everything but sessions needs: listeners, runtimes, logs, watches, control.
const RESERVE: u64 = 256;
/// A session has a client and a backend.
const EACH: u64 = 2;

/// Raises the soft limit to the hard one, and says so if the configured connections do not fit.
pub fn make_room(settings: &Settings) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "the limit of file descriptors cannot be raised");
        }
    }
    let Some(most) = getrlimit(Resource::Nofile).current else { return };
    let wanted = settings.connections.count() as u64 * EACH + RESERVE;
    if most < wanted {
        let possible = most.saturating_sub(RESERVE) / EACH;
        warn!(
            descriptors = most,
            needed = wanted,
            possible,
            "limits.connections cannot be reached: raise the hard limit (LimitNOFILE=, ulimit -Hn) or lower limits.connections"
        );
    } else {
        info!(descriptors = most, "room for limits.connections");
    }
}
