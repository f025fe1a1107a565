//! A fleet whose etcd ends, starts again, forgets, or is not there yet: everybody serves the last good
//! table and says so, ends come on time, nothing acknowledged is lost, and all are equal in the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mse_proxy::clock::Timestamp;
use mse_proxy::control::proto::{RemoveRequest, SetRequest, WatchRequest, WatchResponse};
use rustix::process::Signal;
use tonic::{Code, Streaming};

use crate::control::{Client, route, set};
use crate::etcd::Server;
use crate::fleet::{TIMEOUT, client, proxy, proxy_with, serves, stored, until_equal, until_serves};
use crate::journey::{Identity, soon};
use crate::route_support::Controlled;
use crate::support;
use crate::support::until;

/// So many want to change something while etcd is gone.
const WRITES: usize = 24;
const FAULT: &str = "mse_proxy_source_fault{source=\"store\"}";

/// What the status page tells of the store.
fn standing(proxy: &Controlled) -> serde_json::Value {
    let (_, body) = proxy.daemon.ask_admin("/status.json").unwrap();
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == "store").unwrap().clone()
}

/// Writes again and again under one id until the store takes it, and gives the revision.
async fn write(client: &Client, id: &str, port: u16, request_id: &str) -> u64 {
    let wanted = route(id, &format!("{id}.test"), format!("127.0.0.1:{port}"));
    let request = SetRequest { request_id: request_id.to_owned(), ..set(wanted) };
    soon("the store takes a write", async {
        loop {
            match client.clone().set(request.clone()).await {
                Ok(done) => return done.into_inner().revision,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
        }
    })
    .await
}

/// Visits a name up to and beyond its end: before it, each visit gets through, after it none. Gives how
/// many did.
async fn visit_to_the_end(
    proxy: SocketAddr,
    host: &'static str,
    app: Arc<Identity>,
    end: Timestamp,
) -> usize {
    for visits in 0.. {
        let began = Timestamp::now();
        if serves(proxy, host, &app).await {
            assert!(began < end, "{host} was served at {began}, after {end}");
        } else {
            assert!(Timestamp::now() >= end, "{host} was refused before {end}");
            return visits;
        }
    }
    unreachable!("it has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_all_serve_what_they_know_and_ends_come_on_time() {
    let mut etcd = Server::start(&[]);
    let mut fleet = [proxy(&etcd), proxy(&etcd)];
    let clients = [client(&fleet[0]), client(&fleet[1])];
    let (app, brief) = (Identity::of("app.test"), Arc::new(Identity::of("brief.test")));
    let backends = [app.serve_page("page").await, brief.serve_page("page").await];
    clients[0].clone().set(set(route("app", "app.test", backends[0]))).await.unwrap();
    let end = Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let wanted = mse_proxy::control::proto::Route {
        expires_at: end.to_string(),
        ..route("brief", "brief.test", backends[1])
    };
    clients[1].clone().set(set(wanted)).await.unwrap();
    for proxy in &mut fleet {
        proxy.daemon.admin();
        until_serves(proxy.daemon.address, "app.test", &app, true).await;
        until_serves(proxy.daemon.address, "brief.test", &brief, true).await;
    }
    let visitors = fleet.each_ref().map(|proxy| {
        let visiting =
            visit_to_the_end(proxy.daemon.address, "brief.test", Arc::clone(&brief), end);
        tokio::spawn(visiting)
    });
    etcd.kill();

    // Both ways at once, several of each, so that nobody waits behind another one's time.
    let began = Instant::now();
    let refused = clients.iter().cycle().take(WRITES).enumerate().map(|(at, client)| {
        let mut client = client.clone();
        async move {
            let request_id = format!("lost-{at}");
            let wanted = route(&format!("new-{at}"), &format!("new-{at}.test"), "127.0.0.1:1");
            let request = SetRequest { request_id, ..set(wanted) };
            client.set(request).await.unwrap_err()
        }
    });
    let refused = soon("writes are refused", futures_util::future::join_all(refused)).await;
    let took = began.elapsed();
    // Those who wait together wait once: one after the other this took a timeout for each.
    eprintln!("{WRITES} writes at once refused within {took:?}");
    assert!(took < TIMEOUT * 5, "{took:?}");
    for status in refused {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let words = status.message();
        assert!(words.contains(&etcd.url()) && words.contains("nothing was changed"), "{words}");
    }
    for proxy in &fleet {
        proxy.daemon.wait_metric(FAULT, |fault| fault == 1);
        let standing = standing(proxy);
        let fault = standing["faults"][0]["message"].as_str().unwrap();
        assert!(fault.contains(&etcd.url()), "{fault}");
        let (head, _) = proxy.daemon.ask_admin("/ready").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "it serves, so it is ready: {head}");
        assert!(serves(proxy.daemon.address, "app.test", &app).await);
    }
    let words = fleet[0].refused(&["route", "set", "x.test", "--backend", "127.0.0.1:1"], 1);
    assert!(words.contains(&etcd.url()) && words.contains("serves on"), "{words}");
    assert_eq!(fleet[0].json(&["route", "show", "app"])["state"], "live");
    for visitor in visitors {
        let visits = soon("the end comes", visitor).await.unwrap();
        assert!(visits > 0, "it was served before");
    }
    for proxy in &fleet {
        assert!(serves(proxy.daemon.address, "app.test", &app).await);
    }

    // Back with what it had: writes work, everybody knows of them, and nothing is wrong any more.
    etcd.run();
    write(&clients[0], "later", 1, "later").await;
    until_equal(&clients[0], &clients[1], 3).await;
    for proxy in &fleet {
        proxy.daemon.wait_metric(FAULT, |fault| fault == 0);
        assert_eq!(standing(proxy)["fault_count"], 0);
        assert!(serves(proxy.daemon.address, "app.test", &app).await);
    }
    assert!(fleet[1].told(&["route", "history", "--verify"]).contains("verified: 3 records"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_what_etcd_forgot_reads_anew_and_ends_equal() {
    let mut etcd = Server::start(&[]);
    let mut fleet = [proxy(&etcd), proxy(&etcd)];
    let clients = [client(&fleet[0]), client(&fleet[1])];
    let app = Identity::of("app.test");
    let backend = app.serve_page("page").await;
    clients[0].clone().set(set(route("app", "app.test", backend))).await.unwrap();
    write(&clients[0], "changes", 1, "").await;
    until_equal(&clients[0], &clients[1], 2).await;
    until_serves(fleet[1].daemon.address, "app.test", &app, true).await;

    // One stands still, as a machine that hangs, and its connections go with the old etcd: what was
    // on its way to it is lost.
    fleet[1].daemon.signal(Signal::STOP);
    etcd.restart();
    let mut newest = 0;
    for number in 0..20 {
        newest = write(&clients[0], "changes", 2 + number, "").await;
        newest =
            newest.max(write(&clients[0], &format!("new-{}", number % 5), 1 + number, "").await);
    }
    let gone = RemoveRequest { id: "app".into(), ..RemoveRequest::default() };
    newest = newest.max(clients[0].clone().remove(gone).await.unwrap().into_inner().revision);
    etcd.compact(newest);
    fleet[1].daemon.signal(Signal::CONT);
    until_equal(&clients[0], &clients[1], 6).await;
    until_serves(fleet[1].daemon.address, "app.test", &app, false).await;
    fleet[1].daemon.wait_log("are no longer kept");

    // One that ended and comes back is as new.
    fleet[1].kill();
    clients[0].clone().set(set(route("app", "app.test", backend))).await.unwrap();
    let newest = write(&clients[0], "changes", 100, "").await;
    etcd.compact(newest);
    fleet[1].restart();
    let other = client(&fleet[1]);
    until_equal(&clients[0], &other, 7).await;
    until_serves(fleet[1].daemon.address, "app.test", &app, true).await;
    // And writes as well as the others.
    write(&other, "changes", 101, "").await;
    until_equal(&clients[0], &other, 7).await;
    assert!(fleet[0].told(&["route", "history", "--verify"]).contains("verified: 46 records"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_without_etcd_says_so_and_is_ready_when_it_comes() {
    let mut etcd = Server::start(&[]);
    let (app, own) = (Identity::of("app.test"), Identity::of("own.test"));
    let backends = [app.serve_page("page").await, own.serve_page("page").await];
    let first = proxy(&etcd);
    client(&first).set(set(route("app", "app.test", backends[0]))).await.unwrap();
    drop(first);
    etcd.kill();

    let mut node = proxy_with(&etcd, &support::route("own.test", backends[1], ""));
    node.daemon.admin();
    let (head, why) = node.daemon.ask_admin("/ready").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(why.contains("store") && why.contains(&etcd.url()), "{why}");
    node.daemon.wait_metric("mse_proxy_ready", |ready| ready == 0);
    node.daemon.wait_metric(FAULT, |fault| fault == 1);
    // What it does know it serves; what it cannot know yet is refused at once.
    assert!(serves(node.daemon.address, "own.test", &own).await);
    assert!(!serves(node.daemon.address, "app.test", &app).await);
    let mut writer = client(&node);
    let write = writer.set(set(route("x", "x.test", "127.0.0.1:1")));
    let status = soon("a write is refused", write).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    etcd.run();
    until("it is ready", || node.daemon.ask_admin("/ready").unwrap().0.starts_with("HTTP/1.1 200"));
    // Ready means that the routes are in force.
    assert!(serves(node.daemon.address, "app.test", &app).await);
    assert!(serves(node.daemon.address, "own.test", &own).await);
    assert_eq!(node.daemon.metric("mse_proxy_ready"), 1);
    node.daemon.wait_metric(FAULT, |fault| fault == 0);
    assert_eq!(stored(&client(&node)).await.len(), 1);
}

/// Somebody who follows, and begins behind what he knows whenever that ends.
struct Follower {
    client: Client,
    stream: Streaming<WatchResponse>,
    known: u64,
    restarts: u32,
}

impl Follower {
    async fn behind(client: &Client, known: u64) -> Self {
        let request = WatchRequest { after: Some(known) };
        let stream = client.clone().watch(request).await.unwrap().into_inner();
        Self { client: client.clone(), stream, known, restarts: 0 }
    }

    /// Begins anew behind what is known, as soon as that can be had.
    async fn resume(&mut self) {
        let request = WatchRequest { after: Some(self.known) };
        let begin = async {
            loop {
                match self.client.watch(request).await {
                    Ok(stream) => return stream.into_inner(),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
            }
        };
        self.stream = soon("a watch begins", begin).await;
    }

    /// The next change, as the port of the one route that changes.
    async fn next(&mut self) -> u16 {
        let told = soon("a change is told", async {
            loop {
                match self.stream.message().await {
                    Ok(Some(told)) => return told,
                    Ok(None) => panic!("it never ends without a word"),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
                self.restarts += 1;
                self.resume().await;
            }
        })
        .await;
        assert!(told.revision > self.known, "{} comes after {}", told.revision, self.known);
        self.known = told.revision;
        assert_eq!(told.events.len(), 1);
        let route = told.events[0].route.clone().unwrap();
        route.backends[0].rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_misses_nothing_and_is_told_nothing_twice_when_etcd_starts_again() {
    let mut etcd = Server::start(&[]);
    let fleet = [proxy(&etcd), proxy(&etcd)];
    let clients = [client(&fleet[0]), client(&fleet[1])];
    let known = write(&clients[1], "counts", 1, "count-1").await;
    let mut follower = Follower::behind(&clients[0], known).await;
    let mut number = 1;
    // A restart is borne without a word.
    for _ in 0..3 {
        for _ in 0..5 {
            number += 1;
            write(&clients[1], "counts", number, &format!("count-{number}")).await;
        }
        for expected in number - 4..=number {
            assert_eq!(follower.next().await, expected);
        }
        etcd.restart();
    }
    // Nor does one hurt while it is written and told.
    let written = {
        let (client, from) = (clients[1].clone(), number + 1);
        tokio::spawn(async move {
            for number in from..from + 200 {
                write(&client, "counts", number, &format!("count-{number}")).await;
            }
        })
    };
    for expected in number + 1..=number + 200 {
        if expected == number + 50 {
            etcd.restart();
        }
        assert_eq!(follower.next().await, expected);
    }
    written.await.unwrap();
    number += 200;
    // A long absence ends the watch with a word; begun anew behind what is known, it has no gap.
    etcd.kill();
    let status = soon("the watch ends", follower.stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains(&etcd.url()), "{status:?}");
    tokio::join!(follower.resume(), async { etcd.run() });
    for _ in 0..5 {
        number += 1;
        write(&clients[1], "counts", number, &format!("count-{number}")).await;
    }
    for expected in number - 4..=number {
        assert_eq!(follower.next().await, expected);
    }
    eprintln!("{number} changes; begun anew {} times at restarts", follower.restarts);
}
