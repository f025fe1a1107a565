//! What the kernel says of this process, under the names that Prometheus has for it.
//!
//! Some lines over `/proc/self` in the place of two more crates. What cannot be read is left out.
//! What has to be open for that is opened once: a scrape is wanted most when no descriptor is left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use prometheus::proto::MetricFamily;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::metrics::family::{counter, gauge};
use crate::telemetry::metrics::{amount, size};

/// `/proc` counts in hundredths of a second on every Linux that Rust runs on (`USER_HZ`).
const TICKS: f64 = 100.0;
/// More than `/proc/self/status` has: 1.5 KiB, and a line that grows with the number of cores.
const STATUS_SIZE: usize = 16 * 1024;

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    /// Tells the present whenever it is read from its beginning.
    status: Option<File>,
    started: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { status: File::open("/proc/self/status").ok(), started: started_at() }
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let status = self.status();
        let kib = |key| status_number(&status, key).map(|kib| amount(kib) * 1024.0);
        let told = [
            (
                "process_resident_memory_bytes",
                "Memory of this process that is resident.",
                kib("VmRSS:"),
            ),
            ("process_virtual_memory_bytes", "Address space of this process.", kib("VmSize:")),
            (
                "process_threads",
                "Threads of this process.",
                status_number(&status, "Threads:").map(amount),
            ),
            ("process_open_fds", "File descriptors that are open.", open_descriptors().map(size)),
            (
                "process_max_fds",
                "File descriptors that may be open.",
                getrlimit(Resource::Nofile).current.map(amount),
            ),
            ("process_start_time_seconds", "When this process started.", self.started),
        ];
        let gauges = told
            .into_iter()
            .filter_map(|(name, help, value)| Some(gauge(name, help, [(vec![], value?)])));
        let cpu = [(vec![], cpu_seconds())];
        let help = "Processor time that this process has used.";
        gauges.chain([counter("process_cpu_seconds_total", help, cpu)]).collect()
    }

    fn status(&self) -> String {
        let mut bytes = vec![0; STATUS_SIZE];
        let read = self.status.as_ref().and_then(|status| status.read_at(&mut bytes, 0).ok());
        bytes.truncate(read.unwrap_or(0));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn status_number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "seconds with a fraction")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn open_descriptors() -> Option<usize> {
    // Linux 6.2 tells the number as the size of the directory; counting takes 50 ms for 200,000.
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return usize::try_from(told).ok();
    }
    // Reading the directory takes one itself.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// When this process started, in seconds of Unix time.
fn started_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may contain anything, and ends at the last parenthesis; what follows is field 3.
    let fields = stat.rsplit_once(')')?.1;
    let after_boot: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + amount(after_boot) / TICKS)
}
