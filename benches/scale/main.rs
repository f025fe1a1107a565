//! Starts the proxy with very many routes and changes one of them, again and again.
//!
//! `cargo bench --bench scale` prints, for 100,000 and for 1,000,000 routes: the time from the
//! start of the process to the first byte of a connection that it passed on, its CPU time and
//! memory then; the time from the change of one route to the first connection that takes the new
//! way, while others go on being made; the most memory that a reload takes, and what is left of it.
//! Then the same routes in the store, and a hundred single changes a second over the API for ten
//! seconds: when each is answered, when it is in force, and what all of that takes.
//! Then as many certificates (up to 100,000 of them), see `certificates.rs`.
//! Every count, time and rate is bounded; everything happens on loopback and in a folder of its own.
//!
//! `cargo bench --bench scale -- [--binary PATH] [--ids] [--plain-malloc] [--only file|store|certificates] [ROUTES…]`:
//! another build of the proxy (to compare with; of several the starts with certificates are
//! interleaved), routes with an `id` of their own, the allocator without what
//! `systemd/mse-proxy.service` tells it, other numbers of routes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to tell"
)]

mod bench;
mod certificates;
mod stored;
mod subject;
mod world;

use std::path::PathBuf;

/// Each has two files.
const MOST_CERTIFICATES: u64 = 100_000;

/// What is measured.
#[derive(Clone)]
struct Setup {
    binary: PathBuf,
    with_ids: bool,
    plain_malloc: bool,
}

fn main() {
    let (mut counts, mut only, mut binaries) = (Vec::new(), String::new(), Vec::new());
    let mut setup = Setup {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_mse-proxy")),
        with_ids: false,
        plain_malloc: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // From cargo.
            "--bench" => {}
            "--binary" => binaries.push(PathBuf::from(arguments.next().expect("a path"))),
            "--ids" => setup.with_ids = true,
            "--only" => only = arguments.next().expect("file, store or certificates"),
            "--plain-malloc" => setup.plain_malloc = true,
            number => counts.push(number.replace('_', "").parse().expect("a number of routes")),
        }
    }
    if counts.is_empty() {
        counts = vec![100_000, 1_000_000];
    }
    if binaries.is_empty() {
        binaries.push(setup.binary.clone());
    }
    let setups = binaries.into_iter().map(|binary| Setup { binary, ..setup.clone() });
    let setups: Vec<_> = setups.collect();
    let is_wanted = |what: &str| only.is_empty() || only == what;
    for routes in counts {
        for setup in &setups {
            println!("{}", setup.binary.display());
            if is_wanted("file") {
                bench::run(setup, routes);
            }
            if is_wanted("store") {
                stored::run(setup, routes);
            }
        }
        if is_wanted("certificates") && routes <= MOST_CERTIFICATES {
            certificates::run(&setups, routes);
        }
    }
}
