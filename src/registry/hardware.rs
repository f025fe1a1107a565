//! Booked hardware: so many seats of a kind, and the apps that sit on them.
//!
//! The seats of one kind and project are one record, which every deployment on them changes: of two
//! that want the last seat at once, one finds the record changed. A seat is free again when its
//! app's end has come, whether or not anybody has noted that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::registry::written;

/// The most seats of one kind that a project can book.
pub const MOST: u32 = 1000;

/// The seats of one kind that a project has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    /// Whose.
    pub project: ProjectName,
    /// What.
    pub kind: HardwareName,
    /// How many.
    pub booked: u32,
    /// Who sits on them.
    pub taken: BTreeMap<AppName, Seat>,
}

/// The seat of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Since when.
    #[serde(with = "written")]
    pub since: Timestamp,
    /// Until when: the end of its app.
    #[serde(with = "written")]
    pub until: Timestamp,
}

/// Why seats cannot be booked, dropped or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardwareError {
    /// The free kind is what it is.
    #[error("every project has exactly one {0}, for nothing: it is neither booked nor dropped")]
    Free(HardwareName),
    /// Nothing is no number of seats.
    #[error("the count must be from 1 to {MOST}")]
    Count,
    /// Too many.
    #[error("that would be {wanted} of {kind}; a project can have {MOST}")]
    TooMany {
        /// What.
        kind: HardwareName,
        /// How many it would be.
        wanted: u64,
    },
    /// Fewer are there.
    #[error("only {booked} of {kind} are booked")]
    Fewer {
        /// What.
        kind: HardwareName,
        /// How many there are.
        booked: u32,
    },
    /// All seats are taken.
    #[error("all {booked} of {kind} are in use")]
    Full {
        /// What.
        kind: HardwareName,
        /// How many there are.
        booked: u32,
    },
}

impl Seats {
    /// No seats of a kind yet; of the free one, the one that every project has.
    #[must_use]
    pub fn none(project: ProjectName, kind: HardwareName) -> Self {
        let booked = u32::from(kind.is_free());
        Self { project, kind, booked, taken: BTreeMap::new() }
    }

    /// Books more.
    ///
    /// # Errors
    /// Why not.
    pub fn book(self, count: u32) -> Result<Self, HardwareError> {
        self.can_change(count)?;
        let wanted = u64::from(self.booked) + u64::from(count);
        match u32::try_from(wanted).ok().filter(|wanted| *wanted <= MOST) {
            Some(booked) => Ok(Self { booked, ..self }),
            None => Err(HardwareError::TooMany { kind: self.kind, wanted }),
        }
    }

    /// Gives some back, at once: the apps that no seat is left for stand up, those that came last
    /// before the others, and are told.
    ///
    /// # Errors
    /// Why not.
    pub fn drop(
        mut self,
        count: u32,
        now: Timestamp,
    ) -> Result<(Self, Vec<AppName>), HardwareError> {
        self.can_change(count)?;
        let Some(booked) = self.booked.checked_sub(count) else {
            return Err(HardwareError::Fewer { kind: self.kind, booked: self.booked });
        };
        self.booked = booked;
        let mut sitting: Vec<_> = self.sitting(now).map(|(app, seat)| (seat.since, app)).collect();
        sitting.sort();
        let keep = usize::try_from(booked).unwrap_or(usize::MAX).min(sitting.len());
        let up: Vec<AppName> =
            sitting.split_off(keep).into_iter().map(|(_, app)| app.clone()).collect();
        self.taken.retain(|app, seat| seat.until > now && !up.contains(app));
        Ok((self, up))
    }

    /// Gives an app a seat; one that it had before is its own.
    ///
    /// # Errors
    /// All are taken.
    pub fn seat(
        mut self,
        app: &AppName,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Self, HardwareError> {
        self.taken.retain(|other, seat| seat.until > now && other != app);
        if self.left(now) == 0 {
            return Err(HardwareError::Full { kind: self.kind, booked: self.booked });
        }
        self.taken.insert(app.clone(), Seat { since: now, until });
        Ok(self)
    }

    /// Takes an app's seat back.
    #[must_use]
    pub fn stand_up(mut self, app: &AppName) -> Self {
        self.taken.remove(app);
        self
    }

    /// Who sits there now.
    pub fn sitting(&self, now: Timestamp) -> impl Iterator<Item = (&AppName, &Seat)> {
        self.taken.iter().filter(move |(_, seat)| seat.until > now)
    }

    /// How many seats are free.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u32 {
        let taken = u32::try_from(self.sitting(now).count()).unwrap_or(u32::MAX);
        self.booked.saturating_sub(taken)
    }

    fn can_change(&self, count: u32) -> Result<(), HardwareError> {
        if self.kind.is_free() {
            return Err(HardwareError::Free(self.kind.clone()));
        }
        if (1..=MOST).contains(&count) { Ok(()) } else { Err(HardwareError::Count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hour)
    }

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    fn seats(kind: &str) -> Seats {
        Seats::none("p".parse().unwrap(), kind.parse().unwrap())
    }

    #[test]
    fn so_many_apps_run_as_were_booked() {
        let none = seats("8g-eu-001");
        let full = |booked| HardwareError::Full { kind: "8g-eu-001".parse().unwrap(), booked };
        assert_eq!(none.clone().seat(&app("a"), at(9), at(0)), Err(full(0)));
        let two = none.book(2).unwrap();
        let two = two.seat(&app("a"), at(9), at(0)).unwrap().seat(&app("b"), at(5), at(1)).unwrap();
        assert_eq!(two.left(at(2)), 0);
        assert_eq!(two.clone().seat(&app("c"), at(9), at(2)), Err(full(2)));
        // Its own seat is no other one; that of an ended app is free; so is one that was left.
        assert!(two.clone().seat(&app("a"), at(9), at(2)).is_ok());
        let three = two.clone().seat(&app("c"), at(9), at(5)).unwrap();
        assert_eq!(three.taken.keys().map(AppName::as_str).collect::<Vec<_>>(), ["a", "c"]);
        assert!(two.stand_up(&app("a")).seat(&app("c"), at(9), at(2)).is_ok());
    }

    #[test]
    fn dropped_hardware_is_left_at_once_by_those_who_came_last() {
        let mut seats = seats("8g-eu-001").book(4).unwrap();
        for (name, since, until) in [("a", 3, 9), ("b", 1, 9), ("c", 2, 9), ("over", 0, 4)] {
            seats = seats.seat(&app(name), at(until), at(since)).unwrap();
        }
        let (left, up) = seats.clone().drop(2, at(4)).unwrap();
        assert_eq!((left.booked, left.left(at(4)), up), (2, 0, vec![app("a")]));
        let (left, up) = left.drop(2, at(4)).unwrap();
        assert_eq!((left.booked, up), (0, vec![app("b"), app("c")]));
        assert!(left.taken.is_empty());
        let kind = left.kind.clone();
        assert_eq!(left.drop(1, at(4)), Err(HardwareError::Fewer { kind, booked: 0 }));
    }

    #[test]
    fn the_free_kind_is_one_and_stays_one() {
        let free = seats("4g-eu-001");
        let refused = HardwareError::Free(free.kind.clone());
        assert_eq!(free.clone().book(1), Err(refused.clone()));
        assert_eq!(free.clone().drop(1, at(0)), Err(refused));
        let taken = free.seat(&app("a"), at(4), at(0)).unwrap();
        assert_eq!(taken.left(at(1)), 0);
        assert!(taken.clone().seat(&app("b"), at(5), at(1)).is_err());
        assert_eq!(taken.left(at(4)), 1);
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(seats("x").book(0), Err(HardwareError::Count));
        assert_eq!(seats("x").book(u32::MAX), Err(HardwareError::Count));
        let all = seats("x").book(MOST).unwrap();
        let kind = all.kind.clone();
        assert_eq!(all.book(1), Err(HardwareError::TooMany { kind, wanted: 1001 }));
    }
}
