//! Reading a certificate and its chain: PEM or DER in, facts out.

use std::net::IpAddr;

use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::admission::certificate::enclave::{Quote, quote};
use crate::clock::Timestamp;
use crate::hostname::Pattern;

/// The most certificates of a chain. Real ones have two to four.
pub const MAX_CERTIFICATES: usize = 16;

/// A certificate with those above it, in the order in which they were given: the leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The certificate of a server.
    pub leaf: Certificate,
    /// What follows it.
    pub above: Vec<Certificate>,
    /// Whether a private key lay beside them, which belongs nowhere near a certificate.
    pub has_private_key: bool,
}

/// What one certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its own name, in words.
    pub subject: String,
    /// Its issuer's name, in words.
    pub issuer: String,
    /// The common name, if there is one.
    pub common_name: Option<String>,
    /// The DNS names among its alternative names, as they are written.
    pub dns_names: Vec<String>,
    /// The addresses among its alternative names.
    pub ip_names: Vec<IpAddr>,
    /// The first instant at which it is valid.
    pub not_before: Timestamp,
    /// The last one.
    pub not_after: Timestamp,
    /// Whether it may issue others.
    pub is_ca: bool,
    /// Whether it carries the quote of an enclave.
    pub quote: Quote,
    /// Its `SubjectPublicKeyInfo`.
    pub key: Vec<u8>,
    /// The certificate itself.
    pub der: Vec<u8>,
    pub(super) subject_name: Vec<u8>,
    pub(super) issuer_name: Vec<u8>,
}

/// Why some bytes are no chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate at all.
    #[error("there is no certificate in it; it must be PEM, -----BEGIN CERTIFICATE-----")]
    Empty,
    /// PEM that is broken.
    #[error("it is no PEM: {0}")]
    NotPem(String),
    /// A certificate that cannot be read.
    #[error("certificate {position} of it is no X.509 certificate")]
    Unreadable {
        /// Which, from 1.
        position: usize,
    },
    /// More certificates than any chain has.
    #[error("it has more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

impl Chain {
    /// Reads a text with certificates, the leaf first.
    ///
    /// # Errors
    /// Why there is no chain in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ChainError> {
        let mut ders: Vec<Vec<u8>> = Vec::new();
        let mut has_private_key = false;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            match section.map_err(|error| ChainError::NotPem(error.to_string()))? {
                (SectionKind::Certificate, der) => ders.push(der),
                (
                    SectionKind::PrivateKey
                    | SectionKind::RsaPrivateKey
                    | SectionKind::EcPrivateKey,
                    _,
                ) => has_private_key = true,
                _ => {}
            }
            if ders.len() > MAX_CERTIFICATES {
                return Err(ChainError::TooMany);
            }
        }
        Self::from_der(ders.iter().map(Vec::as_slice), has_private_key)
    }

    /// Reads certificates as a server sends them, the leaf first.
    ///
    /// # Errors
    /// Why they are no chain.
    pub fn from_der<'a>(
        ders: impl IntoIterator<Item = &'a [u8]>,
        has_private_key: bool,
    ) -> Result<Self, ChainError> {
        let mut certificates = Vec::new();
        for (index, der) in ders.into_iter().enumerate() {
            if index >= MAX_CERTIFICATES {
                return Err(ChainError::TooMany);
            }
            let unreadable = ChainError::Unreadable { position: index + 1 };
            certificates.push(Certificate::from_der(der).ok_or(unreadable)?);
        }
        let mut certificates = certificates.into_iter();
        let leaf = certificates.next().ok_or(ChainError::Empty)?;
        Ok(Self { leaf, above: certificates.collect(), has_private_key })
    }

    /// All of them, the leaf first.
    pub fn all(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.above)
    }
}

impl Certificate {
    /// Reads one; nothing if it cannot be read.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let (mut dns_names, mut ip_names) = (Vec::new(), Vec::new());
        let names = parsed.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => ip_names.extend(address(octets)),
                _ => {}
            }
        }
        let common_name = parsed.subject().iter_common_name().next();
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            dns_names,
            ip_names,
            not_before: instant(parsed.validity().not_before),
            not_after: instant(parsed.validity().not_after),
            is_ca: parsed.is_ca(),
            quote: quote(&parsed),
            key: parsed.public_key().raw.to_vec(),
            der: der.to_vec(),
            subject_name: parsed.subject().as_raw().to_vec(),
            issuer_name: parsed.issuer().as_raw().to_vec(),
        })
    }

    /// Whether one of its DNS names covers what is asked for: a name by itself or by a wildcard of
    /// one label, a wildcard only by the same one.
    #[must_use]
    pub fn covers(&self, domain: &Pattern) -> bool {
        self.dns_names.iter().any(|name| covers(name, domain))
    }

    /// Whether its common name does.
    #[must_use]
    pub fn names_in_common_name(&self, domain: &Pattern) -> bool {
        self.common_name.as_deref().is_some_and(|name| covers(name, domain))
    }

    /// Whether it says that it issued itself.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject_name == self.issuer_name
    }
}

fn covers(written: &str, domain: &Pattern) -> bool {
    match (written.parse(), domain) {
        (Ok(own @ (Pattern::Exact(_) | Pattern::OneLabel(_))), Pattern::Exact(name)) => {
            own.covers(name)
        }
        (Ok(own), wildcard) => own == *wildcard,
        (Err(_), _) => false,
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// RFC 5280 §4.1.2.5 writes "never" as the last second of the year 9999, which is a day behind the
/// last instant that can be held.
fn instant(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}
