//! The work that is measured, by name.

use std::time::Duration;

use crate::hello::Size;
use crate::load::Work;
use crate::programs::{Contestant, Program, Splice};

/// One kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// As it shows in tables and is chosen with `--only`.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// How many hosts the proxy serves.
    pub(crate) hosts: usize,
}

/// As many hosts as a large platform has.
pub(crate) const MANY: usize = 100_000;

/// All jobs, in the order in which they run.
pub(crate) const JOBS: [Job; 12] = [
    job("short-small-1", Work::Short { size: Size::Small }, 1),
    job("short-small-100k", Work::Short { size: Size::Small }, MANY),
    job("short-pq-1", Work::Short { size: Size::PostQuantum }, 1),
    job("short-pq-100k", Work::Short { size: Size::PostQuantum }, MANY),
    job("down-1", Work::Down { clients: 1 }, 1),
    job("down-64", Work::Down { clients: 64 }, 1),
    job("up-1", Work::Up { clients: 1 }, 1),
    job("up-64", Work::Up { clients: 64 }, 1),
    job("ping-64b-1", Work::Ping { bytes: 64, clients: 1 }, 1),
    job("ping-64b-256", Work::Ping { bytes: 64, clients: 256 }, 1),
    job("ping-16k-1", Work::Ping { bytes: 16 << 10, clients: 1 }, 1),
    job("ping-16k-256", Work::Ping { bytes: 16 << 10, clients: 256 }, 1),
];

const fn job(name: &'static str, work: Work, hosts: usize) -> Job {
    Job { name, work, hosts }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of one run.
    pub(crate) duration: Duration,
}

impl Job {
    /// Whether a setting makes a difference here: tuned pipes and buffers are for bulk.
    pub(crate) fn concerns(&self, contestant: &Contestant) -> bool {
        match (self.work, contestant.program) {
            (Work::Down { .. } | Work::Up { .. }, _) | (_, Program::MseProxy | Program::Envoy) => true,
            (_, Program::HaProxy(splice)) => {
                matches!(splice, Splice::Off | Splice::Forced(1024))
            }
            (Work::Ping { .. }, Program::Nginx(_)) => true,
            (Work::Short { .. }, Program::Nginx(kib)) => kib == 16,
        }
    }

    /// What one unit of the work is called, and how many raw units it is.
    pub(crate) fn unit(&self) -> (&'static str, f64) {
        match self.work {
            Work::Short { .. } => ("connection", 1.0),
            Work::Down { .. } | Work::Up { .. } => ("MB", 1e6),
            Work::Ping { .. } => ("round trip", 1.0),
        }
    }
}
