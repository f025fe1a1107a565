//! The names of everything that the registry keeps in a store.
//!
//! ```text
//! format                      "1": how to read the rest
//! routes/<id>                 a route, as text of a routes file
//! routes-head                 JSON: the newest record of the history, and the oldest one kept
//! history/<number>            JSON: one record; 20 digits, so that keys stand in the order of numbers
//! requests/<request id>       JSON: which record answered it
//! ```
//!
//! Apps and what belongs to them lie beside these ([`super::record`]).
//!
//! Routes and head share a prefix, so that one range reads both as of one revision and one watch
//! tells of both.

use crate::store::MAX_KEY;

/// How the store is laid out.
pub const FORMAT: &str = "format";
/// The layout that is known here.
pub const FORMAT_VALUE: &str = "1";
/// What whoever follows the routes ranges and watches.
pub const WATCHED: &str = "routes";
/// The newest record's head.
pub const HEAD: &str = "routes-head";
/// All records.
pub const HISTORY: &str = "history/";

const ROUTES: &str = "routes/";
const REQUESTS: &str = "requests/";
/// A fleet's store puts a prefix of its own before each key.
const PREFIX_ROOM: usize = 128;

/// The key of a route.
#[must_use]
pub fn route(id: &str) -> String {
    format!("{ROUTES}{id}")
}

/// The id of the route that has this key.
#[must_use]
pub fn route_id(key: &str) -> Option<&str> {
    key.strip_prefix(ROUTES).filter(|id| !id.is_empty())
}

/// Whether an id can be part of a key.
#[must_use]
pub fn fits(id: &str) -> bool {
    let is_printable = !id.is_empty() && !id.contains(char::is_control);
    is_printable && ROUTES.len() + id.len() + PREFIX_ROOM <= MAX_KEY
}

/// The key of a record.
#[must_use]
pub fn record(number: u64) -> String {
    format!("{HISTORY}{number:020}")
}

/// The number of the record that has this key.
#[must_use]
pub fn record_number(key: &str) -> Option<u64> {
    key.strip_prefix(HISTORY)?.parse().ok()
}

/// The key of a request that was answered.
#[must_use]
pub fn request(id: &str) -> String {
    format!("{REQUESTS}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_back_and_stand_in_the_order_of_numbers() {
        for id in ["a", "*.a.test", "a/b c", "ä"] {
            assert_eq!(route_id(&route(id)), Some(id));
            assert!(route(id).starts_with(WATCHED));
        }
        assert!(HEAD.starts_with(WATCHED) && route_id(HEAD).is_none());
        assert_eq!((route_id("routes/"), route_id("history/1")), (None, None));
        let numbers = [1, 9, 10, 99_999, u64::MAX];
        assert!(numbers.map(record).is_sorted());
        assert_eq!(numbers.map(|number| record_number(&record(number))), numbers.map(Some));
    }

    #[test]
    fn what_cannot_be_a_key_is_told() {
        assert!(fits("*.a.test") && fits("a b"));
        assert!(!fits("") && !fits("a\nb") && !fits(&"x".repeat(MAX_KEY)));
    }
}
