//! A route: which names lead to which backends, from when until when.
//!
//! A [`Route`] is judged by the instant that it is handed ([`Lifetime::phase`]); it never looks at
//! a clock. Where a route was written down is an [`Origin`], kept beside it and not in it, so that
//! a route that only moved to another line is still the same route.

use std::fmt;
use std::sync::Arc;

use jiff::SignedDuration;

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Pattern;
use crate::wire::alert::Answer;
use crate::wire::client_hello::Alpn;

/// What happens to the TLS connections of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// They pass through sealed: TLS ends in the backend.
    #[default]
    Passthrough,
}

/// Which names lead to which backends, from when until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique in a table.
    pub id: Arc<str>,
    /// What it claims; at least one.
    pub hosts: Box<[Pattern]>,
    /// Where it leads, in the order of preference; at least one.
    pub backends: Box<[Endpoint]>,
    /// When it is live.
    pub lifetime: Lifetime,
    /// Whom it is for.
    pub app: Option<Arc<str>>,
    /// Sealed or not.
    pub mode: Mode,
    /// If not empty: only for hellos that offer one of these protocols.
    pub alpn: Box<[Box<[u8]>]>,
    /// How its refused clients are answered, where that differs from the proxy's way.
    pub refusal: Option<Answer>,
    /// How many connections at once; 0 is no limit.
    pub max_connections: u32,
}

impl Route {
    /// Whether two versions lead to the same place in the same way, so that a live connection of
    /// the one may go on under the other.
    #[must_use]
    pub fn leads_like(&self, other: &Self) -> bool {
        self.backends == other.backends && self.mode == other.mode
    }

    /// Whether a hello with these protocols may take the route.
    #[must_use]
    pub fn takes(&self, offered: &Alpn) -> bool {
        self.alpn.is_empty()
            || offered.iter().any(|name| self.alpn.iter().any(|own| own.as_ref() == name))
    }
}

/// From when until when a route is live, and how long its connections may outlast it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    /// Live from this instant on; always, if none.
    pub not_before: Option<Timestamp>,
    /// No longer live from this instant on; never, if none.
    pub expires_at: Option<Timestamp>,
    /// How long live connections may run on after `expires_at`.
    pub grace: SignedDuration,
}

/// Where an instant lies in a [`Lifetime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before `not_before`.
    NotYet,
    /// `not_before <= now < expires_at`.
    Live,
    /// At or after `expires_at`.
    Expired,
}

impl Lifetime {
    /// Where `now` lies.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> Phase {
        if self.expires_at.is_some_and(|end| now >= end) {
            Phase::Expired
        } else if self.not_before.is_some_and(|start| now < start) {
            Phase::NotYet
        } else {
            Phase::Live
        }
    }

    /// The instant at which the last live connection is cut, if ever.
    #[must_use]
    pub fn cut_at(&self) -> Option<Timestamp> {
        self.expires_at.map(|end| end.saturating_add(self.grace).unwrap_or(Timestamp::MAX))
    }
}

/// Where a route was written down. Columns and lines count from 1; 0 is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, or whatever the source calls itself.
    pub source: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.source),
            (line, 0) => write!(f, "{}:{line}", self.source),
            (line, column) => write!(f, "{}:{line}:{column}", self.source),
        }
    }
}

/// A route and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The route.
    pub route: Arc<Route>,
    /// Where it was written down.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_itself_is_not_live() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lifetime = Lifetime {
            not_before: Some(at(100)),
            expires_at: Some(at(200)),
            grace: SignedDuration::from_secs(5),
        };
        for (second, phase) in
            [(99, Phase::NotYet), (100, Phase::Live), (199, Phase::Live), (200, Phase::Expired)]
        {
            assert_eq!(lifetime.phase(at(second)), phase, "{second}");
        }
        assert_eq!(lifetime.cut_at(), Some(at(205)));
        let last = at(200).checked_sub(SignedDuration::from_nanos(1)).unwrap();
        assert_eq!(lifetime.phase(last), Phase::Live);
        assert_eq!(Lifetime::default().phase(Timestamp::MAX), Phase::Live);
        assert_eq!(Lifetime::default().cut_at(), None);
    }

    #[test]
    fn a_lifetime_that_ends_before_it_begins_is_never_live() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lifetime = Lifetime {
            not_before: Some(at(200)),
            expires_at: Some(at(100)),
            ..Lifetime::default()
        };
        for second in [50, 100, 150, 200, 250] {
            assert_ne!(lifetime.phase(at(second)), Phase::Live);
        }
    }
}
