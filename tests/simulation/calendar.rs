//! Routes that end, with grace, and are prolonged and shortened while a thousand sessions live.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mse_proxy::routing::route::{Lifetime, Route};
use tokio::time::{Instant, sleep_until};

use crate::support::{
    CONNECT, Dice, PROMISE, Told, World, at, route, simulate, talk, tally, unlimited,
};

const SESSIONS: usize = 1_000;
const ROUTES: usize = 12;
/// In which all the routes end and change.
const HOUR: u64 = 3_600_000;
/// What happens at the same moment may happen in either order.
const SAME_MOMENT: Duration = Duration::from_millis(150);

/// The end that a route had, from when on.
type History = Vec<(Duration, Ending)>;

#[derive(Debug, Clone, Copy)]
struct Ending {
    end: Option<Duration>,
    grace: Duration,
}

impl Ending {
    fn roll(dice: &mut Dice, now: u64) -> Self {
        let end = (dice.roll(5) > 0).then(|| dice.millis(now, now + HOUR / 2));
        let grace = if dice.roll(2) == 0 { Duration::ZERO } else { dice.millis(1_000, 300_000) };
        Self { end, grace }
    }

    fn route(self, number: usize) -> Arc<Route> {
        let lifetime = Lifetime {
            not_before: None,
            expires_at: self.end.map(at),
            grace: SignedDuration::try_from(self.grace).unwrap(),
        };
        route(&format!("r{number}.test"), lifetime)
    }
}

/// What a script says that a session does.
struct Script {
    arrives: Duration,
    life: Duration,
    route: usize,
}

impl Script {
    /// When the ledger ends it, if it lives that long.
    fn cut(&self, history: &History) -> Option<Duration> {
        let until = |index: usize| history.get(index + 1).map_or(Duration::MAX, |next| next.0);
        history.iter().enumerate().find_map(|(index, (from, ending))| {
            let cut = (ending.end? + ending.grace).max(*from).max(self.arrives);
            (cut < until(index)).then_some(cut)
        })
    }

    /// Compares what happened with what had to.
    fn judge(&self, history: &History, told: &Told) {
        let (_, ending) = history.iter().rev().find(|(from, _)| *from <= self.arrives).unwrap();
        let is_close = |one: Duration, other: Duration| one.abs_diff(other) <= SAME_MOMENT;
        let is_near_a_change = |time: Duration| {
            history.iter().any(|(from, ending)| {
                is_close(*from, time) || ending.end.is_some_and(|end| is_close(end, time))
            })
        };
        if ending.end.is_some_and(|end| end <= self.arrives) {
            assert!(told.outcome == "expired_name" || is_near_a_change(self.arrives), "{told:?}");
            return;
        }
        let finished = self.arrives + self.life;
        match self.cut(history) {
            Some(cut) if cut + SAME_MOMENT < finished => {
                if told.outcome == "expired_name" && is_near_a_change(self.arrives) {
                    return;
                }
                assert_eq!(told.outcome, "route_expired", "{told:?} {cut:?} {history:?}");
                let late =
                    told.ended.checked_sub(cut).unwrap_or_else(|| panic!("{told:?} {cut:?}"));
                assert!(late <= PROMISE, "{late:?}: {told:?}");
            }
            Some(cut) if cut <= finished + SAME_MOMENT => {
                assert!(["route_expired", "closed"].contains(&&*told.outcome), "{told:?}");
            }
            _ if told.outcome == "expired_name" => assert!(is_near_a_change(self.arrives)),
            _ => {
                assert_eq!(told.outcome, "closed", "{told:?} {history:?}");
                assert!(told.ended.abs_diff(finished) <= CONNECT + PROMISE, "{told:?}");
            }
        }
    }
}

#[test]
fn every_session_ends_when_the_calendar_says_so_and_no_other_does() {
    simulate(4, async |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(unlimited());
        let began = Instant::now();
        let mut histories: Vec<History> =
            (0..ROUTES).map(|_| vec![(Duration::ZERO, Ending::roll(&mut dice, 60_000))]).collect();
        let mut scripts: Vec<Script> = (0..SESSIONS)
            .map(|_| Script {
                arrives: dice.millis(10, HOUR),
                life: dice.millis(1_000, HOUR),
                route: usize::try_from(dice.roll(ROUTES as u64)).unwrap(),
            })
            .collect();
        scripts.sort_by_key(|script| script.arrives);
        // Ends are moved now and then, sooner or later, or for a route that has ended already.
        let mut changes: Vec<Duration> = (0..60).map(|_| dice.millis(10, HOUR)).collect();
        changes.sort_unstable();

        let mut clients = Vec::new();
        let mut changes = changes.into_iter().peekable();
        let all = |histories: &[History]| -> Vec<Arc<Route>> {
            let newest = histories.iter().map(|history| history.last().unwrap().1);
            newest.enumerate().map(|(number, ending)| ending.route(number)).collect()
        };
        world.publish(&all(&histories));
        for script in &scripts {
            while let Some(change) = changes.next_if(|change| *change <= script.arrives) {
                sleep_until(began + change).await;
                let number = usize::try_from(dice.roll(ROUTES as u64)).unwrap();
                let now = u64::try_from(change.as_millis()).unwrap();
                histories[number].push((change, Ending::roll(&mut dice, now)));
                world.publish(&all(&histories));
            }
            sleep_until(began + script.arrives).await;
            let client = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            let (host, life) = (format!("r{}.test", script.route), script.life);
            clients.push(tokio::spawn(async move { talk(client, &host, life).await }));
        }
        let mut records = world.records().await;
        records.sort_by_key(|told| told.session);
        for (script, told) in scripts.iter().zip(&records) {
            script.judge(&histories[script.route], told);
        }
        let counts = tally(&records);
        for outcome in ["closed", "route_expired", "expired_name"] {
            assert!(counts[outcome] > 30, "the story is worth telling: {counts:?}");
        }
    });
}
