//! The world that is simulated. [`World::new`] is the one place that puts a proxy's parts together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use mse_proxy::clock::{Clock, Forward, Timestamp};
use mse_proxy::outcome::Outcome;
use mse_proxy::proxy::backend::connect::{Connect, ConnectError};
use mse_proxy::proxy::connections::{Ledger, OnRemove};
use mse_proxy::proxy::engine::deadlines::{Deadline, Deadlines, TICK};
use mse_proxy::proxy::engine::tasks::Spawner;
use mse_proxy::proxy::fresh::{self, Newcomers};
use mse_proxy::proxy::house::House;
use mse_proxy::proxy::limits::{self, Limits};
use mse_proxy::proxy::peek;
use mse_proxy::proxy::relay::idle;
use mse_proxy::proxy::retire::{Policy, retire};
use mse_proxy::proxy::session::{Arrival, session};
use mse_proxy::proxy::terminate::{self, Terminal};
use mse_proxy::routing::route::{Claim, Lifetime, Origin, Route, Terms};
use mse_proxy::routing::snapshot::Snapshot;
use mse_proxy::routing::table::{Publisher, table};
use mse_proxy::telemetry::access_log::AccessLog;
use mse_proxy::telemetry::{logging, metrics};
use mse_proxy::wire::alert::Answer;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep};

/// Everything begins here.
pub(crate) const START: &str = "2026-01-01T00:00:00Z";
/// How soon after its end a session must be over.
pub(crate) const PROMISE: Duration = Duration::from_millis(100);
/// How long connecting takes.
pub(crate) const CONNECT: Duration = Duration::from_millis(1);
/// What a stream between two parts of the world holds.
const PIPE: usize = 4096;

/// Numbers that are as good as random, and the same for the same seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to `sides - 1`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// Runs a story on simulated time, once for each seed.
pub(crate) fn simulate<F: Future<Output = ()>>(seeds: u64, story: impl Fn(u64) -> F) {
    for seed in 1..=seeds {
        // Tells which seed it was if the story fails.
        eprintln!("seed {seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        LocalSet::new().block_on(&runtime.unwrap(), story(seed));
    }
}

/// Clocks that follow the simulated time, until a story sets the one or suspends the machine.
#[derive(Debug)]
pub(crate) struct Clocks {
    began: Instant,
    /// By how much time passed that timers did not see, in milliseconds.
    suspended: AtomicI64,
    /// By how much the wall clock was set, in milliseconds.
    set: AtomicI64,
}

impl Clocks {
    pub(crate) fn suspend(&self, time: Duration) {
        self.suspended.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn set(&self, step: SignedDuration) {
        self.set.fetch_add(i64::try_from(step.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        let start: Timestamp = START.parse().unwrap();
        let set = SignedDuration::from_millis(self.set.load(Ordering::SeqCst));
        start + SignedDuration::try_from(self.since_boot()).unwrap() + set
    }

    fn since_boot(&self) -> Duration {
        let suspended = self.suspended.load(Ordering::SeqCst).unsigned_abs();
        self.began.elapsed() + Duration::from_millis(suspended)
    }
}

/// What a backend does, by the first label of its route's id.
#[derive(Debug)]
pub(crate) struct Backends;

impl Connect for Backends {
    type Stream = DuplexStream;

    async fn connect(
        &self,
        route: &Route,
        _: &mut Deadline,
    ) -> Result<(DuplexStream, usize), ConnectError> {
        sleep(CONNECT).await;
        if route.id.starts_with("refuses") {
            return Err(ConnectError::Refused);
        }
        if route.id.starts_with("silent") {
            sleep(Duration::from_secs(5)).await;
            return Err(ConnectError::TimedOut);
        }
        let (ours, mut theirs) = duplex(PIPE);
        let stays = route.id.starts_with("stays");
        tokio::task::spawn_local(async move {
            let (mut read, mut write) = tokio::io::split(&mut theirs);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            if stays {
                // One that does not finish because its client has.
                std::future::pending::<()>().await;
            }
        });
        Ok((ours, 0))
    }
}

/// Does what a worker does between two waits for events.
async fn turn(deadlines: Deadlines) {
    loop {
        sleep(TICK).await;
        deadlines.turn(Instant::now());
    }
}

/// A proxy without sockets.
pub(crate) struct World {
    pub(crate) house: Rc<House<Backends>>,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) clock: Arc<Forward>,
    publisher: Publisher,
    metrics: Arc<metrics::Metrics>,
    folder: tempfile::TempDir,
    sessions: Vec<JoinHandle<()>>,
    /// How many slots there were before anybody came.
    slots: usize,
}

impl World {
    pub(crate) fn new(settings: limits::Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = logging::Settings {
            format: logging::Format::Json,
            access: folder.path().join("log").display().to_string().try_into().unwrap(),
            ..logging::Settings::default()
        };
        let (publisher, table) = table();
        let clocks = Arc::new(Clocks {
            began: Instant::now(),
            suspended: AtomicI64::new(0),
            set: AtomicI64::new(0),
        });
        let clock = Arc::new(Forward::new(Arc::clone(&clocks) as _));
        let ledger = Arc::new(Ledger::new(settings.connections_per_route));
        let metrics = Arc::new(metrics::Metrics::new(&metrics::Settings::default()));
        let policy = Policy { on_remove: OnRemove::Cut, drain: Duration::ZERO };
        tokio::spawn(retire(Arc::clone(&ledger), table.clone(), Arc::clone(&clock) as _, policy));
        let deadlines = Deadlines::new(Instant::now());
        tokio::task::spawn_local(turn(deadlines.clone()));
        let house = Rc::new(House {
            table: table.reader(),
            ledger,
            limits: Arc::new(Limits::new(settings)),
            dialer: Backends,
            clock: Arc::clone(&clock) as _,
            log: AccessLog::open(&log).unwrap(),
            tally: Rc::new(metrics.tally()),
            numbers: Arc::new(AtomicU64::new(0)),
            hello: peek::Settings::default(),
            answer: Answer::Close,
            idle: Rc::new((&idle::Settings::default()).into()),
            terminal: Terminal::new(
                &terminate::Settings::default(),
                terminate::Shared::default(),
                Arc::clone(&clock) as _,
                Spawner::default(),
                deadlines.clone(),
            ),
            newcomers: Arc::new(Newcomers::new(&fresh::Settings::default(), CONNECT)),
            deadlines,
        });
        let slots = free_slots(&house.limits);
        Self { house, clocks, clock, publisher, metrics, folder, sessions: Vec::new(), slots }
    }

    /// A client connects: gives its end of the connection, once the proxy takes it.
    pub(crate) async fn arrive(&mut self, source: IpAddr) -> DuplexStream {
        let slot = self.house.limits.slot().await;
        let (client, ours) = duplex(PIPE);
        let arrival = Arrival {
            client: SocketAddr::new(source, 40_000),
            listener: SocketAddr::from((Ipv4Addr::LOCALHOST, 443)),
            slot,
        };
        self.sessions.push(tokio::task::spawn_local(session(
            ours,
            arrival,
            Rc::clone(&self.house),
        )));
        client
    }

    pub(crate) fn publish(&mut self, routes: &[Arc<Route>]) {
        let origin = Origin { source: "simulation".into(), line: 0, column: 0 };
        let claims =
            routes.iter().map(|route| Claim { route: Arc::clone(route), origin: origin.clone() });
        let (snapshot, conflicts) = Snapshot::build(claims);
        assert!(conflicts.is_empty());
        self.publisher.publish(snapshot);
    }

    /// Waits until every session is over and gives their records. Whatever has happened: each
    /// session left one record and was counted once, and all that anybody held is given back.
    pub(crate) async fn records(mut self) -> Vec<Told> {
        let arrived = self.sessions.len();
        for session in self.sessions.drain(..) {
            session.await.unwrap();
        }
        let House { ledger, limits, log, .. } = &*self.house;
        assert_eq!((ledger.open(), limits.pending()), (0, 0));
        assert!(!ledger.has_deadlines());
        assert_eq!(free_slots(limits), self.slots, "every slot is given back");
        let address =
            |number: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
        let admit = |number| limits.admit(limits.try_slot().unwrap(), address(number));
        let named = |number| {
            let mut permit = admit(number).unwrap();
            permit.show_name();
            permit
        };
        let held: Vec<_> = (0..limits.most()).map(named).collect();
        assert_eq!(admit(limits.most()).unwrap_err().0, Outcome::LimitConnections);
        drop(held);

        log.close(Duration::from_mins(1));
        assert_eq!(log.dropped(), 0);
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        let records: Vec<Told> = text.lines().map(Told::from).collect();
        assert_eq!(records.len(), arrived, "each session leaves one record");
        let mut numbers: Vec<_> = records.iter().map(|told| told.session).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..arrived as u64), "and each another one");
        let totals = self.metrics.totals();
        for (outcome, count) in Outcome::ALL.iter().zip(totals.ended) {
            let told = records.iter().filter(|told| told.outcome == outcome.word()).count();
            assert_eq!(count, told as u64, "{outcome}");
        }
        records
    }
}

fn free_slots(limits: &Limits) -> usize {
    std::iter::from_fn(|| limits.try_slot()).collect::<Vec<_>>().len()
}

/// What a record says, with times as simulated time since the start.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Sessions are numbered as they arrive.
    pub(crate) session: u64,
    pub(crate) outcome: String,
    pub(crate) route: Option<String>,
    pub(crate) client: String,
    pub(crate) began: Duration,
    /// When the name was known.
    pub(crate) named: Option<Duration>,
    pub(crate) ended: Duration,
}

impl From<&str> for Told {
    fn from(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| json[key].as_str().map(ToOwned::to_owned);
        let start: Timestamp = START.parse().unwrap();
        let time: Timestamp = json["time"].as_str().unwrap().parse().unwrap();
        let began = Duration::try_from(time.duration_since(start)).unwrap();
        let after = |key: &str| json[key].as_f64().map(|s| began + Duration::from_secs_f64(s));
        Self {
            session: u64::from_str_radix(json["session"].as_str().unwrap(), 16).unwrap(),
            outcome: word("outcome").unwrap(),
            route: word("route"),
            client: word("client").unwrap(),
            began,
            named: after("hello_s"),
            ended: after("duration_s").unwrap(),
        }
    }
}

/// How often each outcome came, for whoever reads the output of a test.
pub(crate) fn tally(records: &[Told]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for told in records {
        *counts.entry(told.outcome.as_str()).or_insert(0) += 1;
    }
    counts
}

/// A route for the one host that is also its id.
pub(crate) fn route(id: &str, lifetime: Lifetime) -> Arc<Route> {
    let terms = Terms { lifetime, ..Terms::default() };
    let (hosts, backends) = (vec![id.parse().unwrap()], vec!["127.0.0.1:1".parse().unwrap()]);
    Arc::new(Route::new(id.into(), hosts, backends, terms))
}

/// So long after the start.
pub(crate) fn at(time: Duration) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::try_from(time).unwrap()
}

/// A well-behaved client: shows a name, sends a byte now and then and wants it back, and finishes
/// after `life`. It goes as soon as the proxy has closed.
pub(crate) async fn talk(mut client: DuplexStream, host: &str, life: Duration) {
    let bytes = hello(host);
    let over = Instant::now() + life;
    let mut wanted = bytes.len();
    if client.write_all(&bytes).await.is_err() {
        return;
    }
    let mut buffer = [0; 256];
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(over) => break,
            read = client.read(&mut buffer[..wanted.clamp(1, 256)]) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => wanted -= count,
            },
            () = sleep(Duration::from_secs(50)) => {
                if client.write_all(b"x").await.is_err() {
                    return;
                }
                wanted += 1;
            }
        }
    }
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut Vec::new()).await;
}

/// A small ClientHello that asks for `host`.
pub(crate) fn hello(host: &str) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let name = [&[0][..], &long(host.as_bytes())].concat();
    let sni = [&[0, 0][..], &long(&long(&name))].concat();
    let fixed = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let body = [fixed, long(&sni)].concat();
    let message = [&[1, 0][..], &long(&body)].concat();
    [&[0x16, 3, 1][..], &long(&message)].concat()
}

/// Limits that do not matter here: all clients are one source.
pub(crate) fn unlimited() -> limits::Settings {
    limits::Settings {
        connections: 5_000.try_into().unwrap(),
        pending_hellos_per_source: 0,
        ..limits::Settings::default()
    }
}
