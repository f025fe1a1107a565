//! Customers' own domains: looking at them, and taking note of where they lead.

use super::{Error, Event, Registrar};
use crate::admission::dns::{Leads, leads, seen, token_name};
use crate::admission::evidence::{DomainEvidence, Tokens};
use crate::admission::refusal::Refusal;
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::changes;
use crate::registry::domain::{Claim, Domain, Seen};
use crate::registry::names::ProjectName;
use crate::registry::record::{DOMAINS, Held};
use crate::resolve::records::Records;

/// What came of looking where a domain leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The domain as it is noted from then on.
    pub domain: Held<Domain>,
    /// Where it leads.
    pub seen: Seen,
    /// What was found, and which record to create, if it does not lead here.
    pub why: Option<String>,
    /// Its gate changed, by this proxy.
    pub event: Option<Event>,
}

impl<D: Records> Registrar<D> {
    /// All domains, or those of one project.
    ///
    /// # Errors
    /// The store.
    pub async fn domains(&self, project: Option<&ProjectName>) -> Result<Vec<Held<Domain>>, Error> {
        let mut all: Vec<Held<Domain>> = self.all(DOMAINS).await?;
        all.retain(|one| project.is_none_or(|project| one.record.project == *project));
        Ok(all)
    }

    /// A domain.
    ///
    /// # Errors
    /// There is no such domain, or the store.
    pub async fn domain(&self, host: &Pattern) -> Result<Held<Domain>, Error> {
        let held = self.domain_held(host).await?;
        held.ok_or_else(|| Error::NoDomain(host.clone()))
    }

    /// Who has a claim to a domain.
    #[must_use]
    pub fn claim(&self, domain: &Domain, now: Timestamp) -> Claim {
        domain.claim(self.platform.quarantine.into(), now)
    }

    /// Asks DNS where a domain leads, and takes note of it while its app lives.
    ///
    /// # Errors
    /// There is no such domain, or the store.
    pub async fn check_domain(&self, host: &Pattern, now: Timestamp) -> Result<Check, Error> {
        self.look(self.domain(host).await?, now).await
    }

    pub(super) async fn look(&self, held: Held<Domain>, now: Timestamp) -> Result<Check, Error> {
        let evidence = self.asked(&held.record.host).await;
        let token = if self.platform.require_ownership {
            Some(self.project_held(&held.record.project).await?.record.token)
        } else {
            None
        };
        let seen = seen(&evidence, token.as_deref());
        let why = self.why(&held.record.host, &evidence, token.as_deref(), seen);
        let kept = Check { domain: held.clone(), seen, why, event: None };
        if held.record.claim(jiff::SignedDuration::ZERO, now) != Claim::Live {
            return Ok(kept);
        }
        let (next, gate) = held.record.clone().observe(seen);
        let Some(transaction) = changes::observe(&held, &next) else { return Ok(kept) };
        // Whoever changed it meanwhile knew more.
        let Some(revision) = self.stood(transaction).await? else { return Ok(kept) };
        let event = gate.map(|gate| Event::Gate { domain: next.host.clone(), gate });
        Ok(Check { domain: Held { record: next, revision }, event, ..kept })
    }

    /// What is to be done about a domain that does not lead here.
    fn why(
        &self,
        domain: &Pattern,
        evidence: &DomainEvidence,
        token: Option<&str>,
        seen: Seen,
    ) -> Option<String> {
        match (seen, leads(evidence)) {
            (Seen::Here, _) => None,
            (_, Leads::Elsewhere(found)) => {
                let (proxy_name, own) =
                    (self.platform.proxy_name.clone(), evidence.proxy_addresses.clone());
                let domain = domain.clone();
                Some(Refusal::Astray { domain, found, proxy_name, own }.to_string())
            }
            (_, Leads::Unknown(why)) => Some(format!("DNS does not answer: {why}")),
            (_, Leads::Here) => Some(match (&evidence.tokens, token) {
                (Tokens::Unanswered(why), _) => format!("DNS does not answer: {why}"),
                (Tokens::Found(_), token) => format!(
                    "{domain} does not show whose it is; create {}. TXT \"{}\"",
                    token_name(domain),
                    token.unwrap_or_default()
                ),
            }),
        }
    }
}
