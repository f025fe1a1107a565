//! Why a change of the stored routes is refused. Nothing was changed then.

use std::fmt;
use std::sync::Arc;

use crate::hostname::Pattern;
use crate::registry::keys;
use crate::routing::snapshot::Conflict;
use crate::store::Revision;
use crate::units::Percent;

/// The longest text of a route: with that of the route before it, and were all of it quotes to be
/// escaped, it fits into one record.
pub const MAX_ROUTE: usize = 60 * 1024;
/// The longest request id, in characters.
pub const MAX_REQUEST_ID: usize = 64;
/// Why a request cannot be done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else was there in the meantime.
    #[error("{}: if_revision is {asked}, but the current revision is {current}", Whose(id.as_ref()))]
    Stale {
        /// The route; none: the routes as a whole.
        id: Option<Arc<str>>,
        /// What was expected.
        asked: Revision,
        /// What is there; 0: nothing.
        current: Revision,
    },
    /// There is no such route.
    #[error("no route \"{id}\" is stored")]
    NotFound {
        /// The id.
        id: Arc<str>,
    },
    /// A stored route has the name.
    #[error("route \"{id}\": {pattern} is already claimed by the stored route \"{rival}\"")]
    Taken {
        /// The route that wants it.
        id: Arc<str>,
        /// The name.
        pattern: Pattern,
        /// The route that has it.
        rival: Arc<str>,
    },
    /// A route from elsewhere has the name or the id, and goes before stored ones.
    #[error("route \"{id}\": {conflict}; routes.precedence puts that before stored routes")]
    Elsewhere {
        /// The route that wants it.
        id: Arc<str>,
        /// Who has it.
        conflict: Conflict,
    },
    /// Two routes of one set cannot stand beside each other.
    #[error("route \"{id}\" of this set: {conflict}")]
    Within {
        /// The later one.
        id: Arc<str>,
        /// What the other one has.
        conflict: Conflict,
    },
    /// More routes would go than may.
    #[error(
        "{removed} of {of} routes would be removed, and routes.max_removed_percent is {percent}; \
         confirm that with allow_removal"
    )]
    TooMuchRemoved {
        /// How many.
        removed: usize,
        /// Of how many that have not ended.
        of: usize,
        /// The limit.
        percent: Percent,
    },
    /// More changes than the store takes in one step.
    #[error("this takes {changes} changes in one step, and the store takes {most}")]
    TooMany {
        /// How many, those of the history included.
        changes: usize,
        /// The limit.
        most: usize,
    },
    /// A route that is too long.
    #[error(
        "route \"{id}\" has {bytes} bytes as a text, {MAX_ROUTE} are allowed; give it fewer hosts"
    )]
    TooLong {
        /// The route.
        id: Arc<str>,
        /// Its length.
        bytes: usize,
    },
    /// An id that is too long for a key, or not printable.
    #[error("\"{}\" cannot be stored as an id: it is empty, too long or not printable", id.escape_debug())]
    Id {
        /// The id.
        id: Arc<str>,
    },
    /// The head of the history cannot be read.
    #[error(
        "the head of the history ({}) is damaged, so that nothing can follow upon it",
        keys::HEAD
    )]
    NoHead,
    /// A request id that is none.
    #[error("a request id has 1 to {MAX_REQUEST_ID} printable characters")]
    RequestId,
    /// A request id that belongs to another request.
    #[error("the request id was used for something else before (record {number} of the history)")]
    Reused {
        /// The record.
        number: u64,
    },
}

struct Whose<'a>(Option<&'a Arc<str>>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "route \"{id}\""),
            None => f.write_str("the stored routes"),
        }
    }
}
