//! The contract, kept by a fleet's etcd; and where etcd itself has limits.

use std::time::Duration;

use mse_proxy::store::{Batch, Committed, Error, MAX_VALUE, Shared, Transaction};

use crate::contract::{Subject, change, check, commit, contract, in_time, put, removal, told};
use crate::model;
use crate::support_etcd::{Server, open};

/// A store on an etcd of its own.
struct Fleet {
    server: Server,
    store: Shared,
}

impl Subject for Fleet {
    async fn fresh() -> Self {
        let server = Server::start(&[]);
        let store = server.open();
        Self { server, store }
    }

    fn store(&self) -> Shared {
        Shared::clone(&self.store)
    }

    async fn restarted(mut self) -> Self {
        self.server.restart();
        self
    }

    async fn forgetful(self) -> Self {
        let newest = self.store.range("").await.unwrap().revision;
        self.server.compact(newest);
        self
    }
}

contract!(Fleet);

#[test]
fn it_is_what_the_model_is() {
    // Each story starts an etcd, and each restart another.
    model::compare::<Fleet>(12);
}

/// A refusal's words.
fn refusal(ended: Result<Committed, Error>) -> String {
    match ended {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn ask(store: &Shared, changes: Vec<mse_proxy::store::Change>) -> Result<Committed, Error> {
    store.commit(Transaction { checks: vec![], changes }).await
}

#[tokio::test]
async fn a_hundred_thousand_keys_are_one_range() {
    let server = Server::start(&["--max-txn-ops=5000"]);
    let store = open(&format!("{}max_changes = 5000\n", server.settings()));
    let value = vec![b'r'; 200];
    for part in 0..20 {
        let keys = (0..5000).map(|number| format!("routes/{part:02}-{number:04}"));
        change(&store, keys.map(|key| put(&key, &value)).collect()).await;
    }
    // Meanwhile the first and the last key change over and over, always to the same value.
    let both = |value: &str| vec![put("routes/00-0000", value), put("routes/19-4999", value)];
    let newest = change(&store, both("begun")).await;
    let writer = async {
        for round in 0..200 {
            change(&store, both(&round.to_string())).await;
        }
    };
    let reader = async {
        for _ in 0..5 {
            let range = in_time(store.range("routes/")).await.unwrap();
            assert_eq!(range.entries.len(), 100_000);
            let (first, last) = (&range.entries[0], &range.entries[99_999]);
            assert_eq!((&first.value, first.revision), (&last.value, last.revision));
            assert!(range.revision >= first.revision && first.revision >= newest);
            assert!(range.entries.is_sorted_by(|one, next| one.key < next.key));
        }
    };
    tokio::join!(reader, writer);
}

#[tokio::test]
async fn what_is_compacted_while_it_is_read_is_read_again() {
    let server = Server::start(&["--max-txn-ops=5000"]);
    let store = open(&format!("{}max_changes = 5000\n", server.settings()));
    for part in 0..4 {
        let keys = (0..5000).map(|number| format!("routes/{part}-{number:04}"));
        change(&store, keys.map(|key| put(&key, "x")).collect()).await;
    }
    for _ in 0..20 {
        // In the midst of its pages, since the answer to the first wakes the writer as well.
        let compaction = async {
            server.compact(change(&store, vec![put("routes/0-0000", "y")]).await);
        };
        let (range, ()) = tokio::join!(in_time(store.range("routes/")), compaction);
        assert_eq!(range.unwrap().entries.len(), 20_000);
    }
    let words = ["grpc_server_handled_total", "\"OutOfRange\"", "\"Range\""];
    assert!(server.counter(&words) > 0, "no compaction came in between");
}

#[tokio::test]
async fn answers_larger_than_a_message_are_read_and_told() {
    let server = Server::start(&[]);
    let store = server.open();
    let start = store.range("").await.unwrap().revision;
    // 40 MiB: a page of a thousand would be more than is taken at once.
    let value = vec![b'v'; MAX_VALUE];
    let mut revisions = Vec::new();
    for number in 0..40 {
        let keys = (0..4).map(|part| format!("large/{number:02}-{part}"));
        revisions.push(change(&store, keys.map(|key| put(&key, &value)).collect()).await);
    }
    let range = in_time(store.range("large/")).await.unwrap();
    assert_eq!(range.entries.len(), 160);
    assert!(range.entries.iter().all(|entry| entry.value == value));
    // All of it is behind; a fragment has room for seven values, so most of them cut a revision.
    let mut watch = store.watch("large/", start).await.unwrap();
    for revision in revisions {
        let batch = told(&mut watch).await;
        assert_eq!((batch.revision, batch.changes.len()), (revision, 4));
    }
}

#[tokio::test]
async fn more_than_etcd_takes_is_refused_with_its_limit() {
    let server = Server::start(&[]);
    let store = open(&format!("{}max_changes = 1000\n", server.settings()));
    assert_eq!(store.most_changes(), 1000);
    let many = |count: usize| (0..count).map(|at| put(&at.to_string(), "x")).collect::<Vec<_>>();
    let why = refusal(ask(&store, many(129)).await);
    assert!(why.contains("129 changes") && why.contains("--max-txn-ops"), "{why}");
    let why = refusal(ask(&store, many(1001)).await);
    assert!(why.contains("store.etcd.max_changes") && why.contains("1000"), "{why}");
    // A little more than etcd's own limit, and more than its transport takes.
    for count in [7, 12] {
        let large = (0..count).map(|at| put(&at.to_string(), vec![0; MAX_VALUE])).collect();
        let why = refusal(ask(&store, large).await);
        assert!(why.contains("--max-request-bytes"), "{why}");
    }
    assert_eq!(store.range("").await.unwrap().entries, []);
    change(&store, many(128)).await;

    let generous = Server::start(&["--max-txn-ops=1000"]);
    let store = open(&format!("{}max_changes = 1000\n", generous.settings()));
    change(&store, many(1000)).await;
    assert_eq!(store.range("").await.unwrap().entries.len(), 1000);
}

#[tokio::test]
async fn a_full_database_refuses_and_is_still_read() {
    let server = Server::start(&["--quota-backend-bytes=2000000"]);
    let store = server.open();
    let mut head = change(&store, vec![put("head", "0")]).await;
    let mut done = 0;
    let refused = loop {
        let changes = vec![
            put("head", done.to_string()),
            put(&format!("filler/{done:03}"), vec![b'f'; MAX_VALUE / 2]),
        ];
        let transaction = Transaction { checks: vec![check("head", head)], changes };
        match store.commit(transaction).await {
            Ok(Committed::Done(revision)) => (head, done) = (revision, done + 1),
            // etcd complains of the one that fills it, and keeps it.
            Err(Error::Unavailable { why, .. }) => {
                assert!(why.contains("full") && why.contains("not known"), "{why}");
                let entry = store.get("head").await.unwrap().unwrap();
                assert_ne!(entry.revision, head, "it was done");
                (head, done) = (entry.revision, done + 1);
            }
            other => break refusal(other),
        }
        assert!(done < 100, "it never gets full");
    };
    assert!(refused.contains("alarm disarm"), "{refused}");
    // "Refused" is true: what was counted as done is there, and nothing else.
    let range = store.range("filler/").await.unwrap();
    assert_eq!(range.entries.len(), done);
    assert_eq!(store.get("head").await.unwrap().unwrap().revision, head);
    // The remedy works.
    let newest = change_nothing(&store).await;
    server.compact(newest);
    let filler: Vec<_> = range.entries.iter().map(|entry| removal(&entry.key)).collect();
    change(&store, filler).await;
    server.compact(change_nothing(&store).await);
    server.etcdctl(&["defrag"]);
    server.etcdctl(&["alarm", "disarm"]);
    change(&store, vec![put("head", "again")]).await;
}

async fn change_nothing(store: &Shared) -> u64 {
    store.range("nothing/").await.unwrap().revision
}

#[tokio::test]
async fn what_was_removed_last_before_a_compaction_is_not_missed() {
    // Many versions of etcd forget a removal at the very revision to which they are compacted, and
    // begin a watch right there without a word (etcd issue 19179).
    let server = Server::start(&[]);
    let store = server.open();
    let made = change(&store, vec![put("a", "1")]).await;
    let removed = change(&store, vec![removal("a")]).await;
    server.compact(removed);
    let error = match store.watch("", made).await {
        Ok(mut watch) => in_time(watch.next()).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error, Error::TooOld { after: made, oldest: removed });
    // Whoever knows of the removal needs no new range.
    let mut watch = store.watch("", removed).await.unwrap();
    let revision = change(&store, vec![put("b", "1")]).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put("b", "1")] });
}

#[tokio::test]
async fn fleets_with_other_prefixes_do_not_meet() {
    let server = Server::start(&[]);
    let ours = open(&format!("{}prefix = \"ours/\"\n", server.settings()));
    let theirs = open(&format!("{}prefix = \"theirs/\"\n", server.settings()));
    let mut watch = ours.watch("", ours.range("").await.unwrap().revision).await.unwrap();
    change(&theirs, vec![put("a", "theirs")]).await;
    let revision = change(&ours, vec![put("a", "ours")]).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put("a", "ours")] });
    assert_eq!(ours.get("a").await.unwrap().unwrap().value, b"ours");
    assert_eq!(theirs.range("").await.unwrap().entries.len(), 1);
    assert_eq!(commit(&theirs, vec![check("a", revision)], vec![]).await, Committed::Conflict);
    assert!(server.etcdctl(&["get", "", "--prefix", "--keys-only"]).contains("ours/a"));
}

#[tokio::test]
async fn a_follower_that_is_slow_holds_up_nobody() {
    let server = Server::start(&[]);
    let store = server.open();
    let start = change_nothing(&store).await;
    let mut slow = store.watch("", start).await.unwrap();
    let value = vec![b'v'; MAX_VALUE];
    // 50 MiB: more than all windows and queues of a connection hold.
    let mut written = Vec::new();
    for number in 0..50 {
        let keys = (0..4).map(|part| format!("{}-{part}", number % 10));
        written.push(change(&store, keys.map(|key| put(&key, &value)).collect()).await);
        let range = tokio::time::timeout(Duration::from_secs(30), store.get("0-0")).await;
        assert!(range.unwrap().unwrap().is_some());
    }
    for revision in written {
        assert_eq!(told(&mut slow).await.revision, revision);
    }
}
