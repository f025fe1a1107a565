//! What is kept of the certificates that the backends of routes show, and what follows: until when
//! a route is live, which of its backends are let through, and what is told, once for each change.
//!
//! A look that saw nothing changes nothing, so it has no place here.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::admission::certificate::Chain;
use crate::admission::dns::name_within;
use crate::admission::sight::{Kind, Notice, key_of, notices};
use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};
use crate::routing::route::{Mode, Route};
use crate::routing::seen::{Fit, Seen};
use crate::routing::termination::KeyDigest;

/// A leaf, by the first half of its SHA-256: there may be as many as there are backends, and nobody
/// makes two that are alike in 128 bits but its own maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf([u8; 16]);

impl Leaf {
    /// The leaf of a chain.
    #[must_use]
    pub fn of(chain: &Chain) -> Self {
        let digest = digest(&SHA256, &chain.leaf.der);
        let mut first = [0; 16];
        first.iter_mut().zip(digest.as_ref()).for_each(|(own, byte)| *own = *byte);
        Self(first)
    }
}

/// What is odd about a backend, or about those of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u8);

impl Faults {
    /// Whether one of them is of this kind.
    #[must_use]
    pub const fn have(self, kind: Kind) -> bool {
        self.0 & 1 << kind.index() != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn are_none(self) -> bool {
        self.0 == 0
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl<'a> FromIterator<&'a Notice> for Faults {
    /// What stands of it: that a leaf has changed is told and over.
    fn from_iter<I: IntoIterator<Item = &'a Notice>>(notices: I) -> Self {
        let kinds = notices.into_iter().map(Notice::kind).filter(|kind| kind.stands());
        Self(kinds.fold(0, |all, kind| all | 1 << kind.index()))
    }
}

/// What is kept of a leaf that a backend showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glimpse {
    /// The leaf.
    pub leaf: Leaf,
    /// Its key.
    pub key: KeyDigest,
    /// What is odd about it.
    pub faults: Faults,
    /// The second in which it ends.
    not_after: i64,
}

impl Glimpse {
    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_second(self.not_after).unwrap_or(Timestamp::MAX)
    }
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is kept of it.
    pub glimpse: Glimpse,
    /// All that is to be said of it.
    pub notices: Vec<Notice>,
}

impl Verdict {
    /// Judges what a backend of a route shows. `before` is what it showed the last time, `sharer` who
    /// else shows the same leaf.
    #[must_use]
    pub fn of(
        route: &Route,
        chain: &Chain,
        before: Option<&Glimpse>,
        sharer: Option<Arc<str>>,
        now: Timestamp,
    ) -> Self {
        let leaf = Leaf::of(chain);
        let key = key_of(chain);
        let changed = before.filter(|before| before.leaf != leaf);
        let changed = changed.map(|before| Notice::Changed { now: key, before: before.key });
        let other = route.pin().filter(|pin| *pin != key);
        let other = other.map(|pin| Notice::OtherKey { now: key, pin });
        let hosts: Vec<Pattern> = route.hosts.iter().cloned().collect();
        let all = changed
            .into_iter()
            .chain(other)
            .chain(notices(&hosts, route.written_end(), chain, now))
            .chain(sharer.map(|with| Notice::Shared { with }));
        let notices: Vec<_> = all.collect();
        let not_after = chain.leaf.not_after.as_second();
        let glimpse = Glimpse { leaf, key, faults: notices.iter().collect(), not_after };
        Self { glimpse, notices }
    }

    /// What of it is new, by what was seen the last time.
    pub fn news(&self, before: Option<&Glimpse>) -> impl Iterator<Item = &Notice> {
        let known = before.filter(|before| before.leaf == self.glimpse.leaf);
        let known = known.map(|before| before.faults).unwrap_or_default();
        self.notices.iter().filter(move |notice| !known.have(notice.kind()))
    }
}

/// What follows for a route of what was seen of its backends, in their order.
///
/// It ends with the last of the certificates of those that are let through: one replica with an old
/// certificate takes nothing from the others. As long as one of them was never seen, its certificate
/// may be that last one.
#[must_use]
pub fn seen(route: &Route, glimpses: &[Option<Glimpse>]) -> Seen {
    let fit = |glimpse: &Option<Glimpse>| match (glimpse, route.pin()) {
        (None, _) => Fit::Unseen,
        (Some(glimpse), Some(pin)) if glimpse.key != pin => Fit::Differs,
        (Some(_), _) => Fit::Matches,
    };
    let mut ends = Some(None);
    for glimpse in glimpses.iter().filter(|glimpse| fit(glimpse) != Fit::Differs) {
        let end = glimpse.as_ref().map(Glimpse::not_after);
        ends = end.and_then(|end| ends.map(|latest: Option<Timestamp>| latest.max(Some(end))));
    }
    let is_pinned = route.pin().is_some();
    let fits = if is_pinned { glimpses.iter().map(fit).collect() } else { Box::default() };
    Seen { ends_at: ends.flatten(), fits }
}

/// Whether the backends of a route can be looked at now: not one that serves a single client while
/// it is configured (that it runs is asked by others, who look once), none that is held back, none
/// whose time has not come or is over.
#[must_use]
pub fn may_be_looked_at(route: &Route, now: Timestamp) -> bool {
    let is_over = route.written_end().is_some_and(|end| end <= now);
    let is_to_come = route.lifetime().not_before.is_some_and(|start| now < start);
    !route.is_initializing() && route.hold().is_none() && !is_over && !is_to_come
}

/// Whether the backends of a route show what its clients see: not where TLS ends here, and where
/// the backend proves who it is each time that it is dialled.
#[must_use]
pub fn is_sealed(route: &Route) -> bool {
    *route.mode() == Mode::Passthrough
}

/// The name that its backends are asked for.
#[must_use]
pub fn name_of(route: &Route) -> Option<Hostname> {
    let exact = route.hosts.iter().find_map(|host| match host {
        Pattern::Exact(name) => Some(name.clone()),
        Pattern::OneLabel(_) | Pattern::AnyDepth(_) => None,
    });
    exact.or_else(|| name_within(route.hosts.first()?).ok())
}

/// Whom a route is for, as far as that can be told: those who share this may share a leaf as well. Of
/// a route that names no app, its backends tell.
#[must_use]
pub fn owner(route: &Route) -> Arc<str> {
    if let Some(app) = route.app() {
        return Arc::clone(app);
    }
    let backends: Vec<_> = route.backends.iter().map(ToString::to_string).collect();
    backends.join(" ").into()
}

/// Whether two routes are for different apps, so that one leaf for both is odd.
#[must_use]
pub fn are_apart(one: &Route, other: &Route) -> bool {
    match (one.app(), other.app()) {
        (Some(one), Some(other)) => one != other,
        _ => one.backends != other.backends,
    }
}

/// What a route is called where another one shares its leaf.
#[must_use]
pub fn called(route: &Route) -> Arc<str> {
    Arc::clone(route.app().unwrap_or(&route.id))
}
