//! What the registry holds becomes routes: the source follows a real store, and tells each change.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mse_proxy::outcome::Outcome;
use mse_proxy::registry::app::Phase;
use mse_proxy::registry::record::project_key;
use mse_proxy::routing::snapshot::Snapshot;
use mse_proxy::source::apps::Apps;
use mse_proxy::source::{RouteSet, Source};
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Shared, Transaction};
use mse_proxy::wire::client_hello::Alpn;
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use crate::support::{application, at, default, fleet_on};

const PATIENCE: Duration = Duration::from_mins(1);
const KIND: &str = "8g-eu-001";
const PROXY: &str = "proxy.mse.cosmian.com";

fn store() -> (Shared, TempDir) {
    let folder = TempDir::new().unwrap();
    (Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap()), folder)
}

fn follow(store: &Shared) -> Receiver<RouteSet> {
    let (sender, sets) = channel(16);
    tokio::spawn(Apps::new(Arc::clone(store)).run(sender));
    sets
}

/// What a client of a name is told at an instant.
fn told(set: &RouteSet, name: &str, now: Timestamp) -> String {
    let (snapshot, conflicts) = Snapshot::after(&Snapshot::default(), &set.claims);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    match snapshot.lookup(&name.parse().unwrap(), &Alpn::default(), now) {
        Ok(route) => route.backends[0].to_string(),
        Err(miss) => Outcome::from(&miss).to_string(),
    }
}

/// Waits until clients of a name are told this.
async fn until(sets: &mut Receiver<RouteSet>, name: &str, now: Timestamp, word: &str) -> RouteSet {
    let mut last = String::new();
    let waiting = async {
        while let Some(set) = sets.recv().await {
            last = told(&set, name, now);
            if last == word {
                return Some(set);
            }
        }
        None
    };
    let found = timeout(PATIENCE, waiting).await.ok().flatten();
    found.unwrap_or_else(|| panic!("{name} is never {word}, last it was {last}"))
}

#[tokio::test]
async fn a_life_is_followed_from_its_configuration_name_to_its_tombstone_and_a_restart() {
    let (store, _folder) = store();
    let mut sets = follow(&store);
    let fleet = fleet_on(Arc::clone(&store), 1).await;
    fleet.dns.alias("shop.test", Some(PROXY));
    let name = "shop".parse().unwrap();
    let wish = application("shop", KIND, Some("shop.test"));
    let app = fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap();
    let configuration = app.hosts[0].host.to_string();
    let proceed = async |phase| {
        fleet.other.proceed(&default(), &name, phase, None, at(1)).await.unwrap();
    };
    proceed(Phase::Initializing).await;
    let set = until(&mut sets, &configuration, at(1), "10.0.0.1:443").await;
    assert_eq!(told(&set, "shop.test", at(1)), "unknown_name");
    proceed(Phase::Running).await;
    let set = until(&mut sets, "shop.test", at(1), "10.0.0.1:443").await;
    assert_eq!(told(&set, &configuration, at(1)), "unknown_name");
    assert_eq!(told(&set, "shop.test", app.ends_at), "expired_name");
    assert_eq!(set.faults, []);

    // Its DNS leads elsewhere for too long, and back.
    fleet.dns.alias("shop.test", Some("elsewhere.test"));
    for _ in 0..3 {
        fleet.one.check_domains(at(2)).await.unwrap();
    }
    until(&mut sets, "shop.test", at(2), "suspended").await;
    fleet.dns.alias("shop.test", Some(PROXY));
    fleet.one.check_domains(at(2)).await.unwrap();
    until(&mut sets, "shop.test", at(2), "10.0.0.1:443").await;

    proceed(Phase::Stopped).await;
    until(&mut sets, "shop.test", at(2), "expired_name").await;
    // Whoever starts anew finds the same.
    let set = until(&mut follow(&store), "shop.test", at(2), "expired_name").await;
    assert_eq!(told(&set, &configuration, at(2)), "expired_name");
}

#[tokio::test]
async fn a_suspended_project_and_an_unreadable_record_take_nothing_but_their_own() {
    let (store, _folder) = store();
    let fleet = fleet_on(Arc::clone(&store), 2).await;
    let mut names = Vec::new();
    for name in ["one", "two"] {
        let wish = application(name, KIND, None);
        let app = fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap();
        names.push(app.hosts[0].host.to_string());
        let name = name.parse().unwrap();
        fleet.one.proceed(&default(), &name, Phase::Initializing, None, at(0)).await.unwrap();
    }
    let mut sets = follow(&store);
    until(&mut sets, &names[0], at(1), "10.0.0.1:443").await;
    let broken = Change { key: "apps/default/two".to_owned(), value: Some(b"{}".to_vec()) };
    store.commit(Transaction { checks: vec![], changes: vec![broken] }).await.unwrap();
    let set = until(&mut sets, &names[1], at(1), "unknown_name").await;
    assert_eq!((told(&set, &names[0], at(1)).as_str(), set.left_out), ("10.0.0.1:443", 1));
    let words = set.faults[0].kind.to_string();
    assert!(words.starts_with("this record cannot be read: missing field"), "{words}");
    assert_eq!(&*set.faults[0].place.origin.source, "store apps/default/two");

    // By the project's record alone, before any of its apps is stopped.
    let held = store.get(&project_key(&default())).await.unwrap().unwrap();
    let text = String::from_utf8(held.value).unwrap();
    let standing = r#"{"suspended":{"since":"2026-06-01T13:00:00Z","cause":"operator"}}"#;
    let value = Some(text.replace("\"good\"", standing).into_bytes());
    let changes = vec![Change { key: held.key, value }];
    store.commit(Transaction { checks: vec![], changes }).await.unwrap();
    until(&mut sets, &names[0], at(1), "suspended").await;
}
