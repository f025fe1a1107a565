//! The rules of an owner's domain: it leads here, is nobody else's, and, where that is asked for, proves
//! whose it is.

use super::{Judge, Open};
use crate::admission::dns::{self, Leads};
use crate::admission::evidence::{DomainEvidence, Tokens};
use crate::admission::manifest::Manifest;
use crate::admission::refusal::{Refusal, WhyProof};
use crate::admission::settings::Settings;
use crate::admission::warning::Warning;
use crate::hostname::{Hostname, Pattern};
use crate::registry::domain::{Claim, Gate};

impl Judge<'_> {
    /// Judges the owner's domain, and gives what its gate will be.
    pub(super) fn domain(&mut self) -> Option<Gate> {
        let domain = &self.ssl()?.domain_name;
        if self.is_of_platform(domain) {
            self.refuse(Refusal::PlatformDomain { domain: domain.clone() });
            return None;
        }
        if !matches!(domain, Pattern::Exact(_)) && !self.platform.allow_wildcard_domains {
            self.refuse(Refusal::Wildcard(domain.clone()));
        }
        let proof = self.claims(domain);
        let Some(evidence) = &self.evidence.domain else {
            self.told.open.push(Open::Domain);
            return None;
        };
        if let Some(why) = proof {
            self.proof(domain, why, evidence);
        }
        match dns::leads(evidence) {
            Leads::Here => Some(Gate::Open),
            Leads::Unknown(why) => {
                let domain = domain.clone();
                self.told.warnings.push(Warning::Unanswered { domain, why });
                Some(Gate::Pending)
            }
            Leads::Elsewhere(found) => {
                self.refuse(Refusal::Astray {
                    domain: domain.clone(),
                    found,
                    proxy_name: self.platform.proxy_name.clone(),
                    own: evidence.proxy_addresses.clone(),
                });
                None
            }
        }
    }

    fn is_of_platform(&self, domain: &Pattern) -> bool {
        let Settings { proxy_name, zone, terminated_zone, .. } = self.platform;
        let name = domain.name();
        let is_under =
            |zone: &Hostname| name == zone || name.parents().any(|parent| parent == zone.as_str());
        name == proxy_name
            || domain.covers(proxy_name)
            || is_under(zone)
            || is_under(terminated_zone)
    }

    /// Judges the claims of others to the domain, and gives the reason why this project must prove
    /// its own, if there is one.
    fn claims(&mut self, domain: &Pattern) -> Option<WhyProof> {
        let Manifest { name, cloud, .. } = self.wish.manifest;
        let quarantine = self.platform.quarantine.into();
        let mut why = self.platform.require_ownership.then_some(WhyProof::Demanded);
        let others = self.registered.iter().flat_map(|registered| &registered.domains);
        for other in others.filter(|other| other.overlaps(domain)) {
            let is_own = other.project == cloud.project;
            let is_same = other.host == *domain;
            match other.claim(quarantine, self.now) {
                // Its own name is judged as such.
                Claim::Live if is_same && is_own && other.app == *name => {}
                Claim::Live if is_same => {
                    let app = is_own.then(|| other.app.clone());
                    self.told.refusals.push(Refusal::DomainTaken { domain: domain.clone(), app });
                }
                Claim::Reserved(until) if is_same && !is_own => {
                    why = Some(WhyProof::Reserved(until));
                }
                // Who claims a name under somebody's wildcard need not be somebody else.
                Claim::Live | Claim::Reserved(_) if !is_own => {
                    why = why.or_else(|| Some(WhyProof::Overlaps(other.host.clone())));
                }
                Claim::Live | Claim::Reserved(_) | Claim::Free => {}
            }
        }
        why
    }

    fn proof(&mut self, domain: &Pattern, why: WhyProof, evidence: &DomainEvidence) {
        let project = self.registered.and_then(|registered| registered.project.as_ref());
        let Some(project) = project else { return };
        let domain = domain.clone();
        match &evidence.tokens {
            Tokens::Found(texts) if texts.contains(&project.token) => {}
            Tokens::Found(texts) => {
                let (found, token) = (texts.clone(), project.token.clone());
                self.refuse(Refusal::NotProven { domain, why, found, token });
            }
            Tokens::Unanswered(why) => {
                let why = why.clone();
                self.refuse(Refusal::ProofUnanswered { domain, why });
            }
        }
    }
}
