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
use crate::outcome::Outcome;
use crate::routing::claims::{Claims, Passage, Written};
use crate::routing::expiry::Calendar;
use crate::routing::names::{Hasher, Names};
use crate::routing::route::{Claim, Hold, Origin, Phase, Route};
use crate::routing::shards::Shards;
use crate::routing::zones::Zones;
use crate::store::Revision;
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
    /// The passages of which a claim was left out; all others stand here whole.
    parted: Vec<u32>,
    calendar: Calendar,
    store_revision: Option<Revision>,
    /// Where TLS may be ended.
    zones: Arc<Zones>,
}

/// Which passage, and which of the routes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The route that does is held back.
    Held(Arc<Route>, Hold),
}

impl From<&Miss> for Outcome {
    fn from(miss: &Miss) -> Self {
        match miss {
            Miss::Unknown => Self::UnknownName,
            Miss::NotYet(_) => Self::NotYetValid,
            Miss::Expired(_) => Self::ExpiredName,
            Miss::Held(_, Hold::Suspended) => Self::Suspended,
            Miss::Held(_, Hold::DomainPending) => Self::DomainPending,
        }
    }
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

/// A claim that could not stand beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The place of its set among the sets.
    pub set: usize,
    /// The claim.
    pub claim: Claim,
    /// Why.
    pub conflict: Conflict,
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

    /// Builds the snapshot that follows upon an older one: see [`Snapshot::merge`].
    #[must_use]
    pub fn after(old: &Self, claims: &Claims) -> (Self, Vec<(Claim, Conflict)>) {
        let (snapshot, left_out) = Self::merge(old, std::slice::from_ref(claims));
        (snapshot, left_out.into_iter().map(|one| (one.claim, one.conflict)).collect())
    }

    /// Builds the snapshot of several sets that follows upon an older one. A set goes before those
    /// behind it, whatever was in force: so the same sets give the same table everywhere and always.
    /// Within a set first those claims go in whose ids the older snapshot has, then the others, each
    /// time in their order. One that conflicts with what is in already, or would end TLS outside of
    /// the older one's zones, is left out whole and reported.
    #[must_use]
    pub fn merge(old: &Self, sets: &[Claims]) -> (Self, Vec<LeftOut>) {
        let routes = sets.iter().map(Claims::len).sum();
        let mut snapshot = Self {
            claims: sets.iter().flat_map(Claims::passages).cloned().collect(),
            // Nearly all routes have one name, and that without a wildcard.
            exact: Names::with_capacity(routes),
            ids: Shards::with_capacity(routes),
            zones: Arc::clone(&old.zones),
            ..Self::default()
        };
        let known = old.whole_passages();
        let is_known = |passage: &Passage| old.is_empty() || known.contains(&passage.address());
        let mut left_out = Vec::new();
        let mut first = 0;
        for (claims, set) in sets.iter().zip(0..) {
            let mut newcomers = Vec::new();
            let mut leave = |spot: Spot, (claim, conflict)| {
                left_out.push((spot.passage, LeftOut { set, claim, conflict }));
            };
            for (passage, spots) in claims.passages().iter().zip(first..) {
                let is_known = is_known(passage);
                for (written, at) in passage.written().iter().zip(0..) {
                    let spot = Spot { passage: spots, at };
                    if is_known || old.by_id(&written.route.id).is_some() {
                        if let Some(out) = snapshot.admit(passage, written, spot) {
                            leave(spot, out);
                        }
                    } else {
                        newcomers.push((passage, written, spot));
                    }
                }
                first += 1;
            }
            for (passage, written, spot) in newcomers {
                if let Some(out) = snapshot.admit(passage, written, spot) {
                    leave(spot, out);
                }
            }
        }
        snapshot.exact.shrink();
        snapshot.parted = left_out.iter().map(|(passage, _)| *passage).collect();
        snapshot.parted.sort_unstable();
        snapshot.parted.dedup();
        snapshot.calendar = Calendar::new(snapshot.routes(), snapshot.len());
        (snapshot, left_out.into_iter().map(|(_, out)| out).collect())
    }

    /// The same snapshot, with the newest transaction of the store that is in it.
    #[must_use]
    pub fn as_of(self, store_revision: Option<Revision>) -> Self {
        Self { store_revision, ..self }
    }

    /// The newest transaction of the store that is in it, if any of it comes from a store.
    #[must_use]
    pub fn store_revision(&self) -> Option<Revision> {
        self.store_revision
    }

    /// The addresses of the passages of which every claim is in.
    #[must_use]
    pub fn whole_passages(&self) -> HashSet<usize, Hasher> {
        let whole = self.claims.passages().iter().zip(0..);
        let whole = whole.filter(|(_, at)| !self.is_parted(*at));
        whole.map(|(passage, _)| passage.address()).collect()
    }

    /// Whether a claim of this passage was left out.
    fn is_parted(&self, passage: u32) -> bool {
        self.parted.binary_search(&passage).is_ok()
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
            Phase::Live => match route.hold() {
                None => Ok(route),
                Some(hold) => Err(Miss::Held(Arc::clone(route), hold)),
            },
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
        // As they lie in memory.
        self.claims.passages().iter().zip(0..).flat_map(move |(passage, place)| {
            let is_parted = self.is_parted(place);
            let written = passage.written().iter().zip(0..);
            let inside = written.filter(move |(written, at)| {
                let spot = Spot { passage: place, at: *at };
                !is_parted || self.spot(&written.route.id) == Some(spot)
            });
            inside.map(|(written, _)| written)
        })
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

    /// Why a route could not stand beside those of this snapshot whose origin counts.
    #[must_use]
    pub fn conflict_with(
        &self,
        route: &Route,
        counts: impl Fn(&Origin) -> bool,
    ) -> Option<Conflict> {
        if let Some(first) = self.origin(&route.id).filter(&counts) {
            return Some(Conflict::Id { id: route.id.clone(), first });
        }
        route.hosts.iter().find_map(|pattern| {
            let owners = self.names(pattern).owners(pattern.name().as_str());
            let mut rivals = owners.iter().filter(|owner| owner.overlaps(route));
            rivals.find_map(|owner| {
                let first = self.origin(&owner.id).filter(&counts)?;
                Some(Conflict::Pattern { pattern: pattern.clone(), id: owner.id.clone(), first })
            })
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
        let outside = self.zones.first_outside(route);
        let outside = outside.map(|pattern| Conflict::OutsideZones { pattern: pattern.clone() });
        if let Some(conflict) = outside.or_else(|| self.conflict_with(route, |_| true)) {
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

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
