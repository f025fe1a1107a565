//! A full disk: writes are refused and say why, everything else goes on, and when there is room
//! again, so do writes.
//!
//! The disk is a tmpfs of 4 MiB that the child mounts in a mount namespace of its own: a real file
//! system with real ENOSPC, also in the middle of growing a file, that nobody else sees and that
//! needs no clearing up. A limit on the size of files (`RLIMIT_FSIZE`) would need no privilege,
//! but kills with a signal first, fails with another error, and never lets a write into an
//! existing part of the file fail. An ordinary user gets the mount by a user namespace.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use mse_proxy::store::embedded::{Embedded, OpenError};
use mse_proxy::store::{
    Batch, Change, Committed, Error, Range, Revision, Store, Transaction, Watch,
};
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::{role, say, start};
use crate::contract::in_time;

/// How the child gets the disk; the test binary's own arguments follow.
const MOUNT: &str = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    if let Some(disk) = role() {
        return Runtime::new().unwrap().block_on(fill_and_clear(&disk));
    }
    let disk = TempDir::new().unwrap();
    let mut under = vec!["unshare", "--mount"];
    if !geteuid().is_root() {
        under.push("--map-root-user");
    }
    under.extend(["sh", "-c", MOUNT, disk.path().to_str().unwrap()]);
    let test = "full::a_full_disk_refuses_writes_and_nothing_else";
    let mut child = start(test, disk.path(), &under);
    let mut said = Vec::new();
    while let Some(line) = child.hear() {
        said.push(line);
    }
    assert!(child.ended_well(), "{said:?}");
    assert_eq!(said, ["refused", "written again", "refused when opened anew", "no room to begin"]);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "all that was on its own disk");
}

/// Takes all the room that is left.
fn fill(disk: &Path) {
    let mut ballast =
        OpenOptions::new().append(true).create(true).open(disk.join("ballast")).unwrap();
    for size in [64 << 10, 4096, 1] {
        while let Ok(written) = ballast.write(&vec![0; size]) {
            assert!(written > 0);
        }
    }
}

fn clear(disk: &Path) {
    fs::remove_file(disk.join("ballast")).unwrap();
}

/// How many bytes this process has read by system calls.
fn read_so_far() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// What the store must hold, and what its watcher must have been told.
struct Written {
    store: Embedded,
    watch: Box<dyn Watch>,
    batches: Vec<Batch>,
    next: u64,
}

impl Written {
    async fn open(path: &Path, batches: Vec<Batch>, next: u64) -> Self {
        let store = Embedded::open(path).unwrap();
        let newest = batches.last().map_or(0, |batch| batch.revision);
        let watch = store.watch("", newest).await.unwrap();
        let written = Self { store, watch, batches, next };
        written.is_all_there().await;
        written
    }

    /// Writes the next key.
    async fn write(&mut self) -> Result<Revision, Error> {
        let value = Some(vec![b'x'; usize::try_from(self.next * 991 % 5_000).unwrap()]);
        let changes = vec![Change { key: format!("key/{:06}", self.next), value }];
        self.next += 1;
        let transaction = Transaction { checks: vec![], changes: changes.clone() };
        match in_time(self.store.commit(transaction)).await? {
            Committed::Done(revision) => {
                let batch = Batch { revision, changes };
                assert_eq!(in_time(self.watch.next()).await.unwrap(), batch);
                self.batches.push(batch);
                Ok(revision)
            }
            Committed::Conflict => panic!("a conflict without a check"),
        }
    }

    async fn write_until_refused(&mut self) -> String {
        for _ in 0..10_000 {
            match self.write().await {
                Ok(_) => {}
                Err(Error::Refused(why)) => return why,
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("this disk is never full");
    }

    async fn is_all_there(&self) {
        let Range { revision, entries } = in_time(self.store.range("")).await.unwrap();
        assert_eq!(revision, self.batches.last().map_or(0, |batch| batch.revision));
        let told: Vec<_> = self
            .batches
            .iter()
            .flat_map(|batch| batch.changes.iter().map(|change| (batch.revision, change.clone())))
            .collect();
        assert_eq!(entries.len(), told.len());
        for (entry, (revision, change)) in entries.into_iter().zip(told) {
            assert_eq!((&entry.key, entry.revision), (&change.key, revision));
            assert!(Some(&entry.value) == change.value.as_ref());
            assert_eq!(in_time(self.store.get(&entry.key)).await.unwrap(), Some(entry));
        }
    }

    /// Refuses again and again, which costs next to nothing, and is read all the time.
    async fn is_refused(&mut self) {
        let before = read_so_far();
        for _ in 0..20 {
            assert!(matches!(self.write().await, Err(Error::Refused(_))));
        }
        let read = read_so_far() - before;
        assert!(read < 100_000, "{read} bytes were read: the file is not opened anew each time");
        for _ in 0..20 {
            let Err(Error::Refused(why)) = self.write().await else { panic!("where to?") };
            assert!(why.contains("store.db") && why.contains("No space left"), "{why}");
            assert!(why.contains("nothing was changed") && why.contains("make room"), "{why}");
            self.is_all_there().await;
        }
    }
}

/// The child's role.
async fn fill_and_clear(disk: &Path) {
    let path = disk.join("store.db");
    let mut written = Written::open(&path, vec![], 0).await;
    for _ in 0..20 {
        written.write().await.unwrap();
    }
    fill(disk);
    let why = written.write_until_refused().await;
    assert!(why.contains("No space left"), "{why}");
    written.is_refused().await;
    say("refused");

    clear(disk);
    let before = written.batches.len();
    for _ in 0..20 {
        written.write().await.unwrap();
    }
    assert_eq!(written.batches.len(), before + 20);
    written.is_all_there().await;
    say("written again");

    // What a process that is killed just then leaves: a file that needs to be mended when opened.
    let left = disk.join("left.db");
    fs::copy(&path, &left).unwrap();
    fill(disk);
    let entries = written.store.range("").await.unwrap().entries;
    let mended = Embedded::open(&left).unwrap();
    assert!(mended.range("").await.unwrap().entries == entries);
    drop(mended);
    fs::remove_file(&left).unwrap();
    clear(disk);

    // The store itself fills the disk; and it can be opened there.
    written.write_until_refused().await;
    fill(disk);
    written.is_refused().await;
    let Written { store, batches, next, .. } = written;
    drop(store);
    let mut written = Written::open(&path, batches, next).await;
    // What is in the file already is room as well; what is not is still refused.
    written.write_until_refused().await;
    written.is_refused().await;
    clear(disk);
    drop(written);
    say("refused when opened anew");

    // A store that cannot be begun is not begun.
    fs::remove_file(&path).unwrap();
    fill(disk);
    match Embedded::open(&path) {
        Err(OpenError::Io { error, .. }) => assert_eq!(error.kind(), ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    assert!(!path.exists());
    clear(disk);
    Embedded::open(&path).unwrap();
    File::open(&path).unwrap();
    say("no room to begin");
}
