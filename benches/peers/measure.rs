//! What work costs: processor time and memory of a proxy with all its processes, and what the
//! rest of the machine did meanwhile.
//!
//! Processor time is user and system time as the scheduler counts it, from each thread's
//! `schedstat` in nanoseconds; `stat` shows the same sum in steps of 10 ms, too coarse for runs
//! below a second. A thread that ends in the middle of a run takes its last share along. The kernel's
//! work for a packet counts to whoever sent it over loopback.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Length of a tick in `/proc/stat` (`USER_HZ` is 100 on every Linux that Rust's std supports).
const TICK: Duration = Duration::from_millis(10);

/// One look at a proxy and the machine.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Instant,
    threads: HashMap<(u32, u32), u64>,
    own: Duration,
    gone: u64,
    machine: Machine,
}

/// What happened between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// By the clock.
    pub(crate) wall: Duration,
    /// Processor time of the proxy.
    pub(crate) cpu: Duration,
    /// Processor time of strangers, as a share of the machine.
    pub(crate) others: f64,
    /// Time that the hypervisor gave to others, as a share of the machine.
    pub(crate) steal: f64,
}

/// Since boot.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    busy: Duration,
    steal: Duration,
}

impl Reading {
    /// Looks at the processes of a proxy.
    pub(crate) fn take(family: &[u32]) -> Self {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        let own = Duration::try_from(own).unwrap_or_default();
        let machine = Machine::read();
        let threads = family.iter().copied().flat_map(threads).collect();
        Self { at: Instant::now(), threads, own, gone: GONE.load(Ordering::Relaxed), machine }
    }

    /// What was spent from this look to a later one.
    pub(crate) fn until(&self, later: &Self) -> Spent {
        let spent = |(thread, now): (&(u32, u32), &u64)| {
            now.saturating_sub(self.threads.get(thread).copied().unwrap_or(0))
        };
        let cpu = Duration::from_nanos(later.threads.iter().map(spent).sum());
        let wall = later.at.duration_since(self.at);
        let gone = Duration::from_nanos(later.gone.saturating_sub(self.gone));
        let own = later.own.saturating_sub(self.own) + gone;
        let busy = later.machine.busy.saturating_sub(self.machine.busy);
        let steal = later.machine.steal.saturating_sub(self.machine.steal);
        let whole = wall.as_secs_f64() * crate::crew::cores() as f64;
        let share = |part: Duration| if whole > 0.0 { part.as_secs_f64() / whole } else { 0.0 };
        Spent {
            wall,
            cpu,
            others: share(busy.saturating_sub(cpu).saturating_sub(own)),
            steal: share(steal),
        }
    }
}

/// Processor time, in nanoseconds, of proxies that lived and ended between two looks: no
/// stranger's either.
static GONE: AtomicU64 = AtomicU64::new(0);

/// Keeps in mind what a proxy has used that is about to end.
pub(crate) fn remember(family: &[u32]) {
    let spent = family.iter().copied().flat_map(threads).map(|(_, spent)| spent).sum();
    GONE.fetch_add(spent, Ordering::Relaxed);
}

impl Machine {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u32> =
            line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
        let sum = |columns: &[usize]| {
            TICK * columns.iter().filter_map(|&column| ticks.get(column)).sum::<u32>()
        };
        // user nice system idle iowait irq softirq steal
        Self { busy: sum(&[0, 1, 2, 5, 6]), steal: sum(&[7]) }
    }
}

/// The load average of the last minute.
pub(crate) fn load_average() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// A process and all that descend from it.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        numbers("/proc").filter_map(|id| Some((id, parent(id)?))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&elder) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == elder).map(|(id, _)| id));
        next += 1;
    }
    family
}

/// User memory of these processes in bytes; what they share counts once (proportional set size).
pub(crate) fn memory(processes: &[u32]) -> u64 {
    let one = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes.iter().filter_map(one).sum::<u64>() << 10
}

fn parent(id: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may hold anything, closing brackets too.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn threads(process: u32) -> Vec<((u32, u32), u64)> {
    let one = |thread: u32| {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).ok()?;
        Some(((process, thread), text.split_whitespace().next()?.parse().ok()?))
    };
    numbers(&format!("/proc/{process}/task")).filter_map(one).collect()
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
