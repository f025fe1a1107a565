//! The contract, kept by the file of one proxy alone.

use std::fs;
use std::sync::Arc;

use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Error, MAX_VALUE, Shared, Transaction};
use tempfile::TempDir;

use crate::contract::{Subject, change, contract, in_time, put, told};
use crate::model;

/// A store in a folder of its own.
pub(crate) struct File {
    store: Shared,
    folder: TempDir,
}

impl File {
    fn open(folder: TempDir) -> Self {
        let store = Embedded::open(&folder.path().join("store.db")).unwrap();
        Self { store: Arc::new(store), folder }
    }
}

impl Subject for File {
    async fn fresh() -> Self {
        Self::open(TempDir::new().unwrap())
    }

    fn store(&self) -> Shared {
        Arc::clone(&self.store)
    }

    async fn restarted(self) -> Self {
        let Self { store, folder } = self;
        assert_eq!(Arc::strong_count(&store), 1, "nobody uses it any more");
        drop(store);
        Self::open(folder)
    }

    async fn forgetful(self) -> Self {
        self.restarted().await
    }
}

contract!(File);

/// So many bytes of changes, in values as long as they may be.
fn megabytes(count: usize, mark: u8) -> Vec<Change> {
    let values = (0..count * (1 << 20) / MAX_VALUE).map(|_| vec![mark; MAX_VALUE]);
    values.enumerate().map(|(number, value)| put(&format!("large/{number}"), value)).collect()
}

#[tokio::test]
async fn who_watches_too_slowly_is_told_and_costs_no_memory() {
    let subject = File::fresh().await;
    let store = subject.store();
    let mut slow = store.watch("", 0).await.unwrap();
    let mut elsewhere = store.watch("small/", 0).await.unwrap();
    let mut quick = store.watch("", 0).await.unwrap();
    let first = change(&store, vec![put("small/1", "x")]).await;
    assert_eq!(told(&mut slow).await.revision, first);
    for round in 0..5 {
        let changes = megabytes(10, round);
        let revision = change(&store, changes.clone()).await;
        let batch = in_time(quick.next()).await.unwrap();
        if round == 0 {
            assert_eq!(told(&mut quick).await.revision, revision);
        } else {
            assert!(batch.revision == revision && batch.changes == changes);
        }
    }
    for watch in [&mut slow, &mut elsewhere] {
        for _ in 0..2 {
            assert_eq!(in_time(watch.next()).await.unwrap_err(), Error::TooSlow);
        }
    }
    let Error::TooOld { after, oldest } = store.watch("", first).await.err().unwrap() else {
        panic!("it is kept for ever");
    };
    assert!(after == first && oldest > first + 1);
    let mut late = store.watch("large/0", oldest - 1).await.unwrap();
    assert_eq!(told(&mut late).await.revision, oldest);
}

/// More than the log keeps, in one transaction: who keeps up is told nevertheless.
#[tokio::test]
async fn the_newest_transaction_is_told_however_large() {
    let subject = File::fresh().await;
    let store = subject.store();
    let mut watch = store.watch("", 0).await.unwrap();
    change(&store, vec![put("small/1", "x")]).await;
    told(&mut watch).await;
    let revision = change(&store, megabytes(40, 1)).await;
    let batch = in_time(watch.next()).await.unwrap();
    assert!(batch.revision == revision && batch.changes == megabytes(40, 1));
    let more = Transaction { checks: vec![], changes: megabytes(70, 2) };
    assert!(matches!(store.commit(more).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn a_revision_to_come_is_refused() {
    let subject = File::fresh().await;
    let newest = change(&subject.store(), vec![put("a", "1")]).await;
    let error = subject.store().watch("", newest + 1).await.err().unwrap();
    assert!(matches!(&error, Error::Refused(why) if why.contains("range again")), "{error:?}");
}

#[tokio::test]
async fn a_watcher_is_told_the_end() {
    let subject = File::fresh().await;
    let mut watch = subject.store().watch("", 0).await.unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    let revision = change(&subject.store(), vec![put("a", "1")]).await;
    assert_eq!(in_time(waiting).await.unwrap().unwrap().revision, revision);
    let mut watch = subject.store().watch("", 0).await.unwrap();
    drop(subject);
    // What was done before it is still told.
    assert_eq!(told(&mut watch).await.revision, revision);
    assert!(matches!(in_time(watch.next()).await, Err(Error::Unavailable { .. })));
}

/// A file that is moved away would take along what is written to it.
#[tokio::test]
async fn a_file_that_is_moved_away_is_not_written() {
    let subject = File::fresh().await;
    let (store, path) = (subject.store(), subject.folder.path().join("store.db"));
    change(&store, vec![put("a", "1")]).await;
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    for is_replaced in [false, true] {
        if is_replaced {
            drop(Embedded::open(&path).unwrap());
        }
        let transaction = Transaction { checks: vec![], changes: vec![put("a", "2")] };
        let error = store.commit(transaction).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(why) if why.contains("put the file back")));
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    }
    fs::rename(&away, &path).unwrap();
    change(&store, vec![put("a", "3")]).await;
}

#[test]
fn it_is_what_the_model_is() {
    model::compare::<File>(64);
}
