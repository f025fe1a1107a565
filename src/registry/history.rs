//! Who changed what and when: one record for each write, chained by their digests.
//!
//! A record names the SHA-256 of the bytes of the one before it, and the head that of the newest, so
//! that a record cannot be changed, taken out or put in without showing ([`super::verify`]). A write of
//! very many routes leaves several records in a row, because a value has a bound.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::registry::written;
use crate::store::Revision;

/// One write, or a part of a large one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 1, 2, 3 … without gaps.
    pub number: u64,
    /// When it was planned, by the clock of the proxy that did.
    #[serde(with = "written")]
    pub at: Timestamp,
    /// Who asked for it, in words.
    pub by: String,
    /// The id of the request; empty, if it had none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// What changed, by the ids.
    pub changes: Vec<Change>,
    /// How many of the routes that were asked for were so already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unchanged: u64,
    /// If nothing was to change: the revision that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Revision>,
    /// The digest of the bytes of the record before; empty for the first.
    pub previous: String,
}

/// One route of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its id.
    pub id: String,
    /// Its text before; none, if there was no such route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its text from then on; none, if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Where the history begins and ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the newest record.
    pub number: u64,
    /// The digest of its bytes.
    pub digest: String,
    /// The number of the oldest record that is kept.
    pub oldest: u64,
}

/// Which record answered a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The first of its records.
    pub number: u64,
    /// A digest of what was asked for.
    pub asked: String,
}

/// A record that was kept, as far as it must be known to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// Its number.
    pub number: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The id of its request, or nothing.
    pub request: String,
}

/// Bytes that are not what was once written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no {what}: {why}")]
pub struct Unreadable {
    /// What it should be.
    pub what: &'static str,
    /// What the parser says.
    pub why: String,
}

/// How much of the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest a record may become.
    pub max_age: jiff::SignedDuration,
    /// How many there may be.
    pub max_records: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        // A quarter of a year is asked about; at a kilobyte each, so many take 100 MB.
        Self { max_age: jiff::SignedDuration::from_hours(90 * 24), max_records: 100_000 }
    }
}

/// What is kept as JSON.
pub trait Kept: Serialize + for<'a> Deserialize<'a> {
    /// What it is called.
    const WHAT: &'static str;

    /// The bytes that are kept.
    fn to_bytes(&self) -> Vec<u8> {
        // Texts, numbers and lists of them: nothing in it can fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// If it is something else.
    fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let read = serde_json::from_slice(bytes);
        read.map_err(|error| Unreadable { what: Self::WHAT, why: error.to_string() })
    }
}

impl Kept for Record {
    const WHAT: &'static str = "record of the history";
}

impl Kept for Head {
    const WHAT: &'static str = "head of the history";
}

impl Kept for Answered {
    const WHAT: &'static str = "note of an answered request";
}

impl From<&Record> for Old {
    fn from(record: &Record) -> Self {
        Self { number: record.number, at: record.at, request: record.request.clone() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        let record = Record {
            number: 7,
            at: "2026-11-24T10:00:00.5Z".parse().unwrap(),
            by: "unix:uid=0(root) pid=1".into(),
            request: String::new(),
            changes: vec![Change { id: "a".into(), before: None, after: Some("x\n".into()) }],
            unchanged: 0,
            answered: None,
            previous: String::new(),
        };
        let text = String::from_utf8(record.to_bytes()).unwrap();
        let expected = r#"{"number":7,"at":"2026-11-24T10:00:00.5Z","by":"unix:uid=0(root) pid=1","changes":[{"id":"a","after":"x\n"}],"previous":""}"#;
        assert_eq!(text, expected);
        assert_eq!(Record::read(text.as_bytes()), Ok(record));
        let why = Head::read(b"{}").unwrap_err().to_string();
        assert!(why.contains("no head of the history: missing field `number`"), "{why}");
    }
}
