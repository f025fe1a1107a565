//! What time brings: steps of unpaid projects, ends that are due, domains that are looked at again,
//! and what is forgotten of all that.
//!
//! Every proxy of a fleet may do this; each step is done by exactly one, because the others find
//! the record changed. Nothing depends on its being done in time: ends hold by themselves.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::stream::{StreamExt as _, iter};

use super::{Error, Registrar, TRIES};
use crate::admission::Settings;
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::app::{App, News, Phase};
use crate::registry::changes;
use crate::registry::domain::{Claim, Domain, Gate};
use crate::registry::ended;
use crate::registry::hardware::Seats;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::project::{Project, Step};
use crate::registry::record::{APPS, DOMAINS, HARDWARE, Held, PROJECTS, project_key};
use crate::resolve::records::Records;
use crate::store::{Committed, Transaction};

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

/// What was done in a round, by this proxy, whatever else has failed.
#[derive(Debug, Default)]
pub struct Round {
    /// What was done: nobody does it again, so it is told in any case.
    pub events: Vec<Event>,
    /// What failed first; it is done the next time.
    pub failed: Option<Error>,
}

impl Round {
    /// Takes note of a failure. Gives whether it is no use to go on: the store is away.
    fn fails(&mut self, error: Error) -> bool {
        let is_away = matches!(error, Error::Store(_));
        self.failed.get_or_insert(error);
        is_away
    }
}

/// Domains that are asked for at once: one whose servers are silent takes many seconds.
const ASKED_AT_ONCE: usize = 16;

impl<D: Records> Registrar<D> {
    /// Takes the steps of all unpaid projects that are due, takes away what suspended ones still
    /// have, notes ends, and forgets old ones. What fails for one holds up no other.
    pub async fn keep_up(&self, now: Timestamp) -> Round {
        let mut round = Round::default();
        if let Err(error) = self.keep_all_up(now, &mut round).await {
            round.fails(error);
        }
        round
    }

    async fn keep_all_up(&self, now: Timestamp, round: &mut Round) -> Result<(), Error> {
        // Three looks at all, and one at each of those few for whom something is due.
        let apps = self.readable::<App>(APPS).await?;
        let seats = self.readable::<Seats>(HARDWARE).await?;
        let active = apps.iter().filter(|app| app.record.phase_at(now).is_active());
        let seated = seats.iter().map(|seats| &seats.record.project);
        let busy: BTreeSet<_> = active.map(|app| &app.record.project).chain(seated).collect();
        for held in self.readable::<Project>(PROJECTS).await? {
            let is_busy = busy.contains(&held.record.name);
            if let Err(error) = self.keep_project(&held.record, is_busy, now, round).await
                && round.fails(error)
            {
                return Ok(());
            }
        }
        if self.expire(&apps, now, round).await {
            let old = ended::apps(&apps, self.platform.keep_ended.into(), now);
            self.forget(changes::forget_apps(&old), round).await;
        }
        Ok(())
    }

    /// Notes ends. Gives whether it is of use to go on.
    async fn expire(&self, apps: &[Held<App>], now: Timestamp, round: &mut Round) -> bool {
        for held in apps {
            let App { project, name, phase, .. } = &held.record;
            if !phase.is_active() || held.record.phase_at(now) != Phase::Expired {
                continue;
            }
            match self.note(project, name, Phase::Expired, &News::default(), (now, None)).await {
                Ok((_, false)) => {}
                Ok((_, true)) => {
                    let (project, app) = (project.clone(), name.clone());
                    round.events.push(Event::Expired { project, app });
                }
                Err(error) => {
                    if round.fails(error) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Takes away what is old. Of what somebody has changed or taken away meanwhile, the next round
    /// sees what is left.
    async fn forget(&self, parts: Vec<Transaction>, round: &mut Round) {
        for transaction in parts {
            if let Err(error) = self.stands(transaction).await
                && round.fails(error)
            {
                return;
            }
        }
    }

    /// What is due for a project; `is_busy` is whether it has apps or seats.
    async fn keep_project(
        &self,
        project: &Project,
        is_busy: bool,
        now: Timestamp,
        round: &mut Round,
    ) -> Result<(), Error> {
        let is_due = project.advance(now).is_some();
        if is_due {
            self.take_steps(&project.name, now, &mut round.events).await?;
        }
        let is_left = is_due || project.is_suspended() && is_busy;
        if is_left && self.project_held(&project.name).await?.record.is_suspended() {
            self.sweep(&project.name, now).await?;
        }
        Ok(())
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

    /// Looks again where the domains of live apps lead, and forgets those that nobody has had for
    /// long. Tells the gates that changed. What fails for one holds up no other.
    pub async fn check_domains(&self, now: Timestamp) -> Round {
        let mut round = Round::default();
        let mut all = match self.readable::<Domain>(DOMAINS).await {
            Ok(all) => all,
            Err(error) => {
                round.fails(error);
                return round;
            }
        };
        let Settings { quarantine, keep_ended, .. } = self.platform;
        let old = ended::domains(&all, [quarantine.into(), keep_ended.into()], now);
        self.forget(changes::forget(&old), &mut round).await;
        all.retain(|held| held.record.claim(jiff::SignedDuration::ZERO, now) == Claim::Live);
        let looks = all.into_iter().map(|held| self.look(held, now));
        let mut looks = iter(looks).buffer_unordered(ASKED_AT_ONCE);
        while let Some(look) = looks.next().await {
            match look {
                Ok(check) => round.events.extend(check.event),
                Err(error) => {
                    if round.fails(error) {
                        break;
                    }
                }
            }
        }
        round
    }
}
