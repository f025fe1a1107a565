//! What was seen of the backends of a route, as far as it says until when the route is live and which
//! of its backends are let through.

use crate::clock::Timestamp;

/// Whether a backend has the key that its route is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// Nobody has seen its key yet.
    #[default]
    Unseen,
    /// It has.
    Matches,
    /// It has another one.
    Differs,
}

/// What was seen of the backends of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// When the last of their certificates ends, if the certificates of all were seen.
    pub ends_at: Option<Timestamp>,
    /// If the route is pinned: how each backend fits, in their order.
    pub fits: Box<[Fit]>,
}
