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
use crate::hostname::{Hostname, Pattern};
use crate::routing::few::Few;
use crate::routing::seen::{Fit, Seen};
use crate::routing::termination::{KeyDigest, Termination};
use crate::wire::alert::Answer;
use crate::wire::client_hello::Alpn;

/// So many names are looked through where looking longer would not pay.
const FEW: usize = 4;

/// What happens to the TLS connections of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// They pass through sealed: TLS ends in the backend.
    #[default]
    Passthrough,
    /// TLS ends here.
    Terminate(Arc<Termination>),
}

/// Which names lead to which backends, from when until when.
///
/// There may be a million of them: what most routes have takes 88 bytes here, beside the letters of
/// its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique in a table.
    pub id: Arc<str>,
    /// What it claims; at least one.
    pub hosts: Few<Pattern>,
    /// Where it leads, in the order of preference; at least one.
    pub backends: Few<Endpoint>,
    terms: Stored,
}

/// What a route may say beside its names and backends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
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
    /// If sealed: the only key that its backends may have.
    pub pin: Option<KeyDigest>,
    /// Why nothing is forwarded, if nothing is.
    pub hold: Option<Hold>,
    /// Whether its app is being configured, and serves one client at a time.
    pub is_initializing: bool,
    /// What was seen of its backends.
    pub seen: Seen,
}

impl Terms {
    /// When it is live, by what was seen as well: no route outlives the certificate that its
    /// backends show.
    fn lifetime(&self) -> Lifetime {
        let ends = self.lifetime.expires_at.into_iter().chain(self.seen.ends_at);
        Lifetime { expires_at: ends.min(), ..self.lifetime }
    }
}

/// Why nothing is forwarded to a name that a route claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Its project is suspended, or its domain led elsewhere for too long.
    Suspended,
    /// Nobody has seen its domain lead here yet.
    DomainPending,
}

impl Hold {
    /// The same in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Suspended => "its project is suspended, or its domain leads elsewhere",
            Self::DomainPending => "nobody has seen its domain lead here yet",
        }
    }
}

/// [`Terms`] as they are kept: an end date is all that most routes say. One value has one form, so
/// that equal routes are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stored {
    /// Nothing.
    None,
    /// An end date.
    End { nanosecond: i32, second: i64 },
    /// No end date of its own, and backends whose certificate ends in this second.
    Seen { second: i64 },
    /// Anything else.
    All(Box<Terms>),
}

impl Route {
    /// A route. An id that is the first host's name shares its letters.
    #[must_use]
    pub fn new(
        id: Arc<str>,
        hosts: impl Into<Few<Pattern>>,
        backends: impl Into<Few<Endpoint>>,
        terms: Terms,
    ) -> Self {
        let hosts = hosts.into();
        let name = match hosts.first() {
            Some(Pattern::Exact(name)) if *name.as_str() == *id => Some(name.shared()),
            _ => None,
        };
        Self { id: name.unwrap_or(id), hosts, backends: backends.into(), terms: terms.into() }
    }

    /// When it is live.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        match &self.terms {
            Stored::None => Lifetime::default(),
            Stored::End { second, nanosecond } => Lifetime {
                // It was a timestamp when it was stored.
                expires_at: Timestamp::new(*second, *nanosecond).ok(),
                ..Lifetime::default()
            },
            Stored::Seen { second } => {
                Lifetime { expires_at: Timestamp::from_second(*second).ok(), ..Lifetime::default() }
            }
            Stored::All(terms) => terms.lifetime(),
        }
    }

    /// Its end as it was written down, whatever was seen of its backends.
    #[must_use]
    pub fn written_end(&self) -> Option<Timestamp> {
        match &self.terms {
            Stored::None | Stored::Seen { .. } => None,
            Stored::End { .. } => self.lifetime().expires_at,
            Stored::All(terms) => terms.lifetime.expires_at,
        }
    }

    /// Its end, if it is the certificate of its backends that makes it so early.
    #[must_use]
    pub fn seen_end(&self) -> Option<Timestamp> {
        let end = self.lifetime().expires_at;
        end.filter(|_| end != self.written_end())
    }

    /// If it is sealed: the only key that its backends may have.
    #[must_use]
    pub fn pin(&self) -> Option<KeyDigest> {
        self.all()?.pin
    }

    /// How the backend at a place fits. Without a pin, each does.
    #[must_use]
    pub fn fit(&self, place: usize) -> Fit {
        match self.all() {
            Some(terms) if terms.pin.is_some() => {
                terms.seen.fits.get(place).copied().unwrap_or_default()
            }
            _ => Fit::Matches,
        }
    }

    /// The same route after this was seen of its backends.
    #[must_use]
    pub fn seen(&self, seen: &Seen) -> Self {
        let terms = Terms { seen: self.said_by(seen), ..self.terms() };
        let Self { id, hosts, backends, .. } = self;
        let (id, hosts, backends) = (Arc::clone(id), hosts.clone(), backends.clone());
        Self { id, hosts, backends, terms: terms.into() }
    }

    /// Whether this says anything of it.
    #[must_use]
    pub fn heeds(&self, seen: &Seen) -> bool {
        self.said_by(seen) != Seen::default()
    }

    /// Whether it would be another one then.
    #[must_use]
    pub fn would_change(&self, seen: &Seen) -> bool {
        let said = self.said_by(seen);
        match &self.terms {
            Stored::All(terms) => terms.seen != said,
            Stored::Seen { second } => {
                said.ends_at.is_none_or(|end| end.as_second() != *second) || !said.fits.is_empty()
            }
            Stored::None | Stored::End { .. } => said != Seen::default(),
        }
    }

    /// What of this says anything: an end that is sooner than its own, and fits if it is pinned.
    fn said_by(&self, seen: &Seen) -> Seen {
        let own = self.written_end().unwrap_or(Timestamp::MAX);
        let fits = if self.pin().is_some() { seen.fits.clone() } else { Box::default() };
        Seen { ends_at: seen.ends_at.filter(|end| *end < own), fits }
    }

    /// Where an instant lies in its lifetime.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> Phase {
        match &self.terms {
            Stored::None => Phase::Live,
            Stored::End { second, nanosecond } => {
                // Both have the sign of the whole, so that pairs are ordered as instants are.
                let end = (*second, *nanosecond);
                if (now.as_second(), now.subsec_nanosecond()) < end {
                    Phase::Live
                } else {
                    Phase::Expired
                }
            }
            Stored::Seen { second } => {
                if now.as_second() < *second {
                    Phase::Live
                } else {
                    self.lifetime().phase(now)
                }
            }
            Stored::All(terms) => terms.lifetime().phase(now),
        }
    }

    /// Whom it is for.
    #[must_use]
    pub fn app(&self) -> Option<&Arc<str>> {
        self.all()?.app.as_ref()
    }

    /// Sealed or not.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        self.all().map_or(&Mode::Passthrough, |terms| &terms.mode)
    }

    /// How it is served, if TLS ends here.
    #[must_use]
    pub fn termination(&self) -> Option<&Arc<Termination>> {
        match self.mode() {
            Mode::Passthrough => None,
            Mode::Terminate(termination) => Some(termination),
        }
    }

    /// If not empty: it is only for hellos that offer one of these protocols.
    #[must_use]
    pub fn alpn(&self) -> &[Box<[u8]>] {
        self.all().map(|terms| &*terms.alpn).unwrap_or_default()
    }

    /// How its refused clients are answered, where that differs from the proxy's way.
    #[must_use]
    pub fn refusal(&self) -> Option<Answer> {
        self.all()?.refusal
    }

    /// How many connections at once; 0 is no limit.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.all().map_or(0, |terms| terms.max_connections)
    }

    /// Why nothing is forwarded, if nothing is.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.all()?.hold
    }

    /// Whether its app is being configured, and serves one client at a time.
    #[must_use]
    pub fn is_initializing(&self) -> bool {
        self.all().is_some_and(|terms| terms.is_initializing)
    }

    /// All that it says beside its names and backends.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let lifetime = self.lifetime();
        match &self.terms {
            Stored::All(terms) => (**terms).clone(),
            Stored::None | Stored::End { .. } => Terms { lifetime, ..Terms::default() },
            Stored::Seen { .. } => {
                let seen = Seen { ends_at: lifetime.expires_at, ..Seen::default() };
                Terms { seen, ..Terms::default() }
            }
        }
    }

    fn all(&self) -> Option<&Terms> {
        match &self.terms {
            Stored::All(terms) => Some(terms),
            Stored::None | Stored::End { .. } | Stored::Seen { .. } => None,
        }
    }

    /// The value of its own that says the same name, if it is among the first few that it claims.
    #[must_use]
    pub fn own(&self, name: &Hostname) -> Option<Hostname> {
        self.hosts.iter().take(FEW).find_map(|pattern| match pattern {
            Pattern::Exact(own) if own == name => Some(own.clone()),
            _ => None,
        })
    }

    /// Whether two versions lead to the same place in the same way, so that a live connection of
    /// the one may go on under the other.
    #[must_use]
    pub fn leads_like(&self, other: &Self) -> bool {
        self.backends == other.backends && self.mode() == other.mode() && self.pin() == other.pin()
    }

    /// Whether one hello could take either of two routes under the same pattern, without a rule to
    /// choose.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (own, theirs) = (self.alpn(), other.alpn());
        if own.is_empty() || theirs.is_empty() {
            return own.is_empty() && theirs.is_empty();
        }
        own.iter().any(|name| theirs.contains(name))
    }

    /// Whether a hello with these protocols may take the route.
    #[must_use]
    pub fn takes(&self, offered: &Alpn) -> bool {
        let asked = self.alpn();
        asked.is_empty() || offered.iter().any(|name| asked.iter().any(|own| own.as_ref() == name))
    }
}

impl From<Terms> for Stored {
    fn from(terms: Terms) -> Self {
        let expires_at = terms.lifetime.expires_at;
        let lifetime = Lifetime { expires_at, ..Lifetime::default() };
        let seen_end = terms.seen.ends_at.filter(|end| end.subsec_nanosecond() == 0);
        if let (Some(end), None) = (seen_end, expires_at) {
            let seen = Seen { ends_at: seen_end, ..Seen::default() };
            if terms == (Terms { seen, ..Terms::default() }) {
                return Self::Seen { second: end.as_second() };
            }
        }
        if terms != (Terms { lifetime, ..Terms::default() }) {
            return Self::All(Box::new(terms));
        }
        expires_at.map_or(Self::None, |end| Self::End {
            second: end.as_second(),
            nanosecond: end.subsec_nanosecond(),
        })
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
    fn a_route_says_what_it_was_given_in_whichever_form_it_is_kept() {
        let end = |text: &str| text.parse::<Timestamp>().ok();
        let ends = [None, end("2026-12-24T00:00:00.5Z"), end("1969-12-31T23:59:59.7Z")];
        for expires_at in ends.into_iter().chain([Some(Timestamp::MAX), Some(Timestamp::MIN)]) {
            for max_connections in [0, 7] {
                let lifetime = Lifetime { expires_at, ..Lifetime::default() };
                let terms = Terms { lifetime, max_connections, ..Terms::default() };
                let route = Route::new("id".into(), Few::default(), Few::default(), terms.clone());
                assert_eq!(route.lifetime(), lifetime);
                let near = SignedDuration::from_millis(400);
                for now in ends.into_iter().flatten().chain([Timestamp::UNIX_EPOCH]) {
                    for now in [now, now - near, now + near] {
                        assert_eq!(route.phase(now), lifetime.phase(now), "{now} {lifetime:?}");
                    }
                }
                assert_eq!(route.max_connections(), max_connections);
                assert_eq!(route.app(), None);
                assert_eq!(route, Route::new("id".into(), vec![], vec![], terms));
            }
        }
    }

    #[test]
    fn no_route_outlives_what_was_seen_of_its_backends_and_what_was_written_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let route = |expires_at, max_connections| {
            let lifetime = Lifetime { expires_at, ..Lifetime::default() };
            let terms = Terms { lifetime, max_connections, ..Terms::default() };
            Route::new("id".into(), Few::default(), Few::default(), terms)
        };
        let seen = Seen { ends_at: Some(at(100)), ..Seen::default() };
        for (written, most, end) in [
            (None, 0, Some(at(100))),
            (None, 7, Some(at(100))),
            (Some(at(200)), 0, Some(at(100))),
            (Some(at(100)), 0, Some(at(100))),
            (Some(at(50)), 7, Some(at(50))),
        ] {
            let plain = route(written, most);
            let capped = plain.seen(&seen);
            assert_eq!(capped.lifetime().expires_at, end, "{written:?} {most}");
            assert_eq!(capped.written_end(), written);
            assert_eq!(capped.seen_end(), end.filter(|_| written.is_none_or(|own| own > at(100))));
            assert_eq!(plain.would_change(&seen), capped != plain);
            assert!(!capped.would_change(&seen));
            for second in [49, 50, 99, 100, 150, 200] {
                let phase = capped.lifetime().phase(at(second));
                assert_eq!(capped.phase(at(second)), phase, "{written:?} {second}");
            }
            // A renewed certificate lifts it, whichever form the route is kept in.
            assert_eq!(capped.seen(&Seen::default()), plain);
            let renewed = Seen { ends_at: Some(at(150)), ..Seen::default() };
            assert_eq!(capped.seen(&renewed), plain.seen(&renewed));
            assert!(capped.leads_like(&plain));
        }
    }

    #[test]
    fn backends_of_a_pinned_route_fit_as_they_were_seen_and_those_of_others_always() {
        let seen = Seen { ends_at: None, fits: Box::new([Fit::Differs, Fit::Matches]) };
        let plain = Route::new("id".into(), Few::default(), Few::default(), Terms::default());
        assert_eq!(plain.seen(&seen), plain);
        assert_eq!(plain.fit(0), Fit::Matches);
        let terms = Terms { pin: Some(KeyDigest([1; 32])), ..Terms::default() };
        let pinned = Route::new("id".into(), Few::default(), Few::default(), terms);
        assert_eq!((pinned.fit(0), pinned.fit(1)), (Fit::Unseen, Fit::Unseen));
        let pinned = pinned.seen(&seen);
        assert_eq!(
            (pinned.fit(0), pinned.fit(1), pinned.fit(2)),
            (Fit::Differs, Fit::Matches, Fit::Unseen)
        );
        assert!(!pinned.leads_like(&plain));
    }

    #[test]
    fn a_route_tells_its_own_value_of_a_name() {
        let hosts: Vec<Pattern> =
            ["a.test", "*.test"].iter().map(|host| host.parse().unwrap()).collect();
        let route = Route::new("id".into(), hosts, vec![], Terms::default());
        let Some(Pattern::Exact(known)) = route.hosts.first() else { panic!("{route:?}") };
        let own = route.own(&"A.test".parse().unwrap()).unwrap();
        assert!(Arc::ptr_eq(&own.shared(), &known.shared()));
        assert_eq!(route.own(&"b.test".parse().unwrap()), None);
    }

    #[test]
    fn a_million_plain_routes_fit() {
        assert!(size_of::<Route>() <= 88, "{}", size_of::<Route>());
        let hosts: Pattern = "a.test".parse().unwrap();
        let route = Route::new("a.test".into(), vec![hosts], vec![], Terms::default());
        let Some(Pattern::Exact(name)) = route.hosts.first() else { panic!("{route:?}") };
        assert!(Arc::ptr_eq(&route.id, &name.shared()));
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
