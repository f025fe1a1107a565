//! How the certificates of a chain hang together: each issued by the next, up to a root.

use std::collections::BTreeSet;

use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::admission::certificate::{Certificate, Chain};

/// Where a chain is torn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Torn {
    /// A certificate is not followed by its issuer.
    Order {
        /// Which certificate, from 1.
        position: usize,
        /// Who issued it.
        issuer: String,
        /// Who follows.
        found: String,
    },
    /// The one that follows has the issuer's name, but its key did not sign.
    Signature {
        /// Which certificate's signature, from 1.
        position: usize,
    },
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a root, or with what a known root issued.
    Root,
    /// With the leaf itself, which nobody else issued.
    SelfSigned,
    /// With an authority whose own issuer is not known here.
    Unknown {
        /// Who that is.
        issuer: String,
    },
    /// With a leaf whose issuer is missing.
    Missing {
        /// Who that is.
        issuer: String,
    },
}

/// The names of the roots that clients know.
#[derive(Debug, Clone, Default)]
pub struct Roots(BTreeSet<Vec<u8>>);

impl<'a> FromIterator<&'a [u8]> for Roots {
    /// Takes roots as certificates; what cannot be read is no root.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(ders: I) -> Self {
        let roots = ders.into_iter().filter_map(Certificate::from_der);
        Self(roots.map(|root| root.subject_name).collect())
    }
}

/// The first place at which a chain is torn.
#[must_use]
pub fn torn(chain: &Chain) -> Option<Torn> {
    for (index, (lower, upper)) in chain.all().zip(&chain.above).enumerate() {
        let position = index + 1;
        if lower.issuer_name != upper.subject_name {
            let (issuer, found) = (lower.issuer.clone(), upper.subject.clone());
            return Some(Torn::Order { position, issuer, found });
        }
        if !is_signed(lower, upper) {
            return Some(Torn::Signature { position });
        }
    }
    None
}

/// Where a chain ends.
#[must_use]
pub fn end(chain: &Chain, roots: &Roots) -> End {
    let last = chain.above.last().unwrap_or(&chain.leaf);
    let issuer = || last.issuer.clone();
    if last.is_self_issued() {
        if chain.above.is_empty() { End::SelfSigned } else { End::Root }
    } else if roots.0.contains(&last.issuer_name) {
        End::Root
    } else if last.is_ca {
        End::Unknown { issuer: issuer() }
    } else {
        End::Missing { issuer: issuer() }
    }
}

/// Whether one certificate's key signed the other, by an algorithm that clients still take.
fn is_signed(lower: &Certificate, upper: &Certificate) -> bool {
    let (Ok((_, below)), Ok((_, above))) =
        (X509Certificate::from_der(&lower.der), X509Certificate::from_der(&upper.der))
    else {
        return false;
    };
    // Signatures are whole bytes; a parser may read one bit less as the same.
    if below.signature_value.unused_bits != 0 {
        return false;
    }
    let algorithm = below.signature_algorithm.algorithm.as_bytes();
    let known = default_provider().signature_verification_algorithms.all;
    known.iter().any(|known| {
        // An AlgorithmIdentifier begins with its object identifier: tag 6, a short length.
        let id = known.signature_alg_id();
        let is_same = match id.as_ref() {
            [6, length, rest @ ..] => rest.get(..usize::from(*length)) == Some(algorithm),
            _ => false,
        };
        is_same
            && known
                .verify_signature(
                    &above.public_key().subject_public_key.data,
                    below.tbs_certificate.as_ref(),
                    &below.signature_value.data,
                )
                .is_ok()
    })
}
