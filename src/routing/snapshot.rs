//! An immutable set of routes, and the one rule by which a hello finds its route in it.
//!
//! The most specific pattern wins: the exact name, then the longest wildcard, `*.` before `**.`
//! where both end in the same name; under one pattern a route with `alpn` goes before the one
//! without. The winner is chosen first and only then judged by the time: an expired app's name
//! never falls through to somebody else's wildcard. An exact name costs one hash lookup, a
//! wildcard at most two for each label. Both the data path and `explain` ask here.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};
use crate::routing::claims::{Claims, Passage, Written};
use crate::routing::expiry::Calendar;
use crate::routing::names::{Hasher, Names};
use crate::routing::route::{Claim, Origin, Phase, Route};
use crate::routing::shards::Shards;
use crate::routing::zones::Zones;
use crate::wire::client_hello::Alpn;

/// An immutable set of routes.
#[derive(Debug, Default)]
pub struct Snapshot {
    exact: Names,
    one_label: Names,
    any_depth: Names,
    /// Where each route is written, by its id.
    ids: Shards<Spot>,
    hasher: Hasher,
    claims: Claims,
    /// Whether every claim is in: then each passage stands here whole.
    is_whole: bool,
    calendar: Calendar,
    /// Where TLS may be ended.
    zones: Arc<Zones>,
}

/// Which passage, and which of the routes there.
#[derive(Debug, Clone, Copy)]
struct Spot {
    passage: u32,
    at: u32,
}

impl Spot {
    fn passage(self, claims: &Claims) -> Option<&Passage> {
        claims.passages().get(usize::try_from(self.passage).ok()?)
    }

    fn written(self, claims: &Claims) -> Option<&Written> {
        self.passage(claims)?.written().get(usize::try_from(self.at).ok()?)
    }
}

/// Why a hello finds no live route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No route covers the name with these protocols.
    Unknown,
    /// The route that does begins later.
    NotYet(Arc<Route>),
    /// The route that does has ended.
    Expired(Arc<Route>),
}

/// Why a claim cannot stand, or not beside those already in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The id is taken.
    #[error("the id \"{id}\" is already that of the route at {first}")]
    Id {
        /// The id.
        id: Arc<str>,
        /// Who has it.
        first: Origin,
    },
    /// The pattern is taken, for all protocols or for one of these.
    #[error("{pattern} is already claimed by the route \"{id}\" at {first}")]
    Pattern {
        /// The pattern.
        pattern: Pattern,
        /// The id of who has it.
        id: Arc<str>,
        /// Where that was written.
        first: Origin,
    },
    /// TLS would be ended for names that nobody has opened for that.
    #[error(
        "mode = \"terminate\" is not allowed for {pattern}: it lies in none of terminate.zones, and stays sealed"
    )]
    OutsideZones {
        /// The pattern.
        pattern: Pattern,
    },
}

impl Snapshot {
    /// A snapshot without routes. Those that follow upon it let TLS be ended in these zones alone.
    #[must_use]
    pub fn within(zones: Zones) -> Self {
        Self { zones: Arc::new(zones), ..Self::default() }
    }

    /// Builds a snapshot of claims that follow upon no others: see [`Snapshot::after`].
    #[must_use]
    pub fn build(claims: impl IntoIterator<Item = Claim>) -> (Self, Vec<(Claim, Conflict)>) {
        Self::after(&Self::default(), &claims.into_iter().collect())
    }

    /// Builds the snapshot that follows upon an older one. First go in those claims whose ids the
    /// older one has, then the others, each time in their order; one that conflicts with what is in
    /// already, or would end TLS outside of the older one's zones, is left out whole and reported.
    #[must_use]
    pub fn after(old: &Self, claims: &Claims) -> (Self, Vec<(Claim, Conflict)>) {
        let mut snapshot = Self {
            claims: claims.clone(),
            // Nearly all routes have one name, and that without a wildcard.
            exact: Names::with_capacity(claims.len()),
            ids: Shards::with_capacity(claims.len()),
            zones: Arc::clone(&old.zones),
            ..Self::default()
        };
        let mut conflicts = Vec::new();
        let mut newcomers = Vec::new();
        let known = old.whole_passages();
        for (passage, spots) in claims.passages().iter().zip(0..) {
            let is_known = old.is_empty() || known.contains(&passage.address());
            for (written, at) in passage.written().iter().zip(0..) {
                let spot = Spot { passage: spots, at };
                if is_known || old.by_id(&written.route.id).is_some() {
                    conflicts.extend(snapshot.admit(passage, written, spot));
                } else {
                    newcomers.push((passage, written, spot));
                }
            }
        }
        for (passage, written, spot) in newcomers {
            conflicts.extend(snapshot.admit(passage, written, spot));
        }
        snapshot.exact.shrink();
        snapshot.is_whole = conflicts.is_empty();
        snapshot.calendar = Calendar::new(snapshot.routes(), snapshot.len());
        (snapshot, conflicts)
    }

    /// The addresses of the passages of which every claim is in.
    #[must_use]
    pub fn whole_passages(&self) -> HashSet<usize, Hasher> {
        let all = if self.is_whole { self.claims.passages() } else { &[] };
        all.iter().map(Passage::address).collect()
    }

    /// The passages that it was built of, with claims that were left out.
    #[must_use]
    pub fn passages(&self) -> &[Passage] {
        self.claims.passages()
    }

    /// When its routes begin and end.
    #[must_use]
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The route that a hello takes at an instant.
    ///
    /// # Errors
    /// A [`Miss`] says why there is none.
    pub fn lookup(
        &self,
        name: &Hostname,
        alpn: &Alpn,
        now: Timestamp,
    ) -> Result<&Arc<Route>, Miss> {
        let route = self.find(name, alpn).ok_or(Miss::Unknown)?;
        match route.phase(now) {
            Phase::Live => Ok(route),
            Phase::NotYet => Err(Miss::NotYet(Arc::clone(route))),
            Phase::Expired => Err(Miss::Expired(Arc::clone(route))),
        }
    }

    /// The most specific route that covers the name with these protocols, live or not.
    #[must_use]
    pub fn find(&self, name: &Hostname, alpn: &Alpn) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.pick(name.as_str(), alpn) {
            return Some(route);
        }
        if self.one_label.is_empty() && self.any_depth.is_empty() {
            return None;
        }
        name.parents().enumerate().find_map(|(above, parent)| {
            let one_label = if above == 0 { self.one_label.pick(parent, alpn) } else { None };
            one_label.or_else(|| self.any_depth.pick(parent, alpn))
        })
    }

    /// The route with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Written> {
        self.spot(id)?.written(&self.claims)
    }

    /// Where the route with this id was written.
    #[must_use]
    pub fn origin(&self, id: &str) -> Option<Origin> {
        let spot = self.spot(id)?;
        Some(spot.passage(&self.claims)?.origin(spot.written(&self.claims)?))
    }

    /// All routes, in no order.
    pub fn claims(&self) -> impl Iterator<Item = &Written> {
        // As they lie in memory, where possible.
        let whole = if self.is_whole { self.claims.passages() } else { &[] };
        let some = (!self.is_whole).then(|| self.ids.iter());
        let some = some.into_iter().flatten().filter_map(|spot| spot.written(&self.claims));
        whole.iter().flat_map(Passage::written).chain(some)
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.claims().map(|written| &written.route)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn spot(&self, id: &str) -> Option<Spot> {
        let is_it = |spot: &Spot| id_at(&self.claims, *spot) == id;
        self.ids.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn names(&self, pattern: &Pattern) -> &Names {
        match pattern {
            Pattern::Exact(_) => &self.exact,
            Pattern::OneLabel(_) => &self.one_label,
            Pattern::AnyDepth(_) => &self.any_depth,
        }
    }

    fn names_mut(&mut self, pattern: &Pattern) -> &mut Names {
        match pattern {
            Pattern::Exact(_) => &mut self.exact,
            Pattern::OneLabel(_) => &mut self.one_label,
            Pattern::AnyDepth(_) => &mut self.any_depth,
        }
    }

    fn conflict(&self, route: &Route) -> Option<Conflict> {
        if route.termination().is_some()
            && let Some(pattern) = route.hosts.iter().find(|pattern| !self.zones.hold(pattern))
        {
            return Some(Conflict::OutsideZones { pattern: pattern.clone() });
        }
        if let Some(first) = self.origin(&route.id) {
            return Some(Conflict::Id { id: route.id.clone(), first });
        }
        route.hosts.iter().find_map(|pattern| {
            let owners = self.names(pattern).owners(pattern.name().as_str());
            let owner = owners.iter().find(|owner| overlap(owner, route))?;
            let first = self.origin(&owner.id)?;
            Some(Conflict::Pattern { pattern: pattern.clone(), id: owner.id.clone(), first })
        })
    }

    /// Puts a claim in, or says why it stays out.
    fn admit(
        &mut self,
        passage: &Passage,
        written: &Written,
        spot: Spot,
    ) -> Option<(Claim, Conflict)> {
        let route = &written.route;
        if let Some(conflict) = self.conflict(route) {
            return Some((passage.claim(written), conflict));
        }
        for pattern in &route.hosts {
            self.names_mut(pattern).add(pattern.name(), route);
        }
        let Self { ids, claims, hasher, .. } = self;
        let rehash = |spot: &Spot| hasher.hash_one(id_at(claims, *spot));
        ids.insert(hasher.hash_one(&*route.id), spot, rehash);
        None
    }
}

fn id_at(claims: &Claims, spot: Spot) -> &str {
    spot.written(claims).map_or("", |written| &*written.route.id)
}

/// Whether one hello could take either route under the same pattern without a rule to choose.
fn overlap(one: &Route, other: &Route) -> bool {
    let (own, theirs) = (one.alpn(), other.alpn());
    if own.is_empty() || theirs.is_empty() {
        return own.is_empty() && theirs.is_empty();
    }
    own.iter().any(|name| theirs.contains(name))
}

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
