//! What would happen to a client that asks for a name: the one answer of `explain`, for a routes
//! file as for a running proxy.
//!
//! It is found by [`Snapshot::lookup`], as the data path finds its routes, and told by the same
//! words; nothing is decided twice. Limits and backends are not asked: what is told here depends
//! on the table and on the time alone.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::hostname::{Hostname, HostnameError};
use crate::outcome::Outcome;
use crate::routing::route::{Origin, Route};
use crate::routing::seen::Fit;
use crate::routing::snapshot::{Miss, Snapshot};
use crate::wire::client_hello::Alpn;

/// What would happen to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The name, as it is looked up; what was asked for, if that is no name.
    pub host: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub verdict: Verdict,
    /// Where the route that covers the name was written down, if one does.
    pub origin: Option<Origin>,
}

/// Whether a client is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is, by this route.
    Allowed(Arc<Route>),
    /// What it asks for is no name.
    NoName(HostnameError),
    /// No live route covers the name.
    Missed(Miss),
}

/// Tells what would happen to a client that asks for a name and offers these protocols. Names are
/// taken as people write them: U-labels stand for what a client would send.
#[must_use]
pub fn explain(snapshot: &Snapshot, host: &str, alpn: &Alpn, at: Timestamp) -> Explanation {
    let (host, verdict) = match host.parse::<Hostname>() {
        Err(error) => (host.to_owned(), Verdict::NoName(error)),
        Ok(name) => {
            let found = snapshot.lookup(&name, alpn, at);
            let verdict =
                found.map_or_else(Verdict::Missed, |route| Verdict::Allowed(Arc::clone(route)));
            (name.to_string(), verdict)
        }
    };
    let origin = verdict.route().and_then(|route| snapshot.origin(&route.id));
    Explanation { host, at, verdict, origin }
}

/// What was seen of a route's backends that makes it end sooner than it was written down, or lets less
/// through.
#[must_use]
pub fn shortcomings(route: &Route) -> Option<String> {
    let end =
        route.seen_end().map(|end| format!("ends at {end}, with the certificate of its backend"));
    let of = route.backends.iter().enumerate();
    let out = of.filter_map(|(place, backend)| match route.fit(place) {
        Fit::Matches => None,
        Fit::Unseen => Some(format!("{backend} was not seen to have the pinned key yet")),
        Fit::Differs => Some(format!("{backend} has another key than the pinned one")),
    });
    let words: Vec<_> = end.into_iter().chain(out).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

impl Verdict {
    /// The route that covers the name, live or not.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<Route>> {
        match self {
            Self::Allowed(route)
            | Self::Missed(Miss::NotYet(route) | Miss::Expired(route) | Miss::Held(route, _)) => {
                Some(route)
            }
            Self::NoName(_) | Self::Missed(Miss::Unknown) => None,
        }
    }

    /// How the client would be refused, if it would.
    #[must_use]
    pub fn refusal(&self) -> Option<Outcome> {
        match self {
            Self::Allowed(_) => None,
            Self::NoName(_) => Some(Outcome::InvalidSni),
            Self::Missed(miss) => Some(miss.into()),
        }
    }

    /// Why it would be refused, in words.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let words = match self {
            Self::Allowed(_) => return None,
            Self::NoName(error) => error.to_string(),
            Self::Missed(Miss::Unknown) => {
                "no route covers this name with these protocols".to_owned()
            }
            Self::Missed(Miss::NotYet(route)) => match route.lifetime().not_before {
                Some(start) => format!("the route begins at {start}"),
                None => "the route has not begun".to_owned(),
            },
            Self::Missed(Miss::Expired(route)) => {
                match (route.lifetime().expires_at, route.seen_end()) {
                    (_, Some(end)) => format!("the certificate of its backend ended at {end}"),
                    (Some(end), None) => format!("the route ended at {end}"),
                    (None, None) => "the route has ended".to_owned(),
                }
            }
            Self::Missed(Miss::Held(_, hold)) => {
                format!("the route is held back: {}", hold.words())
            }
        };
        Some(words)
    }
}
