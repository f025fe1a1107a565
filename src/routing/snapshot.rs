//! An immutable set of routes, and the one rule by which a hello finds its route in it.
//!
//! The most specific pattern wins: the exact name, then the longest wildcard, `*.` before `**.`
//! where both end in the same name; under one pattern a route with `alpn` goes before the one
//! without. The winner is chosen first and only then judged by the time: an expired app's name
//! never falls through to somebody else's wildcard. An exact name costs one hash lookup, a
//! wildcard at most two for each label. Both the data path and `explain` ask here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};
use crate::routing::expiry::Calendar;
use crate::routing::route::{Claim, Origin, Phase, Route};
use crate::wire::client_hello::Alpn;

/// Keys are the operator's, not an attacker's: a fast hash will do.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// An immutable set of routes.
#[derive(Debug, Default)]
pub struct Snapshot {
    exact: Map<Hostname, Slot>,
    one_label: Map<Hostname, Slot>,
    any_depth: Map<Hostname, Slot>,
    by_id: Map<Arc<str>, Claim>,
    calendar: Calendar,
}

/// The routes under one pattern: those with `alpn` first.
type Slot = Vec<Arc<Route>>;

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

/// Why a claim cannot stand beside those already in.
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
}

impl Snapshot {
    /// Builds a snapshot. Claims go in by order; each that conflicts with an earlier one is left
    /// out whole and reported.
    #[must_use]
    pub fn build(claims: impl IntoIterator<Item = Claim>) -> (Self, Vec<(Claim, Conflict)>) {
        let mut snapshot = Self::default();
        let mut conflicts = Vec::new();
        for claim in claims {
            match snapshot.conflict(&claim) {
                Some(conflict) => conflicts.push((claim, conflict)),
                None => snapshot.insert(claim),
            }
        }
        snapshot.calendar = Calendar::new(snapshot.claims().map(|claim| &claim.route));
        (snapshot, conflicts)
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
        match route.lifetime.phase(now) {
            Phase::Live => Ok(route),
            Phase::NotYet => Err(Miss::NotYet(Arc::clone(route))),
            Phase::Expired => Err(Miss::Expired(Arc::clone(route))),
        }
    }

    /// The most specific route that covers the name with these protocols, live or not.
    #[must_use]
    pub fn find(&self, name: &Hostname, alpn: &Alpn) -> Option<&Arc<Route>> {
        if let Some(route) = pick(self.exact.get(name), alpn) {
            return Some(route);
        }
        if self.one_label.is_empty() && self.any_depth.is_empty() {
            return None;
        }
        name.parents().enumerate().find_map(|(above, parent)| {
            let one_label = if above == 0 { self.one_label.get(parent) } else { None };
            pick(one_label, alpn).or_else(|| pick(self.any_depth.get(parent), alpn))
        })
    }

    /// The route with this id, and where it was written.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Claim> {
        self.by_id.get(id)
    }

    /// All routes, in no order.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.by_id.values()
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn slot(&self, pattern: &Pattern) -> Option<&Slot> {
        match pattern {
            Pattern::Exact(name) => self.exact.get(name),
            Pattern::OneLabel(suffix) => self.one_label.get(suffix),
            Pattern::AnyDepth(suffix) => self.any_depth.get(suffix),
        }
    }

    fn conflict(&self, claim: &Claim) -> Option<Conflict> {
        let route = &claim.route;
        if let Some(first) = self.by_id.get(&route.id) {
            return Some(Conflict::Id { id: route.id.clone(), first: first.origin.clone() });
        }
        route.hosts.iter().find_map(|pattern| {
            let owner = self.slot(pattern)?.iter().find(|owner| overlap(owner, route))?;
            let first = self.by_id.get(&owner.id)?.origin.clone();
            Some(Conflict::Pattern { pattern: pattern.clone(), id: owner.id.clone(), first })
        })
    }

    fn insert(&mut self, claim: Claim) {
        for pattern in &claim.route.hosts {
            let (map, key) = match pattern {
                Pattern::Exact(name) => (&mut self.exact, name),
                Pattern::OneLabel(suffix) => (&mut self.one_label, suffix),
                Pattern::AnyDepth(suffix) => (&mut self.any_depth, suffix),
            };
            let slot = map.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
            // A route that names one pattern twice owns it once.
            if !slot.iter().any(|owner| Arc::ptr_eq(owner, &claim.route)) {
                slot.push(Arc::clone(&claim.route));
                slot.sort_by_key(|route| route.alpn.is_empty());
            }
        }
        self.by_id.insert(claim.route.id.clone(), claim);
    }
}

/// Whether one hello could take either route under the same pattern without a rule to choose.
fn overlap(one: &Route, other: &Route) -> bool {
    if one.alpn.is_empty() || other.alpn.is_empty() {
        return one.alpn.is_empty() && other.alpn.is_empty();
    }
    one.alpn.iter().any(|name| other.alpn.contains(name))
}

/// The route of a slot that a hello takes: by the client's first protocol that one asks for, else
/// the one that asks for none.
fn pick<'a>(slot: Option<&'a Slot>, alpn: &Alpn) -> Option<&'a Arc<Route>> {
    let slot = slot?;
    let last = slot.last()?;
    if slot.len() == 1 {
        return last.takes(alpn).then_some(last);
    }
    let asks_for =
        |name: &[u8]| slot.iter().find(|route| route.alpn.iter().any(|own| own.as_ref() == name));
    alpn.iter().find_map(asks_for).or_else(|| last.alpn.is_empty().then_some(last))
}

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
