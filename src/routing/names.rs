//! Which routes claim a name: the index of a snapshot, for one kind of pattern.
//!
//! A name's letters are shared with its route. A seat is 24 bytes, so that a million names take
//! 33 MB; that it points to the letters by itself makes a lookup wait for one look at memory less
//! (at a million names 0.1 µs) than going there through the route. Several routes under one name
//! (by `alpn`) are rare and lie apart.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::hostname::Hostname;
use crate::routing::route::Route;
use crate::routing::shards::Shards;
use crate::wire::client_hello::Alpn;

/// Keys are the operator's, not an attacker's: a fast hash will do.
pub type Hasher = foldhash::fast::RandomState;

/// The routes that claim names, by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    seats: Shards<Seat>,
    /// All routes of a name that has several: those with `alpn` first.
    crowds: HashMap<Hostname, Vec<Arc<Route>>, Hasher>,
    hasher: Hasher,
}

/// The first route that claimed a name.
#[derive(Debug)]
struct Seat {
    name: Hostname,
    route: Arc<Route>,
}

impl Names {
    /// An empty index with room for so many names.
    pub(super) fn with_capacity(names: usize) -> Self {
        Self { seats: Shards::with_capacity(names), ..Self::default() }
    }

    /// Gives back room that was not needed.
    pub(super) fn shrink(&mut self) {
        let Self { seats, hasher, .. } = self;
        seats.shrink(|seat| hash(hasher, &seat.name));
    }

    /// Whether nothing is claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The route of a name that a hello takes: by the client's first protocol that one asks for,
    /// else the one that asks for none.
    pub(super) fn pick(&self, name: &str, alpn: &Alpn) -> Option<&Arc<Route>> {
        let first = self.first(name)?;
        let Some(crowd) = self.crowd(name) else { return first.takes(alpn).then_some(first) };
        let asks_for =
            |name: &[u8]| crowd.iter().find(|route| route.alpn().iter().any(|own| **own == *name));
        let any = crowd.last().filter(|route| route.alpn().is_empty());
        alpn.iter().find_map(asks_for).or(any)
    }

    /// The routes that claim a name.
    pub(super) fn owners(&self, name: &str) -> &[Arc<Route>] {
        let first = || self.first(name).map(std::slice::from_ref);
        self.crowd(name).or_else(first).unwrap_or_default()
    }

    /// Puts a route under a name, beside those that are there.
    pub(super) fn add(&mut self, name: &Hostname, route: &Arc<Route>) {
        let Some(first) = self.first(name.as_str()) else {
            let Self { seats, hasher, .. } = self;
            let seat = Seat { name: name.clone(), route: Arc::clone(route) };
            seats.insert(hash(hasher, name), seat, |seat| hash(hasher, &seat.name));
            return;
        };
        // A route that names one pattern twice owns it once.
        if self.owners(name.as_str()).iter().any(|owner| Arc::ptr_eq(owner, route)) {
            return;
        }
        let first = Arc::clone(first);
        let crowd = self.crowds.entry(name.clone()).or_insert_with(|| vec![first]);
        crowd.push(Arc::clone(route));
        crowd.sort_by_key(|route| route.alpn().is_empty());
    }

    fn first(&self, name: &str) -> Option<&Arc<Route>> {
        let hash = self.hasher.hash_one(name);
        self.seats.find(hash, |seat| seat.name.as_str() == name).map(|seat| &seat.route)
    }

    fn crowd(&self, name: &str) -> Option<&[Arc<Route>]> {
        // Asked for each connection, and nearly always empty.
        if self.crowds.is_empty() {
            return None;
        }
        self.crowds.get(name).map(Vec::as_slice)
    }
}

fn hash(hasher: &Hasher, name: &Hostname) -> u64 {
    hasher.hash_one(name.as_str())
}
