//! The benchmark against other proxies: the same work through mse-proxy, HAProxy, nginx and
//! Envoy, in interleaved rounds on loopback.
//!
//! ```text
//! cargo bench --bench peers                                  # everything, in about 10 minutes
//! cargo bench --bench peers -- --only short --rounds 9       # jobs whose names begin so
//! cargo bench --bench peers -- --mse-proxy old=PATH --mse-proxy new=PATH --proxy none
//! ```
//!
//! The leading figure is the proxy's processor time (user and system, of all its processes) for
//! one unit of work: unlike throughput it does not depend on what else the machine has to do, nor
//! on how fast the load is made. Clients and origin are our own, cheap, without cryptography.

mod crew;
mod hello;
mod load;
mod measure;
mod origin;
mod plan;
mod ports;
mod process;
mod programs;
mod report;
mod roster;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::load::Target;
use crate::origin::Origin;
use crate::plan::{Effort, JOBS, Job};
use crate::process::Running;
use crate::programs::{Contestant, Duty};
use crate::report::Row;

/// Compares mse-proxy with other proxies on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; in each, every proxy does the work once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one run in milliseconds.
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Only jobs whose names begin so; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Only these peers (names as in the table); may be repeated; `none` for no peer.
    #[arg(long)]
    proxy: Vec<String>,
    /// A binary of mse-proxy, as PATH or LABEL=PATH; may be repeated. Without it, this tree's
    /// release build.
    #[arg(long)]
    mse_proxy: Vec<String>,
    /// Few and short runs: whether it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Writes the figures here as well.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> io::Result<()> {
    raise_descriptors()?;
    let contestants = contestants(arguments)?;
    let effort = if arguments.quick {
        Effort { rounds: 1, duration: Duration::from_millis(100) }
    } else {
        Effort { rounds: arguments.rounds, duration: Duration::from_millis(arguments.millis) }
    };
    let mut told = Vec::new();
    for job in JOBS.iter().filter(|job| is_wanted(&arguments.only, job.name)) {
        told.push(run_job(job, &contestants, effort)?);
        if let Some(file) = &arguments.json {
            std::fs::write(file, format!("{:#}\n", json!({ "jobs": told })))?;
        }
    }
    Ok(())
}

fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|begin| name.starts_with(begin.as_str()))
}

fn contestants(arguments: &Arguments) -> io::Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for words in &arguments.mse_proxy {
        let (label, path) = words.split_once('=').unwrap_or(("mse-proxy", words));
        contestants.push(roster::ours(label, std::path::Path::new(path)));
    }
    if contestants.is_empty() {
        contestants.push(roster::build_ours()?);
    }
    let wants_none = arguments.proxy.iter().any(|name| name == "none");
    if !wants_none {
        let (mut peers, missing) = roster::peers();
        if !missing.is_empty() {
            roster::install(&missing);
            peers = roster::peers().0;
        }
        peers.retain(|peer| arguments.proxy.is_empty() || arguments.proxy.contains(&peer.name));
        contestants.extend(peers);
    }
    Ok(contestants)
}

/// Two for each connection on either side of a proxy, and the proxies inherit the limit.
fn raise_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn run_job(job: &Job, contestants: &[Contestant], effort: Effort) -> io::Result<Value> {
    let origin = Origin::start(crew::threads())?;
    let (mut proxies, mut rows) = (Vec::new(), Vec::new());
    for contestant in contestants.iter().filter(|one| job.concerns(one)) {
        let listen = ports::free()?;
        let duty = Duty { listen, origin: origin.address(), hosts: job.hosts, moved: None };
        let running = Running::start(contestant, &duty)?;
        let target = Target { address: listen, hosts: job.hosts };
        let family = running.family();
        load::run(job.work, target, &family, effort.duration / 4)?;
        origin.wait_until_idle();
        proxies.push((running, target, family));
        let is_ours = contestant.program == programs::Program::MseProxy;
        rows.push(Row { name: contestant.name.clone(), is_ours, samples: Vec::new() });
    }
    for round in 0..effort.rounds {
        // Each round begins with another proxy, so that none always follows the same one.
        let count = rows.len();
        for turn in 0..count {
            let index = (turn + round) % count;
            let (Some((_, target, family)), Some(row)) = (proxies.get(index), rows.get_mut(index))
            else {
                continue;
            };
            row.samples.push(load::run(job.work, *target, family, effort.duration)?);
            origin.wait_until_idle();
        }
    }
    Ok(report::tell(job, &rows))
}
