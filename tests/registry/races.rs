//! Several writers to one store, against a plain model of what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use mse_proxy::control::write::{Done, Failed};
use mse_proxy::registry::refusal::Refusal;
use mse_proxy::registry::wish::{Others, Wish};
use mse_proxy::registry::{image::Value, keys};
use mse_proxy::routing::text;
use mse_proxy::store::{Revision, Shared};
use proptest::prelude::*;

use crate::history::verify;
use crate::support::{Node, history, read, route, store};

/// What one of the writers does next.
#[derive(Debug, Clone)]
enum Step {
    /// Blindly.
    Set {
        id: u8,
        host: u8,
        port: u8,
    },
    /// If nothing has come since it was seen.
    Change {
        id: u8,
        port: u8,
    },
    Remove {
        id: u8,
    },
    Apply {
        ids: Vec<u8>,
        port: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 0..6_u8, 1..9_u8).prop_map(|(id, host, port)| Step::Set { id, host, port }),
        3 => (0..6_u8, 1..9_u8).prop_map(|(id, port)| Step::Change { id, port }),
        2 => (0..6_u8).prop_map(|id| Step::Remove { id }),
        1 => (proptest::collection::btree_set(0..6_u8, 0..5), 1..9_u8)
            .prop_map(|(ids, port)| Step::Apply { ids: ids.into_iter().collect(), port }),
    ]
}

fn id(number: u8) -> String {
    format!("r{number}")
}

/// What a writer was told, by the id of its request.
type Told = BTreeMap<String, Result<Done, Failed>>;

async fn write(node: Node, steps: Vec<Step>) -> Told {
    let mut told = Told::new();
    for (step, number) in steps.into_iter().zip(0..) {
        let one =
            |of: u8, host: u8, port: u8| route(&id(of), &format!("h{host}.test"), port.into());
        let wish = match step {
            Step::Set { id, host, port } => {
                Wish::Set { route: one(id, host, port), if_revision: None }
            }
            Step::Change { id: of, port } => {
                let seen = node.handle.image().of(&id(of)).map_or(0, |stored| stored.revision);
                Wish::Set { route: one(of, of, port), if_revision: Some(seen) }
            }
            Step::Remove { id: of } => Wish::Remove { id: id(of).into(), if_revision: None },
            Step::Apply { ids, port } => {
                let routes = ids.into_iter().map(|of| one(of, of, port)).collect();
                Wish::Apply { routes, if_revision: None, allow_removal: true, others: Others::Go }
            }
        };
        let request = format!("{}-{number}", node.by);
        let answer = node.ask(&request, wish).await;
        told.insert(request, answer);
    }
    told
}

/// Replays the history and compares it with what is stored and with what everybody was told.
async fn judge(store: &Shared, told: &Told) {
    assert_eq!(verify(store).await, Ok(()));
    let (head, records) = history(store).await;
    assert_eq!(u64::try_from(records.len()).unwrap(), head.number, "no gap");
    let mut model: BTreeMap<String, (String, Revision)> = BTreeMap::new();
    let mut written = BTreeMap::new();
    for (_, entry) in &records {
        let record = read(entry);
        for change in &record.changes {
            let known = model.get(&change.id).map(|(text, _)| text.clone());
            assert_eq!(change.before, known, "nothing was overwritten unseen");
            match &change.after {
                Some(text) => model.insert(change.id.clone(), (text.clone(), entry.revision)),
                None => model.remove(&change.id),
            };
        }
        // After no write has a name two owners.
        let mut hosts: Vec<_> =
            model.values().map(|(text, _)| text.lines().nth(1).unwrap()).collect();
        hosts.sort_unstable();
        assert!(hosts.is_sorted_by(|one, other| one < other), "{hosts:?}");
        let before = written.insert(record.request.clone(), (entry.revision, record));
        assert_eq!(before, None, "each request was done once");
    }
    let stored = store.range(keys::WATCHED).await.unwrap().entries;
    let stored: BTreeMap<_, _> = stored
        .into_iter()
        .filter_map(|entry| {
            let id = keys::route_id(&entry.key)?.to_owned();
            Some((id, (String::from_utf8(entry.value).unwrap(), entry.revision)))
        })
        .collect();
    assert_eq!(stored, model);
    for (request, answer) in told {
        match (answer, written.remove(request)) {
            (Ok(done), Some((revision, record))) => {
                assert_eq!(done.revision, record.answered.unwrap_or(revision), "{request}");
                let changes: Vec<_> = done
                    .differences
                    .iter()
                    .map(|one| {
                        let before = one.before.as_ref().map(Value::text);
                        let after = one.after.as_ref().map(|route| text::write(route));
                        (one.id.to_string(), before, after)
                    })
                    .collect();
                let recorded: Vec<_> = record
                    .changes
                    .into_iter()
                    .map(|change| (change.id, change.before, change.after))
                    .collect();
                assert_eq!(changes, recorded, "{request}");
            }
            (Err(Failed::Refused(_)), None) => {}
            (answer, written) => panic!("{request}: {answer:?}, but {written:?}"),
        }
    }
    assert!(written.is_empty(), "nobody was told of {written:?}");
}

fn race(writers: Vec<Vec<Step>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _folder) = store();
        let names = ["one", "two", "three"];
        let races = writers
            .into_iter()
            .zip(names)
            .map(|(steps, name)| tokio::spawn(write(Node::new(&store, name), steps)));
        let mut told = Told::new();
        for race in races.collect::<Vec<_>>() {
            told.extend(race.await.unwrap());
        }
        judge(&store, &told).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn two_writers_lose_nothing_and_overwrite_nothing_unseen(
        one in proptest::collection::vec(step(), 1..12),
        other in proptest::collection::vec(step(), 1..12),
    ) {
        race(vec![one, other]);
    }
}

#[test]
fn three_who_count_together_miss_no_step() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _folder) = store();
        let counted = ["one", "two", "three"].map(|name| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let node = Node::new(&store, name);
                let mut done = 0;
                // Each adds one to what it has seen, thirty times.
                while done < 30 {
                    node.settled().await;
                    let stored = node.handle.image().of("n");
                    let (port, seen) = stored.map_or((0, 0), |stored| {
                        let Value::Route(route) = stored.value else { panic!() };
                        let port = route.backends[0]
                            .to_string()
                            .rsplit(':')
                            .next()
                            .unwrap()
                            .parse()
                            .unwrap();
                        (port, stored.revision)
                    });
                    let wish = Wish::Set {
                        route: route("n", "n.test", port + 1),
                        if_revision: Some(seen),
                    };
                    match node.ask("", wish).await {
                        Ok(_) => done += 1,
                        Err(Failed::Refused(Refusal::Stale { .. }) | Failed::Outrun) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        });
        for one in counted {
            one.await.unwrap();
        }
        let stored = store.get(&keys::route("n")).await.unwrap().unwrap();
        let text = String::from_utf8(stored.value).unwrap();
        assert!(text.contains("10.0.0.1:90"), "{text}");
        assert_eq!((history(&store).await.0.number, verify(&store).await), (90, Ok(())));
    });
}

#[test]
fn many_who_wait_share_a_transaction() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _folder) = store();
        let node = Node::new(&store, "test");
        node.settled().await;
        let routes: Vec<_> =
            (0..200).map(|number| route(&id(number), &format!("{number}.test"), 1)).collect();
        let all = futures_util::future::join_all(routes.iter().map(|route| node.set(route))).await;
        let revisions: std::collections::BTreeSet<_> =
            all.into_iter().map(|answer| answer.unwrap().revision).collect();
        assert!(revisions.len() < 100, "{}", revisions.len());
        assert_eq!((history(&store).await.0.number, verify(&store).await), (200, Ok(())));
    });
}
