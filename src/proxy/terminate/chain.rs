//! What stands behind a leaf: the certificates of its issuers.
//!
//! Very many leaves have the same issuers, so those are read once, judged once and kept once. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::proxy::terminate::fault::PairFault;

/// Issuers, the nearest first.
pub(super) type Issuers = Arc<[CertificateDer<'static>]>;

/// All issuers that were met, in the order in which they stood; with the name of the first.
#[derive(Debug, Default)]
pub struct Chains {
    known: HashMap<Issuers, Box<[u8]>, foldhash::fast::RandomState>,
}

impl Chains {
    /// The issuers of a leaf that names `issuer`: each must have issued the one before, by their
    /// names.
    pub(super) fn judge(
        &mut self,
        issuers: Vec<CertificateDer<'static>>,
        issuer: &[u8],
    ) -> Result<Issuers, PairFault> {
        let known = self.known.get_key_value(issuers.as_slice());
        let (issuers, subject) = if let Some((issuers, subject)) = known {
            (Arc::clone(issuers), subject)
        } else {
            let subject = judge_order(&issuers)?;
            let issuers: Issuers = issuers.into();
            (Arc::clone(&issuers), &*self.known.entry(issuers).or_insert(subject))
        };
        if !issuers.is_empty() && **subject != *issuer {
            return Err(PairFault::Order(2));
        }
        Ok(issuers)
    }

    /// Lets go of those that no leaf has any more.
    pub(super) fn tidy(&mut self) {
        self.known.retain(|issuers, _| Arc::strong_count(issuers) > 1);
    }
}

/// Judges certificates that stand behind a leaf; gives the name of the first.
fn judge_order(issuers: &[CertificateDer<'_>]) -> Result<Box<[u8]>, PairFault> {
    let (mut first, mut issuer): (Option<Box<[u8]>>, Option<Vec<u8>>) = (None, None);
    for (der, place) in issuers.iter().zip(2..) {
        let (_, parsed) =
            X509Certificate::from_der(der).map_err(|_| PairFault::Unreadable(place))?;
        let subject = parsed.subject.as_raw();
        if issuer.is_some_and(|issuer| subject != issuer) {
            return Err(PairFault::Order(place));
        }
        first.get_or_insert_with(|| subject.into());
        issuer = Some(parsed.issuer.as_raw().to_vec());
    }
    Ok(first.unwrap_or_default())
}
