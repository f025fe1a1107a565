//! What every store owes its callers: a function for each clause of the trait's documentation,
//! run for each implementation by [`contract!`].
//!
//! A store may be shared (a fleet's etcd numbers the changes of everybody), so nothing here says
//! by how much a revision rises.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use mse_proxy::store::{
    Batch, Change, Check, Committed, Entry, Error, MAX_KEY, MAX_VALUE, Range, Revision, Shared,
    Transaction, Watch,
};
use tokio::time::timeout;

/// Far longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A real store under test.
pub(crate) trait Subject: Sized {
    /// A store with nothing in it.
    async fn fresh() -> Self;

    /// The store itself.
    fn store(&self) -> Shared;

    /// The same store, after everything that serves it has ended and begun anew.
    async fn restarted(self) -> Self;

    /// The same store, made to forget the past: changes up to now can no longer be told.
    async fn forgetful(self) -> Self;
}

/// Makes a test of each clause, for one kind of [`Subject`].
macro_rules! contract {
    ($subject:ty) => {
        $crate::contract::contract! { $subject =>
            a_key_holds_what_was_written_last,
            values_are_any_bytes_and_keys_any_letters,
            a_range_tells_what_is_under_its_prefix_in_order,
            a_range_is_of_one_revision,
            a_transaction_changes_all_its_keys_under_one_revision,
            revisions_only_rise,
            a_conflict_changes_nothing,
            every_check_counts,
            of_those_who_expect_the_same_one_wins,
            a_removed_key_is_as_if_it_had_never_been,
            what_changes_nothing_is_told_to_nobody,
            what_is_refused_has_changed_nothing,
            the_longest_is_not_too_long,
            as_many_changes_as_promised,
            a_watch_tells_every_later_change_in_order,
            a_watch_begins_in_the_past,
            a_watch_tells_only_what_is_under_its_prefix,
            a_watch_waits_and_wakes,
            a_cancelled_wait_loses_nothing,
            watchers_do_not_disturb_each_other,
            what_is_forgotten_is_too_old,
            what_is_done_outlasts_a_restart,
        }
    };
    ($subject:ty => $($clause:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $clause() {
                $crate::contract::in_time($crate::contract::$clause::<$subject>()).await;
            }
        )*
    };
}
pub(crate) use contract;

/// Waits for a step, but not for ever.
pub(crate) async fn in_time<T>(step: impl Future<Output = T>) -> T {
    timeout(PATIENCE, step).await.expect("this takes far too long")
}

pub(crate) fn put(key: &str, value: impl AsRef<[u8]>) -> Change {
    Change { key: key.to_owned(), value: Some(value.as_ref().to_vec()) }
}

pub(crate) fn removal(key: &str) -> Change {
    Change { key: key.to_owned(), value: None }
}

pub(crate) fn check(key: &str, revision: Revision) -> Check {
    Check { key: key.to_owned(), revision }
}

/// Changes that nothing hinders.
pub(crate) async fn change(store: &Shared, changes: Vec<Change>) -> Revision {
    match commit(store, vec![], changes).await {
        Committed::Done(revision) => revision,
        Committed::Conflict => panic!("a conflict without a check"),
    }
}

pub(crate) async fn commit(store: &Shared, checks: Vec<Check>, changes: Vec<Change>) -> Committed {
    store.commit(Transaction { checks, changes }).await.unwrap()
}

/// What a range holds, without its revisions.
fn pairs(range: &Range) -> Vec<(&str, &[u8])> {
    range.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice())).collect()
}

/// The next batch, its changes by their keys.
pub(crate) async fn told(watch: &mut Box<dyn Watch>) -> Batch {
    sorted(in_time(watch.next()).await.unwrap())
}

pub(crate) fn sorted(mut batch: Batch) -> Batch {
    batch.changes.sort_by(|one, other| one.key.cmp(&other.key));
    batch
}

/// Whether this watch has nothing to tell: a marker that is written now is the next it tells.
async fn is_told_nothing_more(store: &Shared, watch: &mut Box<dyn Watch>, marker: &str) {
    let revision = change(store, vec![put(marker, "marker")]).await;
    let next = told(watch).await;
    assert_eq!(next, Batch { revision, changes: vec![put(marker, "marker")] });
}

pub(crate) async fn a_key_holds_what_was_written_last<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    assert_eq!(store.get("routes/shop").await.unwrap(), None);
    let first = change(&store, vec![put("routes/shop", "one")]).await;
    assert!(first > 0, "0 is before the first");
    let entry = |value: &str, revision| Entry {
        key: "routes/shop".to_owned(),
        value: value.into(),
        revision,
    };
    assert_eq!(store.get("routes/shop").await.unwrap(), Some(entry("one", first)));
    let second = change(&store, vec![put("routes/shop", "two")]).await;
    assert_eq!(store.get("routes/shop").await.unwrap(), Some(entry("two", second)));
    // Neither a part of its name nor more than it is the key.
    assert_eq!(store.get("routes/sho").await.unwrap(), None);
    assert_eq!(store.get("routes/shop/").await.unwrap(), None);
}

pub(crate) async fn values_are_any_bytes_and_keys_any_letters<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let every_byte: Vec<u8> = (0..=255).collect();
    let values = [("a b", vec![]), ("ключ/π", every_byte), ("zero", vec![0, 0, 0])];
    let changes = values.iter().map(|(key, value)| put(key, value)).collect();
    change(&store, changes).await;
    for (key, value) in values {
        assert_eq!(store.get(key).await.unwrap().unwrap().value, value, "{key}");
    }
}

pub(crate) async fn a_range_tells_what_is_under_its_prefix_in_order<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let nothing = store.range("routes/").await.unwrap();
    assert_eq!(nothing.entries, []);
    let keys = ["routes/b", "routes/a", "routes/a/b", "routes0", "route", "routes/~", "history/1"];
    let newest = change(&store, keys.iter().map(|key| put(key, key)).collect()).await;
    let range = store.range("routes/").await.unwrap();
    assert!(range.revision >= newest && newest > nothing.revision);
    let expected = ["routes/a", "routes/a/b", "routes/b", "routes/~"];
    assert_eq!(pairs(&range), expected.map(|key| (key, key.as_bytes())));
    assert!(range.entries.iter().all(|entry| entry.revision == newest));
    // The empty prefix is that of all keys.
    let mut all = keys;
    all.sort_unstable();
    assert_eq!(pairs(&store.range("").await.unwrap()), all.map(|key| (key, key.as_bytes())));
    // A key is under the prefix that it is itself.
    assert_eq!(store.range("routes0").await.unwrap().entries.len(), 1);
    assert_eq!(store.range("nothing/").await.unwrap().entries, []);
}

pub(crate) async fn a_range_is_of_one_revision<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let keys: Vec<String> = (0..20).map(|number| format!("pair/{number:02}")).collect();
    let writer = async {
        for round in 0..50 {
            let value = round.to_string();
            change(&store, keys.iter().map(|key| put(key, &value)).collect()).await;
        }
    };
    let reader = async {
        let mut looks = 0;
        loop {
            let range = store.range("pair/").await.unwrap();
            looks += 1;
            let Some(first) = range.entries.first() else { continue };
            assert_eq!(range.entries.len(), keys.len());
            for entry in &range.entries {
                assert_eq!((&entry.value, entry.revision), (&first.value, first.revision));
                assert!(entry.revision <= range.revision);
            }
            if first.value == b"49" {
                return looks;
            }
        }
    };
    let ((), looks) = tokio::join!(writer, reader);
    assert!(looks > 1);
}

pub(crate) async fn a_transaction_changes_all_its_keys_under_one_revision<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let before = change(&store, vec![put("b", "old"), put("c", "old"), put("d", "old")]).await;
    let revision = change(&store, vec![put("a", "new"), put("b", "new"), removal("c")]).await;
    let range = store.range("").await.unwrap();
    let found: Vec<_> = range
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.value.as_slice(), entry.revision))
        .collect();
    let expected: [(&str, &[u8], Revision); 3] =
        [("a", b"new", revision), ("b", b"new", revision), ("d", b"old", before)];
    assert_eq!(found, expected);
}

pub(crate) async fn revisions_only_rise<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let mut newest = store.range("").await.unwrap().revision;
    for round in 0..20 {
        let revision = change(&store, vec![put("key", round.to_string())]).await;
        assert!(revision > newest);
        assert!(store.range("other/").await.unwrap().revision >= revision);
        newest = revision;
    }
    // Also of many at once, each has its own.
    let many = (0..50).map(|number| {
        let store = &store;
        async move { change(store, vec![put(&format!("many/{number}"), "x")]).await }
    });
    let mut revisions = join_all(many).await;
    revisions.sort_unstable();
    assert!(*revisions.first().unwrap() > newest);
    revisions.dedup();
    assert_eq!(revisions.len(), 50);
}

pub(crate) async fn a_conflict_changes_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let first = change(&store, vec![put("a", "1"), put("b", "1")]).await;
    let second = change(&store, vec![put("a", "2")]).await;
    let before = store.range("").await.unwrap();
    let mut watch = store.watch("", before.revision).await.unwrap();
    let others = || vec![put("a", "3"), put("c", "3"), removal("b")];
    for checks in [
        vec![check("a", first)],
        vec![check("a", 0)],
        vec![check("a", second + 1_000_000)],
        vec![check("missing", second)],
    ] {
        assert_eq!(commit(&store, checks, others()).await, Committed::Conflict);
    }
    assert_eq!(store.range("").await.unwrap().entries, before.entries);
    is_told_nothing_more(&store, &mut watch, "marker").await;
}

pub(crate) async fn every_check_counts<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let a = change(&store, vec![put("a", "1")]).await;
    let b = change(&store, vec![put("b", "1")]).await;
    let all = || vec![check("a", a), check("b", b), check("c", 0)];
    for wrong in 0..3 {
        let mut checks = all();
        checks[wrong].revision = if wrong == 2 { a } else { 0 };
        assert_eq!(commit(&store, checks, vec![put("c", "1")]).await, Committed::Conflict);
    }
    // What is checked need not be what is changed, and a check alone is an answer as well.
    assert!(matches!(commit(&store, all(), vec![]).await, Committed::Done(_)));
    let done = commit(&store, all(), vec![put("d", "1")]).await;
    let Committed::Done(d) = done else { panic!("{done:?}") };
    assert_eq!(store.get("d").await.unwrap().unwrap().revision, d);
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, a);
    assert_eq!(commit(&store, vec![check("a", b)], vec![]).await, Committed::Conflict);
}

pub(crate) async fn of_those_who_expect_the_same_one_wins<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let mut expected = 0;
    for round in 0..10 {
        let racers = (0..20).map(|racer| {
            let store = &store;
            let own = format!("racer/{round}/{racer}");
            async move {
                let changes = vec![put("head", &own), put(&own, "won")];
                (commit(store, vec![check("head", expected)], changes).await, own)
            }
        });
        let ended = join_all(racers).await;
        let winners: Vec<_> = ended
            .iter()
            .filter_map(|(end, own)| match end {
                Committed::Done(revision) => Some((*revision, own)),
                Committed::Conflict => None,
            })
            .collect();
        let [(revision, winner)] = winners[..] else { panic!("{winners:?}") };
        let head = store.get("head").await.unwrap().unwrap();
        assert_eq!((head.revision, head.value), (revision, winner.clone().into_bytes()));
        let range = store.range(&format!("racer/{round}/")).await.unwrap();
        assert_eq!(pairs(&range), [(winner.as_str(), b"won".as_slice())]);
        expected = revision;
    }
}

pub(crate) async fn a_removed_key_is_as_if_it_had_never_been<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let made = change(&store, vec![put("a", "1"), put("b", "1")]).await;
    let removed = change(&store, vec![removal("a")]).await;
    assert!(removed > made);
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(pairs(&store.range("").await.unwrap()), [("b", b"1".as_slice())]);
    let again = vec![put("a", "2")];
    assert_eq!(commit(&store, vec![check("a", made)], again.clone()).await, Committed::Conflict);
    assert_eq!(commit(&store, vec![check("a", removed)], again.clone()).await, Committed::Conflict);
    let done = commit(&store, vec![check("a", 0)], again).await;
    let Committed::Done(remade) = done else { panic!("{done:?}") };
    assert!(remade > removed);
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, remade);
}

pub(crate) async fn what_changes_nothing_is_told_to_nobody<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let newest = change(&store, vec![put("a", "1")]).await;
    let mut watch = store.watch("", newest).await.unwrap();
    // It is done, as of a revision that exists already.
    assert!(change(&store, vec![]).await >= newest);
    assert!(change(&store, vec![removal("missing")]).await >= newest);
    let revision = change(&store, vec![removal("missing"), put("b", "1")]).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put("b", "1")] });
    // The same value once more is a change: somebody wrote it.
    let revision = change(&store, vec![put("b", "1")]).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put("b", "1")] });
}

pub(crate) async fn what_is_refused_has_changed_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let newest = change(&store, vec![put("a", "1")]).await;
    let before = store.range("").await.unwrap();
    let mut watch = store.watch("", newest).await.unwrap();
    let too_many = store.most_changes() + 1;
    for changes in [
        vec![put("a", "2"), put("b", "2"), put("a", "3")],
        vec![put("a", "2"), removal("a")],
        vec![put("a", "2"), put("", "2")],
        vec![put("a", "2"), put(&"k".repeat(MAX_KEY + 1), "2")],
        vec![put("a", "2"), put("b", vec![0; MAX_VALUE + 1])],
        (0..too_many).map(|number| put(&format!("many/{number}"), "2")).collect(),
    ] {
        let ended = store.commit(Transaction { checks: vec![], changes }).await;
        assert!(matches!(&ended, Err(Error::Refused(why)) if !why.is_empty()), "{ended:?}");
    }
    assert_eq!(store.range("").await.unwrap().entries, before.entries);
    is_told_nothing_more(&store, &mut watch, "marker").await;
}

pub(crate) async fn the_longest_is_not_too_long<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let key = "k".repeat(MAX_KEY);
    let value: Vec<u8> = (0..MAX_VALUE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    let revision = change(&store, vec![put(&key, &value)]).await;
    let entry = Entry { key: key.clone(), value: value.clone(), revision };
    assert_eq!(store.get(&key).await.unwrap(), Some(entry.clone()));
    assert_eq!(store.range("k").await.unwrap().entries, [entry]);
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put(&key, &value)] });
}

pub(crate) async fn as_many_changes_as_promised<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    assert!(store.most_changes() >= 100);
    // Not all of what a large store promises: that is a matter of time, and not of rules.
    let count = store.most_changes().min(2_000);
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("many/", start).await.unwrap();
    let changes: Vec<_> = (0..count).map(|number| put(&format!("many/{number:05}"), "x")).collect();
    let revision = change(&store, changes.clone()).await;
    assert_eq!(store.range("many/").await.unwrap().entries.len(), count);
    assert_eq!(told(&mut watch).await, Batch { revision, changes });
}

pub(crate) async fn a_watch_tells_every_later_change_in_order<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    change(&store, vec![put("a", "before")]).await;
    let after = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", after).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..30 {
        let changes = match round % 3 {
            0 => vec![put("a", round.to_string())],
            1 => vec![put("b", round.to_string()), put("c", round.to_string())],
            _ => vec![removal("b"), put("d", round.to_string())],
        };
        let revision = change(&store, changes.clone()).await;
        expected.push(Batch { revision, changes });
    }
    for batch in expected {
        assert_eq!(told(&mut watch).await, batch);
    }
    is_told_nothing_more(&store, &mut watch, "marker").await;
}

pub(crate) async fn a_watch_begins_in_the_past<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let start = store.range("").await.unwrap().revision;
    let mut batches = Vec::new();
    for round in 0..10 {
        let changes = vec![put("a", round.to_string()), put(&round.to_string(), "x")];
        batches.push(Batch { revision: change(&store, changes.clone()).await, changes });
    }
    let revisions = batches.iter().map(|batch| batch.revision);
    let places: Vec<Revision> = std::iter::once(start).chain(revisions).collect();
    for (place, after) in places.into_iter().enumerate() {
        let mut watch = store.watch("", after).await.unwrap();
        for batch in &batches[place..] {
            assert_eq!(told(&mut watch).await, sorted(batch.clone()));
        }
        // ...and goes on into the present.
        let changes = vec![put("a", "new")];
        let revision = change(&store, changes.clone()).await;
        batches.push(Batch { revision, changes });
        assert_eq!(told(&mut watch).await, *batches.last().unwrap());
    }
}

pub(crate) async fn a_watch_tells_only_what_is_under_its_prefix<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("routes/", start).await.unwrap();
    change(&store, vec![put("history/1", "x"), put("routes", "x"), put("routes0", "x")]).await;
    let mixed = vec![put("history/2", "x"), put("routes/a", "x"), put("zebra", "x")];
    let revision = change(&store, mixed).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![put("routes/a", "x")] });
    change(&store, vec![removal("history/1")]).await;
    let revision = change(&store, vec![removal("history/2"), removal("routes/a")]).await;
    assert_eq!(told(&mut watch).await, Batch { revision, changes: vec![removal("routes/a")] });
}

pub(crate) async fn a_watch_waits_and_wakes<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    assert!(watch.next().now_or_never().is_none(), "nothing has happened");
    let waiting = tokio::spawn(async move { (watch.next().await, watch) });
    let revision = change(&store, vec![put("a", "1")]).await;
    let (batch, mut watch) = in_time(waiting).await.unwrap();
    assert_eq!(batch.unwrap(), Batch { revision, changes: vec![put("a", "1")] });
    assert!(watch.next().now_or_never().is_none(), "nothing more has happened");
}

pub(crate) async fn a_cancelled_wait_loses_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    let writer = async {
        let mut written = Vec::new();
        for round in 0..100 {
            written.push(change(&store, vec![put("a", round.to_string())]).await);
        }
        written
    };
    let reader = async {
        let mut seen = Vec::new();
        let mut cancelled = 0;
        while seen.len() < 100 {
            tokio::select! {
                biased;
                batch = watch.next() => seen.push(batch.unwrap().revision),
                () = tokio::task::yield_now() => cancelled += 1,
            }
        }
        (seen, cancelled)
    };
    let (written, (seen, cancelled)) = tokio::join!(writer, reader);
    assert_eq!(seen, written);
    assert!(cancelled > 0, "at least one wait was cancelled");
}

pub(crate) async fn watchers_do_not_disturb_each_other<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let start = store.range("").await.unwrap().revision;
    let mut watches = Vec::new();
    for number in 0..20 {
        watches.push(store.watch(&format!("{}/", number % 5), start).await.unwrap());
    }
    // One that is never asked, and one that is gone.
    let _idle = store.watch("", start).await.unwrap();
    drop(store.watch("", start).await.unwrap());
    let mut expected: Vec<Vec<Batch>> = vec![Vec::new(); 5];
    for round in 0..50 {
        let changes = vec![put(&format!("{}/x", round % 5), round.to_string())];
        let revision = change(&store, changes.clone()).await;
        expected[round % 5].push(Batch { revision, changes });
    }
    for (number, watch) in watches.iter_mut().enumerate() {
        for batch in &expected[number % 5] {
            assert_eq!(told(watch).await, *batch);
        }
    }
}

pub(crate) async fn what_is_forgotten_is_too_old<S: Subject>() {
    let subject = S::fresh().await;
    let old = change(&subject.store(), vec![put("a", "1")]).await;
    for round in 0..5 {
        change(&subject.store(), vec![put("a", round.to_string())]).await;
    }
    let subject = subject.forgetful().await;
    let store = subject.store();
    // Some stores can tell at once, others only when they are asked for the next batch.
    let error = match store.watch("", old).await {
        Ok(mut watch) => in_time(watch.next()).await.unwrap_err(),
        Err(error) => error,
    };
    let Error::TooOld { after, oldest } = error else { panic!("{error:?}") };
    assert_eq!(after, old);
    assert!(oldest > old, "{oldest}");
    // The remedy works.
    let range = store.range("").await.unwrap();
    assert_eq!(pairs(&range), [("a", b"4".as_slice())]);
    let mut watch = store.watch("", range.revision).await.unwrap();
    is_told_nothing_more(&store, &mut watch, "marker").await;
}

pub(crate) async fn what_is_done_outlasts_a_restart<S: Subject>() {
    let mut subject = S::fresh().await;
    let mut newest = 0;
    for round in 0..3 {
        let store = subject.store();
        let key = round.to_string();
        let revision = change(&store, vec![put(&key, "x"), put("last", &key)]).await;
        assert!(revision > newest, "revisions go on");
        newest = revision;
        let before = store.range("").await.unwrap();
        drop(store);
        subject = subject.restarted().await;
        let after = subject.store().range("").await.unwrap();
        assert_eq!(after.entries, before.entries);
        assert!(after.revision >= before.revision);
        let checks = vec![check("last", newest)];
        let done = commit(&subject.store(), checks, vec![put("last", "again")]).await;
        let Committed::Done(revision) = done else { panic!("{done:?}") };
        assert!(revision > newest);
        newest = revision;
    }
}
