//! Whom we trust: the authorities of the files that routes name, and those of this machine.
//!
//! A task beside the data path reads every file that the table names, at once when it appears and
//! again every 30 s; a connection only reads what is known. A file that goes bad keeps its last
//! good authorities; one that never was good leaves its routes without any, and they are refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::{info, warn};

use crate::routing::table::Table;
use crate::routing::termination::{BackendTls, Trust};

/// How often files are read again.
const REFRESH: Duration = Duration::from_secs(30);
/// The largest file: the bundle of a whole machine has a quarter of it.
const MAX_SIZE: u64 = 1 << 20;

/// Some authorities.
#[derive(Debug)]
pub struct Authorities {
    /// Their certificates.
    pub roots: Arc<RootCertStore>,
    /// Tells them from others.
    pub digest: [u8; 32],
}

/// All authorities that are known. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trusts {
    known: Arc<RwLock<HashMap<Source, Arc<Authorities>>>>,
    /// Whether all that the first table names was read.
    are_read: Arc<AtomicBool>,
}

/// Where authorities come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// What this machine trusts.
    Platform,
    /// A file.
    File(Arc<Path>),
}

/// Why a file has no authorities to tell.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it has more than 1 MiB")]
    TooLarge,
    #[error("it is no PEM: {0}")]
    NotPem(#[from] rustls::pki_types::pem::Error),
    #[error("there is no certificate of an authority in it")]
    Nobody,
}

impl Trusts {
    /// The last good authorities of a source.
    #[must_use]
    pub fn known(&self, source: &Source) -> Option<Arc<Authorities>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(source).map(Arc::clone)
    }

    /// Whether all that the first table names was read. Until then, what is not known may come.
    #[must_use]
    pub fn are_read(&self) -> bool {
        self.are_read.load(Ordering::Acquire)
    }

    /// Keeps the authorities of all routes in the table fresh, until the table has no publisher.
    pub async fn keep_fresh(self, table: Table) {
        let mut changes = table.subscribe();
        loop {
            changes.mark_unchanged();
            let (trusts, current) = (self.clone(), table.clone());
            // Files may lie on a slow disk.
            let read = tokio::task::spawn_blocking(move || trusts.refresh(&current));
            if read.await.is_err() {
                warn!("the authorities of routes could not be read");
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH) => {}
                told = changes.changed() => if told.is_err() { return },
            }
        }
    }

    /// Reads all that the table names. Blocking.
    fn refresh(&self, table: &Table) {
        let named = sources(table);
        let mut fresh = HashMap::with_capacity(named.len());
        for source in named {
            let known = self.known(&source);
            let authorities = match read(&source) {
                Ok(read) if known.as_ref().is_some_and(|known| known.digest == read.digest) => {
                    known
                }
                Ok(read) => {
                    info!(?source, authorities = read.roots.len(), "authorities were read");
                    Some(Arc::new(read))
                }
                Err(error) => {
                    warn!(?source, %error, is_kept = known.is_some(), "authorities cannot be used");
                    known
                }
            };
            fresh.extend(authorities.map(|authorities| (source, authorities)));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.are_read.store(true, Ordering::Release);
    }
}

/// The sources that routes of the table name.
fn sources(table: &Table) -> HashSet<Source> {
    let snapshot = table.current().snapshot;
    let mut named = HashSet::new();
    for termination in snapshot.claims().filter_map(|claim| claim.route.termination()) {
        named.extend(termination.client_ca.clone().map(Source::File));
        if let BackendTls::Verified { trust, .. } = &termination.backend {
            match trust {
                Trust::Platform => drop(named.insert(Source::Platform)),
                Trust::Authorities(path) => drop(named.insert(Source::File(Arc::clone(path)))),
                Trust::Key(_) => {}
            }
        }
    }
    named
}

fn read(source: &Source) -> Result<Authorities, Trouble> {
    let certificates = match source {
        Source::Platform => rustls_native_certs::load_native_certs().certs,
        Source::File(path) => {
            if std::fs::metadata(path)?.len() > MAX_SIZE {
                return Err(Trouble::TooLarge);
            }
            let text = std::fs::read(path)?;
            CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut roots = RootCertStore::empty();
    let whole: Vec<u8> = certificates.iter().flat_map(|one| one.iter().copied()).collect();
    // Some machines trust certificates that nobody can parse any more.
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(Trouble::Nobody);
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, &whole).as_ref());
    Ok(Authorities { roots: Arc::new(roots), digest: sum })
}
