//! What time brings: steps of unpaid projects, ends that are due, domains that are looked at again.
//!
//! Every proxy of a fleet may do this; each step is done by exactly one, because the others find
//! the record changed. Nothing depends on its being done in time: ends hold by themselves.

use std::collections::BTreeSet;
use std::fmt;

use super::{Error, Registrar, TRIES};
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::app::{App, News, Phase};
use crate::registry::changes;
use crate::registry::domain::{Claim, Domain, Gate};
use crate::registry::hardware::Seats;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::project::{Project, Step};
use crate::registry::record::{APPS, DOMAINS, HARDWARE, Held, PROJECTS, project_key};
use crate::resolve::records::Records;
use crate::store::Committed;

/// Something that was done, by this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A project was reminded of its invoice.
    Reminded {
        /// Which.
        project: ProjectName,
        /// Which reminder, from 1.
        number: u8,
        /// When it will be suspended.
        suspended_at: Timestamp,
    },
    /// A project was suspended, because its invoice was not paid.
    Suspended {
        /// Which.
        project: ProjectName,
    },
    /// The end of an app was noted.
    Expired {
        /// Whose.
        project: ProjectName,
        /// Which.
        app: AppName,
    },
    /// The gate of a domain changed.
    Gate {
        /// Which domain.
        domain: Pattern,
        /// What it is now.
        gate: Gate,
    },
    /// An app was found to have gone on in its life, by asking it.
    Found {
        /// Whose.
        project: ProjectName,
        /// Which.
        app: AppName,
        /// What it was found to be.
        phase: Phase,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reminded { number, suspended_at, .. } => {
                write!(
                    f,
                    "reminder {number} of an unpaid invoice: it is suspended at {suspended_at}"
                )
            }
            Self::Suspended { .. } => f.write_str("suspended: its invoice was not paid in time"),
            Self::Expired { .. } => f.write_str("expired"),
            Self::Gate { gate: Gate::Open, .. } => f.write_str("leads here: its gate is open"),
            Self::Gate { gate: Gate::Pending, .. } => f.write_str("its gate is pending"),
            Self::Gate { gate: Gate::Suspended, .. } => {
                f.write_str("leads elsewhere: its gate is closed")
            }
            Self::Found { phase, .. } => write!(f, "was found to be {phase}"),
        }
    }
}

impl Event {
    /// Whom it befell: a project, an app or a domain.
    #[must_use]
    pub fn whom(&self) -> String {
        match self {
            Self::Reminded { project, .. } | Self::Suspended { project } => {
                format!("project {project}")
            }
            Self::Expired { project, app } | Self::Found { project, app, .. } => {
                format!("app {project}/{app}")
            }
            Self::Gate { domain, .. } => format!("domain {domain}"),
        }
    }

    /// All words.
    pub const WORDS: [&str; 5] = ["reminded", "suspended", "expired", "gate", "found"];

    /// Its word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Reminded { .. } => "reminded",
            Self::Suspended { .. } => "suspended",
            Self::Expired { .. } => "expired",
            Self::Gate { .. } => "gate",
            Self::Found { .. } => "found",
        }
    }
}

impl<D: Records> Registrar<D> {
    /// Takes the steps of all unpaid projects that are due, takes away what suspended ones still
    /// have, and notes ends. Tells what this proxy did.
    ///
    /// # Errors
    /// The store; the rest is done the next time.
    pub async fn keep_up(&self, now: Timestamp) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        // Three looks at all, and one at each of those few for whom something is due.
        let apps = self.readable::<App>(APPS).await?;
        let seats = self.readable::<Seats>(HARDWARE).await?;
        let active = apps.iter().filter(|app| app.record.phase_at(now).is_active());
        let seated = seats.iter().map(|seats| &seats.record.project);
        let busy: BTreeSet<_> = active.map(|app| &app.record.project).chain(seated).collect();
        for held in self.readable::<Project>(PROJECTS).await? {
            let name = &held.record.name;
            let is_due = held.record.advance(now).is_some();
            if is_due {
                self.take_steps(name, now, &mut events).await?;
            }
            let is_left = is_due || held.record.is_suspended() && busy.contains(name);
            if is_left && self.project_held(name).await?.record.is_suspended() {
                self.sweep(name, now).await?;
            }
        }
        for held in &apps {
            let App { project, name, phase, .. } = &held.record;
            if phase.is_active() && held.record.phase_at(now) == Phase::Expired {
                let (over, nothing) = (Phase::Expired, News::default());
                let (_, is_change) = self.note(project, name, over, &nothing, (now, None)).await?;
                if is_change {
                    events.push(Event::Expired { project: project.clone(), app: name.clone() });
                }
            }
        }
        Ok(events)
    }

    async fn take_steps(
        &self,
        name: &ProjectName,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        // Each step is one change, so that whoever makes it tells it, and nobody else does.
        for _ in 0..TRIES {
            let Some((held, next, step)) = self.due(name, now).await? else { break };
            match self.store.commit(changes::change_project(&held, &next)).await? {
                // Somebody else has taken it.
                Committed::Conflict => {}
                Committed::Done(_) => events.push(match step {
                    Step::Remind { number, suspended_at } => {
                        Event::Reminded { project: name.clone(), number, suspended_at }
                    }
                    Step::Suspend => Event::Suspended { project: name.clone() },
                }),
            }
        }
        Ok(())
    }

    async fn due(
        &self,
        name: &ProjectName,
        now: Timestamp,
    ) -> Result<Option<(Held<Project>, Project, Step)>, Error> {
        let held: Option<Held<Project>> = self.read(&project_key(name)).await?;
        Ok(held.and_then(|held| {
            let (next, step) = held.record.advance(now)?;
            Some((held, next, step))
        }))
    }

    /// Looks again where the domains of live apps lead. Tells the gates that changed.
    ///
    /// # Errors
    /// The store; the rest is done the next time.
    pub async fn check_domains(&self, now: Timestamp) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for held in self.readable::<Domain>(DOMAINS).await? {
            if held.record.claim(jiff::SignedDuration::ZERO, now) == Claim::Live {
                events.extend(self.look(held, now).await?.event);
            }
        }
        Ok(events)
    }
}
