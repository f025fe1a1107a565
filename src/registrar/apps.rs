//! Apps that are deployed: their lives, and looking at them.

use super::{Error, Registrar, TRIES, seats_of};
use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::registry::app::{App, Phase};
use crate::registry::changes::{Tenure, proceed};
use crate::registry::domain::Domain;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::project::Project;
use crate::registry::record::{self, APPS, Held, app_key, apps_of, project_key};
use crate::resolve::records::Records;

impl<D: Records> Registrar<D> {
    /// An app's last deployment.
    ///
    /// # Errors
    /// There is none, or the store.
    pub async fn app(&self, project: &ProjectName, name: &AppName) -> Result<App, Error> {
        Ok(self.app_held(project, name).await?.record)
    }

    /// The last deployments of all names, of one project or of all.
    ///
    /// # Errors
    /// The store.
    pub async fn apps(&self, project: Option<&ProjectName>) -> Result<Vec<App>, Error> {
        let prefix = project.map_or_else(|| APPS.to_owned(), apps_of);
        let all: Vec<Held<App>> = self.all(&prefix).await?;
        Ok(all.into_iter().map(|held| held.record).collect())
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
    ) -> Result<App, Error> {
        Ok(self.note(project, name, next, backend, now).await?.0)
    }

    /// The same; gives also whether this call has changed anything.
    pub(super) async fn note(
        &self,
        project: &ProjectName,
        name: &AppName,
        next: Phase,
        backend: Option<&Endpoint>,
        now: Timestamp,
    ) -> Result<(App, bool), Error> {
        for _ in 0..TRIES {
            let app = self.app_held(project, name).await?;
            let seats = self.all(&record::seats_of(project)).await?;
            let domain = self.domain_of(&app.record).await?;
            let seats = seats_of(&app.record, &seats);
            let tenure = Tenure { app: &app, seats, domain: domain.as_ref() };
            let transaction = proceed(tenure, next, backend.cloned(), now)?;
            let after = app.record.clone().become_phase(next, now)?;
            let backend = backend.cloned().or(after.backend);
            let is_change = !transaction.changes.is_empty();
            if self.stands(transaction).await? {
                return Ok((App { backend, ..after }, is_change));
            }
        }
        Err(Error::Busy)
    }

    async fn app_held(&self, project: &ProjectName, name: &AppName) -> Result<Held<App>, Error> {
        let held = self.read(&app_key(project, name)).await?;
        held.ok_or_else(|| Error::NoApp { project: project.clone(), name: name.clone() })
    }
}
