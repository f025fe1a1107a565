//! Runs a job: the contestants in turn, in interleaved rounds.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::held::{self, Idleness};
use crate::load::{self, Target, Work};
use crate::measure::Reading;
use crate::origin::{Origin, Speech};
use crate::plan::{Effort, Job, Kind};
use crate::process::Running;
use crate::programs::{Contestant, Duty, Program};
use crate::reload::{self, Change, ELSEWHERE};
use crate::report::{self, Fact, Row, milliseconds};
use crate::stats::Spread;
use crate::trace;

/// Set by a signal: the benchmark ends at the next pause, and takes its proxies along.
pub(crate) static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Runs a job and tells what it showed.
pub(crate) fn run(job: &Job, contestants: &[Contestant], effort: Effort) -> io::Result<Value> {
    let contestants: Vec<_> = contestants.iter().filter(|one| job.concerns(one)).collect();
    match job.kind {
        Kind::Load(work, hosts) => {
            let rows = compare_loads(work, hosts, &contestants, effort)?;
            Ok(report::tell_load(job.name, work, &rows))
        }
        Kind::Hold(idleness) => {
            let (rows, busy) = compare_held(idleness, &contestants, effort)?;
            Ok(report::tell_facts(job.name, &rows, busy))
        }
        Kind::Trace(tracer) if !tracer.is_here() => {
            println!("\n{}: left out, {} is not installed", job.name, tracer.program());
            Ok(json!({ "job": job.name, "left_out": tracer.program() }))
        }
        Kind::Trace(tracer) => {
            let origin = Origin::start(Speech::Hellos(0))?;
            let once = |contestant: &Contestant| trace::measure(tracer, contestant, &origin);
            let (seen, _) = in_rounds(&contestants, 1, once)?;
            let rows = slopes("per_connection", seen);
            // Counts are the same on a busy machine, and the tracer itself keeps it busy.
            Ok(report::tell_facts(job.name, &rows, 0.0))
        }
        Kind::Reload => {
            let (rows, busy) = compare_reloads(&contestants, effort)?;
            Ok(report::tell_facts(job.name, &rows, busy))
        }
    }
}

fn check_over() -> io::Result<()> {
    if IS_OVER.load(Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped by a signal"));
    }
    Ok(())
}

/// The order of one round: each begins with another, so that none always follows the same one.
fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

fn compare_loads(
    work: Work,
    hosts: usize,
    contestants: &[&Contestant],
    effort: Effort,
) -> io::Result<Vec<Row>> {
    let speech = if work.is_ending() { Speech::Http } else { Speech::Hellos(0) };
    let origin = Origin::start(speech)?;
    let (mut proxies, mut rows) = (Vec::new(), Vec::new());
    for contestant in contestants {
        check_over()?;
        let listen = crate::ports::free()?;
        let origin_at = origin.address();
        let is_ending = work.is_ending();
        let duty = Duty { hosts, is_ending, ..Duty::of(listen, origin_at) };
        let running = Running::start(contestant, &duty)?;
        let target = Target { address: listen, hosts };
        let family = running.family();
        load::run(work, target, &family, effort.duration / 4)?;
        pause(work, &origin);
        proxies.push((running, target, family));
        let is_ours = contestant.program == Program::MseProxy;
        rows.push(Row { name: contestant.name.clone(), is_ours, samples: Vec::new() });
    }
    for round in 0..effort.rounds {
        for index in turns(rows.len(), round) {
            check_over()?;
            let (Some((_, target, family)), Some(row)) = (proxies.get(index), rows.get_mut(index))
            else {
                continue;
            };
            row.samples.push(load::run(work, *target, family, effort.duration)?);
            pause(work, &origin);
        }
    }
    Ok(rows)
}

/// Lets the connections of a run go. Proxies that end TLS keep theirs to the origin for later.
fn pause(work: Work, origin: &Origin) {
    if work.is_ending() {
        std::thread::sleep(load::SETTLE);
    } else {
        origin.wait_until_idle();
    }
}

/// Lines of a table, and the largest share of the machine that others took meanwhile.
type Facts = (Vec<(String, Vec<Fact>)>, f64);

fn compare_held(
    idleness: Idleness,
    contestants: &[&Contestant],
    effort: Effort,
) -> io::Result<Facts> {
    let origin = Origin::start(Speech::Hellos(0))?;
    let once = |contestant: &Contestant| held::measure(idleness, contestant, &origin);
    let (seen, busy) = in_rounds(contestants, effort.slow_rounds(), once)?;
    Ok((slopes("bytes_per_connection", seen), busy))
}

/// A cost for each connection, and how many connections failed.
fn slopes(name: &'static str, seen: Seen<(f64, u64)>) -> Vec<(String, Vec<Fact>)> {
    let line = |seen: Vec<(f64, u64)>| {
        let failed = seen.iter().map(|one| one.1 as f64);
        vec![
            Fact { name, spread: Spread::of(seen.iter().map(|one| one.0)) },
            Fact { name: "failed", spread: Spread::of(failed) },
        ]
    };
    seen.into_iter().map(|(name, seen)| (name, line(seen))).collect()
}

fn compare_reloads(contestants: &[&Contestant], effort: Effort) -> io::Result<Facts> {
    let (origin, elsewhere) =
        (Origin::start(Speech::Hellos(0))?, Origin::start(Speech::Hellos(ELSEWHERE))?);
    let once = |contestant: &Contestant| reload::measure(contestant, &origin, &elsewhere);
    // Envoy takes half a minute for a change: a single round has to do for it.
    let rounds = effort.slow_rounds();
    let (slow, quick): (Vec<_>, Vec<_>) =
        contestants.iter().partition(|one| one.program == Program::Envoy);
    let (mut seen, busy) = in_rounds(&quick, rounds, once)?;
    let (slow, busy_then) = in_rounds(&slow, 1, once)?;
    seen.extend(slow);
    let busy = busy.max(busy_then);
    let line = |seen: Vec<Change>| {
        let fact = |name, value: fn(&Change) -> f64| Fact {
            name,
            spread: Spread::of(seen.iter().map(value)),
        };
        vec![
            fact("start_ms", |change| milliseconds(change.start)),
            fact("effective_ms", |change| milliseconds(change.effective)),
            fact("connections", |change| change.connections as f64),
            fact("failed", |change| change.failed as f64),
            fact("stale", |change| change.stale as f64),
            fact("steady_mb", |change| change.steady as f64 / 1e6),
            fact("peak_mb", |change| change.peak as f64 / 1e6),
            fact("after_mb", |change| change.after as f64 / 1e6),
        ]
    };
    Ok((seen.into_iter().map(|(name, seen)| (name, line(seen))).collect(), busy))
}

/// What each contestant showed in some rounds, by its name.
type Seen<T> = Vec<(String, Vec<T>)>;

/// Lets each contestant show something in each of a few rounds, with a fresh process.
fn in_rounds<T>(
    contestants: &[&Contestant],
    rounds: usize,
    mut once: impl FnMut(&Contestant) -> io::Result<T>,
) -> io::Result<(Seen<T>, f64)> {
    let mut seen: Seen<T> = contestants.iter().map(|one| (one.name.clone(), Vec::new())).collect();
    let mut busy: f64 = 0.0;
    for round in 0..rounds {
        for index in turns(contestants.len(), round) {
            check_over()?;
            let (Some(contestant), Some(row)) = (contestants.get(index), seen.get_mut(index))
            else {
                continue;
            };
            let before = Reading::take(&[]);
            row.1.push(once(contestant)?);
            busy = busy.max(before.until(&Reading::take(&[])).others);
        }
    }
    Ok((seen, busy))
}
