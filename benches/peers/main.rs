//! The benchmark against other proxies: the same work through mse-proxy, HAProxy, nginx and
//! Envoy, in interleaved rounds on loopback.
//!
//! ```text
//! cargo bench --bench peers                                  # everything, in about 12 minutes
//! cargo bench --bench peers -- --only short --rounds 9       # jobs whose names begin so
//! cargo bench --bench peers -- --mse-proxy old=PATH --mse-proxy new=PATH --proxy none
//! cargo bench --bench peers -- --only instructions           # builds a proxy for valgrind first
//! ```
//!
//! The leading figure is the proxy's processor time (user and system, of all its processes) for
//! one unit of work: unlike throughput it depends little on what else the machine has to do, and on
//! how fast the load is made. Clients and origin are our own, cheap, without cryptography but where
//! the proxies end TLS (`--only tls`).

// Figures, not money: what f64 cannot hold of them does not matter.
#![allow(clippy::cast_precision_loss)]

mod crew;
mod ending;
mod held;
mod hello;
mod load;
mod measure;
mod origin;
mod plan;
mod ports;
mod priority;
mod process;
mod programs;
mod reload;
mod report;
mod roster;
mod rounds;
mod stats;
mod tls;
mod trace;
mod web;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::{Effort, JOBS};
use crate::priority::Priority;
use crate::programs::Contestant;
use crate::report::milliseconds;

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
    std::thread::spawn(|| crew::run(mind_signals()));
    let jobs = JOBS.map(|job| job.name);
    let begins = |word: &str| jobs.iter().any(|name| name.starts_with(word));
    check_words("--only", &arguments.only, begins, &jobs)?;
    raise_descriptors()?;
    let contestants = contestants(arguments)?;
    let effort = if arguments.quick {
        Effort { rounds: 1, duration: Duration::from_millis(100) }
    } else {
        Effort { rounds: arguments.rounds, duration: Duration::from_millis(arguments.millis) }
    };
    let _priority = Priority::take();
    let setting = tell_setting(&contestants, effort);
    let mut told = Vec::new();
    for job in JOBS.iter().filter(|job| is_wanted(&arguments.only, job.name)) {
        told.push(rounds::run(job, &contestants, effort)?);
        if let Some(file) = &arguments.json {
            std::fs::write(file, format!("{:#}\n", json!({ "setting": setting, "jobs": told })))?;
        }
    }
    Ok(())
}

/// Ends the benchmark in order, so that no proxy is left behind.
async fn mind_signals() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    rounds::IS_OVER.store(true, Ordering::Relaxed);
    Ok(())
}

/// Needs a build of its own, so it runs only when it is asked for, alone.
const INSTRUCTIONS: &str = "instructions";

fn is_wanted(only: &[String], name: &str) -> bool {
    (only.is_empty() && name != INSTRUCTIONS)
        || only.iter().any(|begin| name.starts_with(begin.as_str()))
}

fn contestants(arguments: &Arguments) -> io::Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for words in &arguments.mse_proxy {
        let (label, path) = words.split_once('=').unwrap_or(("mse-proxy", words));
        contestants.push(roster::ours(label, Path::new(path))?);
    }
    if contestants.is_empty() {
        contestants.push(roster::build_ours(arguments.only == [INSTRUCTIONS])?);
    }
    if !arguments.proxy.iter().any(|name| name == "none") {
        let (mut peers, missing) = roster::peers();
        if !missing.is_empty() {
            roster::install(&missing);
            peers = roster::peers().0;
        }
        let known: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
        check_words("--proxy", &arguments.proxy, |word| known.contains(&word), &known)?;
        peers.retain(|peer| arguments.proxy.is_empty() || arguments.proxy.contains(&peer.name));
        contestants.extend(peers);
    }
    Ok(contestants)
}

/// A word that chooses nothing is a slip, and would make a table look whole that is not.
fn check_words(
    flag: &str,
    words: &[String],
    is_known: impl Fn(&str) -> bool,
    known: &[&str],
) -> io::Result<()> {
    match words.iter().find(|word| !is_known(word)) {
        Some(word) => {
            Err(io::Error::other(format!("{flag} {word}: nothing; there are {}", known.join(" "))))
        }
        None => Ok(()),
    }
}

/// Two for each connection on either side of a proxy, and the proxies inherit the limit.
fn raise_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Says where and with whom this runs.
fn tell_setting(contestants: &[Contestant], effort: Effort) -> Value {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let processor =
        processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let processor = processor.trim_start_matches([' ', '\t', ':']);
    let kernel = read("/proc/sys/kernel/osrelease");
    let (cores, load) = (crew::cores(), measure::load_average());
    let rounds = effort.rounds;
    println!("{cores} cores of {processor}, Linux {}, load {load:.2} before", kernel.trim());
    println!("{rounds} interleaved rounds of {} ms", effort.duration.as_millis());
    let mut versions = Vec::new();
    for contestant in contestants {
        let version = contestant.version();
        println!("  {:<22} {version}", contestant.name);
        versions.push(json!({ "proxy": contestant.name, "version": version }));
    }
    json!({
        "processor": processor, "cores": cores, "kernel": kernel.trim(), "load_before": load,
        "rounds": rounds, "run_ms": milliseconds(effort.duration), "proxies": versions,
    })
}
