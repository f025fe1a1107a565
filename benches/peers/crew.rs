//! Runs many cheap clients on a few threads: a current-thread runtime each, as little machinery
//! as possible, so that the machine's time is left to the proxies.

use std::io;

use tokio::runtime::{Builder, LocalOptions};

/// Runs one future to its end on a runtime of its own.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    Ok(runtime.block_on(work))
}

/// How many threads the load and the origin get, each: together they must leave the proxy room.
pub(crate) fn threads() -> usize {
    (cores() / 4).max(1)
}

/// How many cores the proxies may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
