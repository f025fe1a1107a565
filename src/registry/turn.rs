//! When something was done last: what one proxy of a fleet does for all, every so often, and the mark
//! that claims of domains leave.
//!
//! Each round is one change of one record, so of all that find it due exactly one has it.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::registry::digest::digits;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::record::Record;
use crate::registry::written;

const TURNS: &str = "turns/";
/// What whoever claims a domain, other than a wildcard, writes on the way. Which names below it are
/// claimed, whoever claims a wildcard can only look up, and no record shows that one has come since
/// but this.
pub const CLAIMS: &str = "claims";

/// The turn of asking whether an app runs.
#[must_use]
pub fn asking(project: &ProjectName, app: &AppName) -> String {
    format!("ready/{}", digits(&[project.as_str(), app.as_str()]))
}

/// When something was done last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// What; printable and short.
    pub what: String,
    /// When.
    #[serde(with = "written")]
    pub at: Timestamp,
}

impl Turn {
    /// Whether it is to be done again. A clock that is far ahead of the others holds up nobody for
    /// longer than a round.
    #[must_use]
    pub fn is_due(&self, every: SignedDuration, now: Timestamp) -> bool {
        now.duration_since(self.at).abs() >= every
    }
}

impl Record for Turn {
    fn key(&self) -> String {
        turn_key(&self.what)
    }
}

/// The key of a turn.
#[must_use]
pub fn turn_key(what: &str) -> String {
    format!("{TURNS}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_due_when_its_time_has_passed_by_any_clock() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let turn = Turn { what: "domains".to_owned(), at: at(1000) };
        let minute = SignedDuration::from_mins(1);
        for (now, is_due) in [(1000, false), (1059, false), (1060, true), (950, false), (940, true)]
        {
            assert_eq!(turn.is_due(minute, at(now)), is_due, "{now}");
        }
    }
}
