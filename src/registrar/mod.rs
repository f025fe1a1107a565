//! Who keeps the registry: reads what the store holds, has it judged, writes what follows.
//!
//! Every call reads, judges and writes in one transaction that checks what was read; if somebody
//! else was faster, it reads and judges again. So the rules hold for a whole fleet without a lock,
//! and an answer means that it is durable. Nothing here decides anything by itself.

mod apps;
mod deploy;
mod domains;
mod projects;
mod ready;
mod rounds;
mod upkeep;

use crate::admission::Settings;
use crate::admission::certificate::Roots;
use crate::endpoint::Endpoint;
use crate::hostname::Pattern;
use crate::registry::app::{App, PhaseError};
use crate::registry::domain::Domain;
use crate::registry::hardware::{HardwareError, Seats};
use crate::registry::names::{AppName, ProjectName};
use crate::registry::project::{Project, StandingError};
use crate::registry::record::{Held, Record, Unreadable, domain_key, project_key};
use crate::resolve::records::Records;
use crate::routing::zones::Zones;
use crate::store::{self, Committed, Revision, Shared, Transaction};

pub use deploy::{Application, Decision};
pub use domains::Check;
pub use upkeep::{Event, Round};

/// How often a call begins anew because others were faster. Each time one of them has succeeded, so
/// a fleet that does more than this at once about one project is refused, not stuck.
const TRIES: usize = 16;

/// Who keeps the registry.
#[derive(Debug, Clone)]
pub struct Registrar<D> {
    store: Shared,
    dns: D,
    platform: Settings,
    roots: Roots,
    zones: Zones,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is stored.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// There is no such project.
    #[error("there is no project `{0}`")]
    NoProject(ProjectName),
    /// There is one already.
    #[error("there is a project `{0}` already")]
    ProjectExists(ProjectName),
    /// There is no such app.
    #[error("the project `{project}` has no app `{name}`")]
    NoApp {
        /// The project.
        project: ProjectName,
        /// The app.
        name: AppName,
    },
    /// There is no such domain.
    #[error("no app has or had the domain `{0}`")]
    NoDomain(Pattern),
    /// A life does not go that way.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// The project's standing does not change that way.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// Hardware.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// Whom to believe behind TLS that is ended here.
    #[error("nobody knows whom to believe at {backend}: {why}")]
    Unseen {
        /// Where the app should be.
        backend: Endpoint,
        /// Why its key was not seen.
        why: String,
    },
    /// Whoever asks believes something else of it.
    #[error("it is at revision {now}, not at {expected}")]
    Stale {
        /// Which transaction has written it; 0: it is not there.
        now: Revision,
        /// Which one was expected.
        expected: Revision,
    },
    /// Others were faster each time.
    #[error("others changed the same at the same time, {TRIES} times in a row; try again")]
    Busy,
}

impl<D: Records> Registrar<D> {
    /// Keeps the registry in a store, by the rules of a platform.
    #[must_use]
    pub fn new(store: Shared, dns: D, platform: Settings, roots: Roots) -> Self {
        Self { store, dns, platform, roots, zones: Zones::default() }
    }

    /// The same where TLS may be ended in these zones; nowhere, otherwise.
    #[must_use]
    pub fn within(self, zones: Zones) -> Self {
        Self { zones, ..self }
    }

    /// Where TLS may be ended.
    #[must_use]
    pub const fn zones(&self) -> &Zones {
        &self.zones
    }

    async fn read<T: Record>(&self, key: &str) -> Result<Option<Held<T>>, Error> {
        let entry = self.store.get(key).await?;
        Ok(entry.as_ref().map(Held::read).transpose()?)
    }

    /// All records under a prefix.
    async fn all<T: Record>(&self, prefix: &str) -> Result<Vec<Held<T>>, Error> {
        let range = self.store.range(prefix).await?;
        Ok(range.entries.iter().map(Held::read).collect::<Result<_, _>>()?)
    }

    /// The same without those that cannot be read: whoever follows the store tells of them, and they
    /// hold up nobody else.
    async fn readable<T: Record>(&self, prefix: &str) -> Result<Vec<Held<T>>, Error> {
        let range = self.store.range(prefix).await?;
        Ok(range.entries.iter().filter_map(|entry| Held::read(entry).ok()).collect())
    }

    async fn project_held(&self, name: &ProjectName) -> Result<Held<Project>, Error> {
        let held = self.read(&project_key(name)).await?;
        held.ok_or_else(|| Error::NoProject(name.clone()))
    }

    async fn domain_of(&self, app: &App) -> Result<Option<Held<Domain>>, Error> {
        match app.custom_domain() {
            Some(host) => self.domain_held(host).await,
            None => Ok(None),
        }
    }

    async fn domain_held(&self, host: &Pattern) -> Result<Option<Held<Domain>>, Error> {
        self.read(&domain_key(host)).await
    }

    /// Writes what was planned. Gives whether it stands; if not, somebody else was faster, and it
    /// must be planned anew. A plan without a change stands.
    async fn stands(&self, transaction: Transaction) -> Result<bool, Error> {
        Ok(transaction.changes.is_empty() || self.stood(transaction).await?.is_some())
    }

    /// The same for a plan that changes something; gives the revision at which it stands.
    async fn stood(&self, transaction: Transaction) -> Result<Option<Revision>, Error> {
        Ok(match self.store.commit(transaction).await? {
            Committed::Done(revision) => Some(revision),
            Committed::Conflict => None,
        })
    }
}

/// Whether something is as whoever asks believes, if that is told.
fn is_as(expected: Option<Revision>, now: Revision) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != now => Err(Error::Stale { now, expected }),
        _ => Ok(()),
    }
}

/// The seats of the kind that an app runs on.
fn seats_of<'a>(app: &App, seats: &'a [Held<Seats>]) -> Option<&'a Held<Seats>> {
    seats.iter().find(|seats| seats.record.kind == app.hardware)
}
