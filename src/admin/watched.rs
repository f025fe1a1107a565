//! What `/status.json` tells of certificates of backends, and of what happened beside connections.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::admin::told::{MOST_FAULTS, Told, time};
use crate::admission::sight::Kind;
use crate::probe::watch::Seen;
use crate::telemetry::chronicle::Happening;

/// The certificates of backends.
#[derive(Debug, Serialize)]
pub(super) struct Watched {
    /// Routes that are watched.
    routes: usize,
    looks: u64,
    failures: u64,
    /// Routes with each fault.
    faults: BTreeMap<&'static str, usize>,
    odd_count: usize,
    odd: Vec<Told>,
}

impl Watched {
    pub(super) fn of(seen: &Seen) -> Self {
        let faults = Kind::ALL.into_iter().zip(seen.faults).filter(|(_, count)| *count > 0);
        let odd = seen.odd.iter().flat_map(|((route, _), odd)| {
            odd.notices.iter().map(move |notice| Told {
                at: format!("route {route}"),
                message: format!("{}: {notice}", odd.backend),
            })
        });
        Self {
            routes: seen.watched,
            looks: seen.looks,
            failures: seen.failures,
            faults: faults.map(|(kind, count)| (kind.word(), count)).collect(),
            odd_count: seen.odd.values().map(|odd| odd.notices.len()).sum(),
            odd: odd.take(MOST_FAULTS).collect(),
        }
    }
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub(super) struct Latest {
    at: String,
    event: &'static str,
    whom: String,
    message: String,
}

impl From<Happening> for Latest {
    fn from(Happening { at, event, whom, message }: Happening) -> Self {
        Self { at: time(at), event, whom, message }
    }
}
