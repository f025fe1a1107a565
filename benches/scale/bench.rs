//! What is done to the proxy, and what is told of it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Setup;
use crate::subject::Subject;
use crate::world::{Book, ask, backend, host};

/// How often it is started, and how often a route is changed in each way.
const ROUNDS: usize = 5;
/// What a change may take at most before the measurement is given up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the allocator gets to give memory back.
const SETTLING: Duration = Duration::from_secs(2);
/// Between two connections of the load: about 500 a second.
const PAUSE: Duration = Duration::from_millis(2);
/// After the new answer came: how many more must follow without an old one.
const AFTERWARDS: usize = 200;

pub(crate) fn run(setup: &Setup, routes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let (old, new) = (backend(b'o'), backend(b'n'));
    let mut book = Book::new(routes, old, setup.with_ids);
    fs::write(&path, book.text()).unwrap();
    // Not as fresh as if it had just been written, which makes the proxy read it once more.
    sleep(Duration::from_millis(2_100));
    let size = book.text().len();
    println!("\n{routes} routes in one file of {:.1} MB", megabytes(size));
    let proxy = start(setup, &path, routes);
    sleep(SETTLING);
    let steady = proxy.resident();
    println!("  at rest                     {steady:7.1} MB");
    let beside = path.with_extension("new");
    for (way, in_place) in [("renamed into its place", false), ("written in place", true)] {
        let mut times = Vec::new();
        let mut peak: f64 = 0.0;
        let load = Load::start(proxy.address, routes);
        let before = proxy.cpu();
        for _ in 0..ROUNDS {
            for (target, letter) in [(new, b'n'), (old, b'o')] {
                book.lead_to(target);
                book.write_beside(&beside);
                proxy.forget_peak();
                let change: &dyn Fn() = if in_place {
                    &|| fs::write(&path, book.text()).unwrap()
                } else {
                    &|| fs::rename(&beside, &path).unwrap()
                };
                times.push(change_one(&proxy, &book.host(), letter, change));
                // So that a round does not begin in the work of the one before.
                sleep(SETTLING / 4);
                peak = peak.max(proxy.peak());
            }
        }
        let cpu = proxy.cpu().saturating_sub(before);
        let (made, failed) = load.stop();
        println!("  one route changed, file {way}: in force after {}", told(&mut times));
        println!(
            "    most memory {peak:.1} MB ({:.2} of that at rest); CPU {:.0} ms each, with the load; \
             load: {made} connections, {failed} failed",
            peak / steady,
            cpu.as_secs_f64() * 1e3 / f64::from(u32::try_from(times.len()).unwrap())
        );
    }
    sleep(SETTLING);
    println!("  at rest after all that      {:7.1} MB", proxy.resident());
}

/// Starts it some times; the last one goes on.
fn start(setup: &Setup, path: &Path, routes: u64) -> Subject {
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        let proxy = Subject::start(setup, &[("MSE_PROXY_ROUTES_PATH", path.as_os_str())]);
        ask(proxy.address, &host(routes - 1)).expect("the first connection");
        times.push(began.elapsed());
        let (cpu, peak) = (proxy.cpu(), proxy.peak());
        if times.len() < ROUNDS {
            continue;
        }
        println!("  first connection after      {}", told(&mut times));
        println!("    CPU {} ms, most memory {peak:.1} MB", cpu.as_millis());
        return proxy;
    }
}

/// Changes where one host leads, and waits until clients are taken there.
fn change_one(proxy: &Subject, host: &str, letter: u8, change: &dyn Fn()) -> Duration {
    change();
    // A file that is written in place tells of its change when it is closed.
    let began = Instant::now();
    while ask(proxy.address, host).expect("an answer while reloading") != letter {
        assert!(began.elapsed() < PATIENCE, "the change does not come into force");
        sleep(PAUSE / 2);
    }
    let taken = began.elapsed();
    for _ in 0..AFTERWARDS {
        let answer = ask(proxy.address, host).expect("an answer after reloading");
        assert_eq!(answer, letter, "an old answer after the first new one");
    }
    taken
}

/// Connections to all routes in turn, about 500 a second.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<u64>,
}

impl Load {
    pub(crate) fn start(proxy: SocketAddr, routes: u64) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, failing) = (Arc::clone(&stop), Arc::clone(&failed));
        let thread = std::thread::spawn(move || {
            let mut made = 0;
            while !stopping.load(Ordering::Relaxed) {
                if ask(proxy, &host(made * 7_919 % routes)).is_err() {
                    failing.fetch_add(1, Ordering::Relaxed);
                }
                made += 1;
                sleep(PAUSE);
            }
            made
        });
        Self { stop, failed, thread }
    }

    pub(crate) fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let made = self.thread.join().unwrap();
        (made, self.failed.load(Ordering::Relaxed))
    }
}

pub(crate) fn told(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (least, most) = (times[0], times[times.len() - 1]);
    let median = times[times.len() / 2];
    format!("{:.0} ms ({:.0} to {:.0})", millis(median), millis(least), millis(most))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
