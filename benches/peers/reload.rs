//! A start with 100,000 hosts, and a change of one of them while others connect all the time.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::hello::{Hello, Order, Size};
use crate::measure::memory;
use crate::origin::Origin;
use crate::plan::MANY;
use crate::process::{Running, ask};
use crate::programs::{Contestant, Duty};

/// The host that moves: in the middle of the file.
const MOVING: usize = MANY / 2;
/// The byte by which the second origin is known.
pub(crate) const ELSEWHERE: u8 = 1;
/// Connections that live through the change, as real ones would.
const HELD: usize = 10;
/// Between two connections of the load: 500 a second.
const PACE: Duration = Duration::from_millis(2);
/// How many clients share that load, so that a slow answer does not slow it down.
const CLIENTS: u32 = 8;
/// Load before the change and after it.
const CALM: Duration = Duration::from_millis(700);
/// How long a change may take: Envoy takes 10 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(10);

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// From the start of the process to the first answer.
    pub(crate) start: Duration,
    /// From the file event (or the signal) to the first answer from the new place.
    pub(crate) effective: Duration,
    /// Connections of the load, and those that failed.
    pub(crate) connections: u64,
    pub(crate) failed: u64,
    /// Answers from the old place after the first from the new one.
    pub(crate) stale: u64,
    /// User memory in bytes: before, at most during the change, after it.
    pub(crate) steady: u64,
    pub(crate) peak: u64,
    pub(crate) after: u64,
}

/// What the threads of one change share.
#[derive(Debug, Default)]
struct Scene {
    is_over: AtomicBool,
    connections: AtomicU64,
    failed: AtomicU64,
    peak: AtomicU64,
}

/// Starts a proxy, changes one host under load, and watches.
pub(crate) fn measure(
    contestant: &Contestant,
    origin: &Origin,
    elsewhere: &Origin,
) -> io::Result<Change> {
    let listen = crate::ports::free()?;
    let (elsewhere, hosts) = (elsewhere.address(), MANY);
    let duty = Duty { elsewhere, hosts, ..Duty::of(listen, origin.address()) };
    let proxy = Running::start(contestant, &duty)?;
    let held: Vec<_> = (0..HELD).map(|host| hold(&duty, host)).collect::<io::Result<_>>()?;
    let scene = Scene::default();
    let watched = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let scene = &scene;
            scope.spawn(move || press(scene, &duty, client));
        }
        scope.spawn(|| watch(&scene, &proxy));
        let watched = change(&scene, &proxy, &duty);
        scene.is_over.store(true, Ordering::Relaxed);
        watched
    })?;
    drop(held);
    Ok(Change {
        start: proxy.took,
        connections: scene.connections.into_inner(),
        failed: scene.failed.into_inner(),
        peak: scene.peak.into_inner(),
        ..watched
    })
}

fn change(scene: &Scene, proxy: &Running, duty: &Duty) -> io::Result<Change> {
    std::thread::sleep(CALM);
    let steady = memory(&proxy.family());
    scene.peak.store(steady, Ordering::Relaxed);
    proxy.reload(&Duty { moved: Some(MOVING), ..*duty })?;
    let began = Instant::now();
    while ask(duty.listen, MOVING).ok() != Some(ELSEWHERE) {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other("a changed route never came into force"));
        }
    }
    let effective = began.elapsed();
    let mut stale = 0;
    let calm = Instant::now();
    while calm.elapsed() < CALM {
        stale += u64::from(ask(duty.listen, MOVING).ok() != Some(ELSEWHERE));
        std::thread::sleep(PACE);
    }
    let after = memory(&proxy.family());
    let none = Duration::ZERO;
    Ok(Change { start: none, effective, connections: 0, failed: 0, stale, steady, peak: 0, after })
}

/// One client's share of the load.
fn press(scene: &Scene, duty: &Duty, client: u32) {
    let began = Instant::now();
    for number in 0.. {
        let due = PACE * (number * CLIENTS + client);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        if scene.is_over.load(Ordering::Relaxed) {
            break;
        }
        let host = (number * CLIENTS + client) as usize % MANY;
        if host == MOVING {
            continue;
        }
        scene.connections.fetch_add(1, Ordering::Relaxed);
        if ask(duty.listen, host).is_err() {
            scene.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Follows the memory of all processes, those that a reload starts too.
fn watch(scene: &Scene, proxy: &Running) {
    while !scene.is_over.load(Ordering::Relaxed) {
        scene.peak.fetch_max(memory(&proxy.family()), Ordering::Relaxed);
        std::thread::sleep(LOOK);
    }
}

fn hold(duty: &Duty, host: usize) -> io::Result<TcpStream> {
    let mut hello = Hello::new(Size::Small, Order::Swallow);
    hello.rename(host);
    let mut stream = TcpStream::connect(duty.listen)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    io::Write::write_all(&mut stream, hello.segments().0)?;
    io::Read::read_exact(&mut stream, &mut [0])?;
    Ok(stream)
}
