//! The platform's rules, in the one place where they are applied: a manifest, what was found, what
//! the store holds, and an instant in; a verdict out.
//!
//! All reasons are told at once. What nobody has asked is not judged, and is told as such: a
//! verdict without open questions is an admission.

mod certificate;
mod domain;

use jiff::SignedDuration;

use crate::admission::certificate::{Chain, KeyFinding};
use crate::admission::evidence::{Evidence, FileFact, Found, Registered};
use crate::admission::manifest::{Manifest, Ssl};
use crate::admission::quota;
use crate::admission::refusal::Refusal;
use crate::admission::settings::Settings;
use crate::admission::warning::Warning;
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::{Hostname, Pattern};
use crate::registry::app::{App, AppHost, CertificateOrigin, Phase, Role, generated};
use crate::registry::digest::pin;
use crate::registry::domain::Gate;
use crate::registry::project::{Project, Standing};

/// How long an app runs on free hardware.
pub const FREE_LIFE: SignedDuration = SignedDuration::from_hours(4);
/// How long an app runs whose owner names no end and has no certificate.
pub const DEFAULT_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);

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
            key: None,
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
    judge.zones(hosts.as_deref().unwrap_or_default());
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

    /// TLS ends here only where the operator of this proxy lets it; a route elsewhere were left out.
    fn zones(&mut self, hosts: &[AppHost]) {
        let zones = &self.evidence.zones;
        let outside = |one: &&AppHost| one.role == Role::Terminated && !zones.hold(&one.host);
        if let Some(one) = hosts.iter().find(outside) {
            let zone = self.platform.terminated_zone.clone();
            self.refuse(Refusal::NotTerminated { host: one.host.clone(), zone });
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
