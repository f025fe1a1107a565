//! How many instructions parsing a hello and finding its route take: the figure that does not
//! depend on the machine's mood. `cargo bench --bench instructions`; needs valgrind.
//!
//! It runs itself under callgrind with few and with many repetitions; what the second run needs
//! more, divided by the repetitions, is the cost of one, without the start and the table's building.

#[path = "pure/subjects.rs"]
mod subjects;

use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode, Stdio};

use crate::subjects::{Claims, HELLOS, Subject, finds, parse};

/// How many repetitions the two runs have.
const FEW: u64 = 100;
const MANY: u64 = 1100;
/// The word before a piece of work that is to be repeated.
const REPEAT: &str = "--repeat";
/// Hosts of the larger table; building it under valgrind takes seconds.
const HOSTS: usize = 10_000;

/// What can be repeated.
const WORKS: [&str; 8] = [
    "parse-small",
    "parse-small-in-two",
    "parse-pq",
    "parse-pq-in-two",
    "find-exact-1",
    "find-exact-10k",
    "find-wildcard-1",
    "find-wildcard-10k",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.as_slice() {
        [_, flag, work, count] if flag == REPEAT => repeat(work, count.parse().unwrap_or(0)),
        _ => count_all(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions cannot be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count_all() -> io::Result<()> {
    println!("instructions for one repetition:");
    for work in WORKS {
        let (few, many) = (collected(work, FEW)?, collected(work, MANY)?);
        println!("  {work:<20} {:>8}", many.saturating_sub(few) / (MANY - FEW));
    }
    Ok(())
}

/// All instructions of a run under callgrind.
fn collected(work: &str, count: u64) -> io::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).args([REPEAT, work, &count.to_string()]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("valgrind: {error} (Debian package valgrind)"))
    })?;
    let told = String::from_utf8_lossy(&output.stderr);
    let total = told.lines().find_map(|line| line.split_once("Collected :"));
    total.and_then(|(_, count)| count.trim().parse().ok()).ok_or_else(|| {
        io::Error::other(format!("callgrind says nothing of {work}: {}\n{told}", output.status))
    })
}

fn repeat(work: &str, count: u64) -> io::Result<()> {
    let unknown = || io::Error::other(format!("unknown work {work}"));
    let [(_, small), (_, large)] = HELLOS;
    if let Some(which) = work.strip_prefix("parse-") {
        let hello = if which.starts_with("pq") { large } else { small };
        let cut = if which.ends_with("in-two") { hello.len() * 3 / 4 } else { hello.len() };
        let (first, second) = hello.split_at(cut);
        for _ in 0..count {
            black_box(parse(black_box(first), black_box(second))).ok_or_else(unknown)?;
        }
        return Ok(());
    }
    let claims = if work.contains("wildcard") { Claims::Wildcard } else { Claims::Exact };
    let subject = Subject::new(claims, if work.ends_with("10k") { HOSTS } else { 1 });
    let snapshot = subject.snapshot();
    let hello = parse(small, &[]).ok_or_else(unknown)?;
    for (_, name) in (0..count).zip(subject.names.iter().cycle()) {
        if !black_box(finds(&snapshot, &hello, black_box(name))) {
            return Err(unknown());
        }
    }
    Ok(())
}
