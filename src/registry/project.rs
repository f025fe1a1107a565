//! A project, and the clock of its unpaid invoice.
//!
//! From the day of the invoice on a project has a week: it is reminded three times, and then
//! suspended unless it was paid. Each step is one change of one record, so that of a fleet exactly
//! one proxy takes it, and a restart neither forgets nor repeats any.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::registry::names::ProjectName;
use crate::registry::written;

/// How long an invoice may be unpaid.
pub const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// When it is reminded of, from its day on: at once, in time for a transfer, and on the last day.
pub const REMINDERS: [SignedDuration; 3] =
    [SignedDuration::ZERO, SignedDuration::from_hours(3 * 24), SignedDuration::from_hours(6 * 24)];

/// Who deploys apps, books hardware and pays for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// What it is called.
    pub name: ProjectName,
    /// When it was created.
    #[serde(with = "written")]
    pub created_at: Timestamp,
    /// What a TXT record must show, to prove that a domain is this project's.
    pub token: String,
    /// Whether it may deploy.
    pub standing: Standing,
}

/// Whether a project may deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may.
    Good,
    /// It still may, though an invoice is not paid.
    Unpaid {
        /// The day of the invoice.
        #[serde(with = "written")]
        since: Timestamp,
        /// How often it was reminded of.
        reminders: u8,
    },
    /// It may not, and has neither apps nor hardware.
    Suspended {
        /// Since when.
        #[serde(with = "written")]
        since: Timestamp,
        /// Why.
        cause: Cause,
    },
}

/// Why a project is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was not paid in time.
    Unpaid,
    /// The operator said so.
    Operator,
}

impl Cause {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unpaid => "unpaid",
            Self::Operator => "operator",
        }
    }
}

/// What an unpaid project's clock says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is to be reminded.
    Remind {
        /// Which reminder, from 1.
        number: u8,
        /// When it will be suspended otherwise.
        suspended_at: Timestamp,
    },
    /// It is to be suspended: its bookings go and all its apps stop.
    Suspend,
}

/// Why a project's standing does not change as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// An invoice of tomorrow.
    #[error("an invoice cannot be unpaid since {since}, which is after now ({now})")]
    NotYet {
        /// What was asked.
        since: Timestamp,
        /// When.
        now: Timestamp,
    },
    /// The clock runs already.
    #[error("it is unpaid since {since} already; the clock is not started anew")]
    AlreadyUnpaid {
        /// Since when.
        since: Timestamp,
    },
    /// It cannot be unpaid or paid.
    #[error("it is suspended since {since}; resume it first")]
    Suspended {
        /// Since when.
        since: Timestamp,
    },
    /// There is nothing to pay.
    #[error("no invoice of it is unpaid")]
    NothingUnpaid,
    /// What its suspension takes away is not all gone yet.
    #[error("its apps and bookings are still being taken away; try again in a moment")]
    Unfinished,
    /// There is nothing to resume.
    #[error("it is not suspended")]
    NotSuspended,
}

impl Project {
    /// A new project.
    #[must_use]
    pub fn new(name: ProjectName, token: String, now: Timestamp) -> Self {
        Self { name, created_at: now, token, standing: Standing::Good }
    }

    /// Whether it is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        matches!(self.standing, Standing::Suspended { .. })
    }

    /// Starts the clock of an unpaid invoice.
    ///
    /// # Errors
    /// Why the clock cannot be started.
    pub fn unpaid(self, since: Timestamp, now: Timestamp) -> Result<Self, StandingError> {
        match self.standing {
            Standing::Unpaid { since, .. } => Err(StandingError::AlreadyUnpaid { since }),
            Standing::Suspended { since, .. } => Err(StandingError::Suspended { since }),
            Standing::Good if since > now => Err(StandingError::NotYet { since, now }),
            Standing::Good => Ok(self.standing(Standing::Unpaid { since, reminders: 0 })),
        }
    }

    /// Stops that clock.
    ///
    /// # Errors
    /// Why there is no such clock.
    pub fn paid(self) -> Result<Self, StandingError> {
        match self.standing {
            Standing::Unpaid { .. } => Ok(self.standing(Standing::Good)),
            Standing::Suspended { since, .. } => Err(StandingError::Suspended { since }),
            Standing::Good => Err(StandingError::NothingUnpaid),
        }
    }

    /// Suspends it at once; one that is suspended stays as it is.
    #[must_use]
    pub fn suspend(self, now: Timestamp) -> Self {
        if self.is_suspended() {
            return self;
        }
        self.standing(Standing::Suspended { since: now, cause: Cause::Operator })
    }

    /// Lets it deploy again. Neither its bookings nor its apps come back by that.
    ///
    /// # Errors
    /// It is not suspended.
    pub fn resume(self) -> Result<Self, StandingError> {
        if !self.is_suspended() {
            return Err(StandingError::NotSuspended);
        }
        Ok(self.standing(Standing::Good))
    }

    /// When it will be suspended, if it is unpaid.
    #[must_use]
    pub fn suspended_at(&self) -> Option<Timestamp> {
        match self.standing {
            Standing::Unpaid { since, .. } => Some(after(since, GRACE)),
            Standing::Good | Standing::Suspended { .. } => None,
        }
    }

    /// The next step of its clock, and when that is due.
    #[must_use]
    pub fn next(&self) -> Option<(Timestamp, Step)> {
        let Standing::Unpaid { since, reminders } = self.standing else { return None };
        let suspended_at = after(since, GRACE);
        let Some(wait) = REMINDERS.get(usize::from(reminders)) else {
            return Some((suspended_at, Step::Suspend));
        };
        Some((after(since, *wait), Step::Remind { number: reminders + 1, suspended_at }))
    }

    /// Takes the next step if it is due. Whoever was asleep for long takes one after the other.
    #[must_use]
    pub fn advance(&self, now: Timestamp) -> Option<(Self, Step)> {
        let (_, step) = self.next().filter(|(due, _)| *due <= now)?;
        let Standing::Unpaid { since, .. } = self.standing else { return None };
        let standing = match step {
            Step::Remind { number, .. } => Standing::Unpaid { since, reminders: number },
            Step::Suspend => Standing::Suspended { since: now, cause: Cause::Unpaid },
        };
        Some((self.clone().standing(standing), step))
    }

    fn standing(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }
}

fn after(since: Timestamp, wait: SignedDuration) -> Timestamp {
    since.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn project() -> Project {
        Project::new("default".parse().unwrap(), "t0k3n".to_owned(), at("2026-01-01T00:00:00Z"))
    }

    #[test]
    fn an_unpaid_project_is_reminded_three_times_and_suspended_after_seven_days() {
        let start = at("2026-06-01T00:00:00Z");
        let mut project = project().unpaid(start, start).unwrap();
        assert_eq!(project.suspended_at(), Some(at("2026-06-08T00:00:00Z")));
        let mut told = Vec::new();
        for hour in 0..=(7 * 24) {
            let now = start + SignedDuration::from_hours(hour);
            // A restart in between forgets nothing.
            let json = serde_json::to_vec(&project).unwrap();
            project = serde_json::from_slice(&json).unwrap();
            while let Some((next, step)) = project.advance(now) {
                told.push((hour, step));
                project = next;
            }
        }
        let suspended_at = at("2026-06-08T00:00:00Z");
        let remind = |number| Step::Remind { number, suspended_at };
        let all = [(0, remind(1)), (72, remind(2)), (144, remind(3)), (168, Step::Suspend)];
        assert_eq!(told, all);
        let cause = Cause::Unpaid;
        assert_eq!(project.standing, Standing::Suspended { since: suspended_at, cause });
        assert_eq!((project.next(), project.suspended_at()), (None, None));
    }

    #[test]
    fn a_moment_before_the_seventh_day_ends_it_is_not_suspended() {
        let start = at("2026-06-01T00:00:00Z");
        let mut project = project().unpaid(start, start).unwrap();
        let almost = at("2026-06-07T23:59:59.999999999Z");
        let mut steps = 0;
        while let Some((next, _)) = project.advance(almost) {
            project = next;
            steps += 1;
        }
        assert_eq!((steps, project.is_suspended()), (3, false));
        let paid = project.paid().unwrap();
        assert_eq!(paid.advance(at("2027-01-01T00:00:00Z")), None);
    }

    #[test]
    fn an_invoice_of_last_month_suspends_at_once_but_not_without_its_reminders() {
        let now = at("2026-06-30T00:00:00Z");
        let mut project = project().unpaid(at("2026-06-01T00:00:00Z"), now).unwrap();
        let mut steps = Vec::new();
        while let Some((next, step)) = project.advance(now) {
            project = next;
            steps.push(matches!(step, Step::Suspend));
        }
        assert_eq!(steps, [false, false, false, true]);
    }

    #[test]
    fn what_cannot_follow_is_refused_with_its_reason() {
        let now = at("2026-06-01T00:00:00Z");
        let later = at("2026-06-01T00:00:01Z");
        assert_eq!(project().unpaid(later, now), Err(StandingError::NotYet { since: later, now }));
        assert_eq!(project().paid(), Err(StandingError::NothingUnpaid));
        assert_eq!(project().resume(), Err(StandingError::NotSuspended));
        let unpaid = project().unpaid(now, now).unwrap();
        let twice = unpaid.clone().unpaid(later, later);
        assert_eq!(twice, Err(StandingError::AlreadyUnpaid { since: now }));
        let suspended = unpaid.suspend(later);
        assert_eq!(suspended.clone().paid(), Err(StandingError::Suspended { since: later }));
        assert_eq!(
            suspended.clone().unpaid(now, later),
            Err(StandingError::Suspended { since: later })
        );
        assert_eq!(suspended.clone().suspend(at("2027-01-01T00:00:00Z")), suspended);
        assert_eq!(suspended.resume().unwrap().standing, Standing::Good);
    }
}
