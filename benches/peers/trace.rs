//! What one short connection takes in system calls and in instructions of the proxy itself:
//! figures that the machine's mood hardly touches. A proxy runs under strace or callgrind with few
//! connections and with many; the difference is theirs, without start and stop.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::hello::Size;
use crate::load::{self, Target};
use crate::origin::Origin;
use crate::process::Running;
use crate::programs::{Contestant, Duty};

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracer {
    /// System calls, by strace.
    Strace,
    /// Instructions in user mode, by valgrind's callgrind.
    Callgrind,
}

/// Connections of the two runs.
const FEW: usize = 160;
const MANY: usize = 1760;
/// How long a proxy may take for them under a tracer, and the tracer for its sum.
const PATIENCE: Duration = Duration::from_mins(1);
const SUM: &str = "sum";

impl Tracer {
    /// Whether it is installed.
    pub(crate) fn is_here(self) -> bool {
        Command::new(self.program()).arg("--version").output().is_ok()
    }

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Strace => "strace",
            Self::Callgrind => "valgrind",
        }
    }

    fn words(self) -> Vec<&'static str> {
        match self {
            // With -D the tracer stands aside, and the proxy's process is our own child.
            Self::Strace => vec!["strace", "-D", "-f", "-c", "-o", SUM],
            Self::Callgrind => vec![
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                "--trace-children=yes",
                "--log-file=sum.%p",
            ],
        }
    }

    /// The sum in what it wrote, once it has written it.
    fn sum(self, folder: &std::path::Path) -> Option<u64> {
        match self {
            Self::Strace => {
                let text = std::fs::read_to_string(folder.join(SUM)).ok()?;
                let total = text.lines().find(|line| line.ends_with(" total"))?;
                total.split_whitespace().nth(3)?.parse().ok()
            }
            Self::Callgrind => {
                let files = std::fs::read_dir(folder).ok()?.flatten();
                let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with(SUM));
                let collected = |file: std::fs::DirEntry| -> Option<u64> {
                    let text = std::fs::read_to_string(file.path()).ok()?;
                    text.split_once("Collected :")?.1.lines().next()?.trim().parse().ok()
                };
                let sums: Option<Vec<u64>> = logs.map(collected).collect();
                sums.filter(|sums| !sums.is_empty()).map(|sums| sums.iter().sum())
            }
        }
    }
}

/// System calls or instructions for one short connection with a small hello, and how many
/// connections failed.
pub(crate) fn measure(
    tracer: Tracer,
    contestant: &Contestant,
    origin: &Origin,
) -> io::Result<(f64, u64)> {
    let mut failed = 0;
    let mut total = |count| -> io::Result<u64> {
        let listen = crate::ports::free()?;
        let duty = Duty::of(listen, origin.address());
        let mut proxy = Running::start_under(&tracer.words(), contestant, &duty)?;
        let target = Target { address: listen, hosts: 1 };
        failed += load::count(Size::Small, target, count, PATIENCE)?.errors;
        origin.wait_until_idle();
        proxy.stop()?;
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if let Some(sum) = tracer.sum(proxy.folder()) {
                return Ok(sum);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("{} tells no sum", tracer.program())))
    };
    let (few, many) = (total(FEW)?, total(MANY)?);
    Ok((many.saturating_sub(few) as f64 / (MANY - FEW) as f64, failed))
}
