//! Deploying an app: asked once of DNS, judged as often as the registry changes meanwhile.

use super::{Error, Registrar, TRIES, is_as};
use crate::admission::certificate::{Chain, ChainError, KeyFinding};
use crate::admission::evidence::{DomainEvidence, Evidence, Registered};
use crate::admission::manifest::Manifest;
use crate::admission::rules::{Verdict, Wish, judge};
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Pattern;
use crate::probe::domain::gather;
use crate::registry::app::App;
use crate::registry::changes::{Ground, deploy};
use crate::registry::domain::Domain;
use crate::registry::hardware::Seats;
use crate::registry::project::Project;
use crate::registry::record::{DOMAINS, Held, app_key, check, domain_key, project_key, seats_of};
use crate::registry::turn::{CLAIMS, Turn, turn_key};
use crate::resolve::records::Records;
use crate::store::{Check, Revision};

/// What somebody wants to deploy, with what only they could find out.
#[derive(Debug, Clone)]
pub struct Application {
    /// The manifest.
    pub manifest: Manifest,
    /// Whether TLS shall end in the proxy.
    pub operator_tls: bool,
    /// Where the app is, if that is known.
    pub backend: Option<Endpoint>,
    /// The owner's certificate; the key never comes here.
    pub certificate: Option<Result<Chain, ChainError>>,
    /// Whether the owner's key fits it, as the owner's side found.
    pub key: Option<KeyFinding>,
    /// Only if this transaction has written the last deployment of that name (0: there is none).
    pub if_revision: Option<Revision>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the rules say.
    pub verdict: Verdict,
    /// The app, if it was deployed.
    pub app: Option<Held<App>>,
}

/// What a deployment rests on, as it is stored.
struct Stored {
    project: Option<Held<Project>>,
    seats: Vec<Held<Seats>>,
    last: Option<Held<App>>,
    claims: Overlapping,
}

/// The stored domains of which some client could mean the same as of one.
#[derive(Default)]
struct Overlapping {
    domains: Vec<Held<Domain>>,
    /// That nobody has added any.
    alone: Option<Check>,
}

impl Stored {
    fn registered(&self) -> Registered {
        Registered {
            project: self.project.as_ref().map(|held| held.record.clone()),
            seats: self.seats.iter().map(|held| held.record.clone()).collect(),
            app: self.last.as_ref().map(|held| held.record.clone()),
            domains: self.claims.domains.iter().map(|held| held.record.clone()).collect(),
        }
    }
}

impl<D: Records> Registrar<D> {
    /// Judges an application, and deploys the app if nothing speaks against it and it is no dry
    /// run.
    ///
    /// # Errors
    /// What kept it from being judged or written; that it was refused is none.
    pub async fn deploy(
        &self,
        application: &Application,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Decision, Error> {
        let evidence = self.evidence(application).await;
        let Application { manifest, operator_tls, backend, if_revision, .. } = application;
        for _ in 0..TRIES {
            let stored = self.stored(manifest).await?;
            is_as(*if_revision, stored.last.as_ref().map_or(0, |held| held.revision))?;
            let wish = Wish { manifest, operator_tls: *operator_tls };
            let registered = stored.registered();
            let verdict = judge(wish, &evidence, Some(&registered), &self.platform, now);
            let (Some(terms), Some(project), false, true) =
                (&verdict.terms, &stored.project, dry_run, verdict.open.is_empty())
            else {
                return Ok(Decision { verdict, app: None });
            };
            let app = terms.app(manifest, backend.clone(), now);
            let host = app.custom_domain();
            let ground = Ground {
                project,
                seats: super::seats_of(&app, &stored.seats),
                last: stored.last.as_ref(),
                domain: stored.claims.domains.iter().find(|held| Some(&held.record.host) == host),
                alone: stored.claims.alone.as_ref(),
            };
            let transaction = deploy(ground, &app, terms.gate, now)?;
            if let Some(revision) = self.stood(transaction).await? {
                return Ok(Decision { verdict, app: Some(Held { record: app, revision }) });
            }
        }
        Err(Error::Busy)
    }

    async fn evidence(&self, application: &Application) -> Evidence {
        let domain = match &application.manifest.cloud.ssl {
            Some(ssl) => Some(self.asked(&ssl.domain_name).await),
            None => None,
        };
        Evidence {
            // They lie where the owner is, who has looked.
            files: Some(Vec::new()),
            certificate: application.certificate.clone(),
            key: application.key,
            roots: self.roots.clone(),
            domain,
            zones: self.zones.clone(),
        }
    }

    pub(super) async fn asked(&self, domain: &Pattern) -> DomainEvidence {
        gather(&self.dns, domain, &self.platform.proxy_name).await
    }

    async fn stored(&self, manifest: &Manifest) -> Result<Stored, Error> {
        let project = &manifest.cloud.project;
        let claims = match &manifest.cloud.ssl {
            Some(ssl) => self.overlapping(&ssl.domain_name).await?,
            None => Overlapping::default(),
        };
        Ok(Stored {
            project: self.read(&project_key(project)).await?,
            seats: self.all(&seats_of(project)).await?,
            last: self.read(&app_key(project, &manifest.name)).await?,
            claims,
        })
    }

    async fn overlapping(&self, domain: &Pattern) -> Result<Overlapping, Error> {
        let Pattern::Exact(name) = domain else {
            // Before the look: what is claimed while it lasts is found or told.
            let last: Option<Held<Turn>> = self.read(&turn_key(CLAIMS)).await?;
            // A wildcard is rare, and only a look at all of them shows what lies below it.
            let mut domains: Vec<Held<Domain>> = self.all(DOMAINS).await?;
            domains.retain(|held| held.record.overlaps(domain));
            let alone = Some(check(last.as_ref(), || turn_key(CLAIMS)));
            return Ok(Overlapping { domains, alone });
        };
        let mut domains: Vec<Held<Domain>> = Vec::new();
        domains.extend(self.domain_held(domain).await?);
        let Some(Ok(zone)) = name.parents().next().map(str::parse) else {
            return Ok(Overlapping { domains, alone: None });
        };
        let wildcard = Pattern::OneLabel(zone);
        let above = self.domain_held(&wildcard).await?;
        let alone = Some(check(above.as_ref(), || domain_key(&wildcard)));
        domains.extend(above);
        Ok(Overlapping { domains, alone })
    }
}
