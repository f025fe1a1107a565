//! A fleet's etcd that ends, hangs, forgets or loses its members: nothing acknowledged is lost,
//! nothing is told twice, nothing is done twice, and nobody waits for ever.

use std::net::TcpListener;
use std::time::Duration;

use mse_proxy::store::{Batch, Committed, Error, Revision, Shared, Transaction, Watch};

use crate::contract::{change, check, in_time, put, told};
use crate::support_etcd::{Road, Server, open, settings};

fn unavailable<T: std::fmt::Debug>(ended: Result<T, Error>) -> String {
    match ended {
        Err(Error::Unavailable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

async fn newest(store: &Shared) -> Revision {
    in_time(store.range("")).await.unwrap().revision
}

/// Counts up in one key, whatever fails on the way, each step once.
async fn count(store: &Shared, from: u32, to: u32) {
    for number in from..to {
        let done = async {
            loop {
                let entry = store.get("count").await;
                let (value, revision) = match entry {
                    Ok(Some(entry)) => (entry.value, entry.revision),
                    Ok(None) => (vec![], 0),
                    Err(Error::Unavailable { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                // An attempt of which nobody knew has come through.
                if value == number.to_string().into_bytes() {
                    return;
                }
                let checks = vec![check("count", revision)];
                let changes = vec![put("count", number.to_string())];
                match store.commit(Transaction { checks, changes }).await {
                    Ok(Committed::Done(_)) => return,
                    Ok(Committed::Conflict) | Err(Error::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        in_time(done).await;
    }
}

/// Follows the count: every step is told once, in order. Gives the last revision.
async fn follow_count(watch: &mut Box<dyn Watch>, from: u32, to: u32) -> Revision {
    let mut last = 0;
    for number in from..to {
        let batch = told(watch).await;
        assert!(batch.revision > last);
        assert_eq!(batch.changes, [put("count", number.to_string())]);
        last = batch.revision;
    }
    last
}

#[tokio::test]
async fn a_restart_is_not_noticed() {
    let mut server = Server::start(&[]);
    let store = server.open();
    let start = newest(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    for round in 0..3 {
        count(&store, round * 10, round * 10 + 10).await;
        follow_count(&mut watch, round * 10, round * 10 + 10).await;
        server.restart();
    }
    // What happens before the watch is back is told as well.
    server.etcdctl(&["put", "mse-proxy/other", "x"]);
    assert_eq!(told(&mut watch).await.changes, [put("other", "x")]);
}

#[tokio::test]
async fn a_long_absence_is_told_and_made_up_for() {
    let mut server = Server::start(&[]);
    let store = open(&format!("{}timeout = \"2s\"\n", server.settings()));
    let start = newest(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    count(&store, 0, 3).await;
    let last = follow_count(&mut watch, 0, 3).await;
    server.kill();
    let (told, found, written, followed) = tokio::join!(
        in_time(watch.next()),
        in_time(store.range("")),
        in_time(store.commit(Transaction::default())),
        in_time(store.watch("", last)),
    );
    let followed = followed.map(|_| ());
    for why in [unavailable(told), unavailable(found), unavailable(written), unavailable(followed)]
    {
        assert!(why.contains(&server.url()), "{why}");
    }
    // That watch is over, whatever comes.
    server.run();
    unavailable(in_time(watch.next()).await);
    server.etcdctl(&["put", "mse-proxy/count", "3"]);
    let mut watch = in_time(store.watch("", last)).await.unwrap();
    count(&store, 4, 6).await;
    follow_count(&mut watch, 3, 6).await;
}

#[tokio::test]
async fn a_proxy_may_start_before_its_etcd() {
    let mut server = Server::start(&[]);
    server.kill();
    let store = server.open();
    let (found, ()) = tokio::join!(in_time(store.range("")), async { server.run() });
    assert_eq!(found.unwrap().entries, []);
}

#[tokio::test]
async fn members_die_in_turn_while_it_is_written_and_followed() {
    let mut servers = Server::three();
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let store = open(&settings(&urls));
    let start = newest(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let mut told = 0;
    // One of them leads, so its death is among these; and so is that of whoever is asked.
    for server in &mut servers {
        let (before, after) = (told + 20, told + 60);
        let writer = async {
            count(&store, told, before).await;
            server.kill();
            count(&store, before, after).await;
        };
        let (last, ()) = tokio::join!(follow_count(&mut watch, told, after), writer);
        assert!(last > start);
        told = after;
        server.run();
    }
}

#[tokio::test]
async fn without_a_majority_everybody_is_told() {
    let mut servers = Server::three();
    // The one that stays is asked first, and asked alone.
    let store = open(&format!("{}timeout = \"2s\"\n", servers[0].settings()));
    let mut watch = store.watch("", newest(&store).await).await.unwrap();
    count(&store, 0, 3).await;
    let last = follow_count(&mut watch, 0, 3).await;
    servers[1].kill();
    servers[2].kill();
    unavailable(in_time(store.get("count")).await);
    unavailable(in_time(store.range("")).await);
    let changes = vec![put("count", "9")];
    unavailable(in_time(store.commit(Transaction { checks: vec![], changes })).await);
    // Its connection is as good as ever; it is the member that says that it lost its cluster.
    unavailable(in_time(watch.next()).await);
    servers[1].run();
    let mut watch = in_time(async {
        loop {
            match store.watch("", last).await {
                Ok(watch) => return watch,
                Err(Error::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    server_counts(&store, &mut watch).await;
}

/// A change is told, perhaps behind one of which nobody knew whether it had happened.
async fn server_counts(store: &Shared, watch: &mut Box<dyn Watch>) {
    count(store, 10, 11).await;
    while told(watch).await.changes != [put("count", "10")] {}
}

#[tokio::test]
async fn a_member_that_hangs_is_left() {
    let servers = Server::three();
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let store = open(&format!("{}timeout = \"20s\"\n", settings(&urls)));
    let hasty = open(&format!("{}timeout = \"3s\"\n", settings(&urls)));
    let start = newest(&store).await;
    newest(&hasty).await;
    let mut watch = store.watch("count", start).await.unwrap();
    // All three ask the first of the list.
    servers[0].freeze();
    let changes = vec![put("perhaps", "x")];
    let ended = hasty.commit(Transaction { checks: vec![], changes }).await;
    let why = unavailable(ended);
    assert!(why.contains("not known"), "{why}");
    newest(&store).await;
    count(&store, 0, 20).await;
    // The ping that is not answered tells the watch.
    follow_count(&mut watch, 0, 20).await;
    servers[0].thaw();
}

#[tokio::test]
async fn an_etcd_that_lost_its_disk_is_not_followed_on() {
    let mut server = Server::start(&[]);
    let store = server.open();
    let start = newest(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    count(&store, 0, 5).await;
    let last = follow_count(&mut watch, 0, 5).await;
    server.kill();
    server.wipe();
    server.run();
    // Its revisions begin anew: to wait for the next one would be to wait for long.
    let error = in_time(watch.next()).await.unwrap_err();
    assert!(matches!(error, Error::TooOld { after, oldest } if after == last && oldest < last));
    let error = in_time(store.watch("", last)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::TooOld { .. }), "{error}");
    let range = store.range("").await.unwrap();
    assert!(range.entries.is_empty() && range.revision < last);
}

#[tokio::test]
async fn a_black_hole_at_the_head_of_the_list_costs_little() {
    let server = Server::start(&[]);
    // The kernel accepts for it; nobody reads.
    let hole = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let hole = format!("http://{}", hole.local_addr().unwrap());
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let urls = [hole, format!("http://{nobody}"), server.url()];
    let store = open(&settings(&urls));
    let start = newest(&store).await;
    let mut watch = in_time(store.watch("", start)).await.unwrap();
    count(&store, 0, 3).await;
    follow_count(&mut watch, 0, 3).await;
}

#[tokio::test]
async fn a_road_that_becomes_a_black_hole_is_left() {
    let server = Server::start(&[]);
    let road = Road::to(server.address());
    let store = open(&settings(&[road.url(), server.url()]));
    let start = newest(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    count(&store, 0, 3).await;
    follow_count(&mut watch, 0, 3).await;
    road.swallow();
    count(&store, 3, 6).await;
    follow_count(&mut watch, 3, 6).await;
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_never_sent_again() {
    let server = Server::start(&[]);
    let road = Road::to(server.address());
    let store = open(&settings(&[road.url(), server.url()]));
    let start = newest(&store).await;
    road.lose_answers(true);
    let changes = vec![put("once", "x")];
    let ended = in_time(store.commit(Transaction { checks: vec![], changes })).await;
    let why = unavailable(ended);
    assert!(why.contains("not known"), "{why}");
    // It was carried out, once. Whoever reads is led the other way, without an error.
    let entry = in_time(store.get("once")).await.unwrap().unwrap();
    let mut watch = store.watch("", start).await.unwrap();
    let once = Batch { revision: entry.revision, changes: vec![put("once", "x")] };
    assert_eq!(told(&mut watch).await, once);
    let revision = change(&store, vec![put("marker", "x")]).await;
    assert_eq!(told(&mut watch).await.revision, revision);
}

#[tokio::test]
async fn waiting_ends_when_the_time_is_over() {
    let hole = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    let store = open(&format!("{}timeout = \"1s\"\n", settings(std::slice::from_ref(&url))));
    for ended in [
        in_time(store.get("a")).await.map(|_| ()),
        in_time(store.commit(Transaction::default())).await.map(|_| ()),
        in_time(store.watch("", 1)).await.map(|_| ()),
    ] {
        let Err(Error::Unavailable { why, tried }) = ended else { panic!("{ended:?}") };
        assert!(why.contains(&url), "{why}");
        assert!(tried >= Duration::from_secs(1), "{tried:?}");
    }
}
