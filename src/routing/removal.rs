//! How much of what is in force a new set would take away.
//!
//! Routes that have ended do not count: to tidy them up harms nobody.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::routing::claims::{Claims, Passage};
use crate::routing::route::{Phase, Route};
use crate::units::Percent;

/// How many of how many routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removal {
    /// Those that go.
    pub removed: usize,
    /// All that have not ended.
    pub of: usize,
}

impl Removal {
    /// What goes if a set takes the place of another, by the ids.
    #[must_use]
    pub fn between(old: &Claims, new: &Claims, now: Timestamp) -> Self {
        let of = old.routes().filter(|route| counts(route, now)).count();
        // What lies in a passage that both have, stays.
        let both: HashSet<usize> = new.passages().iter().map(Passage::address).collect();
        let touched = |passage: &&Passage| !both.contains(&passage.address());
        let in_doubt = old.passages().iter().filter(touched).flat_map(Passage::written);
        let in_doubt = in_doubt.map(|written| &written.route).filter(|route| counts(route, now));
        let mut in_doubt: HashSet<&str> = in_doubt.map(|route| &*route.id).collect();
        if !in_doubt.is_empty() {
            for route in new.routes() {
                in_doubt.remove(&*route.id);
            }
        }
        Self { removed: in_doubt.len(), of }
    }

    /// Whether that is more than this share.
    #[must_use]
    pub fn exceeds(&self, most: Percent) -> bool {
        most.is_less_than(self.removed, self.of)
    }
}

/// Whether a route is there to be missed.
#[must_use]
pub fn counts(route: &Route, now: Timestamp) -> bool {
    route.phase(now) != Phase::Expired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::few::Few;
    use crate::routing::route::{Claim, Lifetime, Origin, Terms};

    fn claims(ids: &[&str]) -> Claims {
        let claim = |id: &&str| {
            let expires_at = id.starts_with("old").then_some(Timestamp::UNIX_EPOCH);
            let lifetime = Lifetime { expires_at, ..Lifetime::default() };
            let terms = Terms { lifetime, ..Terms::default() };
            let route = Route::new((*id).into(), Few::default(), Few::default(), terms);
            let origin = Origin { source: "f".into(), line: 1, column: 1 };
            Claim { route: route.into(), origin }
        };
        ids.iter().map(claim).collect()
    }

    #[test]
    fn what_is_gone_by_its_id_is_counted_and_what_has_ended_is_not() {
        let now = Timestamp::UNIX_EPOCH;
        let old = claims(&["a", "b", "c", "d", "old1", "old2"]);
        let between = |new: &[&str]| Removal::between(&old, &claims(new), now);
        assert_eq!(between(&["a", "b", "c", "d"]), Removal { removed: 0, of: 4 });
        assert_eq!(between(&["d", "x", "a"]), Removal { removed: 2, of: 4 });
        assert_eq!(between(&[]), Removal { removed: 4, of: 4 });
        assert_eq!(Removal::between(&old, &old.clone(), now), Removal { removed: 0, of: 4 });
        let (half, percent) =
            (Removal { removed: 2, of: 4 }, |most| Percent::try_from(most).unwrap());
        assert!(half.exceeds(percent(49)) && !half.exceeds(percent(50)));
        assert!(!between(&[]).exceeds(Percent::ALL) && !Removal::default().exceeds(percent(0)));
    }
}
