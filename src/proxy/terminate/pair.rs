//! One certificate with its chain and its key: from PEM to something that may answer, or to what is
//! wrong with it.
//!
//! Everything is kept as bytes, which are parsed when the name is asked for: of a hundred thousand
//! pairs few are at a time. Pure: texts and an instant come in.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};
use crate::proxy::terminate::chain::{Chains, Issuers};
use crate::proxy::terminate::fault::PairFault;
use crate::proxy::terminate::key;
use crate::routing::few::Few;

/// A file with certificates: very many lie in one folder. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    /// Where it lies.
    pub folder: Arc<Path>,
    /// What it is called there; nothing, for the folder as a whole.
    pub name: Arc<OsStr>,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return self.folder.display().fmt(f);
        }
        self.folder.join(&*self.name).display().fmt(f)
    }
}

/// A certificate that may answer, with its chain and its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where it was read.
    pub file: File,
    /// The names that it is for; at least one.
    pub names: Few<Pattern>,
    /// Valid from this instant on.
    pub not_before: Timestamp,
    /// Not valid after it.
    pub not_after: Timestamp,
    leaf: Box<[u8]>,
    issuers: Issuers,
    key: PrivateKeyDer<'static>,
}

/// How sure it is that a pair's key belongs to its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The key says so. What is left is to be proven: [`Pair::certified`].
    Claimed,
    /// The key says nothing of it that could be believed.
    Missing,
}

impl Pair {
    /// Reads a chain and a key; both may stand in the same text. Tells how sure it is that they
    /// belong together.
    ///
    /// # Errors
    /// The first thing that keeps it from answering now.
    pub fn read(
        file: &File,
        chain: &[u8],
        key: &[u8],
        chains: &mut Chains,
        now: Timestamp,
    ) -> Result<(Self, Proof), PairFault> {
        let not_pem = |error: rustls::pki_types::pem::Error| PairFault::NotPem(error.to_string());
        let mut chain = CertificateDer::pem_slice_iter(chain);
        let leaf = chain.next().ok_or(PairFault::NoCertificate)?.map_err(not_pem)?;
        let issuers = chain.collect::<Result<Vec<_>, _>>().map_err(not_pem)?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| PairFault::Unreadable(1))?;
        let issuers = chains.judge(issuers, parsed.issuer.as_raw())?;
        let names = names(&parsed);
        if names.is_empty() {
            return Err(PairFault::NoNames);
        }
        let (not_before, not_after) =
            (instant(parsed.validity.not_before), instant(parsed.validity.not_after));
        if now > not_after {
            return Err(PairFault::Expired(not_after));
        }
        if now < not_before {
            return Err(PairFault::NotYet(not_before));
        }
        let key = read_key(key)?;
        let is_claimed = key::claims(&key, parsed.public_key());
        let proof = if is_claimed { Proof::Claimed } else { Proof::Missing };
        let leaf = leaf.as_ref().into();
        let pair = Self { file: file.clone(), names, not_before, not_after, leaf, issuers, key };
        Ok((pair, proof))
    }

    /// Whether it is valid at an instant.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Parses the key, for signing, which proves that it belongs to the certificate.
    ///
    /// # Errors
    /// It cannot be used, or belongs to another certificate.
    pub fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, PairFault> {
        let leaf = CertificateDer::from(self.leaf.to_vec());
        let chain = std::iter::once(leaf).chain(self.issuers.iter().cloned()).collect();
        let made = CertifiedKey::from_der(chain, self.key.clone_key(), provider);
        made.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => PairFault::OtherKey,
            other => PairFault::UnusableKey(other.to_string()),
        })
    }
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PairFault> {
    use rustls::pki_types::pem::Error::NoItemsFound;
    match PrivateKeyDer::from_pem_slice(text) {
        // Takes no more room than it needs.
        Ok(key) => Ok(key.clone_key()),
        // The two ways in which that is said (RFC 7468 §11, RFC 1421 §4.6.1.1).
        Err(_) if memchr::memmem::find(text, b"ENCRYPTED").is_some() => {
            Err(PairFault::EncryptedKey)
        }
        Err(NoItemsFound) => Err(PairFault::NoKey),
        Err(error) => Err(PairFault::NotPem(error.to_string())),
    }
}

/// The names that TLS clients look at. A common name is none of them (RFC 9525 §2).
fn names(leaf: &X509Certificate<'_>) -> Few<Pattern> {
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else { return Few::default() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => match name.strip_prefix("*.") {
            Some(parent) => Hostname::from_wire(parent.as_bytes()).ok().map(Pattern::OneLabel),
            None => Hostname::from_wire(name.as_bytes()).ok().map(Pattern::Exact),
        },
        _ => None,
    });
    names.collect()
}

/// "No expiry" is written as the last second of the year 9999, which is beyond what an instant can
/// be.
fn instant(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}
