//! Which routes claim a name: the index of a snapshot, for one kind of pattern.
//!
//! A name's letters lie in its route alone. A seat here is 16 bytes and points there, so that a
//! million names take 36 MB, and to find one costs as few looks at memory as a map that keeps the
//! names itself. Several routes under one name (by `alpn`) are rare and lie apart.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::hostname::{Hostname, Pattern};
use crate::routing::route::Route;
use crate::wire::client_hello::Alpn;

/// Keys are the operator's, not an attacker's: a fast hash will do.
pub type Hasher = foldhash::fast::RandomState;

/// The routes that claim names, by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    seats: HashTable<Seat>,
    /// All routes of a name that has several: those with `alpn` first.
    crowds: HashMap<Hostname, Vec<Arc<Route>>, Hasher>,
    hasher: Hasher,
}

/// The first route that claimed a name.
#[derive(Debug)]
struct Seat {
    route: Arc<Route>,
    /// Which of its hosts that is.
    host: u32,
    /// Whether there are others.
    is_shared: bool,
}

impl Seat {
    fn name(&self) -> Option<&Hostname> {
        self.route.hosts.get(usize::try_from(self.host).ok()?).map(Pattern::name)
    }

    fn is_of(&self, name: &str) -> bool {
        self.name().is_some_and(|own| own.as_str() == name)
    }
}

impl Names {
    /// Makes room for so many names more.
    pub(super) fn reserve(&mut self, names: usize) {
        let Self { seats, hasher, .. } = self;
        seats.reserve(names, |seat| hash(hasher, seat));
    }

    /// Gives back room that was not needed.
    pub(super) fn shrink(&mut self) {
        let Self { seats, hasher, .. } = self;
        seats.shrink_to_fit(|seat| hash(hasher, seat));
    }

    /// Whether nothing is claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The route of a name that a hello takes: by the client's first protocol that one asks for,
    /// else the one that asks for none.
    pub(super) fn pick(&self, name: &str, alpn: &Alpn) -> Option<&Arc<Route>> {
        let seat = self.seat(name)?;
        if !seat.is_shared {
            return seat.route.takes(alpn).then_some(&seat.route);
        }
        let crowd = self.crowds.get(name)?;
        let asks_for =
            |name: &[u8]| crowd.iter().find(|route| route.alpn().iter().any(|own| **own == *name));
        let any = crowd.last().filter(|route| route.alpn().is_empty());
        alpn.iter().find_map(asks_for).or(any)
    }

    /// The routes that claim a name.
    pub(super) fn owners(&self, name: &str) -> &[Arc<Route>] {
        match self.seat(name) {
            Some(seat) if seat.is_shared => self.crowds.get(name).map(Vec::as_slice),
            Some(seat) => Some(std::slice::from_ref(&seat.route)),
            None => None,
        }
        .unwrap_or_default()
    }

    /// Puts a route under the name of its host of this number, beside those that are there.
    pub(super) fn add(&mut self, name: &Hostname, route: &Arc<Route>, host: u32) {
        let Self { seats, crowds, hasher } = self;
        let found =
            seats.find_mut(hasher.hash_one(name.as_str()), |seat| seat.is_of(name.as_str()));
        let Some(seat) = found else {
            let seat = Seat { route: Arc::clone(route), host, is_shared: false };
            seats.insert_unique(hasher.hash_one(name.as_str()), seat, |seat| hash(hasher, seat));
            return;
        };
        // A route that names one pattern twice owns it once.
        if !seat.is_shared && Arc::ptr_eq(&seat.route, route) {
            return;
        }
        seat.is_shared = true;
        let crowd = crowds.entry(name.clone()).or_insert_with(|| vec![Arc::clone(&seat.route)]);
        if !crowd.iter().any(|owner| Arc::ptr_eq(owner, route)) {
            crowd.push(Arc::clone(route));
            crowd.sort_by_key(|route| route.alpn().is_empty());
        }
    }

    fn seat(&self, name: &str) -> Option<&Seat> {
        self.seats.find(self.hasher.hash_one(name), |seat| seat.is_of(name))
    }
}

fn hash(hasher: &Hasher, seat: &Seat) -> u64 {
    hasher.hash_one(seat.name().map_or("", Hostname::as_str))
}
