//! How many connections there may be: in all, from one source, and without a name.
//!
//! Every limit is a permit that is taken in one atomic step and given back by dropping it. The
//! slot for a connection is taken before `accept`, so that a full proxy leaves strangers in the
//! kernel's queue. A small reserve beyond the limit is spent on telling some of them so.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outcome::Outcome;
use crate::units::Size;

/// How many connections over the limit may be told so at the same time.
const RESERVE: usize = 128;

/// The section `limits` of the configuration. 0 is no limit for those that say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Connections in all. A connection needs two descriptors.
    pub connections: AtLeastOne,
    /// Connections of one source (an IPv4 address, an IPv6 /64); 0 is no limit.
    pub connections_per_source: u32,
    /// Connections of one route that sets no limit of its own; 0 is no limit.
    pub connections_per_route: u32,
    /// Connections that have not shown a name.
    pub pending_hellos: AtLeastOne,
    /// The same, of one source; 0 is no limit. Browsers open fewer than ten at a time.
    pub pending_hellos_per_source: u32,
    /// Bytes that connections without a name may hold in all. Ordinary hellos hold 2 KiB each, and
    /// none while nothing was sent; only floods of half-sent large ones come near this.
    pub pending_bytes: Size,
}

/// A limit that cannot be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct AtLeastOne(u32);

impl TryFrom<u32> for AtLeastOne {
    type Error = &'static str;

    fn try_from(count: u32) -> Result<Self, Self::Error> {
        if count == 0 { Err("must be at least 1") } else { Ok(Self(count)) }
    }
}

impl AtLeastOne {
    /// The number.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// This number, or a lower one.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self(self.0.min(u32::try_from(most).unwrap_or(u32::MAX)).max(1))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: AtLeastOne(100_000),
            connections_per_source: 0,
            connections_per_route: 0,
            pending_hellos: AtLeastOne(10_000),
            pending_hellos_per_source: 100,
            pending_bytes: Size(64 << 20),
        }
    }
}

/// Whom a limit counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6Net64(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6Net64(u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    open: u32,
    pending: u32,
}

/// All the counters.
#[derive(Debug)]
pub struct Limits {
    settings: Settings,
    /// As many as there may be connections, and the reserve.
    slots: Arc<Semaphore>,
    open: AtomicUsize,
    pending: AtomicUsize,
    pending_bytes: AtomicU64,
    /// Entries leave with their last connection, so it never outgrows the slots. The keys are
    /// chosen by strangers: std's keyed hash.
    sources: DashMap<Source, Counts>,
}

/// A slot for one connection, taken before it is accepted. Whether the connection is within the
/// limit is only judged afterwards: a worker that waits for a client must not hold back a place
/// that another worker's client could have.
#[derive(Debug)]
pub struct Slot(
    #[expect(dead_code, reason = "held, and given back by dropping it")] OwnedSemaphorePermit,
);

/// What a connection holds, given back by dropping it: less from [`Permit::show_name`] on.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    source: Source,
    /// The bytes that it holds, while it has shown no name.
    pending: Option<u64>,
    _slot: Slot,
}

impl Limits {
    /// Counters at zero.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let slots = (settings.connections.count() + RESERVE).min(Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            open: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            pending_bytes: AtomicU64::new(0),
            sources: DashMap::new(),
            settings,
        }
    }

    /// Waits for a slot.
    pub async fn slot(&self) -> Slot {
        match Arc::clone(&self.slots).acquire_owned().await {
            Ok(permit) => Slot(permit),
            // The semaphore is never closed; were it, waiting for ever is the safe answer.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes a slot if there is one.
    #[must_use]
    pub fn try_slot(&self) -> Option<Slot> {
        Arc::clone(&self.slots).try_acquire_owned().map(Slot).ok()
    }

    /// Admits a connection that was just accepted from `address`.
    ///
    /// # Errors
    /// The outcome of whichever limit is reached, and the slot, which is still needed to say so.
    pub fn admit(self: &Arc<Self>, slot: Slot, address: IpAddr) -> Result<Permit, (Outcome, Slot)> {
        if !take(&self.open, self.settings.connections.count()) {
            return Err((Outcome::LimitConnections, slot));
        }
        if !take(&self.pending, self.settings.pending_hellos.count()) {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return Err((Outcome::LimitPending, slot));
        }
        let source = Source::from(address);
        if self.counts_sources() && !self.count_source(source) {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            self.open.fetch_sub(1, Ordering::AcqRel);
            return Err((Outcome::LimitSource, slot));
        }
        let limits = Arc::clone(self);
        Ok(Permit { limits, source, pending: Some(0), _slot: slot })
    }

    /// How many connections there may be.
    #[must_use]
    pub fn most(&self) -> usize {
        self.settings.connections.count()
    }

    /// How many connections have not shown a name yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    fn counts_sources(&self) -> bool {
        self.settings.connections_per_source > 0 || self.settings.pending_hellos_per_source > 0
    }

    fn count_source(&self, source: Source) -> bool {
        let full = |count: u32, most: u32| most > 0 && count >= most;
        let mut counts = self.sources.entry(source).or_default();
        if full(counts.open, self.settings.connections_per_source)
            || full(counts.pending, self.settings.pending_hellos_per_source)
        {
            return false;
        }
        counts.open += 1;
        counts.pending += 1;
        true
    }
}

/// Counts one more, if that is not too many.
fn take(counter: &AtomicUsize, most: usize) -> bool {
    let one_more = |count: usize| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
}

/// Connections without a name hold as many bytes as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesFull;

impl Permit {
    /// Counts bytes that the connection is about to hold until it has shown its name.
    ///
    /// # Errors
    /// [`BytesFull`], and nothing is counted then.
    pub fn hold(&mut self, bytes: usize) -> Result<(), BytesFull> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let most = self.limits.settings.pending_bytes.0;
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
        let all = &self.limits.pending_bytes;
        let counted = all.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        counted.map_err(|_| BytesFull)?;
        self.pending = self.pending.map(|held| held + bytes);
        Ok(())
    }

    /// The connection has shown its name: it no longer counts as pending.
    pub fn show_name(&mut self) {
        let Some(bytes) = self.pending.take() else { return };
        self.limits.pending.fetch_sub(1, Ordering::AcqRel);
        self.limits.pending_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.limits.counts_sources()
            && let Some(mut counts) = self.limits.sources.get_mut(&self.source)
        {
            counts.pending -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.show_name();
        self.limits.open.fetch_sub(1, Ordering::AcqRel);
        if self.limits.counts_sources() {
            if let Some(mut counts) = self.limits.sources.get_mut(&self.source) {
                counts.open -= 1;
            }
            self.limits.sources.remove_if(&self.source, |_, counts| counts.open == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut Settings)) -> Arc<Limits> {
        let mut settings = Settings::default();
        change(&mut settings);
        Arc::new(Limits::new(settings))
    }

    fn admit(limits: &Arc<Limits>, address: &str) -> Result<Permit, Outcome> {
        let slot = limits.try_slot().unwrap();
        limits.admit(slot, address.parse().unwrap()).map_err(|(outcome, _)| outcome)
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
        let limits = limits(|settings| settings.connections_per_source = 1);
        let held = [admit(&limits, "192.0.2.1").unwrap(), admit(&limits, "2001:db8::1").unwrap()];
        for again in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::2", "2001:db8::ffff:1:2:3"] {
            assert_eq!(admit(&limits, again).unwrap_err(), Outcome::LimitSource, "{again}");
        }
        assert!(admit(&limits, "192.0.2.2").is_ok());
        assert!(admit(&limits, "2001:db8:0:1::1").is_ok());
        drop(held);
        assert!(admit(&limits, "192.0.2.1").is_ok());
        assert!(limits.sources.is_empty(), "sources without connections are forgotten");
    }

    #[test]
    fn a_name_frees_the_pending_place_and_keeps_the_connection() {
        let limits = limits(|settings| {
            settings.pending_hellos = AtLeastOne(2);
            settings.pending_hellos_per_source = 1;
        });
        let mut first = admit(&limits, "192.0.2.1").unwrap();
        assert_eq!(admit(&limits, "192.0.2.1").unwrap_err(), Outcome::LimitSource);
        let _second = admit(&limits, "192.0.2.2").unwrap();
        assert_eq!(admit(&limits, "192.0.2.3").unwrap_err(), Outcome::LimitPending);
        first.show_name();
        assert_eq!(limits.pending(), 1);
        assert!(admit(&limits, "192.0.2.1").is_ok());
        drop(first);
    }

    #[test]
    fn bytes_without_a_name_are_counted_and_given_back() {
        let limits = limits(|settings| settings.pending_bytes = Size(100));
        let mut one = admit(&limits, "192.0.2.1").unwrap();
        let mut two = admit(&limits, "192.0.2.2").unwrap();
        one.hold(60).unwrap();
        assert_eq!(two.hold(41), Err(BytesFull));
        two.hold(40).unwrap();
        one.show_name();
        two.hold(60).unwrap();
        drop(two);
        assert_eq!(limits.pending_bytes.load(Ordering::Acquire), 0);
    }

    #[test]
    fn beyond_the_limit_there_is_a_reserve_for_saying_so() {
        let limits = limits(|settings| settings.connections = AtLeastOne(1));
        let held = admit(&limits, "192.0.2.1").unwrap();
        assert_eq!(admit(&limits, "192.0.2.2").unwrap_err(), Outcome::LimitConnections);
        let reserve: Vec<_> = std::iter::from_fn(|| limits.try_slot()).collect();
        assert_eq!(reserve.len(), RESERVE);
        drop((held, reserve));
        assert!(admit(&limits, "192.0.2.2").is_ok());
    }
}
