//! How `/status.json` tells of anything: where something is wrong and what, an instant, and how much
//! of one kind at the most.

use serde::Serialize;

use crate::clock::Timestamp;

/// How many faults of one source, how many conflicts, and how many of anything else, are told.
pub(super) const MOST_FAULTS: usize = 50;

/// Something that is wrong, and where.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) at: String,
    pub(super) message: String,
}

/// To the second.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.0}")
}
