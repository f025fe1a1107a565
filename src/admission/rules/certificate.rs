//! The rules of an owner's certificate: for the owner's domain, valid, and whole.

use jiff::SignedDuration;

use super::{Judge, Open};
use crate::admission::certificate::{self, Chain, End, Torn};
use crate::admission::refusal::Refusal;
use crate::admission::warning::Warning;
use crate::hostname::Pattern;

/// A certificate that ends sooner is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Judge<'_> {
    pub(super) fn certificate(&mut self) {
        let Some(ssl) = self.ssl() else { return };
        if self.wish.operator_tls {
            self.refuse(Refusal::TwoCertificates);
        }
        match &self.evidence.certificate {
            None => self.told.open.push(Open::Certificate),
            Some(Err(why)) => self.refuse(Refusal::NoChain(why.clone())),
            Some(Ok(chain)) => {
                self.names(chain, &ssl.domain_name);
                self.validity(chain);
                self.links(chain);
                if chain.has_private_key {
                    self.told.warnings.push(Warning::KeyBeside);
                }
            }
        }
    }

    fn names(&mut self, chain: &Chain, domain: &Pattern) {
        let leaf = &chain.leaf;
        let domain = domain.clone();
        if leaf.covers(&domain) {
            if !leaf.names_in_common_name(&domain) {
                let common_name = leaf.common_name.clone();
                self.told.warnings.push(Warning::CommonName { common_name, domain });
            }
            return;
        }
        let other = chain.above.iter().position(|above| !above.is_ca && above.covers(&domain));
        self.refuse(if let Some(index) = other {
            Refusal::LeafNotFirst { position: index + 2, domain }
        } else if leaf.dns_names.is_empty() {
            Refusal::NoNames { domain, has_addresses: !leaf.ip_names.is_empty() }
        } else {
            Refusal::OtherNames { domain, names: leaf.dns_names.clone() }
        });
    }

    fn validity(&mut self, chain: &Chain) {
        let (leaf, now) = (&chain.leaf, self.now);
        if leaf.not_before > now {
            self.refuse(Refusal::NotYetValid { not_before: leaf.not_before });
        }
        for (index, certificate) in chain.all().enumerate() {
            let not_after = certificate.not_after;
            if not_after <= now {
                self.refuse(Refusal::Over { position: index + 1, not_after });
            }
        }
        if leaf.not_after > now && leaf.not_after.duration_since(now) < SOON {
            self.told.warnings.push(Warning::EndsSoon { not_after: leaf.not_after });
        }
    }

    fn links(&mut self, chain: &Chain) {
        match certificate::torn(chain) {
            Some(Torn::Order { position, issuer, found }) => {
                return self.refuse(Refusal::Disorder { position, issuer, found });
            }
            Some(Torn::Signature { position }) => {
                return self.refuse(Refusal::NotSigned { position });
            }
            None => {}
        }
        match certificate::end(chain, &self.evidence.roots) {
            End::Root => {}
            End::SelfSigned => self.told.warnings.push(Warning::SelfSigned),
            End::Unknown { issuer } => self.told.warnings.push(Warning::UnknownRoot { issuer }),
            End::Missing { issuer } => self.refuse(Refusal::Incomplete { issuer }),
        }
    }
}
