//! The platform's rules, in the one place where they are applied: a manifest, what was found, what
//! the store holds, and an instant in; a verdict out.
//!
//! All reasons are told at once. What nobody has asked is not judged, and is told as such: a
//! verdict without open questions is an admission.

use jiff::SignedDuration;

use crate::admission::certificate::{self, Chain, End, KeyFinding, Torn};
use crate::admission::dns::{self, Leads};
use crate::admission::evidence::{DomainEvidence, Evidence, FileFact, Found, Registered, Tokens};
use crate::admission::manifest::{Manifest, Ssl};
use crate::admission::quota;
use crate::admission::refusal::{Refusal, WhyProof};
use crate::admission::settings::Settings;
use crate::admission::warning::Warning;
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::{Hostname, Pattern};
use crate::registry::app::{App, AppHost, CertificateOrigin, Phase, Role, generated};
use crate::registry::digest::pin;
use crate::registry::domain::{Claim, Gate};
use crate::registry::project::{Project, Standing};

/// How long an app runs on free hardware.
pub const FREE_LIFE: SignedDuration = SignedDuration::from_hours(4);
/// How long an app runs whose owner names no end and has no certificate.
pub const DEFAULT_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A certificate that ends sooner is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What somebody wants to deploy.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// Whether TLS shall end in the proxy.
    pub operator_tls: bool,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Every reason against it.
    pub refusals: Vec<Refusal>,
    /// What is odd.
    pub warnings: Vec<Warning>,
    /// What was not judged, because nobody had asked.
    pub open: Vec<Open>,
    /// What the app gets, if nothing speaks against it.
    pub terms: Option<Terms>,
}

/// Something that was not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Whether the files of the manifest are there.
    Files,
    /// The owner's certificate.
    Certificate,
    /// Whether the owner's key fits it.
    Key,
    /// Whether the owner's domain leads here.
    Domain,
    /// The project, its hardware and names.
    Registry,
}

/// What an admitted app gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose certificate it shows.
    pub origin: CertificateOrigin,
    /// Its hostnames.
    pub hosts: Vec<AppHost>,
    /// When it ends.
    pub ends_at: Timestamp,
    /// The gate of its own domain, if it has one.
    pub gate: Option<Gate>,
    /// The digest of its owner's certificate, if it has one.
    pub leaf: Option<String>,
}

impl Terms {
    /// The app as it is deployed on these terms.
    #[must_use]
    pub fn app(&self, manifest: &Manifest, backend: Option<Endpoint>, now: Timestamp) -> App {
        let Manifest { name, healthcheck_endpoint, cloud, .. } = manifest;
        App {
            project: cloud.project.clone(),
            name: name.clone(),
            hardware: cloud.hardware.clone(),
            docker: cloud.docker.to_string(),
            healthcheck_endpoint: healthcheck_endpoint.clone(),
            origin: self.origin,
            hosts: self.hosts.clone(),
            leaf: self.leaf.clone(),
            phase: Phase::Spawning,
            backend,
            deployed_at: now,
            ends_at: self.ends_at,
            ended_at: None,
        }
    }
}

/// Judges a wish.
#[must_use]
pub fn judge(
    wish: Wish<'_>,
    evidence: &Evidence,
    registered: Option<&Registered>,
    platform: &Settings,
    now: Timestamp,
) -> Verdict {
    let mut judge = Judge { wish, evidence, registered, platform, now, told: Verdict::default() };
    judge.files();
    judge.image();
    judge.certificate();
    judge.key();
    let ends_at = judge.end();
    judge.registry();
    let gate = judge.domain();
    let hosts = judge.hosts();
    let origin = judge.origin();
    let mut told = judge.told;
    if let (Some(ends_at), Some(hosts), true) = (ends_at, hosts, told.refusals.is_empty()) {
        let chain = evidence.certificate.as_ref().and_then(|chain| chain.as_ref().ok());
        let leaf = chain.map(|chain| pin(&chain.leaf.der));
        told.terms = Some(Terms { origin, hosts, ends_at, gate, leaf });
    }
    told
}

/// What is wrong with the files and folders that a manifest names, be it whole or not.
#[must_use]
pub fn judge_files(files: &[FileFact]) -> Vec<Refusal> {
    let wrong = files.iter().filter_map(|FileFact { key, path, found }| {
        let is_folder = matches!(*key, "code" | "tests");
        let path = path.clone();
        Some(match found {
            Found::File if is_folder => {
                Refusal::OtherKind { key, path, found: "file", wanted: "folder" }
            }
            Found::Folder if !is_folder => {
                Refusal::OtherKind { key, path, found: "folder", wanted: "file" }
            }
            Found::File | Found::Folder => return None,
            Found::Nothing => Refusal::NoFile { key, path },
            Found::Unreadable => Refusal::UnreadableFile { key, path },
        })
    });
    wrong.collect()
}

struct Judge<'a> {
    wish: Wish<'a>,
    evidence: &'a Evidence,
    registered: Option<&'a Registered>,
    platform: &'a Settings,
    now: Timestamp,
    told: Verdict,
}

impl<'a> Judge<'a> {
    fn refuse(&mut self, refusal: Refusal) {
        self.told.refusals.push(refusal);
    }

    fn ssl(&self) -> Option<&'a Ssl> {
        self.wish.manifest.cloud.ssl.as_ref()
    }

    fn chain(&self) -> Option<&'a Chain> {
        self.evidence.certificate.as_ref().and_then(|chain| chain.as_ref().ok())
    }

    fn origin(&self) -> CertificateOrigin {
        match (self.ssl(), self.wish.operator_tls) {
            (Some(_), _) => CertificateOrigin::Owner,
            (None, true) => CertificateOrigin::Operator,
            (None, false) => CertificateOrigin::Enclave,
        }
    }

    fn files(&mut self) {
        match &self.evidence.files {
            Some(files) => self.told.refusals.extend(judge_files(files)),
            None => self.told.open.push(Open::Files),
        }
    }

    fn image(&mut self) {
        let image = &self.wish.manifest.cloud.docker;
        if image.remote_registry().is_none() {
            self.refuse(Refusal::LocalImage(image.to_string()));
        }
        if image.is_latest() {
            self.refuse(Refusal::LatestImage(image.to_string()));
        }
        let approved = &self.platform.images;
        if !approved.is_empty() && !approved.iter().any(|pattern| image.is_like(pattern)) {
            let (image, approved) = (image.to_string(), approved.clone());
            self.refuse(Refusal::OtherImage { image, approved });
        }
    }

    fn certificate(&mut self) {
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

    fn key(&mut self) {
        if self.ssl().is_none() {
            return;
        }
        match self.evidence.key {
            None => self.told.open.push(Open::Key),
            Some(KeyFinding::Matches) => {}
            Some(KeyFinding::Differs) => self.refuse(Refusal::OtherKey),
            Some(KeyFinding::Encrypted) => self.refuse(Refusal::LockedKey),
            Some(KeyFinding::Missing) => self.refuse(Refusal::NoKey),
            Some(KeyFinding::Unusable) => self.refuse(Refusal::UnusableKey),
        }
    }

    /// The end of the app, as far as it is known. No app outlives the certificate of its owner.
    fn end(&mut self) -> Option<Timestamp> {
        let cloud = &self.wish.manifest.cloud;
        let after = |life| self.now.saturating_add(life).unwrap_or(Timestamp::MAX);
        let not_after = match self.ssl() {
            Some(_) => Some(self.chain()?.leaf.not_after),
            None => None,
        };
        if cloud.hardware.is_free() {
            let free = after(FREE_LIFE);
            let ends_at = not_after.map_or(free, |not_after| free.min(not_after));
            if let Some(asked) = cloud.expiration_date.filter(|asked| *asked != ends_at) {
                self.told.warnings.push(Warning::FreeEnd { asked, ends_at });
            }
            return Some(ends_at);
        }
        match (cloud.expiration_date, not_after) {
            (Some(asked), Some(not_after)) if asked > not_after => {
                self.refuse(Refusal::BeyondCertificate { asked, not_after });
                None
            }
            (Some(asked), _) => Some(asked),
            (None, Some(not_after)) => Some(not_after),
            (None, None) => Some(after(DEFAULT_LIFE)),
        }
    }

    fn registry(&mut self) {
        let Some(registered) = self.registered else {
            return self.told.open.push(Open::Registry);
        };
        let Manifest { name, cloud, .. } = self.wish.manifest;
        match &registered.project {
            None => return self.refuse(Refusal::NoProject(cloud.project.clone())),
            Some(Project { standing: Standing::Suspended { since, .. }, .. }) => {
                let project = cloud.project.clone();
                self.refuse(Refusal::Suspended { project, since: *since });
            }
            Some(Project { standing: Standing::Good | Standing::Unpaid { .. }, .. }) => {}
        }
        if let Some(other) = &registered.app
            && other.phase_at(self.now).is_active()
        {
            self.refuse(Refusal::NameTaken {
                project: other.project.clone(),
                name: other.name.clone(),
                phase: other.phase_at(self.now),
                host: other.hosts.first().map(|host| host.host.clone()),
            });
        }
        let seat = quota::judge(registered, &cloud.project, name, &cloud.hardware, self.now);
        if let Some(refusal) = seat {
            self.refuse(refusal);
        }
    }

    /// Judges the owner's domain, and gives what its gate will be.
    fn domain(&mut self) -> Option<Gate> {
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
        let quarantine = SignedDuration::try_from(self.platform.quarantine.0);
        let quarantine = quarantine.unwrap_or(SignedDuration::MAX);
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

    /// The hostnames of the app. Zones that leave no room for a generated name are the operator's
    /// fault, and were one of the configuration.
    fn hosts(&self) -> Option<Vec<AppHost>> {
        let Manifest { name, cloud, .. } = self.wish.manifest;
        let origin = self.origin();
        let in_zone = |zone: &Hostname, role| {
            let host = generated(&cloud.project, name, origin, zone).ok()?;
            Some(AppHost { host: Pattern::Exact(host), role })
        };
        let Settings { zone, terminated_zone, .. } = self.platform;
        Some(match (origin, self.ssl()) {
            (CertificateOrigin::Owner, Some(ssl)) => {
                let own = AppHost { host: ssl.domain_name.clone(), role: Role::Custom };
                vec![in_zone(zone, Role::Configuration)?, own]
            }
            (CertificateOrigin::Operator, _) => vec![
                in_zone(zone, Role::Configuration)?,
                in_zone(terminated_zone, Role::Terminated)?,
            ],
            (CertificateOrigin::Enclave | CertificateOrigin::Owner, _) => {
                vec![in_zone(zone, Role::Own)?]
            }
        })
    }
}
