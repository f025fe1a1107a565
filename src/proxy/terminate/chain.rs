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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    #[test]
    fn issuers_are_kept_once_and_in_order_for_as_long_as_a_leaf_has_them() {
        let named = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root = Issuer::new(named("root"), key());
        let (middle, middle_key) = (named("middle"), key());
        let middle_der = middle.signed_by(&middle_key, &root).unwrap().der().clone();
        let middle = Issuer::new(middle, middle_key);
        let near_der = named("near").signed_by(&key(), &middle).unwrap().der().clone();
        let name = |der: &CertificateDer<'_>| {
            X509Certificate::from_der(der).unwrap().1.subject.as_raw().to_vec()
        };
        let (near, far) = (name(&near_der), name(&middle_der));
        let both = || vec![near_der.clone(), middle_der.clone()];
        let mut chains = Chains::default();
        let first = chains.judge(both(), &near).unwrap();
        let second = chains.judge(both(), &near).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        // Known ones, behind another leaf; and in the wrong order.
        assert_eq!(chains.judge(both(), &far), Err(PairFault::Order(2)));
        let turned = vec![middle_der.clone(), near_der.clone()];
        assert_eq!(chains.judge(turned, &far), Err(PairFault::Order(3)));
        let torn = vec![near_der.clone(), CertificateDer::from(vec![0x30])];
        assert_eq!(chains.judge(torn, &near), Err(PairFault::Unreadable(3)));
        assert!(chains.judge(Vec::new(), &near).unwrap().is_empty());
        drop(first);
        chains.tidy();
        assert_eq!(chains.known.len(), 1);
        drop(second);
        chains.tidy();
        assert!(chains.known.is_empty());
    }
}
