//! Projects and their hardware.

use super::{Error, Registrar, TRIES, is_as, seats_of};
use crate::clock::Timestamp;
use crate::registry::app::App;
use crate::registry::changes::{self, MOST_ENDED, Tenure};
use crate::registry::domain::Domain;
use crate::registry::hardware::Seats;
use crate::registry::names::{HardwareName, ProjectName};
use crate::registry::project::{Project, Standing, StandingError};
use crate::registry::record::{self, Held, PROJECTS, apps_of, project_key, seats_key};
use crate::resolve::records::Records;
use crate::store::Revision;

/// A project's apps, with everything that their ends change.
pub(super) struct Household {
    apps: Vec<Held<App>>,
    domains: Vec<Option<Held<Domain>>>,
    pub(super) seats: Vec<Held<Seats>>,
}

impl Household {
    pub(super) fn tenures(&self) -> Vec<Tenure<'_>> {
        let pairs = self.apps.iter().zip(&self.domains);
        pairs
            .map(|(app, domain)| {
                let seats = seats_of(&app.record, &self.seats);
                Tenure { app, seats, domain: domain.as_ref() }
            })
            .collect()
    }
}

impl<D: Records> Registrar<D> {
    /// Creates a project; `token` is what its domains have to show.
    ///
    /// # Errors
    /// There is one of that name, or the store.
    pub async fn create_project(
        &self,
        name: &ProjectName,
        token: &str,
        now: Timestamp,
    ) -> Result<Held<Project>, Error> {
        for _ in 0..TRIES {
            if self.read::<Project>(&project_key(name)).await?.is_some() {
                return Err(Error::ProjectExists(name.clone()));
            }
            let project = Project::new(name.clone(), token.to_owned(), now);
            let nothing = Held { record: project.clone(), revision: 0 };
            let created = self.stood(changes::change_project(&nothing, &project)).await?;
            if let Some(revision) = created {
                return Ok(Held { record: project, revision });
            }
        }
        Err(Error::Busy)
    }

    /// A project.
    ///
    /// # Errors
    /// There is none of that name, or the store.
    pub async fn project(&self, name: &ProjectName) -> Result<Held<Project>, Error> {
        self.project_held(name).await
    }

    /// All projects.
    ///
    /// # Errors
    /// The store.
    pub async fn projects(&self) -> Result<Vec<Held<Project>>, Error> {
        self.all(PROJECTS).await
    }

    /// Starts the clock of an unpaid invoice.
    ///
    /// # Errors
    /// Why it cannot be started, or the store.
    pub async fn unpaid(
        &self,
        name: &ProjectName,
        since: Timestamp,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<Held<Project>, Error> {
        self.change(name, expected, |project| project.unpaid(since, now)).await
    }

    /// Stops that clock.
    ///
    /// # Errors
    /// Why there is none to stop, or the store.
    pub async fn paid(
        &self,
        name: &ProjectName,
        expected: Option<Revision>,
    ) -> Result<Held<Project>, Error> {
        self.change(name, expected, Project::paid).await
    }

    /// Suspends a project at once, and takes its apps and bookings away.
    ///
    /// # Errors
    /// There is no such project, or the store; what is left to do then, upkeep does.
    pub async fn suspend(
        &self,
        name: &ProjectName,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<Held<Project>, Error> {
        let project = self.change(name, expected, |project| Ok(project.suspend(now))).await?;
        self.sweep(name, now).await?;
        Ok(project)
    }

    /// Lets a suspended project deploy again.
    ///
    /// # Errors
    /// Why not, or the store.
    pub async fn resume(
        &self,
        name: &ProjectName,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<Held<Project>, Error> {
        for _ in 0..TRIES {
            let held = self.project_held(name).await?;
            is_as(expected, held.revision)?;
            let household = self.household(name).await?;
            let transaction = changes::resume(&held, &household.tenures(), &household.seats, now)?;
            if let Some(revision) = self.stood(transaction).await? {
                return Ok(Held { record: held.record.resume()?, revision });
            }
        }
        Err(Error::Busy)
    }

    /// A project's booked hardware.
    ///
    /// # Errors
    /// The store.
    pub async fn hardware(&self, name: &ProjectName) -> Result<Vec<Held<Seats>>, Error> {
        self.all(&record::seats_of(name)).await
    }

    /// Books hardware.
    ///
    /// # Errors
    /// There is no such project, it is suspended, the count, or the store.
    pub async fn book(
        &self,
        name: &ProjectName,
        kind: &HardwareName,
        count: u32,
        expected: Option<Revision>,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let held = self.project_held(name).await?;
            if let Standing::Suspended { since, .. } = held.record.standing {
                return Err(StandingError::Suspended { since }.into());
            }
            let seats: Option<Held<Seats>> = self.read(&seats_key(name, kind)).await?;
            is_as(expected, seats.as_ref().map_or(0, |held| held.revision))?;
            if self.stands(changes::book(&held, seats.as_ref(), kind, count)?).await? {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Drops hardware; the apps that no seat is left for are stopped. Many go in parts.
    ///
    /// # Errors
    /// Nothing of the kind is booked, it cannot be dropped, or the store.
    pub async fn drop_hardware(
        &self,
        name: &ProjectName,
        kind: &HardwareName,
        count: u32,
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<(), Error> {
        let most = u32::try_from(MOST_ENDED).unwrap_or(1);
        let mut left = count;
        // The first part is the one that may be refused.
        let mut expected = expected;
        loop {
            let part = left.min(most);
            self.drop_part(name, kind, [part, left], (now, expected.take())).await?;
            left = left.saturating_sub(part);
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Drops a part of what is left to drop; that fewer are there is told before any is dropped.
    async fn drop_part(
        &self,
        name: &ProjectName,
        kind: &HardwareName,
        [part, left]: [u32; 2],
        (now, expected): (Timestamp, Option<Revision>),
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let household = self.household(name).await?;
            let known = household.seats.iter().find(|held| held.record.kind == *kind);
            let none = Seats::none(name.clone(), kind.clone());
            let held = known.cloned().unwrap_or(Held { record: none, revision: 0 });
            is_as(expected, held.revision)?;
            held.record.clone().drop(left, now)?;
            let transaction = changes::drop_seats(&held, part, &household.tenures(), now)?;
            if self.stands(transaction).await? {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    async fn change(
        &self,
        name: &ProjectName,
        expected: Option<Revision>,
        change: impl Fn(Project) -> Result<Project, StandingError>,
    ) -> Result<Held<Project>, Error> {
        for _ in 0..TRIES {
            let held = self.project_held(name).await?;
            is_as(expected, held.revision)?;
            let next = change(held.record.clone())?;
            if next == held.record {
                return Ok(held);
            }
            if let Some(revision) = self.stood(changes::change_project(&held, &next)).await? {
                return Ok(Held { record: next, revision });
            }
        }
        Err(Error::Busy)
    }

    /// Takes away what a suspended project has, part by part.
    pub(super) async fn sweep(&self, name: &ProjectName, now: Timestamp) -> Result<(), Error> {
        let mut tries = 0;
        while tries < TRIES {
            let held = self.project_held(name).await?;
            let household = self.household(name).await?;
            let parts = changes::sweep(&held, &household.tenures(), &household.seats, now);
            let Some(part) = parts.into_iter().next() else { return Ok(()) };
            // With each part that stands there is less to do.
            tries = if self.stands(part).await? { 0 } else { tries + 1 };
        }
        Err(Error::Busy)
    }

    pub(super) async fn household(&self, name: &ProjectName) -> Result<Household, Error> {
        let apps: Vec<Held<App>> = self.all(&apps_of(name)).await?;
        let mut domains = Vec::with_capacity(apps.len());
        for app in &apps {
            domains.push(self.domain_of(&app.record).await?);
        }
        Ok(Household { apps, domains, seats: self.all(&record::seats_of(name)).await? })
    }
}
