//! When the routes of a snapshot begin and end, in order.
//!
//! Built once with its snapshot, so that nobody has to look at every route to know how many are
//! live, which end comes next, or which ends lie ahead: each such question costs a binary search,
//! also among a million. Building sorts: a tenth of a second and 16 MB for a million.

use std::sync::Arc;

use jiff::SignedDuration;

use crate::clock::Timestamp;
use crate::routing::route::Route;

/// The beginnings and ends of a set of routes.
#[derive(Debug, Default)]
pub struct Calendar {
    routes: usize,
    /// Until when those are pending that have a `not_before`.
    starts: Vec<Timestamp>,
    ends: Vec<End>,
}

/// A route that has an end.
#[derive(Debug, Clone)]
pub struct End {
    /// The second in which it lies: enough to order nearly all of them without looking elsewhere.
    second: i64,
    route: Arc<Route>,
}

impl End {
    /// When that is: its `expires_at`.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        // A route without an end has no place here.
        self.route.lifetime().expires_at.unwrap_or(Timestamp::MAX)
    }

    /// The route.
    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    fn is_by(&self, now: Timestamp, second: i64) -> bool {
        self.second < second || self.second == second && self.at() <= now
    }
}

/// How many routes are in which phase at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// Live.
    pub live: usize,
    /// Not yet live.
    pub pending: usize,
    /// No longer live.
    pub expired: usize,
}

impl Calendar {
    /// The calendar of so many routes.
    #[must_use]
    pub fn new<'a>(routes: impl Iterator<Item = &'a Arc<Route>>, count: usize) -> Self {
        // Nearly all have an end, or nearly none: what is not needed is given back.
        let mut calendar = Self { ends: Vec::with_capacity(count), ..Self::default() };
        for route in routes {
            calendar.routes += 1;
            let lifetime = route.lifetime();
            if let Some(at) = lifetime.expires_at {
                calendar.ends.push(End { second: floor(at), route: Arc::clone(route) });
            }
            // One that would begin after its end is pending until that end.
            let begins = lifetime.not_before;
            calendar
                .starts
                .extend(begins.map(|at| lifetime.expires_at.map_or(at, |end| at.min(end))));
        }
        calendar.starts.sort_unstable();
        let order = |one: &End, other: &End| {
            one.second.cmp(&other.second).then_with(|| one.at().cmp(&other.at()))
        };
        calendar.ends.sort_unstable_by(order);
        calendar.ends.shrink_to_fit();
        calendar
    }

    /// How many routes are in which phase.
    #[must_use]
    pub fn phases(&self, now: Timestamp) -> Phases {
        let expired = self.ended_by(now);
        let pending = self.starts.len() - self.starts.partition_point(|start| *start <= now);
        Phases { live: self.routes.saturating_sub(expired + pending), pending, expired }
    }

    /// The next end that is still to come.
    #[must_use]
    pub fn next_end(&self, now: Timestamp) -> Option<&End> {
        self.ends.get(self.ended_by(now))
    }

    /// The ends after one instant and up to another, soonest first.
    #[must_use]
    pub fn ends(&self, after: Timestamp, until: Timestamp) -> &[End] {
        self.ends.get(self.ended_by(after)..self.ended_by(until)).unwrap_or_default()
    }

    /// The ends that come within a time from now on, soonest first.
    #[must_use]
    pub fn ends_within(&self, now: Timestamp, time: SignedDuration) -> &[End] {
        self.ends(now, now.saturating_add(time).unwrap_or(Timestamp::MAX))
    }

    /// How many have ended at an instant: the first instant of being over is the end itself.
    fn ended_by(&self, now: Timestamp) -> usize {
        let second = floor(now);
        self.ends.partition_point(|end| end.is_by(now, second))
    }
}

/// The last whole second that is not after an instant.
fn floor(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::route::{Lifetime, Phase, Terms};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn route(id: usize, start: Option<i64>, end: Option<i64>) -> Arc<Route> {
        let lifetime = Lifetime {
            not_before: start.map(at),
            expires_at: end.map(at),
            grace: SignedDuration::ZERO,
        };
        let terms = Terms { lifetime, ..Terms::default() };
        Arc::new(Route::new(id.to_string().into(), vec![], vec![], terms))
    }

    #[test]
    fn it_says_what_looking_at_every_route_says() {
        let times = [None, Some(5), Some(10), Some(15)];
        let lifetimes = times.iter().flat_map(|start| times.iter().map(move |end| (*start, *end)));
        let routes: Vec<_> =
            lifetimes.enumerate().map(|(id, (start, end))| route(id, start, end)).collect();
        let calendar = Calendar::new(routes.iter(), routes.len());
        for now in (0..20).map(at) {
            let count = |phase: Phase| {
                routes.iter().filter(|route| route.lifetime().phase(now) == phase).count()
            };
            let plain = Phases {
                live: count(Phase::Live),
                pending: count(Phase::NotYet),
                expired: count(Phase::Expired),
            };
            assert_eq!(calendar.phases(now), plain, "{now}");
            let to_come = routes.iter().filter_map(|route| route.lifetime().expires_at);
            let next = to_come.filter(|end| *end > now).min();
            assert_eq!(calendar.next_end(now).map(End::at), next, "{now}");
        }
    }

    #[test]
    fn an_end_belongs_to_the_interval_that_it_closes() {
        let routes = [route(0, None, Some(10)), route(1, None, Some(20)), route(2, None, None)];
        let calendar = Calendar::new(routes.iter(), routes.len());
        let ids =
            |ends: &[End]| ends.iter().map(|end| end.route().id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(calendar.ends(at(9), at(10))), ["0"]);
        assert_eq!(ids(calendar.ends(at(10), at(19))), Vec::<String>::new());
        assert_eq!(ids(calendar.ends(at(0), at(99))), ["0", "1"]);
        // A clock that went back asks for nothing.
        assert_eq!(ids(calendar.ends(at(99), at(0))), Vec::<String>::new());
        assert_eq!(ids(calendar.ends_within(at(10), SignedDuration::from_secs(10))), ["1"]);
        assert_eq!(calendar.ends_within(at(10), SignedDuration::MAX).len(), 1);
    }

    #[test]
    fn ends_within_one_second_keep_their_order() {
        let nanos = |text: &str| text.parse::<Timestamp>().unwrap();
        let times = ["1969-12-31T23:59:59.1Z", "1969-12-31T23:59:59.9Z", "1970-01-01T00:00:00.1Z"];
        let routes = times.iter().rev().enumerate().map(|(id, text)| {
            let lifetime = Lifetime { expires_at: Some(nanos(text)), ..Lifetime::default() };
            let terms = Terms { lifetime, ..Terms::default() };
            Arc::new(Route::new(id.to_string().into(), vec![], vec![], terms))
        });
        let routes: Vec<_> = routes.collect();
        let calendar = Calendar::new(routes.iter(), routes.len());
        for (ended, text) in times.iter().enumerate() {
            let just_before = nanos(text).checked_sub(SignedDuration::from_nanos(1)).unwrap();
            assert_eq!(calendar.phases(just_before).expired, ended);
            assert_eq!(calendar.phases(nanos(text)).expired, ended + 1);
        }
    }

    #[test]
    fn a_million_routes_are_asked_without_looking_at_them() {
        let routes: Vec<_> = (0..1_000_000)
            .map(|id| route(id, None, Some(i64::try_from(id * 7_919 % 1_000_003).unwrap())))
            .collect();
        let calendar = Calendar::new(routes.iter(), routes.len());
        let middle = at(500_000);
        assert_eq!(calendar.next_end(middle).map(End::at), Some(at(500_001)));
        let phases = calendar.phases(middle);
        assert_eq!(phases.live + phases.expired, 1_000_000);
        assert_eq!(calendar.ends_within(middle, SignedDuration::from_secs(60)).len(), 60);
    }
}
