//! The clients: they open, carry and close, count what was done, and give up after a bound.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::crew;
use crate::hello::{Hello, Order, Size};
use crate::measure::{Reading, Spent};
use crate::origin::{CHUNK, swallow};
use crate::tls::{self, Client, Handshake, Task};

/// What an origin answers to a short connection.
const ANSWER: usize = 100;
/// Short connections at once.
const FLIGHTS: usize = 16;
/// The most short connections of one run.
const MOST_CONNECTIONS: usize = 200_000;
/// The most bytes of one download.
const MOST_BYTES: u64 = 1 << 40;
/// How long a client may take for what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a proxy gets to close the last connections of a run before its time is taken.
pub(crate) const SETTLE: Duration = Duration::from_millis(20);

/// What the clients of one run do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Connect, send a hello, read a short answer to its end, close.
    Short(Size),
    /// Connect, shake hands with a proxy that ends TLS, ask for something small, close.
    Handshakes(Handshake),
    /// So many clients that go on with something on one connection each.
    Steady(Toil, usize),
}

/// What a client goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toil {
    /// Download without end.
    Down,
    /// Upload without end.
    Up,
    /// Send a message of so many bytes, wait for it to come back, and again.
    Ping(usize),
    /// Speak HTTP with a proxy that ends TLS.
    Ended(Task),
}

/// Where a load goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// How many hosts it serves.
    pub(crate) hosts: usize,
}

/// What one run yielded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Connections, bytes or round trips.
    pub(crate) units: u64,
    /// Clients that failed.
    pub(crate) errors: u64,
    /// What it cost.
    pub(crate) spent: Spent,
    /// Nanoseconds from connect to the first byte, or of a round trip; sorted.
    pub(crate) latencies: Vec<u64>,
}

/// Runs one load for about `duration`.
pub(crate) fn run(
    work: Work,
    target: Target,
    family: &[u32],
    duration: Duration,
) -> io::Result<Sample> {
    let mut sample = match work {
        Work::Short(_) | Work::Handshakes(_) => {
            let before = Reading::take(family);
            let (mut sample, end) = short(work, target, MOST_CONNECTIONS, duration)?;
            std::thread::sleep(SETTLE);
            sample.spent = before.until(&Reading::take(family));
            sample.spent.wall = sample.spent.wall.saturating_sub(end.elapsed());
            sample
        }
        Work::Steady(toil, clients) => steady((toil, clients), target, family, duration)?,
    };
    sample.latencies.sort_unstable();
    Ok(sample)
}

/// Runs a closure on each thread of the crew, with its number, and gathers what they yield.
fn on_each_thread<T: Send>(work: impl Fn(usize) -> io::Result<T> + Sync) -> io::Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..crew::threads()).map(|number| scope.spawn(move || work(number))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>| {
            thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

/// Opens so many short connections, if they take no longer than `most`.
pub(crate) fn count(
    size: Size,
    target: Target,
    connections: usize,
    most: Duration,
) -> io::Result<Sample> {
    let (mut sample, _) = short(Work::Short(size), target, connections, most)?;
    // What was not reached in time is an error as well.
    let missing = (connections as u64).saturating_sub(sample.units + sample.errors);
    sample.errors += missing;
    Ok(sample)
}

/// Short connections until so many are done or the time is over, and when that was.
fn short(
    work: Work,
    target: Target,
    connections: usize,
    duration: Duration,
) -> io::Result<(Sample, Instant)> {
    let end = Instant::now() + duration;
    let parts = on_each_thread(|number| {
        crew::run(async {
            let tally = Rc::new(RefCell::new(Sample::default()));
            let mut clients = JoinSet::new();
            for flight in (number..FLIGHTS).step_by(crew::threads()) {
                let turns = (flight..connections).step_by(FLIGHTS);
                let caller = match work {
                    Work::Handshakes(kind) => {
                        Caller::Ended(Client::new(kind, target.address, flight)?)
                    }
                    Work::Short(size) => Caller::sealed(size),
                    Work::Steady(..) => continue,
                };
                clients.spawn_local(fly(caller, target, turns, end, Rc::clone(&tally)));
            }
            let left = end.saturating_duration_since(Instant::now()) + PATIENCE;
            let whole = tokio::time::timeout(left, clients.join_all()).await;
            let mut tally = tally.take();
            // Connections that hang are errors, never a reason to wait on.
            tally.errors += u64::from(whole.is_err());
            Ok(tally)
        })?
    })?;
    let mut sum = Sample::default();
    for part in parts {
        sum.units += part.units;
        sum.errors += part.errors;
        sum.latencies.extend(part.latencies);
    }
    Ok((sum, Instant::now()))
}

/// Who makes short connections.
enum Caller {
    Sealed(Hello),
    Ended(Client),
}

impl Caller {
    fn sealed(size: Size) -> Self {
        Self::Sealed(Hello::new(size, Order::Answer(ANSWER as u64)))
    }

    async fn visit(&mut self, target: Target, turn: usize) -> io::Result<Duration> {
        match self {
            Self::Sealed(hello) => {
                hello.rename(turn % target.hosts);
                visit(target.address, hello).await
            }
            Self::Ended(client) => client.visit(target.address).await,
        }
    }
}

/// One short connection after the other until the end.
async fn fly(
    mut caller: Caller,
    target: Target,
    turns: impl Iterator<Item = usize>,
    end: Instant,
    tally: Rc<RefCell<Sample>>,
) {
    for turn in turns {
        if Instant::now() >= end {
            break;
        }
        let outcome = caller.visit(target, turn).await;
        let mut tally = tally.borrow_mut();
        match outcome {
            Ok(latency) => {
                tally.units += 1;
                tally.latencies.push(nanoseconds(latency));
            }
            Err(_) => tally.errors += 1,
        }
    }
}

/// One short connection: the origin closes first, and so keeps no port of ours busy.
async fn visit(address: SocketAddr, hello: &Hello) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = open(address, hello).await?;
    let mut answer = [0; 2 * ANSWER];
    let mut have = stream.read(&mut answer).await?;
    let latency = started.elapsed();
    while have > 0 {
        let space = answer.get_mut(have..).unwrap_or_default();
        match stream.read(space).await? {
            0 => break,
            count => have += count,
        }
    }
    if have == ANSWER { Ok(latency) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Connects and sends a hello.
pub(crate) async fn open(address: SocketAddr, hello: &Hello) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (first, second) = hello.segments();
    stream.write_all(first).await?;
    if !second.is_empty() {
        stream.write_all(second).await?;
    }
    Ok(stream)
}

/// What the clients of a steady load share.
#[derive(Debug, Default)]
pub(crate) struct Field {
    pub(crate) ready: AtomicUsize,
    pub(crate) is_measured: AtomicBool,
    pub(crate) units: AtomicU64,
    errors: AtomicU64,
}

/// Opens all connections, lets them work, and measures the middle.
fn steady(
    (toil, clients): (Toil, usize),
    target: Target,
    family: &[u32],
    duration: Duration,
) -> io::Result<Sample> {
    let field = Arc::new(Field::default());
    let (stop, stopping) = watch::channel(false);
    let seen = Arc::clone(&field);
    let conduct = move || {
        let field = seen;
        let give_up = Instant::now() + PATIENCE;
        while field.ready.load(Ordering::Relaxed) < clients && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        let missing = clients.saturating_sub(field.ready.load(Ordering::Relaxed));
        // Buffers, windows and pools find their size.
        std::thread::sleep(duration / 4);
        let before = Reading::take(family);
        let units = field.units.load(Ordering::Relaxed);
        field.is_measured.store(true, Ordering::Relaxed);
        std::thread::sleep(duration);
        let units = field.units.load(Ordering::Relaxed) - units;
        let after = Reading::take(family);
        field.is_measured.store(false, Ordering::Relaxed);
        let errors = field.errors.load(Ordering::Relaxed) + missing as u64;
        stop.send_replace(true);
        Sample { units, errors, spent: before.until(&after), latencies: Vec::new() }
    };
    let staff = |number: usize| {
        crew::run(async {
            let latencies = Rc::new(RefCell::new(Vec::new()));
            let mut set = JoinSet::new();
            for client in (number..clients).step_by(crew::threads()) {
                let (field, latencies) = (Arc::clone(&field), Rc::clone(&latencies));
                set.spawn_local(async move {
                    if labour(toil, client, target, &field, &latencies).await.is_err() {
                        field.errors.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // Fails only when the conductor is gone, and then there is nothing to wait for.
            let _ = stopping.clone().wait_for(|stop| *stop).await;
            drop(set);
            latencies.take()
        })
    };
    std::thread::scope(|scope| {
        let conductor = scope.spawn(conduct);
        let latencies = on_each_thread(staff)?.concat();
        let sample = conductor.join().map_err(|_| io::Error::other("the conductor panicked"))?;
        Ok(Sample { latencies, ..sample })
    })
}

async fn labour(
    toil: Toil,
    client: usize,
    target: Target,
    field: &Field,
    latencies: &RefCell<Vec<u64>>,
) -> io::Result<()> {
    let order = match toil {
        Toil::Down => Order::Send(MOST_BYTES),
        Toil::Up => Order::Swallow,
        Toil::Ping(bytes) => Order::Echo(bytes as u64),
        Toil::Ended(task) => return tls::labour(task, target.address, field, latencies).await,
    };
    let mut hello = Hello::new(Size::Small, order);
    hello.rename(client % target.hosts);
    let mut stream = open(target.address, &hello).await?;
    stream.read_exact(&mut [0]).await?;
    field.ready.fetch_add(1, Ordering::Relaxed);
    match toil {
        Toil::Down => {
            let mut space = vec![0; CHUNK];
            loop {
                match swallow(&stream, &mut space).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => field.units.fetch_add(count as u64, Ordering::Relaxed),
                };
            }
        }
        Toil::Up => {
            let chunk = vec![0; CHUNK];
            loop {
                let count = stream.write(&chunk).await?;
                field.units.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        Toil::Ended(_) => Ok(()),
        Toil::Ping(bytes) => {
            let mut message = vec![0; bytes];
            loop {
                let started = Instant::now();
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                if field.is_measured.load(Ordering::Relaxed) {
                    latencies.borrow_mut().push(nanoseconds(started.elapsed()));
                }
                field.units.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
