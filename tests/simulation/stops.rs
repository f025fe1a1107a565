//! Drains: sessions that finish in time, those that are cut, and a second signal.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mse_proxy::proxy::drain::{self, drain};
use mse_proxy::routing::route::Lifetime;
use mse_proxy::units::Period;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{Dice, PROMISE, World, route, simulate, talk, tally, unlimited};

const SESSIONS: usize = 1_000;
const BEGINS: Duration = Duration::from_mins(10);
const TIMEOUT: Duration = Duration::from_mins(5);

/// Drains after ten minutes; `patience` is how long nobody is in a hurry.
fn stop_after(patience: Duration, longest: u64) {
    let over = BEGINS + patience.min(TIMEOUT);
    simulate(3, async |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(unlimited());
        world.publish(&[route("echo.test", Lifetime::default())]);
        let began = Instant::now();
        let mut scripts: Vec<_> =
            (0..SESSIONS).map(|_| (dice.millis(0, 600_000), dice.millis(1, longest))).collect();
        scripts.sort_unstable();
        let mut clients = Vec::new();
        for (arrives, life) in scripts.iter().copied() {
            sleep_until(began + arrives).await;
            let client = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            clients.push(tokio::spawn(async move { talk(client, "echo.test", life).await }));
        }
        // And one that has not said anything, and one that is refused at that moment.
        sleep_until(began + BEGINS - Duration::from_secs(1)).await;
        let _silent = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
        sleep_until(began + BEGINS).await;
        let settings = drain::Settings { timeout: Period(TIMEOUT) };
        drain(&world.house.ledger, &settings, sleep(patience)).await;
        let drained = began.elapsed();
        let mut records = world.records().await;
        records.sort_by_key(|told| told.session);
        let silent = records.pop().unwrap();
        assert_eq!(silent.outcome, "hello_timeout", "{silent:?}");
        for ((arrives, life), told) in scripts.iter().zip(&records) {
            let finished = *arrives + *life;
            if told.outcome == "closed" {
                assert!(finished <= over + PROMISE, "{told:?}");
                assert!(told.ended.abs_diff(finished) <= PROMISE, "{told:?}");
            } else {
                assert_eq!(told.outcome, "drained", "{told:?}");
                assert!(finished + PROMISE >= over, "{told:?}");
                assert!(told.ended.abs_diff(over) <= PROMISE, "{told:?}");
            }
        }
        let last = records.iter().chain([&silent]).map(|told| told.ended).max().unwrap();
        assert!(drained.abs_diff(last) <= PROMISE, "{drained:?} {last:?}");
        let counts = tally(&records);
        assert!(counts["closed"] > 100, "{counts:?}");
        assert_eq!(counts.contains_key("drained"), last + PROMISE > over, "{counts:?}");
    });
}

#[test]
fn who_finishes_in_time_is_let_and_the_rest_is_cut_at_the_deadline() {
    stop_after(Duration::from_hours(1), 1_200_000);
}

#[test]
fn a_second_signal_cuts_at_once() {
    stop_after(Duration::from_secs(20), 1_200_000);
}

#[test]
fn a_drain_is_over_with_its_last_session() {
    stop_after(Duration::from_hours(1), 120_000);
}
