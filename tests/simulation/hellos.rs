//! Clients that say nothing, too little, too slowly or something else, and relays that fall silent.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mse_proxy::routing::route::Lifetime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{CONNECT, Dice, Told, World, hello, route, simulate, tally, unlimited};

const SESSIONS: usize = 1_000;
/// The built-in timeouts.
const HELLO: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_mins(10);
const HALF_CLOSE: Duration = Duration::from_mins(5);
/// How long a refused client is waited for.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
enum Habit {
    /// Says nothing, and never closes.
    Silent,
    /// A byte now and then, for ever.
    Trickles(Duration),
    /// Leaves in the middle of its hello.
    Leaves(Duration),
    /// Speaks another protocol.
    Garbage,
    /// Shows a name and waits for ever, a little after its last byte.
    FallsSilent(Duration),
    /// Finishes, and its backend does not.
    HalfCloses,
    /// Asks for a backend that refuses.
    Refused,
    /// Asks for a backend that does not answer.
    Unanswered,
}

impl Habit {
    fn roll(dice: &mut Dice) -> Self {
        match dice.roll(8) {
            0 => Self::Silent,
            1 => Self::Trickles(dice.millis(100, 4_000)),
            2 => Self::Leaves(dice.millis(1, 4_900)),
            3 => Self::Garbage,
            4 => Self::FallsSilent(dice.millis(1, 60_000)),
            5 => Self::HalfCloses,
            6 => Self::Refused,
            _ => Self::Unanswered,
        }
    }

    async fn act(self, mut client: DuplexStream) {
        let send = async |client: &mut DuplexStream, bytes: &[u8]| client.write_all(bytes).await;
        // Whoever is told to go is gone; a test that fails for it fails at the record.
        match self {
            Self::Silent => {}
            Self::Trickles(pause) => {
                for byte in hello("echo.test") {
                    sleep(pause).await;
                    if send(&mut client, &[byte]).await.is_err() {
                        break;
                    }
                }
            }
            Self::Leaves(after) => {
                let _ = send(&mut client, &hello("echo.test")[..40]).await;
                sleep(after).await;
                return;
            }
            Self::Garbage => drop(send(&mut client, b"SSH-2.0-simulated\r\n").await),
            Self::FallsSilent(after) => {
                let _ = send(&mut client, &hello("echo.test")).await;
                sleep(after).await;
                let _ = send(&mut client, b"the last byte").await;
            }
            Self::HalfCloses => {
                let _ = send(&mut client, &hello("stays.test")).await;
                let _ = client.shutdown().await;
            }
            Self::Refused => drop(send(&mut client, &hello("refuses.test")).await),
            Self::Unanswered => drop(send(&mut client, &hello("silent.test")).await),
        }
        // It looks on, and never closes by itself.
        let _ = client.read_to_end(&mut Vec::new()).await;
        std::future::pending::<()>().await;
    }

    /// What must have come of it, and after how long.
    fn judge(self, told: &Told) {
        let (outcome, after) = match self {
            Self::Silent | Self::Trickles(_) => ("hello_timeout", HELLO + LINGER),
            Self::Leaves(after) => ("client_left", after),
            Self::Garbage => ("not_tls", LINGER),
            Self::FallsSilent(after) => ("idle_timeout", after + IDLE),
            Self::HalfCloses => ("half_close_timeout", CONNECT + HALF_CLOSE),
            Self::Refused => ("backend_refused", CONNECT + LINGER),
            Self::Unanswered => ("backend_timeout", CONNECT + HELLO + LINGER),
        };
        assert_eq!(told.outcome, outcome, "{self:?}: {told:?}");
        let lived = told.ended.saturating_sub(told.began);
        // Timers have milliseconds, and some events need a turn or two.
        let late = lived.abs_diff(after);
        assert!(late <= Duration::from_millis(10), "{self:?} after {lived:?}, not {after:?}");
    }
}

#[test]
fn every_client_that_stands_still_is_ended_on_time_and_told_apart() {
    simulate(4, async |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(unlimited());
        let ids = ["echo.test", "stays.test", "refuses.test", "silent.test"];
        world.publish(&ids.map(|id| route(id, Lifetime::default())));
        let began = Instant::now();
        let mut arrivals: Vec<_> =
            (0..SESSIONS).map(|_| (dice.millis(0, 60_000), Habit::roll(&mut dice))).collect();
        arrivals.sort_by_key(|(when, _)| *when);
        let mut clients = Vec::new();
        for (when, habit) in &arrivals {
            sleep_until(began + *when).await;
            let client = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            clients.push(tokio::spawn(habit.act(client)));
        }
        let mut records = world.records().await;
        records.sort_by_key(|told| told.session);
        for ((_, habit), told) in arrivals.iter().zip(&records) {
            habit.judge(told);
        }
        assert_eq!(tally(&records).len(), 7, "{:?}", tally(&records));
    });
}
