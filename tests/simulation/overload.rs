//! More clients than there is room for: each limit is reached exactly and never exceeded.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mse_proxy::outcome::{Outcome, Stage};
use mse_proxy::proxy::limits;
use mse_proxy::routing::route::Lifetime;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{Dice, Told, World, route, simulate, talk, tally};

const SESSIONS: usize = 1_500;
const SOURCES: u64 = 12;
const ROUTES: u64 = 4;

const CONNECTIONS: usize = 120;
const PER_SOURCE: usize = 25;
const PER_ROUTE: usize = 35;
const PENDING: usize = 40;
const PENDING_PER_SOURCE: usize = 8;

fn settings() -> limits::Settings {
    let small = |count: usize| u32::try_from(count).unwrap();
    limits::Settings {
        connections: small(CONNECTIONS).try_into().unwrap(),
        connections_per_source: small(PER_SOURCE),
        connections_per_route: small(PER_ROUTE),
        pending_hellos: small(PENDING).try_into().unwrap(),
        pending_hellos_per_source: small(PENDING_PER_SOURCE),
        ..limits::Settings::default()
    }
}

/// Who was there at a moment. Arrivals, names and ends come at times that differ, as the story has
/// them at different milliseconds of each ten.
struct Crowd<'a>(Vec<&'a Told>);

impl<'a> Crowd<'a> {
    /// All who were let in.
    fn of(records: &'a [Told]) -> Self {
        let is_over_a_limit = |told: &&Told| {
            ["limit_connections", "limit_pending", "limit_source"].contains(&&*told.outcome)
        };
        Self(records.iter().filter(|told| !is_over_a_limit(told)).collect())
    }

    fn count(&self, is_there: impl Fn(&Told) -> bool) -> usize {
        self.0.iter().filter(|told| is_there(told)).count()
    }

    fn open(&self, now: Duration) -> usize {
        self.count(|told| told.began <= now && now < told.ended)
    }

    fn pending(&self, now: Duration) -> usize {
        self.count(|told| told.began <= now && now < told.named.unwrap_or(told.ended))
    }

    fn of_source(&self, now: Duration, client: &str) -> (usize, usize) {
        let of = |told: &Told| told.client == client && told.began <= now;
        let open = self.count(|told| of(told) && now < told.ended);
        (open, self.count(|told| of(told) && now < told.named.unwrap_or(told.ended)))
    }

    fn of_route(&self, now: Duration, route: &str) -> usize {
        self.count(|told| {
            told.route.as_deref() == Some(route)
                && told.outcome != "limit_route"
                && told.named.is_some_and(|named| named <= now)
                && now < told.ended
        })
    }

    /// At the moment in which somebody came.
    fn judge(&self, told: &Told) {
        let now = told.began;
        let (open, pending) = (self.open(now), self.pending(now));
        let (of_source, pending_of_source) = self.of_source(now, &told.client);
        let is_held = open <= CONNECTIONS
            && pending <= PENDING
            && of_source <= PER_SOURCE
            && pending_of_source <= PENDING_PER_SOURCE;
        assert!(is_held, "{open} {pending} {of_source} {pending_of_source}: {told:?}");
        // Nobody is refused for a limit that is not reached.
        match told.outcome.as_str() {
            "limit_connections" => assert_eq!(open, CONNECTIONS, "{told:?}"),
            "limit_pending" => assert_eq!(pending, PENDING, "{told:?}"),
            "limit_source" => assert!(
                of_source == PER_SOURCE || pending_of_source == PENDING_PER_SOURCE,
                "{of_source} {pending_of_source}: {told:?}"
            ),
            _ => {}
        }
        if let (Some(named), Some(route)) = (told.named, &told.route) {
            let of_route = self.of_route(named, route);
            assert!(of_route <= PER_ROUTE, "{of_route}: {told:?}");
            if told.outcome == "limit_route" {
                assert_eq!(of_route, PER_ROUTE, "{told:?}");
            }
        }
    }
}

/// A multiple of ten milliseconds, and some.
fn tens(dice: &mut Dice, most: u64, and: u64) -> Duration {
    Duration::from_millis(10 * dice.roll(most / 10) + and)
}

#[test]
fn limits_are_reached_exactly_and_what_was_held_is_given_back() {
    simulate(4, async |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(settings());
        let ids: Vec<_> = (0..ROUTES).map(|number| format!("r{number}.test")).collect();
        let routes: Vec<_> = ids.iter().map(|id| route(id, Lifetime::default())).collect();
        world.publish(&routes);
        let began = Instant::now();
        let mut times: Vec<_> = (0..SESSIONS).map(|_| tens(&mut dice, 60_000, 0)).collect();
        times.sort_unstable();
        // Now a crowd of strangers, now few of them; now quick ones, now slow ones.
        for when in times {
            sleep_until(began + when).await;
            let rush = when.as_secs() / 15;
            let source = dice.roll(if rush == 1 { 2 } else { SOURCES });
            let slow = if rush == 2 { 4_000 } else { 500 };
            let long = if rush == 3 { 40_000 } else { 8_000 };
            let (mute, life) = (tens(&mut dice, slow, 3), tens(&mut dice, long, 5));
            let id = ids[usize::try_from(dice.roll(if rush == 3 { ROUTES } else { 2 })).unwrap()]
                .clone();
            let source = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(source).unwrap());
            let client = world.arrive(IpAddr::V4(source)).await;
            tokio::spawn(async move {
                sleep(mute).await;
                talk(client, &id, life).await;
            });
        }
        let records = world.records().await;
        let crowd = Crowd::of(&records);
        for told in &records {
            crowd.judge(told);
        }
        let counts = tally(&records);
        for outcome in
            ["closed", "limit_connections", "limit_pending", "limit_source", "limit_route"]
        {
            assert!(counts.contains_key(outcome), "the story is worth telling: {counts:?}");
        }
        assert!(
            Outcome::ALL
                .iter()
                .filter(|one| counts.contains_key(one.word()))
                .all(|one| { [Stage::Hello, Stage::Name, Stage::Relay].contains(&one.stage()) })
        );
    });
}
