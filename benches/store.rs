//! What the embedded store costs on this machine's disk: `cargo bench --bench store [-- FOLDER]`.
//!
//! Small transactions by one caller and by many at once, each after the answer to its last; then a
//! table of 100,000 routes with as many records of history: written, read, opened. An answer means
//! two fsyncs, so the figures are those of the disk: the first line tells what one fsync takes.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Check, Committed, Shared, Transaction};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How long each number of callers writes.
const ROUND: Duration = Duration::from_secs(5);
const CALLERS: [usize; 5] = [1, 8, 64, 512, 4096];
const ROUTES: usize = 100_000;
/// How many changes a transaction of the large table has.
const CHUNK: usize = 10_000;
/// What a route and a record of history take, in bytes.
const ROUTE: usize = 160;
const RECORD: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let folder = folder.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let runtime = Runtime::new()?;
    fsync(&folder.path().join("plain"))?;
    runtime.block_on(small(&folder.path().join("small.db")))?;
    runtime.block_on(large(&folder.path().join("large.db")))
}

/// What the disk takes for one page.
fn fsync(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    let mut took = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 0)?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    println!("one fsync of this disk: {}", spread(&mut took));
    Ok(())
}

/// The middle of them, and the one that a hundredth exceeds.
fn spread(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |place: usize| took.get(place).copied().unwrap_or_default();
    format!("median {:.2?}, p99 {:.2?}", at(took.len() / 2), at(took.len() * 99 / 100))
}

async fn small(path: &Path) -> Result<(), Box<dyn Error>> {
    let store: Shared = Arc::new(Embedded::open(path)?);
    println!("transactions of 3 changes and a check, each caller one after the other:");
    for callers in CALLERS {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(write(Arc::clone(&store), caller, begun + ROUND));
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.extend(done?.map_err(|error| error.to_string())?);
        }
        let rate = took.len() as u128 * 1000 / begun.elapsed().as_millis().max(1);
        println!("  {callers:>5} callers: {rate:>7} a second, {}", spread(&mut took));
    }
    Ok(())
}

async fn write(
    store: Shared,
    caller: usize,
    until: Instant,
) -> Result<Vec<Duration>, mse_proxy::store::Error> {
    let (route, record, request) =
        (format!("routes/{caller}"), format!("history/{caller}"), format!("requests/{caller}"));
    let mut revision = store.get(&route).await?.map_or(0, |entry| entry.revision);
    let mut took = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        let change =
            |key: &String, size| Change { key: key.clone(), value: Some(vec![b'x'; size]) };
        let transaction = Transaction {
            checks: vec![Check { key: route.clone(), revision }],
            changes: vec![change(&route, ROUTE), change(&record, RECORD), change(&request, 8)],
        };
        if let Committed::Done(done) = store.commit(transaction).await? {
            revision = done;
        }
        took.push(begun.elapsed());
    }
    Ok(took)
}

async fn large(path: &Path) -> Result<(), Box<dyn Error>> {
    let store = Embedded::open(path)?;
    let store: Shared = Arc::new(store);
    let begun = Instant::now();
    for (prefix, size) in [("routes", ROUTE), ("history", RECORD)] {
        for chunk in 0..ROUTES / CHUNK {
            let changes = (chunk * CHUNK..(chunk + 1) * CHUNK).map(|number| Change {
                key: format!("{prefix}/{number:020}"),
                value: Some(vec![b'x'; size]),
            });
            let changes = changes.collect();
            store.commit(Transaction { checks: Vec::new(), changes }).await?;
        }
    }
    println!("{ROUTES} routes and as many records, {CHUNK} at once: {:.2?}", begun.elapsed());
    let begun = Instant::now();
    let routes = store.range("routes/").await?.entries.len();
    println!("a range of {routes} routes: {:.2?}", begun.elapsed());
    let mut took = Vec::new();
    for number in 0..200 {
        let change = Change { key: format!("routes/{number:020}"), value: Some(vec![b'y'; ROUTE]) };
        let begun = Instant::now();
        store.commit(Transaction { checks: Vec::new(), changes: vec![change] }).await?;
        took.push(begun.elapsed());
    }
    println!("one route changed among them: {}", spread(&mut took));
    drop(store);
    let begun = Instant::now();
    let store = Embedded::open(path)?;
    let size = std::fs::metadata(path)?.len() >> 20;
    println!("opened, every byte read: {:.2?} ({size} MiB)", begun.elapsed());
    drop(store);
    Ok(())
}
