//! Wall clocks that are set, and machines that sleep, while sessions of routes with ends live.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mse_proxy::clock::{Clock, Timestamp};
use mse_proxy::routing::route::{Lifetime, Route};
use tokio::time::sleep;

use crate::support::{Dice, PROMISE, World, at, route, simulate, talk, tally, unlimited};

const ROUTES: usize = 50;
const EACH: usize = 20;
const EVENTS: usize = 150;

#[test]
fn whatever_happens_to_the_clocks_an_ended_route_has_no_sessions_and_never_comes_back() {
    simulate(3, async |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(unlimited());
        let routes: Vec<Arc<Route>> = (0..ROUTES)
            .map(|number| {
                let end = dice.millis(600_000, 43_200_000);
                let lifetime = Lifetime { expires_at: Some(at(end)), ..Lifetime::default() };
                route(&format!("r{number}.test"), lifetime)
            })
            .collect();
        world.publish(&routes);
        let mut clients = Vec::new();
        for route in &routes {
            for _ in 0..EACH {
                let client = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
                let host = route.id.to_string();
                clients.push(tokio::spawn(async move {
                    talk(client, &host, Duration::from_hours(100)).await;
                }));
            }
        }
        sleep(Duration::from_secs(1)).await;
        let mut latest = Timestamp::MIN;
        for _ in 0..EVENTS {
            let before = world.clock.now();
            match dice.roll(4) {
                0 => sleep(dice.millis(1, 60_000)).await,
                1 => world.clocks.suspend(dice.millis(1, 1_200_000)),
                2 => world.clocks.set(SignedDuration::try_from(dice.millis(1, 900_000)).unwrap()),
                _ => world.clocks.set(-SignedDuration::try_from(dice.millis(1, 900_000)).unwrap()),
            }
            let now = world.clock.now();
            assert!(now >= before && now >= latest, "time goes on");
            latest = now;
            sleep(PROMISE).await;
            for route in &routes {
                let open = world.house.ledger.open_of(&route.id);
                let end = route.lifetime().expires_at.unwrap();
                if end <= now {
                    assert_eq!(open, 0, "{} ended at {end}, it is {now}", route.id);
                } else if end > world.clock.now() {
                    assert_eq!(open, EACH, "{} ends at {end}, it is {now}", route.id);
                }
            }
        }
        // A month of sleep ends them all.
        world.clocks.suspend(Duration::from_hours(720));
        let records = world.records().await;
        assert_eq!(tally(&records)["route_expired"], ROUTES * EACH);
    });
}
