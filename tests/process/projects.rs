//! Projects that do not pay, and what a suspension does to clients that are connected.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use jiff::SignedDuration;
use mse_proxy::clock::{Clock, SystemClock};
use serde_json::json;

use crate::enclaves::{KIND, host, outcome, wish};
use crate::etcd;
use crate::route_support::Controlled;
use crate::support::{hello, until};

/// An app that sends back what it is sent, to whoever is connected and for as long as they like.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An app that runs on booked hardware; its name, which a proxy serves.
fn running(proxy: &Controlled, folder: &std::path::Path) -> String {
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let backend = echo().to_string();
    let path = wish(folder, "shop", "/", "");
    let told = proxy.json(&["app", "deploy", "--path", &path, "--backend", &backend]);
    for phase in ["initializing", "running"] {
        proxy.told(&["app", "phase", "shop", phase]);
    }
    let name = host(&told["app"], "own");
    until("it is routed", || outcome(proxy, &name) == "allowed");
    name
}

/// A client that is connected to the app and has spoken with it.
fn connected(proxy: &Controlled, name: &str) -> TcpStream {
    let mut client = proxy.daemon.dial();
    let sent = hello(name);
    client.write_all(&sent).unwrap();
    let mut back = vec![0; sent.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, sent);
    client
}

/// Waits until a client is cut off, by an end or a reset; it says nothing meanwhile.
fn is_cut(client: &mut TcpStream) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn events(proxy: &Controlled, event: &str) -> u64 {
    proxy.daemon.metric(&format!("mse_proxy_registry_events_total{{event=\"{event}\"}}"))
}

/// Nothing is left of what a suspended project had, and nothing comes back by itself.
fn hold_is_gone(proxy: &Controlled, folder: &std::path::Path, name: &str) {
    let is_gone = || proxy.json(&["app", "show", "shop"])["phase"] == "stopped";
    until("its app is stopped", is_gone);
    until("its route is over", || outcome(proxy, name) == "expired_name");
    proxy.told(&["project", "resume", "default"]);
    assert_eq!(proxy.json(&["project", "show", "default"])["standing"], "good");
    let hardware = proxy.json(&["hardware", "list"])["hardware"].clone();
    assert_eq!(
        (hardware.as_array().unwrap().len(), &hardware[0]["kind"]),
        (1, &json!("4g-eu-001"))
    );
    assert!(is_gone());
    let refused = proxy.refused(&["app", "deploy", "--path", &wish(folder, "shop", "/", "")], 1);
    assert!(refused.contains("is not booked"), "{refused}");
    assert_eq!(outcome(proxy, name), "expired_name");
}

#[test]
fn a_suspension_cuts_those_who_are_connected_and_a_resumption_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    // Whatever routes that are taken away do otherwise.
    let proxy = Controlled::storing_with(&[("MSE_PROXY_ROUTES_ON_REMOVE", "keep")]);
    let name = running(&proxy, folder.path());
    let mut client = connected(&proxy, &name);
    proxy.told(&["project", "suspend", "default"]);
    assert!(is_cut(&mut client));
    let record = proxy.daemon.record();
    assert_eq!((&record["sni"], &record["app"]), (&json!(name), &json!("default/shop")));
    assert!(["route_removed", "route_expired"].contains(&record["outcome"].as_str().unwrap()));
    hold_is_gone(&proxy, folder.path(), &name);
}

#[test]
fn a_fleet_reminds_three_times_and_suspends_once_though_a_proxy_is_killed_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = etcd::Server::start(&[]);
    let url = etcd.url();
    let fleet = || Controlled::with("", &[("MSE_PROXY_STORE_ETCD_ENDPOINTS", &url)]);
    let (mut one, mut other) = (fleet(), fleet());
    let name = running(&one, folder.path());
    until("both route it", || outcome(&other, &name) == "allowed");
    let mut client = connected(&other, &name);

    // All reminders are due, and the week is over soon: later than a slow machine gets there.
    let now = SystemClock.now();
    let suspended_at = now + SignedDuration::from_secs(45);
    let since = (suspended_at - SignedDuration::from_hours(7 * 24)).to_string();
    one.told(&["project", "unpaid", "default", "--since", &since]);
    let shown = || one.json(&["project", "show", "default"]);
    until("it was reminded", || shown()["reminders"] == 3);
    assert_eq!(shown()["standing"], "unpaid");
    let told = other.told(&["project", "show", "default"]);
    assert!(told.contains("3 of 3 reminders"), "{told}");
    one.daemon.admin();
    other.daemon.admin();
    until("it is told of each", || events(&one, "reminded") + events(&other, "reminded") == 3);
    let log = [one.daemon.seen(), other.daemon.seen()].concat();
    let reminders =
        |log: &[String]| log.iter().filter(|line| line.contains("the project is reminded")).count();
    assert_eq!(reminders(&log), 3, "{log:#?}");
    assert_eq!(events(&one, "suspended"), 0, "the machine is too slow for this test");

    // Whoever is left keeps the clock.
    one.kill();
    other.daemon.wait_log("the project is suspended");
    assert!(SystemClock.now() >= suspended_at);
    assert!(is_cut(&mut client));
    let shown = other.json(&["project", "show", "default"]);
    assert_eq!((&shown["standing"], &shown["cause"]), (&json!("suspended"), &json!("unpaid")));
    one.restart();
    hold_is_gone(&one, folder.path(), &name);
    one.daemon.admin();
    let again = ["reminded", "suspended"].map(|event| events(&one, event));
    assert_eq!(again, [0, 0], "nothing is told twice");
    assert_eq!(events(&other, "suspended"), 1);
}
