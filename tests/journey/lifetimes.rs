//! Routes come, change, end and go: what that does to names and to live connections.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mse_proxy::clock::SystemClock;
use mse_proxy::proxy::connections::OnRemove;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{HeldClock, Proxy, RawBackend, hello, rest, route, soon, tally, until};

/// A client that is through to its backend.
async fn connect(proxy: &Proxy, backend: &RawBackend, host: &str) -> (TcpStream, TcpStream) {
    let bytes = hello(host, &[]);
    let mut client = proxy.dial().await;
    client.write_all(&bytes).await.unwrap();
    (client, backend.accept(&bytes).await)
}

async fn still_alive(client: &mut TcpStream, backend: &mut TcpStream) {
    backend.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    soon("bytes pass", client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"ping");
}

async fn is_refused(proxy: &Proxy, host: &str) {
    let mut client = proxy.dial().await;
    client.write_all(&hello(host, &[])).await.unwrap();
    let (answer, end) = rest(&mut client).await;
    assert!(answer.is_empty() && end.is_ok());
}

#[tokio::test]
async fn at_its_end_a_route_is_refused_and_its_connections_are_cut() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("app.test", backend.address, "expires_at = 2026-01-01T01:00:00Z")
        + &route(
            "graced.test",
            backend.address,
            "expires_at = 2026-01-01T01:00:00Z\ngrace = \"10m\"",
        )
        + &route("other.test", backend.address, "");
    let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
    let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
    let (mut graced, mut graced_backend) = connect(&proxy, &backend, "graced.test").await;
    let (mut other, mut other_backend) = connect(&proxy, &backend, "other.test").await;

    // One millisecond before the end nothing has happened.
    clock.pass("2026-01-01T00:59:59.999Z");
    still_alive(&mut client, &mut reached).await;
    // Even with the file gone, the end is the end.
    std::fs::remove_file(proxy.routes_file()).unwrap();
    let began = Instant::now();
    clock.pass("2026-01-01T01:00:00Z");
    is_refused(&proxy, "app.test").await;
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eprintln!("cut after {:?} (promised: 100 ms)", began.elapsed());
    drop(reached);

    is_refused(&proxy, "graced.test").await;
    still_alive(&mut graced, &mut graced_backend).await;
    clock.pass("2026-01-01T01:10:00Z");
    let (_, end) = rest(&mut graced).await;
    assert!(end.is_err(), "grace is over");
    still_alive(&mut other, &mut other_backend).await;

    let records = proxy.records(4).await;
    let of = |host: &str| {
        let mut outcomes: Vec<_> = records
            .iter()
            .filter(|record| record["sni"] == host)
            .map(|record| record["outcome"].as_str().unwrap().to_owned())
            .collect();
        outcomes.sort();
        outcomes
    };
    assert_eq!(of("app.test"), ["expired_name", "route_expired"]);
    assert_eq!(of("graced.test"), ["expired_name", "route_expired"]);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_ends_what_is_over_and_back_does_not_revive() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("app.test", backend.address, "expires_at = 2030-01-01T00:00:00Z");
    let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
    let (mut client, _reached) = connect(&proxy, &backend, "app.test").await;
    clock.set("2031-01-01T00:00:00Z");
    let (_, end) = rest(&mut client).await;
    assert!(end.is_err());
    assert_eq!(proxy.outcome().await, "route_expired");
    clock.set("2026-01-01T00:00:00Z");
    is_refused(&proxy, "app.test").await;
    assert_eq!(proxy.records(2).await[1]["outcome"], "expired_name");
}

#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_nothing() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("app.test", backend.address, "expires_at = 2026-01-01T01:00:00Z");
    let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
    let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
    clock.set("2025-12-25T00:00:00Z");
    still_alive(&mut client, &mut reached).await;
    // An hour after the start it is over, though the calendar says that it is not even January.
    clock.pass("2025-12-25T00:59:59Z");
    still_alive(&mut client, &mut reached).await;
    clock.pass("2025-12-25T01:00:00Z");
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    is_refused(&proxy, "app.test").await;
    assert_eq!(tally(&proxy.records(2).await)["expired_name"], 1);
}

#[tokio::test]
async fn a_machine_that_slept_wakes_up_to_routes_that_are_over() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("app.test", backend.address, "expires_at = 2026-01-01T01:00:00Z")
        + &route("late.test", backend.address, "expires_at = 2026-01-09T00:00:00Z");
    let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
    let (mut client, _reached) = connect(&proxy, &backend, "app.test").await;
    let (mut late, mut late_backend) = connect(&proxy, &backend, "late.test").await;
    // A week for the wall clock and since the boot; for the timers of this process no time at all.
    let asleep = Instant::now();
    clock.pass("2026-01-08T00:00:00Z");
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(asleep.elapsed().as_secs() < 3600, "no timer has seen the end come");
    is_refused(&proxy, "app.test").await;
    still_alive(&mut late, &mut late_backend).await;
}

type Spoil = fn(&Path);

#[tokio::test]
async fn whatever_becomes_of_the_routes_file_a_route_ends_on_time() {
    let spoils: [(&str, Spoil); 5] = [
        ("gone", |file| std::fs::remove_file(file).unwrap()),
        ("empty", |file| std::fs::write(file, "").unwrap()),
        ("no TOML", |file| std::fs::write(file, "[[route\nhosts = ").unwrap()),
        ("no text", |file| std::fs::write(file, [0xff; 64]).unwrap()),
        ("a folder without files", |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let backend = RawBackend::start().await;
        let clock = HeldClock::at("2026-01-01T00:00:00Z");
        let routes = route("app.test", backend.address, "expires_at = 2026-01-01T01:00:00Z");
        let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
        let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
        spoil(&proxy.routes_file());
        proxy.reload().await;
        // It is known that the file cannot be read, and the route is still served, until its end.
        let (mut next, mut next_backend) = connect(&proxy, &backend, "app.test").await;
        still_alive(&mut client, &mut reached).await;
        still_alive(&mut next, &mut next_backend).await;
        clock.pass("2026-01-01T01:00:00Z");
        for client in [&mut client, &mut next] {
            let (_, end) = rest(client).await;
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{what}");
        }
        proxy.reload().await;
        is_refused(&proxy, "app.test").await;
        assert_eq!(tally(&proxy.records(3).await)["expired_name"], 1, "{what}");
    }
}

#[tokio::test]
async fn a_route_begins_at_its_not_before() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("app.test", backend.address, "not_before = 2026-01-01T00:00:10Z");
    let proxy = Proxy::with(&routes, Arc::clone(&clock) as _, |_| {}).await;
    is_refused(&proxy, "app.test").await;
    assert_eq!(proxy.outcome().await, "not_yet_valid");
    clock.pass("2026-01-01T00:00:10Z");
    drop(connect(&proxy, &backend, "app.test").await);
}

#[tokio::test]
async fn a_prolonged_route_keeps_its_connections_and_a_shortened_one_ends_them_earlier() {
    let backend = RawBackend::start().await;
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let ends = |end: &str| route("app.test", backend.address, &format!("expires_at = {end}"));
    let proxy = Proxy::with(&ends("2026-01-01T01:00:00Z"), Arc::clone(&clock) as _, |_| {}).await;
    let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
    proxy.rewrite(&ends("2026-01-01T03:00:00Z")).await;
    clock.pass("2026-01-01T02:00:00Z");
    // Long enough for the loop that ends sessions to have looked at the time.
    let waited = Instant::now();
    until("the old end was looked at", || waited.elapsed().as_millis() > 200).await;
    drop(connect(&proxy, &backend, "app.test").await);
    still_alive(&mut client, &mut reached).await;
    proxy.rewrite(&ends("2026-01-01T02:00:00Z")).await;
    let (_, end) = rest(&mut client).await;
    assert!(end.is_err(), "the shortened route is over");
}

#[tokio::test]
async fn a_repointed_route_takes_new_connections_elsewhere_and_drains_the_old_ones() {
    for policy in [OnRemove::Keep, OnRemove::Drain, OnRemove::Cut] {
        let (old, new) = (RawBackend::start().await, RawBackend::start().await);
        let proxy =
            Proxy::with(&route("app.test", old.address, ""), Arc::new(SystemClock), |config| {
                config.routes.on_remove = policy;
                config.drain.timeout = "400ms".parse().unwrap();
            })
            .await;
        let (mut client, mut reached) = connect(&proxy, &old, "app.test").await;
        proxy.rewrite(&route("app.test", new.address, "")).await;
        let (_new_client, _new_reached) = connect(&proxy, &new, "app.test").await;
        match policy {
            OnRemove::Keep => still_alive(&mut client, &mut reached).await,
            OnRemove::Drain => {
                still_alive(&mut client, &mut reached).await;
                let (_, end) = rest(&mut client).await;
                assert!(end.is_err());
            }
            OnRemove::Cut => {
                let (_, end) = rest(&mut client).await;
                assert!(end.is_err());
            }
        }
        if policy != OnRemove::Keep {
            assert_eq!(proxy.outcome().await, "route_removed");
        }
    }
}

#[tokio::test]
async fn a_drained_connection_is_spared_when_its_route_comes_back() {
    let backend = RawBackend::start().await;
    let there = route("app.test", backend.address, "");
    let proxy = Proxy::with(&there, Arc::new(SystemClock), |config| {
        config.drain.timeout = "1s".parse().unwrap();
    })
    .await;
    let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
    proxy.rewrite(&route("other.test", backend.address, "")).await;
    is_refused(&proxy, "app.test").await;
    proxy.rewrite(&there).await;
    let waited = Instant::now();
    until("the drain would be over", || waited.elapsed().as_millis() > 1300).await;
    still_alive(&mut client, &mut reached).await;
}

#[tokio::test]
async fn a_stop_lets_sessions_finish_and_cuts_the_rest() {
    let backend = RawBackend::start().await;
    let mut proxy = Proxy::start(&route("app.test", backend.address, "")).await;
    let (mut client, mut reached) = connect(&proxy, &backend, "app.test").await;
    let (mut stays, _stays_backend) = connect(&proxy, &backend, "app.test").await;
    let address = proxy.address;
    let finishing = async {
        until("the listener is gone", || std::net::TcpStream::connect(address).is_err()).await;
        still_alive(&mut client, &mut reached).await;
        drop((client, reached));
    };
    tokio::join!(proxy.stop(), finishing);
    let (_, end) = rest(&mut stays).await;
    assert!(end.is_err());
    let records = proxy.records(2).await;
    let mut outcomes: Vec<_> = records.iter().map(|record| record["outcome"].to_string()).collect();
    // A look whether the listener is gone may have come before it was.
    outcomes.retain(|outcome| outcome != "\"client_left\"");
    outcomes.sort();
    assert_eq!(outcomes, ["\"closed\"", "\"drained\""]);
}
