//! `AppService`.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::convert::{self, field, given};
use super::{Answer, Apps, refused};
use crate::admission::certificate::{Chain, KeyFinding};
use crate::admission::manifest::{self, Reading};
use crate::admission::rules::{Open, Verdict};
use crate::clock::Timestamp;
use crate::control::proto::app_service_server::AppService;
use crate::control::{proto, status};
use crate::registrar::{Application, Decision};
use crate::registry::app::App;
use crate::registry::record::Held;
use crate::source::place::Place;

/// What a manifest is called whose name was not told.
const UNNAMED: &str = "mse.toml";

#[tonic::async_trait]
impl AppService for Apps {
    async fn deploy(
        &self,
        request: Request<proto::DeployRequest>,
    ) -> Answer<proto::DeployResponse> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let name = Some(&*message.manifest_name).filter(|name| !name.is_empty());
        let source: Arc<str> = name.unwrap_or(UNNAMED).into();
        let mut reading = manifest::read(&source, &message.manifest, now);
        let Some(manifest) = reading.manifest.take() else {
            let faults = reading.faults.iter().map(|fault| at(&fault.place, &fault.kind));
            let odd = warnings(&Verdict::default(), &reading, &source);
            return Err(refuse(Code::InvalidArgument, faults, &odd));
        };
        let chain = message.certificate.iter().map(Vec::as_slice);
        let application = Application {
            operator_tls: message.operator_tls,
            backend: given("backend", &message.backend)?,
            certificate: (!message.certificate.is_empty()).then(|| Chain::from_der(chain, false)),
            if_revision: message.if_revision,
            key: given::<Finding>("key", &message.key)?.map(|finding| finding.0),
            manifest,
        };
        let decided = registrar.deploy(&application, message.dry_run, now).await;
        let Decision { verdict, app } = decided.map_err(|error| refused(&error))?;
        let warnings = warnings(&verdict, &reading, &source);
        judge(&verdict, &reading, &source, &warnings)?;
        let deployed = app.is_some();
        let app = app.or_else(|| {
            let terms = verdict.terms.as_ref()?;
            let record = terms.app(&application.manifest, application.backend.clone(), now);
            Some(Held { record, revision: 0 })
        });
        if let (Some(Held { record: app, .. }), true) = (&app, deployed) {
            let (project, name, ends_at) = (&app.project, &app.name, &app.ends_at);
            info!(%by, %project, app = %name, %ends_at, "app deployed");
        }
        let app = match &app {
            Some(app) => Some(self.told(app, now).await?),
            None => None,
        };
        Ok(Response::new(proto::DeployResponse { app, warnings, deployed }))
    }

    async fn list(
        &self,
        request: Request<proto::ListAppsRequest>,
    ) -> Answer<proto::ListAppsResponse> {
        let registrar = self.registrar()?;
        let project = given("project", &request.get_ref().project)?;
        let now = self.clock.now();
        let found = async {
            let apps = registrar.apps(project.as_ref()).await?;
            let projects = registrar.projects().await?;
            Ok((apps, projects, registrar.domains(project.as_ref()).await?))
        };
        let (apps, projects, domains) = found.await.map_err(|error| refused(&error))?;
        let projects = projects.iter().map(|one| (&one.record.name, &one.record));
        let projects: HashMap<_, _> = projects.collect();
        let domains = domains.iter().map(|one| (&one.record.host, &one.record));
        let domains: HashMap<_, _> = domains.collect();
        let apps = apps.iter().map(|held| {
            let app = &held.record;
            let domain = app.custom_domain().and_then(|host| domains.get(host).copied());
            let project = projects.get(&app.project).copied();
            convert::app(held, project, domain, registrar.zones(), now)
        });
        Ok(Response::new(proto::ListAppsResponse { apps: apps.collect() }))
    }

    async fn get(&self, request: Request<proto::AppRequest>) -> Answer<proto::App> {
        let registrar = self.registrar()?;
        let proto::AppRequest { project, name } = request.get_ref();
        let (project, name) = (field("project", project)?, field("name", name)?);
        let app = registrar.app(&project, &name).await.map_err(|error| refused(&error))?;
        Ok(Response::new(self.told(&app, self.clock.now()).await?))
    }

    async fn advance(&self, request: Request<proto::AdvanceRequest>) -> Answer<proto::App> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let (project, name) = (field("project", &message.project)?, field("name", &message.name)?);
        let backend = given("backend", &message.backend)?;
        let phase = given("phase", &message.phase)?;
        if phase.is_none() && backend.is_none() {
            return Err(Status::invalid_argument("give phase, backend or both"));
        }
        let asked = (now, message.if_revision);
        let app = registrar.advance(&project, &name, phase, backend.as_ref(), asked).await;
        let app = app.map_err(|error| refused(&error))?;
        info!(%by, %project, app = %name, phase = %app.record.phase_at(now), "app goes on");
        Ok(Response::new(self.told(&app, now).await?))
    }
}

impl Apps {
    async fn told(&self, app: &Held<App>, now: Timestamp) -> Result<proto::App, Status> {
        let registrar = self.registrar()?;
        let around = registrar.around(&app.record).await;
        let (project, domain) = around.map_err(|error| refused(&error))?;
        Ok(convert::app(app, project.as_ref(), domain.as_ref(), registrar.zones(), now))
    }
}

/// What is odd, each thing at its place.
fn warnings(verdict: &Verdict, reading: &Reading, source: &Arc<str>) -> Vec<String> {
    let of_text = reading.warnings.iter().map(|one| at(&one.place, &one.kind));
    let of_rules = verdict.warnings.iter().map(|one| {
        let place = reading.places.get(one.key()).cloned();
        at(&place.unwrap_or_else(|| Place::of_source(source)), one)
    });
    of_text.chain(of_rules).collect()
}

/// Refuses what the rules refuse, every reason at its place.
fn judge(
    verdict: &Verdict,
    reading: &Reading,
    source: &Arc<str>,
    warnings: &[String],
) -> Result<(), Status> {
    let place = |key: Option<&str>| {
        let known = key.and_then(|key| reading.places.get(key)).cloned();
        known.unwrap_or_else(|| Place::of_source(source))
    };
    if !verdict.refusals.is_empty() {
        let reasons = verdict.refusals.iter().map(|one| at(&place(one.key()), one));
        return Err(refuse(Code::FailedPrecondition, reasons, warnings));
    }
    if verdict.open.is_empty() {
        return Ok(());
    }
    let missing = verdict.open.iter().map(|open| match open {
        Open::Certificate => {
            let words = "the manifest names a certificate: send its chain";
            at(&place(Some("certificate")), &words)
        }
        Open::Key => {
            let words = "tell whether this key fits the certificate; the key stays where it is";
            at(&place(Some("private_key")), &words)
        }
        // These are asked here.
        Open::Files | Open::Domain | Open::Registry => at(&place(None), &"cannot be judged"),
    });
    Err(refuse(Code::InvalidArgument, missing, warnings))
}

fn at(place: &Place, words: &dyn std::fmt::Display) -> String {
    format!("{}: {words}", place.origin)
}

/// Every reason, and then what is odd besides, one a line.
fn refuse(code: Code, reasons: impl Iterator<Item = String>, warnings: &[String]) -> Status {
    let odd = warnings.iter().map(|words| format!("warning: {words}"));
    status::told(code, &reasons.chain(odd).collect::<Vec<_>>().join("\n"))
}

/// What the owner's side found of the private key.
struct Finding(KeyFinding);

impl std::str::FromStr for Finding {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        KeyFinding::ALL
            .into_iter()
            .find(|finding| finding.word() == word)
            .map(Self)
            .ok_or("must be matches, differs, encrypted, missing or unusable")
    }
}
