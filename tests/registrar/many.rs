//! Very many apps: what changes for one of them costs little, whatever else there is.

use std::sync::Arc;
use std::time::Instant;

use mse_proxy::registry::app::{App, AppHost, Phase, Role};
use mse_proxy::registry::domain::{Domain, Gate};
use mse_proxy::registry::project::Project;
use mse_proxy::registry::record::write;
use mse_proxy::routing::claims::Passage;
use mse_proxy::source::RouteSet;
use mse_proxy::store::{Change, Shared, Transaction};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::routed::{KIND, PATIENCE, PROXY, follow, store, told};
use crate::support::{application, at, default, fleet_on};

/// How many apps there are: few enough for every run, and as many as are asked for.
fn wanted() -> usize {
    std::env::var("APPS").map_or(4_000, |apps| apps.parse().unwrap())
}

async fn commit(store: &Shared, changes: Vec<Change>) {
    store.commit(Transaction { checks: vec![], changes }).await.unwrap();
}

/// The first set that says so.
async fn until(sets: &mut Receiver<RouteSet>, is_so: impl Fn(&RouteSet) -> bool) -> RouteSet {
    loop {
        let set = timeout(PATIENCE, sets.recv()).await.unwrap().unwrap();
        if is_so(&set) {
            return set;
        }
    }
}

/// How many passages are values of their own in the one set and not in the other.
fn fresh(set: &RouteSet, before: &RouteSet) -> usize {
    let known: Vec<_> = before.claims.passages().iter().map(Passage::address).collect();
    set.claims.passages().iter().filter(|one| !known.contains(&one.address())).count()
}

#[tokio::test]
async fn a_change_of_one_app_of_very_many_makes_little_anew() {
    let (store, _folder) = store();
    let fleet = fleet_on(Arc::clone(&store), 1).await;
    fleet.dns.alias("shop.test", Some(PROXY));
    let wish = application("shop", KIND, Some("shop.test"));
    let app = fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap().record;
    let project: Project = fleet.one.project(&default()).await.unwrap().record;
    let many = wanted();
    let mut all = Vec::new();
    for number in 0..many {
        // A hundred apps of each project, each with a generated name.
        let project = Project {
            name: format!("project-{}", number / 100).parse().unwrap(),
            ..project.clone()
        };
        let mut one = App {
            project: project.name.clone(),
            name: format!("app-{number}").parse().unwrap(),
            phase: Phase::Running,
            ..app.clone()
        };
        let host = format!("{number:016x}.cosmian.io").parse().unwrap();
        one.hosts = vec![AppHost { host, role: Role::Own }];
        if number % 100 == 0 {
            all.push(write(&project));
        }
        all.push(write(&one));
    }
    for part in all.chunks(5_000) {
        commit(&store, part.to_vec()).await;
    }
    let began = Instant::now();
    let mut sets = follow(&store);
    let generated = format!("{:016x}.cosmian.io", 7);
    let mut before = until(&mut sets, |set| !set.claims.is_empty()).await;
    println!("{many} apps are read within {:?}", began.elapsed());

    // An app, a domain that an app has, and a project of a hundred apps.
    let held = fleet.one.domain(&"shop.test".parse().unwrap()).await.unwrap();
    let moved = App { phase: Phase::Running, ..app.clone() };
    let closed = Domain { gate: Gate::Suspended, ..held.record };
    let name = "project-0".parse().unwrap();
    let suspended = Project { name, ..project.clone() }.suspend(at(1));
    for (what, change, host, word, most) in [
        ("an app", write(&moved), "shop.test", "10.0.0.1:443", 1),
        ("a domain", write(&closed), "shop.test", "suspended", 1),
        ("a project", write(&suspended), &generated, "suspended", 100),
    ] {
        let began = Instant::now();
        commit(&store, vec![change]).await;
        let set = until(&mut sets, |set| *set != before).await;
        println!("{what} of {many} apps is told within {:?}", began.elapsed());
        assert_eq!(told(&set, host, at(1)), word, "{what}");
        let count = fresh(&set, &before);
        assert!((1..=most).contains(&count), "{what}: {count} of {}", set.claims.passages().len());
        assert!(set.claims.passages().len() > most, "they stand apart");
        before = set;
    }
}
