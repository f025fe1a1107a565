//! The history: bounded, chained, and not to be tampered with unseen.

use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use mse_proxy::clock::Timestamp;
use mse_proxy::control::write::Settings;
use mse_proxy::registry::history::{Bounds, Kept};
use mse_proxy::registry::keys;
use mse_proxy::registry::verify::{Broken, Chain};
use mse_proxy::registry::wish::{Others, Wish};
use mse_proxy::store::Shared;

use crate::support::{Held, Node, history, put, read, route, settings, store};

pub(crate) async fn verify(store: &Shared) -> Result<(), Broken> {
    let (head, records) = history(store).await;
    let mut chain = Chain::new(head.oldest);
    for (number, entry) in &records {
        chain.check(*number, &entry.value)?;
    }
    chain.finish(&head)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_tampers_is_named_by_the_record() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    for port in 1..=6 {
        node.set(&route("a", "a.test", port)).await.unwrap();
    }
    assert_eq!(verify(&store).await, Ok(()));
    let (_, records) = history(&store).await;
    for (number, entry) in &records {
        let (key, value) = (keys::record(*number), str::from_utf8(&entry.value).unwrap());
        let mut forged = read(entry);
        forged.by = "nobody".into();
        let forged = String::from_utf8(forged.to_bytes()).unwrap();
        put(&store, &[(&key, Some(&forged))]).await;
        assert_eq!(verify(&store).await.unwrap_err().number(), *number);
        put(&store, &[(&key, None)]).await;
        assert_eq!(verify(&store).await, Err(Broken::Missing { number: *number }));
        put(&store, &[(&key, Some(value))]).await;
        assert_eq!(verify(&store).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded_by_count_and_request_ids_go_with_their_records() {
    let (store, _folder) = store();
    let history_of = |max_records| Bounds { max_records, ..Bounds::default() };
    let with = |max_records| Settings { history: history_of(max_records), ..settings() };
    let clock = Arc::new(mse_proxy::clock::SystemClock);
    let node = Node::with(&store, "test", with(10), Arc::clone(&clock) as _);
    let set = |port| Wish::Set { route: route("a", "a.test", port), if_revision: None };
    for port in 1..=30 {
        node.ask(&format!("r-{port}"), set(port)).await.unwrap();
        let (head, records) = history(&store).await;
        assert_eq!(records.len(), usize::from(port).min(10));
        assert_eq!(head.oldest, records[0].0);
        assert_eq!(verify(&store).await, Ok(()));
    }
    assert_eq!(store.range("requests/").await.unwrap().entries.len(), 10);
    // What is no longer kept is no repetition.
    assert!(!node.ask("r-1", set(1)).await.unwrap().is_repeat);
    assert!(node.ask("r-30", set(30)).await.unwrap().is_repeat);
    drop(node);
    // A lower bound is reached in a few writes, and not at once.
    let node = Node::with(&store, "test", with(2), clock);
    for port in 31..=33 {
        node.set(&route("a", "a.test", port)).await.unwrap();
    }
    let (head, records) = history(&store).await;
    assert_eq!((records.len(), head.number, verify(&store).await), (2, 34, Ok(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded_by_age() {
    let (store, _folder) = store();
    let start: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
    let clock = Arc::new(Held(Mutex::new(start)));
    let max_age = SignedDuration::from_hours(24);
    let history_of = Bounds { max_age, ..Bounds::default() };
    let settings = Settings { history: history_of, ..settings() };
    let node = Node::with(&store, "test", settings, Arc::clone(&clock) as _);
    for hour in 0..60_u16 {
        *clock.0.lock().unwrap() = start + SignedDuration::from_hours(hour.into());
        node.set(&route("a", "a.test", hour + 1)).await.unwrap();
        let (_, records) = history(&store).await;
        assert_eq!(records.len(), usize::from(hour + 1).min(25), "{hour}");
    }
    assert_eq!(verify(&store).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_changes_leave_several_records_of_one_revision() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    let one = |number: u32| route(&format!("r{number:05}"), &format!("r{number}.test"), 1);
    let routes: Vec<_> = (0..10_000).map(one).collect();
    let apply = Wish::Apply { routes, if_revision: None, allow_removal: false, others: Others::Go };
    let done = node.ask("all", apply.clone()).await.unwrap();
    assert_eq!(done.differences.len(), 10_000);
    let (head, records) = history(&store).await;
    assert!(records.len() > 3, "{}", records.len());
    assert_eq!(head.number, u64::try_from(records.len()).unwrap());
    assert!(records.iter().all(|(_, entry)| entry.revision == done.revision));
    let changes: usize = records.iter().map(|(_, entry)| read(entry).changes.len()).sum();
    assert_eq!((changes, verify(&store).await), (10_000, Ok(())));
    let again = node.ask("all", apply).await.unwrap();
    assert_eq!((again.differences.len(), again.revision), (10_000, done.revision));
}
