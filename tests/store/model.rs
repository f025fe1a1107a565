//! Random transactions, ranges and watches, compared with a map and a list.

use std::collections::BTreeMap;

use mse_proxy::store::{Batch, Change, Check, Committed, Entry, Revision, Shared};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::contract::{Subject, commit, in_time, sorted, told};

/// Few keys, so that they meet; some are prefixes of others.
const KEYS: [&str; 7] = ["a", "a/", "a/b", "a/c", "ab", "b/", "b/a"];
const PREFIXES: [&str; 6] = ["", "a", "a/", "a/b", "b", "c"];

/// What a check expects.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Truth,
    Absent,
    /// The revision of some transaction before.
    Earlier(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Commit {
        checks: Vec<(usize, Expected)>,
        changes: BTreeMap<usize, Option<Vec<u8>>>,
    },
    Get(usize),
    Range(usize),
    /// Watches a prefix from the revision of an earlier transaction on.
    Watch(usize, usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![
        6 => Just(Expected::Truth),
        1 => Just(Expected::Absent),
        1 => any::<usize>().prop_map(Expected::Earlier),
    ];
    let checks = vec((0..KEYS.len(), expected), 0..3);
    let value = proptest::option::weighted(0.7, vec(any::<u8>(), 0..20));
    let changes = proptest::collection::btree_map(0..KEYS.len(), value, 0..4);
    prop_oneof![
        20 => (checks, changes).prop_map(|(checks, changes)| Step::Commit { checks, changes }),
        3 => (0..KEYS.len()).prop_map(Step::Get),
        3 => (0..PREFIXES.len()).prop_map(Step::Range),
        3 => (0..PREFIXES.len(), any::<usize>()).prop_map(|(prefix, from)| Step::Watch(prefix, from)),
        1 => Just(Step::Restart),
    ]
}

/// What a store is, in the plainest words.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<&'static str, (Vec<u8>, Revision)>,
    /// Every transaction that changed something, and from where on they can still be told.
    log: Vec<Batch>,
    start: Revision,
}

impl Model {
    fn written(&self, key: &str) -> Revision {
        self.entries.get(key).map_or(0, |(_, revision)| *revision)
    }

    fn newest(&self) -> Revision {
        self.log.last().map_or(self.start, |batch| batch.revision)
    }

    /// A revision from which on everything can be told.
    fn earlier(&self, from: usize) -> Revision {
        match from % (self.log.len() + 1) {
            0 => self.start,
            place => self.log[place - 1].revision,
        }
    }

    fn under(&self, prefix: &str) -> Vec<Entry> {
        self.entries
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, revision))| Entry {
                key: (*key).to_owned(),
                value: value.clone(),
                revision: *revision,
            })
            .collect()
    }

    fn told(&self, prefix: &str, after: Revision) -> Vec<Batch> {
        let mut batches = self.log.clone();
        batches.retain(|batch| batch.revision > after);
        for batch in &mut batches {
            batch.changes.retain(|change| change.key.starts_with(prefix));
        }
        batches.retain(|batch| !batch.changes.is_empty());
        batches
    }

    /// What must come of it, and the changes that are real ones.
    fn judge(
        &self,
        checks: &[Check],
        changes: &BTreeMap<usize, Option<Vec<u8>>>,
    ) -> Option<Vec<Change>> {
        let hold = checks.iter().all(|check| self.written(&check.key) == check.revision);
        hold.then(|| {
            changes
                .iter()
                .map(|(key, value)| Change { key: KEYS[*key].to_owned(), value: value.clone() })
                .filter(|change| change.value.is_some() || self.written(&change.key) > 0)
                .collect()
        })
    }

    fn apply(&mut self, revision: Revision, changes: Vec<Change>) {
        for change in &changes {
            let key = KEYS.iter().find(|key| **key == change.key).unwrap();
            match &change.value {
                Some(value) => drop(self.entries.insert(key, (value.clone(), revision))),
                None => drop(self.entries.remove(key)),
            }
        }
        self.log.push(sorted(Batch { revision, changes }));
    }
}

/// Compares a store of this kind with the model, in so many stories.
pub(crate) fn compare<S: Subject>(stories: u32) {
    let runtime = Runtime::new().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: stories, failure_persistence: None, ..Config::default() });
    runner
        .run(&vec(step(), 1..40), |steps| {
            runtime.block_on(in_time(tell::<S>(steps)));
            Ok(())
        })
        .unwrap();
}

async fn tell<S: Subject>(steps: Vec<Step>) {
    let mut subject = S::fresh().await;
    let mut model = Model { start: start(&subject.store()).await, ..Model::default() };
    for step in steps {
        let store = subject.store();
        match step {
            Step::Commit { checks, changes } => run(&store, &mut model, &checks, &changes).await,
            Step::Get(key) => {
                let expected = model.under("").into_iter().find(|entry| entry.key == KEYS[key]);
                assert_eq!(store.get(KEYS[key]).await.unwrap(), expected);
            }
            Step::Range(prefix) => {
                let range = store.range(PREFIXES[prefix]).await.unwrap();
                assert_eq!(range.entries, model.under(PREFIXES[prefix]));
                assert!(range.revision >= model.newest());
            }
            Step::Watch(prefix, from) => {
                watch(&store, &model, PREFIXES[prefix], model.earlier(from)).await;
            }
            Step::Restart => {
                drop(store);
                subject = subject.restarted().await;
                // What was told before may be forgotten by now.
                model.start = start(&subject.store()).await;
                model.log.clear();
            }
        }
    }
    let store = subject.store();
    assert_eq!(store.range("").await.unwrap().entries, model.under(""));
    for prefix in PREFIXES {
        watch(&store, &model, prefix, model.start).await;
    }
}

async fn start(store: &Shared) -> Revision {
    store.range("").await.unwrap().revision
}

async fn run(
    store: &Shared,
    model: &mut Model,
    checks: &[(usize, Expected)],
    changes: &BTreeMap<usize, Option<Vec<u8>>>,
) {
    let checks: Vec<Check> = checks
        .iter()
        .map(|(key, expected)| Check {
            key: KEYS[*key].to_owned(),
            revision: match expected {
                Expected::Truth => model.written(KEYS[*key]),
                Expected::Absent => 0,
                Expected::Earlier(from) => model.earlier(*from),
            },
        })
        .collect();
    let asked = changes
        .iter()
        .map(|(key, value)| Change { key: KEYS[*key].to_owned(), value: value.clone() })
        .collect();
    let expected = model.judge(&checks, changes);
    match (commit(store, checks, asked).await, expected) {
        (Committed::Conflict, None) => {}
        (Committed::Done(revision), Some(changes)) if changes.is_empty() => {
            assert!(revision >= model.newest());
        }
        (Committed::Done(revision), Some(changes)) => {
            assert!(revision > model.newest());
            model.apply(revision, changes);
        }
        (ended, expected) => panic!("{ended:?} and not {expected:?}"),
    }
}

async fn watch(store: &Shared, model: &Model, prefix: &str, after: Revision) {
    let mut watch = store.watch(prefix, after).await.unwrap();
    for batch in model.told(prefix, after) {
        assert_eq!(told(&mut watch).await, batch);
    }
}
