//! Changes by the hundred while connections flow: none of either is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mse_proxy::clock::SystemClock;
use mse_proxy::control::proto::{ListRequest, RemoveRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::journey::{Identity, handshake, soon};
use crate::support::{Controlled, meets, route, set};

const A_SECOND: u64 = 100;

/// Changes a hundred routes a second for a while; real TLS sessions pass meanwhile.
async fn load(seconds: u64) {
    let controlled = Arc::new(Controlled::stored(Arc::new(SystemClock), |_| {}).await);
    let app = Arc::new(Identity::of("app.test"));
    let mut client = controlled.client();
    let backend = app.serve_page("page").await;
    client.set(set(route("app", "app.test", backend))).await.unwrap();
    meets(&client, "app.test", "allowed").await;
    let (over, sessions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (controlled, app) = (Arc::clone(&controlled), Arc::clone(&app));
        let (over, sessions) = (Arc::clone(&over), Arc::clone(&sessions));
        visitors.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let stream = controlled.proxy.dial().await;
                let visit = handshake(stream, "app.test", app.trusting());
                let (mut tls, shown) = soon("a handshake", visit).await.unwrap();
                assert_eq!(shown, app.certificate);
                tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
                let mut page = String::new();
                soon("a page", tls.read_to_string(&mut page)).await.unwrap();
                assert!(page.ends_with("page"), "{page}");
                sessions.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Sixteen at once, so that a slow disk does not set the pace.
    let mut expected = BTreeMap::new();
    let mut writes = tokio::task::JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1000 / A_SECOND));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    for number in 0..seconds * A_SECOND {
        ticks.tick().await;
        if writes.len() >= 16 {
            let done: Result<(), _> = writes.join_next().await.unwrap();
            done.unwrap();
        }
        // A route's turn comes again after 400 others: never are two writes of one on their way.
        let id = format!("r{}", number % 400);
        let is_removed = number >= 400 && number % 7 == 0;
        let mut client = client.clone();
        let port = number % 60_000 + 1;
        if is_removed && expected.remove(&id).is_some() {
            writes.spawn(async move {
                let request = RemoveRequest { id, ..RemoveRequest::default() };
                client.remove(request).await.unwrap();
            });
        } else {
            expected.insert(id.clone(), port);
            writes.spawn(async move {
                let wanted = route(&id, &format!("{id}.test"), format!("127.0.0.1:{port}"));
                client.set(set(wanted)).await.unwrap();
            });
        }
    }
    while let Some(done) = writes.join_next().await {
        done.unwrap();
    }
    let took = began.elapsed();
    // The last one is in force, and all others as they were acknowledged.
    client.set(set(route("last", "last.test", "127.0.0.1:1"))).await.unwrap();
    meets(&client, "last.test", "allowed").await;
    let request = ListRequest { contains: String::new(), ..ListRequest::default() };
    let list = client.list(request).await.unwrap().into_inner();
    let found: BTreeMap<_, _> = list
        .routes
        .into_iter()
        .filter_map(|state| {
            let route = state.route.unwrap();
            let port = route.backends[0].rsplit_once(':').unwrap().1.parse().unwrap();
            route.id.starts_with('r').then_some((route.id, port))
        })
        .collect();
    assert_eq!(found, expected);
    over.store(true, Ordering::Relaxed);
    while let Some(visitor) = visitors.join_next().await {
        visitor.unwrap();
    }
    let sessions = sessions.load(Ordering::Relaxed);
    eprintln!("{} changes in {took:?}, {sessions} sessions", seconds * A_SECOND);
    assert!(sessions > 0);
    let records = controlled.proxy.records(usize::try_from(sessions).unwrap()).await;
    assert!(records.iter().all(|record| record["outcome"] == "closed"), "{records:?}");
}

/// Longer, for whoever has changed the store, the registry or the reconciler:
/// `SECONDS_OF_LOAD=60 cargo test --test control -- --nocapture a_hundred_changes`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_a_second_lose_nothing_and_cut_nobody() {
    let seconds = std::env::var("SECONDS_OF_LOAD").map_or(5, |text| text.parse().unwrap());
    load(seconds).await;
}
