//! Which certificate answers for a name.
//!
//! All that are good lie in one immutable set that is replaced as a whole, so that no handshake
//! ever sees half of a change. The most specific certificate answers: one for the very name, then
//! one for `*.` and its parent; among equals the one that is valid longest. Keys are parsed when they
//! are first asked for, and a bounded number of them is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tracing::error;

use crate::clock::{Clock, Timestamp};
use crate::hostname::{Hostname, Pattern};
use crate::proxy::terminate::pair::{File, Pair};
use crate::routing::few::Few;

/// How many parsed keys a worker keeps: some 2 KiB each.
const PARSED: usize = 4096;

/// How many certificates of one name are kept in mind, those that are valid longest. All of them
/// had begun when they were read, so the others would answer only if a clock were set back.
const ALIKE: usize = 8;

type Names = HashMap<Hostname, Few<Arc<Pair>>, foldhash::fast::RandomState>;

/// An immutable set of certificates.
#[derive(Debug, Default)]
pub(super) struct Set {
    exact: Names,
    one_label: Names,
    pairs: Vec<Arc<Pair>>,
}

/// The certificates that are good now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    current: Arc<RwLock<Arc<Set>>>,
    troubles: Arc<Mutex<Vec<Trouble>>>,
    bare: Arc<Mutex<Arc<[Bare]>>>,
    /// Told at each change; whether the first look is still under way.
    changes: Arc<watch::Sender<bool>>,
}

/// A file whose certificate cannot answer, or not by what it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub file: File,
    /// What is wrong.
    pub why: String,
    /// Whether its last good certificate stays.
    pub is_kept: bool,
}

/// A name, or names, for which a route has TLS ended and nothing can answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bare {
    /// The route.
    pub route: Arc<str>,
    /// The names.
    pub pattern: Pattern,
}

impl Certificates {
    /// The certificate that answers for a name at an instant.
    #[must_use]
    pub fn find(&self, name: &Hostname, now: Timestamp) -> Option<Arc<Pair>> {
        self.current().find(name, now).map(Arc::clone)
    }

    /// Puts others in their place.
    pub fn publish(&self, pairs: Vec<Arc<Pair>>) {
        let fresh = Arc::new(Set::new(pairs));
        let old = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, fresh)
        };
        // Not while others wait for the lock.
        drop(old);
        self.changes.send_modify(|_| {});
    }

    /// Says that somebody has begun to look for the first time: until that is over, what is not
    /// there may still come.
    pub fn expect(&self) {
        self.changes.send_replace(true);
    }

    /// Says that the first look is over.
    pub fn settle(&self) {
        self.changes.send_replace(false);
    }

    /// Whether a first look is under way.
    #[must_use]
    pub fn are_expected(&self) -> bool {
        *self.changes.borrow()
    }

    /// Tells what is wrong with others, or with what they should become.
    pub fn tell(&self, troubles: Vec<Trouble>) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
    }

    /// All that is wrong.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells for which names nothing can answer.
    pub(super) fn tell_bare(&self, bare: Arc<[Bare]>) {
        *self.bare.lock().unwrap_or_else(PoisonError::into_inner) = bare;
    }

    /// The names of routes for which nothing can answer, route by route.
    #[must_use]
    pub fn bare(&self) -> Arc<[Bare]> {
        Arc::clone(&self.bare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells when others are in their place, and whether a first look is under way.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// All of them, that which is valid longest first.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        self.current().pairs.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.current().pairs.len()
    }

    pub(super) fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn new(mut pairs: Vec<Arc<Pair>>) -> Self {
        // Then those of one name come in this order as well.
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.not_after));
        let mut set = Self::default();
        // Most certificates have one name, and that without a star.
        set.exact.reserve(pairs.len());
        for pair in &pairs {
            for pattern in &pair.names {
                let names = match pattern {
                    Pattern::Exact(_) => &mut set.exact,
                    Pattern::OneLabel(_) | Pattern::AnyDepth(_) => &mut set.one_label,
                };
                let alike = names.entry(pattern.name().clone()).or_default();
                if alike.len() < ALIKE {
                    *alike = std::mem::take(alike).with(Arc::clone(pair));
                }
            }
        }
        Self { pairs, ..set }
    }

    /// That which answers for a name at an instant.
    pub(super) fn find<'a>(&'a self, name: &Hostname, now: Timestamp) -> Option<&'a Arc<Pair>> {
        let valid = |pairs: &'a Few<Arc<Pair>>| pairs.iter().find(|pair| pair.is_valid(now));
        let exact = self.exact.get(name.as_str()).and_then(valid);
        exact.or_else(|| self.one_label.get(name.parents().next()?).and_then(valid))
    }

    pub(super) fn pairs(&self) -> &[Arc<Pair>] {
        &self.pairs
    }
}

/// By the address of the pair, which is held and therefore nobody else's.
/// Nothing, where that failed.
type Parsed = HashMap<usize, (Arc<Pair>, Option<Arc<CertifiedKey>>), foldhash::fast::RandomState>;

/// Answers rustls, with the keys that one worker has parsed.
#[derive(Debug)]
pub struct Resolver {
    certificates: Certificates,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
    parsed: Mutex<Parsed>,
}

impl Resolver {
    /// A resolver that has parsed nothing yet.
    #[must_use]
    pub fn new(
        certificates: Certificates,
        clock: Arc<dyn Clock>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { certificates, clock, provider, parsed: Mutex::default() }
    }

    /// Whether anything answers for a name now.
    #[must_use]
    pub fn has(&self, name: &Hostname) -> bool {
        self.certificates.find(name, self.clock.now()).is_some()
    }

    /// The same, once what is still being read was read, if need be.
    pub async fn will_have(&self, name: &Hostname) -> bool {
        let mut changes = self.certificates.subscribe();
        loop {
            let are_expected = *changes.borrow_and_update();
            if self.has(name) {
                return true;
            }
            if !are_expected || changes.changed().await.is_err() {
                return false;
            }
        }
    }

    fn parsed(&self, pair: &Arc<Pair>) -> Option<Arc<CertifiedKey>> {
        let address = Arc::as_ptr(pair).addr();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = parsed.get(&address) {
            return key.clone();
        }
        let made = pair.certified(&self.provider);
        let made = made.inspect_err(|error| {
            error!(file = %pair.file, "a certificate that was believed cannot answer: {error}");
        });
        let key = made.ok().map(Arc::new);
        if parsed.len() >= PARSED {
            parsed.clear();
        }
        parsed.insert(address, (Arc::clone(pair), key.clone()));
        key
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = Hostname::from_wire(hello.server_name()?.as_bytes()).ok()?;
        self.parsed(&self.certificates.find(&name, self.clock.now())?)
    }
}
