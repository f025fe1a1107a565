//! What is measured, by name, and which settings of the peers it concerns.

use std::time::Duration;

use crate::held::Idleness;
use crate::hello::Size;
use crate::load::{Toil, Work};
use crate::programs::{Contestant, Program, Splice};
use crate::tls::{Handshake, Task};
use crate::trace::Tracer;

/// One thing that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// As it shows in tables and is chosen with `--only`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// In which way it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Processor time for work, with as many hosts.
    Load(Work, usize),
    /// Memory for each connection.
    Hold(Idleness),
    /// System calls or instructions for each short connection.
    Trace(Tracer),
    /// Start and change.
    Reload,
}

/// As many hosts as a large platform has.
pub(crate) const MANY: usize = 100_000;

const SMALL: Work = Work::Short(Size::Small);
const POST_QUANTUM: Work = Work::Short(Size::PostQuantum);

/// All jobs, in the order in which they run.
pub(crate) const JOBS: [Job; 23] = [
    load("short-small-1", SMALL, 1),
    load("short-small-100k", SMALL, MANY),
    load("short-pq-1", POST_QUANTUM, 1),
    load("short-pq-100k", POST_QUANTUM, MANY),
    load("down-1", Work::Steady(Toil::Down, 1), 1),
    load("down-64", Work::Steady(Toil::Down, 64), 1),
    load("up-1", Work::Steady(Toil::Up, 1), 1),
    load("up-64", Work::Steady(Toil::Up, 64), 1),
    load("ping-64b-1", Work::Steady(Toil::Ping(64), 1), 1),
    load("ping-64b-256", Work::Steady(Toil::Ping(64), 256), 1),
    load("ping-16k-1", Work::Steady(Toil::Ping(16 << 10), 1), 1),
    load("ping-16k-256", Work::Steady(Toil::Ping(16 << 10), 256), 1),
    load("tls-full", Work::Handshakes(Handshake::Full), 1),
    load("tls-resumed", Work::Handshakes(Handshake::Resumed), 1),
    load("tls-h1", Work::Steady(Toil::Ended(Task::Http1), 64), 1),
    load("tls-h2", Work::Steady(Toil::Ended(Task::Http2), 4), 1),
    load("tls-down-64", Work::Steady(Toil::Ended(Task::Down), 64), 1),
    Job { name: "idle-relayed", kind: Kind::Hold(Idleness::Relayed) },
    Job { name: "idle-stalled", kind: Kind::Hold(Idleness::Stalled) },
    Job { name: "idle-blocked", kind: Kind::Hold(Idleness::Blocked) },
    Job { name: "syscalls", kind: Kind::Trace(Tracer::Strace) },
    Job { name: "instructions", kind: Kind::Trace(Tracer::Callgrind) },
    Job { name: "reload-100k", kind: Kind::Reload },
];

const fn load(name: &'static str, work: Work, hosts: usize) -> Job {
    Job { name, kind: Kind::Load(work, hosts) }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of one run.
    pub(crate) duration: Duration,
}

impl Effort {
    /// Rounds for what is told by a fresh process, takes seconds, and varies little.
    pub(crate) fn slow_rounds(self) -> usize {
        self.rounds.div_ceil(2).min(3)
    }
}

impl Job {
    /// Whether a setting makes a difference here: pipes are for bulk, larger buffers for bulk,
    /// long messages, and the worse for memory.
    pub(crate) fn concerns(&self, contestant: &Contestant) -> bool {
        let (is_plain, is_largest) = match contestant.program {
            Program::MseProxy | Program::Envoy => (true, true),
            Program::HaProxy(splice) => (splice == Splice::Off, splice == Splice::Forced(1024)),
            Program::Nginx(kib) => (kib == 16, kib == 64),
        };
        match self.kind {
            Kind::Load(Work::Steady(Toil::Down | Toil::Up, _), _) => true,
            Kind::Load(Work::Steady(Toil::Ping(_), _), _) | Kind::Hold(Idleness::Blocked) => {
                is_plain || is_largest
            }
            // Under valgrind Envoy takes minutes.
            Kind::Trace(Tracer::Callgrind) => is_plain && contestant.program != Program::Envoy,
            Kind::Load(
                Work::Short(_) | Work::Handshakes(_) | Work::Steady(Toil::Ended(_), _),
                _,
            )
            | Kind::Hold(_)
            | Kind::Trace(Tracer::Strace)
            | Kind::Reload => is_plain,
        }
    }
}

impl Work {
    /// What one unit of the work is called, and how many raw units it is.
    pub(crate) fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Short(_) | Self::Handshakes(_) => ("connection", 1.0),
            Self::Steady(Toil::Down | Toil::Up | Toil::Ended(Task::Down), _) => ("MB", 1e6),
            Self::Steady(Toil::Ping(_), _) => ("round trip", 1.0),
            Self::Steady(Toil::Ended(Task::Http1 | Task::Http2), _) => ("request", 1.0),
        }
    }

    /// Whether the proxies end TLS for it.
    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Self::Handshakes(_) | Self::Steady(Toil::Ended(_), _))
    }
}
