//! One certificate with its chain and its key: from PEM to something that may answer, or to what is
//! wrong with it.
//!
//! The key is parsed once, to see that it belongs to the certificate, and then kept as bytes: of a
//! hundred thousand pairs few are asked for at a time. Pure: texts and an instant come in.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};

/// A certificate that may answer, with its chain and its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where it was read.
    pub file: Arc<str>,
    /// The names that it is for; at least one.
    pub names: Box<[Pattern]>,
    /// Valid from this instant on.
    pub not_before: Timestamp,
    /// Not valid after it.
    pub not_after: Timestamp,
    /// The leaf first.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a certificate cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairFault {
    /// No certificate in the text.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No key in the text.
    #[error(
        "there is no private key in it, nor in a .key file beside it (encrypted keys are not read)"
    )]
    NoKey,
    /// A text that is no PEM.
    #[error("it is no PEM: {0}")]
    NotPem(String),
    /// One of the chain cannot be read.
    #[error("certificate {0} of it cannot be read")]
    Unreadable(usize),
    /// One of the chain did not issue the one before.
    #[error(
        "certificate {0} of it did not issue the one before: write the leaf first, then its issuer, and so on"
    )]
    Order(usize),
    /// The leaf names nobody.
    #[error("it has no DNS name (subjectAltName)")]
    NoNames,
    /// The key is of a kind that is not spoken.
    #[error("its key cannot be used: {0}")]
    UnusableKey(String),
    /// The key belongs to another certificate.
    #[error("its key is not that of the certificate")]
    OtherKey,
    /// It is not valid any more.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// It is not valid yet.
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
}

impl Pair {
    /// Reads a chain and a key; both may stand in the same text.
    ///
    /// # Errors
    /// The first thing that keeps it from answering now.
    pub fn read(
        file: &Arc<str>,
        chain: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Self, PairFault> {
        let not_pem = |error: rustls::pki_types::pem::Error| PairFault::NotPem(error.to_string());
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(not_pem)?;
        let leaf = chain.first().ok_or(PairFault::NoCertificate)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| PairFault::Unreadable(1))?;
        judge_order(&chain)?;
        let names = names(&leaf);
        if names.is_empty() {
            return Err(PairFault::NoNames);
        }
        let (not_before, not_after) =
            (instant(leaf.validity.not_before), instant(leaf.validity.not_after));
        if now > not_after {
            return Err(PairFault::Expired(not_after));
        }
        if now < not_before {
            return Err(PairFault::NotYet(not_before));
        }
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(rustls::pki_types::pem::Error::NoItemsFound) => return Err(PairFault::NoKey),
            Err(error) => return Err(not_pem(error)),
        };
        let pair = Self { file: Arc::clone(file), names, not_before, not_after, chain, key };
        pair.certified(provider)?;
        Ok(pair)
    }

    /// Whether it is valid at an instant.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Parses the key, for signing.
    ///
    /// # Errors
    /// It cannot be used, or belongs to another certificate.
    pub fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, PairFault> {
        let made = CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider);
        made.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => PairFault::OtherKey,
            other => PairFault::UnusableKey(other.to_string()),
        })
    }
}

/// Each certificate behind the leaf must have issued the one before it, by their names.
fn judge_order(chain: &[CertificateDer<'_>]) -> Result<(), PairFault> {
    let mut issuer: Option<Vec<u8>> = None;
    for (index, der) in chain.iter().enumerate() {
        let parsed = X509Certificate::from_der(der);
        let (_, certificate) = parsed.map_err(|_| PairFault::Unreadable(index + 1))?;
        if issuer.is_some_and(|issuer| certificate.subject.as_raw() != issuer) {
            return Err(PairFault::Order(index + 1));
        }
        issuer = Some(certificate.issuer.as_raw().to_vec());
    }
    Ok(())
}

/// The names that TLS clients look at. A common name is none of them (RFC 9525 §2).
fn names(leaf: &X509Certificate<'_>) -> Box<[Pattern]> {
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else { return Box::default() };
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
