//! File descriptors: as many as the system lets us have, and a word at start if they are too few.

use std::io;
use std::num::NonZero;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::proxy::limits::Settings;
use crate::proxy::relay::pipes;

/// What everything but sessions needs: listeners, runtimes, logs, watches, control, admin, and the
/// connections over the limit that are told so.
const RESERVE: usize = 512;
/// A session has a client and a backend.
const EACH: usize = 2;
/// Even with next to no descriptors, somebody is let in.
const LEAST: usize = 16;

/// Raises the soft limit to the hard one, and lowers `limits.connections` to what fits, with a
/// warning: descriptors that run out later would hurt everybody, not only the newest client.
#[must_use]
pub fn make_room(mut settings: Settings) -> Settings {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "the limit of file descriptors cannot be raised");
        }
    }
    let Some(most) = getrlimit(Resource::Nofile).current else { return settings };
    let descriptors = usize::try_from(most).unwrap_or(usize::MAX);
    let wanted = settings.connections.count();
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let reserve = RESERVE + EACH * pipes::MOST * workers;
    let possible = (descriptors.saturating_sub(reserve) / EACH).max(LEAST);
    if possible < wanted {
        settings.connections = settings.connections.at_most(possible);
        warn!(
            descriptors,
            wanted,
            possible,
            "limits.connections cannot be reached and is lowered: raise the hard limit of descriptors (LimitNOFILE=, ulimit -Hn; fs.nr_open caps both)"
        );
    } else {
        info!(descriptors, "room for limits.connections");
    }
    settings
}

/// Whether trying again at once would fail in the same way: no descriptor, no memory.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
