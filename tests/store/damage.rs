//! Files that are no store, no longer one, not yet one, or somebody else's: each is told apart,
//! and what is in them stays there.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mse_proxy::store::embedded::{Embedded, OpenError};
use mse_proxy::store::{Change, Entry, Error, Store, Transaction};
use redb::{Database, ReadableDatabase, TableDefinition};
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::{role, say, start};

/// Which byte of the file says by its lowest bit which of the last two commits is the newer.
const NEWEST: usize = 9;

fn place() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    (folder, path)
}

/// Makes a store with some history, and gives back what it holds.
fn make(path: &Path) -> Vec<Entry> {
    let store = Embedded::open(path).unwrap();
    let runtime = Runtime::new().unwrap();
    for round in 0..30_u32 {
        let changes = (0..10).map(|number| Change {
            key: format!("routes/{}", (round * 7 + number) % 60),
            value: (number != 3).then(|| format!("{round} {number} ").repeat(20).into_bytes()),
        });
        let transaction = Transaction { checks: vec![], changes: changes.collect() };
        runtime.block_on(store.commit(transaction)).unwrap();
    }
    read(&store)
}

fn remove(store: &Embedded, key: &str) {
    let changes = vec![Change { key: key.to_owned(), value: None }];
    let transaction = Transaction { checks: vec![], changes };
    Runtime::new().unwrap().block_on(store.commit(transaction)).unwrap();
}

fn read(store: &Embedded) -> Vec<Entry> {
    let entries = Runtime::new().unwrap().block_on(store.range("")).unwrap().entries;
    assert!(!entries.is_empty());
    entries
}

/// The error of a file that is not opened, and is not changed by the attempt.
fn untouched(path: &Path) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = refused(path);
    assert!(fs::read(path).unwrap() == before, "{error}");
    error
}

/// The error of a file that is not opened.
fn refused(path: &Path) -> OpenError {
    let error = Embedded::open(path).unwrap_err();
    let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "and nothing is left beside it");
    assert!(error.to_string().contains("store.db"), "{error}");
    assert!(!error.remedy().is_empty());
    error
}

#[test]
fn a_missing_and_an_empty_file_become_a_new_store() {
    for is_empty in [false, true] {
        let (folder, path) = place();
        if is_empty {
            fs::write(&path, "").unwrap();
        }
        let store = Embedded::open(&path).unwrap();
        let range = Runtime::new().unwrap().block_on(store.range("")).unwrap();
        assert_eq!((range.revision, range.entries.len()), (0, 0));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn what_a_death_while_making_it_left_is_no_hindrance() {
    for left in ["", "half a store"] {
        let (folder, path) = place();
        let draft = folder.path().join("store.db.new");
        fs::write(&draft, left).unwrap();
        fs::set_permissions(&draft, Permissions::from_mode(0o644)).unwrap();
        drop(Embedded::open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_shortened_file_is_refused() {
    let (_folder, path) = place();
    make(&path);
    let whole = fs::read(&path).unwrap();
    let length = whole.len();
    for kept in [1, 8, 9, 10, 64, 319, 320, 4095, 4096, 4097, length / 2, length - 4096, length - 1]
    {
        fs::write(&path, &whole[..kept]).unwrap();
        let error = untouched(&path);
        let is_told = if kept < 9 {
            matches!(error, OpenError::Foreign(_))
        } else {
            matches!(error, OpenError::Damaged { .. })
        };
        assert!(is_told, "{kept} of {length} bytes: {error:?}");
    }
}

/// Whatever bit of the file is not as it was: it is refused, or it did not matter.
#[test]
fn an_altered_file_is_refused_or_whole() {
    // In memory where that can be had: some thousand fsyncs would take most of a minute.
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let path = folder.path().join("store.db");
    let entries = make(&path);
    let closed = fs::read(&path).unwrap();
    // As a killed process leaves it: then the database has to mend it as well, and must not take
    // a damaged commit for one that was cut short.
    let store = Embedded::open(&path).unwrap();
    remove(&store, "routes/2");
    let left = fs::read(&path).unwrap();
    let without: Vec<Entry> =
        entries.iter().filter(|entry| entry.key != "routes/2").cloned().collect();
    assert_eq!(without.len() + 1, entries.len());
    drop(store);
    for (whole, now, before) in [(closed, &entries, &entries), (left, &without, &entries)] {
        // The header bit by bit, as it says where everything is; of the rest, a sample.
        let head = (0..320).flat_map(|place| [(place, 0x01), (place, 0xff)]);
        let rest = (320..whole.len()).step_by(whole.len() / 500 + 1).map(|place| (place, 0x10));
        let mut refusals = 0;
        for (place, mask) in head.chain(rest) {
            let mut altered = whole.clone();
            altered[place] ^= mask;
            fs::write(&path, &altered).unwrap();
            match Embedded::open(&path) {
                Ok(store) => {
                    let found = read(&store);
                    // One bit has no checksum: which of the last two commits is the newer.
                    let is_older = place == NEWEST && mask == 0x01 && found == *before;
                    assert!(found == *now || is_older, "byte {place} ^ {mask}");
                }
                Err(OpenError::Damaged { .. } | OpenError::Foreign(_)) => refusals += 1,
                Err(error) => panic!("byte {place} ^ {mask}: {error:?}"),
            }
        }
        assert!(refusals > 100, "{refusals}");
    }
}

#[test]
fn other_files_are_refused() {
    let (_folder, path) = place();
    for text in ["[[route]]\n", &"\0".repeat(100_000), "#"] {
        fs::write(&path, text).unwrap();
        let error = untouched(&path);
        assert!(matches!(error, OpenError::Foreign(_)), "{error:?}");
    }
    // A database of the same kind, of some other program.
    for (table, key) in [("songs", "format"), ("store", "songs")] {
        fs::remove_file(&path).unwrap();
        write_database(&path, table, key, b"1");
        assert!(matches!(refused(&path), OpenError::Foreign(_)));
        assert_eq!(read_database(&path, table, key), b"1");
    }
}

fn write_database(path: &Path, table: &str, key: &str, value: &[u8]) {
    let table = TableDefinition::<&str, &[u8]>::new(table);
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}

fn read_database(path: &Path, table: &str, key: &str) -> Vec<u8> {
    let table = TableDefinition::<&str, &[u8]>::new(table);
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    transaction.open_table(table).unwrap().get(key).unwrap().unwrap().value().to_vec()
}

#[test]
fn a_newer_store_is_refused() {
    let (_folder, path) = place();
    make(&path);
    let newest = read_database(&path, "store", "revision");
    write_database(&path, "store", "format", b"2");
    let error = refused(&path);
    assert!(matches!(error, OpenError::Unknown { found: 2, known: 1, .. }), "{error:?}");
    assert_eq!(read_database(&path, "store", "revision"), newest);
    write_database(&path, "store", "format", b"1");
    drop(Embedded::open(&path).unwrap());
}

#[test]
fn what_is_no_file_is_refused() {
    let (folder, path) = place();
    fs::create_dir(&path).unwrap();
    assert!(matches!(Embedded::open(&path), Err(OpenError::NotAFile(_))));
    fs::remove_dir(&path).unwrap();
    assert!(matches!(Embedded::open(&path.join("deeper/store.db")), Err(OpenError::NoFolder(_))));
    assert!(matches!(Embedded::open(Path::new("/dev/null")), Err(OpenError::NotAFile(_))));
    // A link leads to the file; a link to nothing looks like a missing mount.
    symlink("elsewhere.db", &path).unwrap();
    assert!(matches!(Embedded::open(&path), Err(OpenError::LinkToNothing(_))));
    let elsewhere = folder.path().join("elsewhere.db");
    fs::write(&elsewhere, "").unwrap();
    drop(Embedded::open(&path).unwrap());
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(fs::metadata(&elsewhere).unwrap().len() > 0);
    drop(Embedded::open(&path).unwrap());
    // Behind a file there is no folder.
    let error = Embedded::open(&elsewhere.join("store.db")).unwrap_err();
    assert!(
        matches!(&error, OpenError::Io { error, .. } if error.kind() == ErrorKind::NotADirectory)
    );
}

/// Root may do everything; so as root the child runs without that privilege.
#[test]
fn no_permission_is_told() {
    if let Some(path) = role() {
        let error = Embedded::open(&path).unwrap_err();
        let OpenError::Io { error: ref why, .. } = error else { panic!("{error:?}") };
        assert_eq!(why.kind(), ErrorKind::PermissionDenied);
        return say(error.remedy());
    }
    let (folder, path) = place();
    make(&path);
    let under: &[&str] = if geteuid().is_root() {
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    } else {
        &[]
    };
    let try_it = |path: &Path| {
        let mut child = start("damage::no_permission_is_told", path, under);
        let remedy = child.hear();
        assert!(child.ended_well());
        assert!(remedy.unwrap().contains("readable and writable for the proxy's user"));
    };
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    try_it(&path);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o500)).unwrap();
    try_it(&folder.path().join("new.db"));
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn one_process_holds_it() {
    if let Some(path) = role() {
        let _store = Embedded::open(&path).unwrap();
        say("held");
        // Until it is killed.
        loop {
            thread::park();
        }
    }
    let (_folder, path) = place();
    let entries = make(&path);
    let mut child = start("damage::one_process_holds_it", &path, &[]);
    assert_eq!(child.hear().as_deref(), Some("held"));
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Held(_)), "{error:?}");
    child.kill();
    assert!(!child.ended_well());
    // Within one process, too.
    let store = Embedded::open(&path).unwrap();
    assert_eq!(read(&store), entries);
    assert!(matches!(Embedded::open(&path), Err(OpenError::Held(_))));
    drop(store);
    drop(Embedded::open(&path).unwrap());
}

#[test]
fn of_many_who_make_it_one_does() {
    for _ in 0..20 {
        let (folder, path) = place();
        let opened: Vec<_> = thread::scope(|scope| {
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| Embedded::open(&path))).collect();
            opening.into_iter().map(|opened| opened.join().unwrap()).collect()
        });
        let errors: BTreeSet<_> = opened
            .iter()
            .filter_map(|opened| opened.as_ref().err())
            .map(ToString::to_string)
            .collect();
        assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "{errors:?}");
        assert!(opened.iter().all(|opened| matches!(opened, Ok(_) | Err(OpenError::Held(_)))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// A file that is ruined while it is open is not taken for a new one, and is read again as soon as
/// its bytes are back.
#[test]
fn a_file_that_is_emptied_under_the_store_is_damaged() {
    let (_folder, path) = place();
    let entries = make(&path);
    let whole = fs::read(&path).unwrap();
    let store = Embedded::open(&path).unwrap();
    let runtime = Runtime::new().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    let write = || {
        let changes = vec![Change { key: "routes/1".to_owned(), value: None }];
        runtime.block_on(store.commit(Transaction { checks: vec![], changes }))
    };
    let error = write().unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error:?}");
    assert!(matches!(runtime.block_on(store.range("")), Err(Error::Damaged(_))));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    file.write_all_at(&whole, 0).unwrap();
    let begun = Instant::now();
    while let Err(error) = runtime.block_on(store.get("routes/1")) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        thread::yield_now();
    }
    assert_eq!(read(&store), entries);
    write().unwrap();
}
