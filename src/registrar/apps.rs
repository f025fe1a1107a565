//! Apps that are deployed: their lives, and looking at them.

use super::{Error, Registrar, TRIES, is_as, seats_of};
use crate::admission::sight::key_of;
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Pattern;
use crate::probe::certificate::Onlooker;
use crate::registry::app::{App, CertificateOrigin, News, Phase, Role};
use crate::registry::changes::{Tenure, proceed};
use crate::registry::domain::Domain;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::project::Project;
use crate::registry::record::{self, APPS, Held, app_key, apps_of, project_key};
use crate::resolve::SystemResolver;
use crate::resolve::records::Records;
use crate::routing::termination::KeyDigest;
use crate::store::Revision;

impl<D: Records> Registrar<D> {
    /// An app's last deployment.
    ///
    /// # Errors
    /// There is none, or the store.
    pub async fn app(&self, project: &ProjectName, name: &AppName) -> Result<Held<App>, Error> {
        let held = self.read(&app_key(project, name)).await?;
        held.ok_or_else(|| Error::NoApp { project: project.clone(), name: name.clone() })
    }

    /// The last deployments of all names, of one project or of all.
    ///
    /// # Errors
    /// The store.
    pub async fn apps(&self, project: Option<&ProjectName>) -> Result<Vec<Held<App>>, Error> {
        let prefix = project.map_or_else(|| APPS.to_owned(), apps_of);
        self.all(&prefix).await
    }

    /// What is stored of an app's project and of its own domain.
    ///
    /// # Errors
    /// The store.
    pub async fn around(&self, app: &App) -> Result<(Option<Project>, Option<Domain>), Error> {
        let project: Option<Held<Project>> = self.read(&project_key(&app.project)).await?;
        let domain = self.domain_of(app).await?;
        Ok((project.map(|held| held.record), domain.map(|held| held.record)))
    }

    /// Notes that an app has gone on in its life, and where it is if that is known by now.
    ///
    /// # Errors
    /// There is no such app, its life does not go that way, or the store.
    pub async fn proceed(
        &self,
        project: &ProjectName,
        name: &AppName,
        next: Phase,
        backend: Option<&Endpoint>,
        now: Timestamp,
    ) -> Result<Held<App>, Error> {
        let news = News { backend: backend.cloned(), seen: None };
        Ok(self.note(project, name, next, &news, (now, None)).await?.0)
    }

    /// The same on the word of somebody else; without a phase, it stays in its own. Where TLS ends
    /// in the proxy, an app that runs is looked at first: the key that it shows then is the one that
    /// is believed from now on.
    ///
    /// # Errors
    /// As [`Self::proceed`]; it is not at the revision that is expected; or nothing was seen.
    pub async fn advance(
        &self,
        project: &ProjectName,
        name: &AppName,
        next: Option<Phase>,
        backend: Option<&Endpoint>,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<Held<App>, Error> {
        let held = self.app(project, name).await?;
        is_as(expected, held.revision)?;
        let app = held.record;
        let next = next.unwrap_or_else(|| app.phase_at(now));
        app.clone().become_phase(next, now)?;
        let mut news = News { backend: backend.cloned(), seen: None };
        let place = backend.or(app.backend.as_ref());
        if let (CertificateOrigin::Operator, Phase::Running, Some(place)) =
            (app.origin, next, place)
        {
            news.seen = Some((place.clone(), seen(&app, place).await?));
        }
        Ok(self.note(project, name, next, &news, (now, expected)).await?.0)
    }

    /// The same; gives also whether this call has changed anything.
    pub(super) async fn note(
        &self,
        project: &ProjectName,
        name: &AppName,
        next: Phase,
        news: &News,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<(Held<App>, bool), Error> {
        for _ in 0..TRIES {
            let app = self.app(project, name).await?;
            is_as(expected, app.revision)?;
            let seats = self.all(&record::seats_of(project)).await?;
            let domain = self.domain_of(&app.record).await?;
            let seats = seats_of(&app.record, &seats);
            let tenure = Tenure { app: &app, seats, domain: domain.as_ref() };
            let transaction = proceed(tenure, next, news.clone(), now)?;
            let after = app.record.clone().become_phase(next, now)?.learn(news.clone());
            if transaction.changes.is_empty() {
                return Ok((app, false));
            }
            if let Some(revision) = self.stood(transaction).await? {
                // An app that was over before may leave its seat alone.
                let revision = if after == app.record { app.revision } else { revision };
                return Ok((Held { record: after, revision }, true));
            }
        }
        Err(Error::Busy)
    }
}

/// The key that an app shows where it is, to whoever asks for the name that it is configured by.
async fn seen(app: &App, place: &Endpoint) -> Result<KeyDigest, Error> {
    let unseen = |why: String| Error::Unseen { backend: place.clone(), why };
    let Some(Pattern::Exact(name)) = app.host(Role::Configuration) else {
        return Err(unseen("it has no name to be asked for".to_owned()));
    };
    let onlooker = Onlooker::new().map_err(|error| unseen(error.to_string()))?;
    let chain = onlooker.look(place, name, &SystemResolver).await;
    Ok(key_of(&chain.map_err(|error| unseen(error.to_string()))?))
}
