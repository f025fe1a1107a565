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
use crate::proxy::terminate::pair::Pair;
use crate::routing::few::Few;

/// How many parsed keys a worker keeps: some 2 KiB each.
const PARSED: usize = 4096;

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
    bare: Arc<Mutex<Vec<Bare>>>,
    changes: Arc<watch::Sender<()>>,
}

/// A file whose certificate cannot answer, or not by what it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub file: Arc<str>,
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
        self.changes.send_replace(());
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
    pub(super) fn tell_bare(&self, bare: Vec<Bare>) {
        *self.bare.lock().unwrap_or_else(PoisonError::into_inner) = bare;
    }

    /// The names of routes for which nothing can answer.
    #[must_use]
    pub fn bare(&self) -> Vec<Bare> {
        self.bare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells when others are in their place.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// All of them, that which is valid longest first.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        self.current().pairs.clone()
    }

    pub(super) fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn new(mut pairs: Vec<Arc<Pair>>) -> Self {
        // Then those of one name come in this order as well.
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.not_after));
        let (mut exact, mut one_label) = (Gathered::default(), Gathered::default());
        for pair in &pairs {
            for pattern in &pair.names {
                let names = match pattern {
                    Pattern::Exact(_) => &mut exact,
                    Pattern::OneLabel(_) | Pattern::AnyDepth(_) => &mut one_label,
                };
                names.entry(pattern.name().clone()).or_default().push(Arc::clone(pair));
            }
        }
        let few = |gathered: Gathered| {
            gathered.into_iter().map(|(name, pairs)| (name, Few::from(pairs))).collect()
        };
        Self { exact: few(exact), one_label: few(one_label), pairs }
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

/// The certificates of each name, while a set is made.
type Gathered = HashMap<Hostname, Vec<Arc<Pair>>, foldhash::fast::RandomState>;

/// By the address of the pair, which is held and therefore nobody else's.
type Parsed = HashMap<usize, (Arc<Pair>, Arc<CertifiedKey>), foldhash::fast::RandomState>;

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

    fn parsed(&self, pair: &Arc<Pair>) -> Option<Arc<CertifiedKey>> {
        let address = Arc::as_ptr(pair).addr();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = parsed.get(&address) {
            return Some(Arc::clone(key));
        }
        let made = pair.certified(&self.provider);
        let made = made
            .inspect_err(|error| error!(file = %pair.file, %error, "a certificate that was good"));
        let key = Arc::new(made.ok()?);
        if parsed.len() >= PARSED {
            parsed.clear();
        }
        parsed.insert(address, (Arc::clone(pair), Arc::clone(&key)));
        Some(key)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = Hostname::from_wire(hello.server_name()?.as_bytes()).ok()?;
        self.parsed(&self.certificates.find(&name, self.clock.now())?)
    }
}
