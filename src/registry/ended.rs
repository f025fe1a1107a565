//! What is forgotten of apps that have ended.
//!
//! Nothing depends on them: a generated hostname is computed anew, a custom domain has a record of
//! its own, whose quarantine it remembers itself. They are kept for people, and for clients, who
//! are told that an app has ended rather than that nobody knows it. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::clock::Timestamp;
use crate::registry::app::App;
use crate::registry::domain::{Claim, Domain};
use crate::registry::names::ProjectName;
use crate::registry::record::Held;

/// Ended apps of one project that are kept at most. Whoever has more uses new names all the time,
/// as tests do, and does not look for the oldest; at half a kilobyte each these take 500 KB.
pub const MOST: usize = 1000;

/// The apps to forget: of each project those that ended so long ago, and all but the last [`MOST`].
#[must_use]
pub fn apps(all: &[Held<App>], keep: SignedDuration, now: Timestamp) -> Vec<&Held<App>> {
    let mut ended: BTreeMap<&ProjectName, Vec<&Held<App>>> = BTreeMap::new();
    // An end that nobody has noted is noted first: a seat and a domain are left with it.
    for held in all.iter().filter(|held| !held.record.phase.is_active()) {
        ended.entry(&held.record.project).or_default().push(held);
    }
    let of_each = ended.into_values().flat_map(|mut ended| {
        ended.sort_by_key(|held| Reverse(held.record.over_at()));
        let is_old = |held: &Held<App>| is_over(held.record.over_at(), keep, now);
        let old = ended.iter().position(|held| is_old(held)).unwrap_or(ended.len());
        ended.split_off(old.min(MOST))
    });
    of_each.collect()
}

/// The domains to forget: those that nobody has a claim to any more, and whose apps are so long
/// ago.
#[must_use]
pub fn domains(
    all: &[Held<Domain>],
    [quarantine, keep]: [SignedDuration; 2],
    now: Timestamp,
) -> Vec<&Held<Domain>> {
    let is_old = |domain: &Domain| {
        domain.claim(quarantine, now) == Claim::Free && is_over(domain.until, keep, now)
    };
    all.iter().filter(|held| is_old(&held.record)).collect()
}

fn is_over(ended_at: Timestamp, keep: SignedDuration, now: Timestamp) -> bool {
    now >= ended_at.saturating_add(keep).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::app::{CertificateOrigin, Phase};
    use crate::registry::domain::Gate;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(hour: usize) -> Timestamp {
        let hour = i64::try_from(hour).unwrap();
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hour)
    }

    fn app(project: &str, number: usize, phase: Phase, ended_at: Option<usize>) -> Held<App> {
        let record = App {
            project: project.parse().unwrap(),
            name: format!("a{number}").parse().unwrap(),
            hardware: "4g-eu-001".parse().unwrap(),
            docker: "r.example/i:1".to_owned(),
            healthcheck_endpoint: "/".to_owned(),
            origin: CertificateOrigin::Enclave,
            hosts: Vec::new(),
            leaf: None,
            phase,
            backend: None,
            key: None,
            deployed_at: at(0),
            ends_at: at(10),
            ended_at: ended_at.map(at),
        };
        Held { record, revision: 1 }
    }

    fn names(all: &[Held<App>], now: usize) -> Vec<String> {
        let forgotten = apps(all, DAY, at(now)).into_iter();
        forgotten.map(|held| format!("{}/{}", held.record.project, held.record.name)).collect()
    }

    #[test]
    fn what_has_ended_is_forgotten_after_its_time_and_what_lives_never() {
        let all = [
            app("p", 1, Phase::Running, None),
            app("p", 2, Phase::Stopped, Some(5)),
            app("p", 3, Phase::Expired, Some(12)),
            app("q", 4, Phase::OnError, Some(4)),
        ];
        assert_eq!(names(&all, 27), Vec::<String>::new());
        assert_eq!(names(&all, 28), ["q/a4"]);
        assert_eq!(names(&all, 29), ["p/a2", "q/a4"]);
        // It ended at its end, whenever somebody noted that.
        assert_eq!(names(&all, 34), ["p/a3", "p/a2", "q/a4"]);
        assert_eq!(names(&all, 1000).len(), 3, "an end that nobody has noted");
        assert!(apps(&all, SignedDuration::MAX, at(1000)).is_empty());
    }

    #[test]
    fn of_very_many_the_last_ones_are_kept() {
        let mut all: Vec<_> =
            (0..MOST + 2).map(|one| app("p", one, Phase::Stopped, Some(one % 7))).collect();
        all.extend((0..3).map(|one| app("q", one, Phase::Stopped, Some(0))));
        let forgotten = names(&all, 8);
        assert_eq!(forgotten.len(), 2);
        let first = |name: &String| name.strip_prefix("p/a").unwrap().parse::<usize>().unwrap() % 7;
        assert!(forgotten.iter().all(|name| first(name) == 0), "{forgotten:?}");
    }

    #[test]
    fn a_domain_outlives_its_quarantine_and_its_app() {
        let record = Domain {
            host: "a.test".parse().unwrap(),
            project: "p".parse().unwrap(),
            app: "a".parse().unwrap(),
            until: at(10),
            gate: Gate::Open,
            failures: 0,
        };
        let all = [Held { record, revision: 1 }];
        let hours = SignedDuration::from_hours;
        for (quarantine, keep) in [(2, 5), (5, 2), (5, 5)] {
            let bounds = [hours(quarantine), hours(keep)];
            assert!(domains(&all, bounds, at(14)).is_empty());
            assert_eq!(domains(&all, bounds, at(15)).len(), 1);
        }
    }
}
