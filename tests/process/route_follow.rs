//! `route watch` and `route history`: what happens, and what has happened.

use mse_proxy::registry::keys;
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Store, Transaction};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::route_support::{Controlled, Following, on_terminal, plain};
use crate::support::{PATIENCE, text};

/// A watch for programs that follows from now on, known by its answer to a first change.
fn watch(proxy: &Controlled, more: &[&str]) -> Following {
    let arguments = [&["--format", "json", "route", "watch"], more].concat();
    Following::start(proxy.command(&arguments))
}

fn set(proxy: &Controlled, id: &str, port: u16) -> u64 {
    let backend = format!("127.0.0.1:{port}");
    proxy.json(&["route", "set", id, "--backend", &backend])["revision"].as_u64().unwrap()
}

#[test]
fn changes_are_told_as_they_come() {
    let proxy = Controlled::storing("");
    let first = set(&proxy, "a.test", 1);
    let all = watch(&proxy, &["--initial"]);
    let there = all.next_json();
    assert_eq!((&there["change"], &there["id"]), (&Value::from("there"), &Value::from("a.test")));
    let later = watch(&proxy, &["--after", &first.to_string()]);
    let told = Following::start(proxy.command(&["route", "watch", "--after", &first.to_string()]));
    let second = set(&proxy, "a.test", 2);
    let third = set(&proxy, "b.test", 1);
    proxy.told(&["route", "remove", "a.test"]);
    for (change, id, revision) in [
        ("changed", "a.test", second),
        ("added", "b.test", third),
        ("removed", "a.test", third + 1),
    ] {
        let event = all.next_json();
        assert_eq!((&event["change"], &event["id"]), (&Value::from(change), &Value::from(id)));
        assert!(event["revision"].as_u64().unwrap() >= revision, "{event}");
        let event = later.next_json();
        let word = if change == "removed" { "removed" } else { "set" };
        // Whoever begins in the middle knows what was there only after a change of it.
        assert_eq!((&event["change"], &event["id"]), (&Value::from(word), &Value::from(id)));
        assert_eq!(event["route"].is_null(), change == "removed");
    }
    let line = told.next();
    assert!(line.contains("set     a.test → 127.0.0.1:2"), "{line}");
    assert!(line.starts_with("20") && line.contains("Z "), "{line}");
}

#[test]
fn a_watch_outlives_the_proxy_and_misses_nothing() {
    let mut proxy = Controlled::storing("");
    set(&proxy, "a.test", 1);
    let follower = watch(&proxy, &["--initial"]);
    follower.next();
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    let words = follower.next_word();
    assert!(words.contains("connection lost"), "{words}");
    proxy.restart();
    while !follower.next_word().contains("connected again: going on behind revision") {}
    set(&proxy, "b.test", 1);
    let event = follower.next_json();
    assert_eq!((&event["change"], &event["id"]), (&Value::from("added"), &Value::from("b.test")));
}

#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let proxy = Controlled::storing("");
    let mut watching = proxy.command(&["route", "watch", "--initial"]);
    watching.stdout(std::process::Stdio::piped());
    set(&proxy, "a.test", 1);
    let mut child = watching.spawn().unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    drop(child.stdout.take());
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut port = 2;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(std::time::Instant::now() < deadline);
        set(&proxy, "a.test", port);
        port += 1;
    };
    assert_eq!(status.code(), Some(0));
    // Ctrl-C ends it as it ends any program.
    // Tests that run in the background of a shell are born deaf to it.
    let mut interruptible = std::process::Command::new("env");
    interruptible.arg("--default-signal=INT").arg(watching.get_program()).args(watching.get_args());
    interruptible.envs(watching.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut follower = interruptible.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(follower.stdout.as_mut().unwrap(), &mut first).unwrap();
    kill_process(Pid::from_child(&follower), Signal::INT).unwrap();
    assert_eq!(follower.wait().unwrap().code(), None);
}

#[test]
fn the_history_tells_who_did_what() {
    let proxy = Controlled::storing("");
    set(&proxy, "a.test", 1);
    let second = set(&proxy, "a.test", 2);
    set(&proxy, "b.test", 1);
    proxy.told(&["route", "remove", "a.test", "--request-id", "my-own"]);
    let all = proxy.json(&["route", "history"]);
    let records = all["records"].as_array().unwrap();
    assert_eq!((records.len(), &all["are_all"]), (4, &Value::from(true)));
    assert_eq!(records[1]["revision"], second);
    assert_eq!(records[1]["changes"][0]["before"]["backends"][0], "127.0.0.1:1");
    assert_eq!(records[1]["changes"][0]["after"]["backends"][0], "127.0.0.1:2");
    assert_eq!(records[3]["request_id"], "my-own");
    let uid = rustix::process::getuid().as_raw();
    assert!(records[0]["by"].as_str().unwrap().starts_with(&format!("unix:uid={uid}(")));
    let of_one = proxy.json(&["route", "history", "b.test"]);
    assert_eq!(of_one["records"].as_array().unwrap().len(), 1);
    let newest = proxy.json(&["route", "history", "--limit", "1"]);
    assert_eq!(
        (&newest["records"][0]["number"], &newest["are_all"]),
        (&Value::from(4), &Value::from(false))
    );
    let none = proxy.json(&["route", "history", "--since", "2099-01-01T00:00:00Z"]);
    assert_eq!(none["records"], Value::Array(vec![]));
    let recent = proxy.json(&["route", "history", "--since", "1h"]);
    assert_eq!(recent["records"].as_array().unwrap().len(), 4);

    let piped = proxy.told(&["route", "history", "a.test"]);
    let lines: Vec<_> = piped.lines().collect();
    assert_eq!(lines.len(), 4, "{piped}");
    assert!(lines[0].starts_with("NUMBER  REVISION  WHEN"), "{piped}");
    assert!(lines[1].contains("added → 127.0.0.1:1"), "{piped}");
    assert!(lines[2].contains("backends: 127.0.0.1:1 → 127.0.0.1:2"), "{piped}");
    assert!(lines[3].contains("removed") && lines[3].contains("Z  a.test  "), "{piped}");
    let (shown, _) = on_terminal(&proxy.command(&["route", "history"]), 80, "");
    let shown = plain(&shown);
    assert!(shown.contains("s ago"), "{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_chain_is_verified_and_what_was_noted_is_compared() {
    let proxy = Controlled::storing("");
    assert!(proxy.told(&["route", "history", "--verify"]).contains("no records yet"));
    for port in 1..=5 {
        set(&proxy, "a.test", port);
    }
    let told = proxy.told(&["route", "history", "--verify"]);
    assert!(told.starts_with("verified: 5 records (1 to 5) are as they were written\n"), "{told}");
    let head = told.lines().nth(1).unwrap().trim().strip_prefix("head ").unwrap().to_owned();
    set(&proxy, "a.test", 6);
    let verified = proxy.json(&["route", "history", "--verify", "--known", &head]);
    assert_eq!((&verified["verified"], &verified["known_is_kept"]), (&true.into(), &true.into()));
    let (number, digest) = head.split_once(':').unwrap();
    assert_eq!(number, "5");
    let other = format!("3:{digest}");
    let output = proxy.run(&["route", "history", "--verify", "--known", &other]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stdout);
    assert!(words.contains("record 3 or one before it is not what was noted down"), "{words}");
}

#[test]
fn whoever_tampered_with_the_store_is_found_out() {
    let mut proxy = Controlled::storing("");
    for port in 1..=5 {
        set(&proxy, "a.test", port);
    }
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    // Somebody who has the file gives himself out for another in one record.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Embedded::open(&proxy.path("routes.redb")).unwrap();
        let key = keys::record(3);
        let kept = store.get(&key).await.unwrap().unwrap();
        let forged = text(&kept.value).replace("unix:uid=", "unix:uid=6");
        assert_ne!(forged, text(&kept.value));
        let changes = vec![Change { key, value: Some(forged.into_bytes()) }];
        store.commit(Transaction { checks: vec![], changes }).await.unwrap();
    });
    proxy.restart();
    let output = proxy.run(&["route", "history", "--verify"]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stdout);
    assert!(words.starts_with("tampered with: record 3 was tampered with: "), "{words}");
    let output = proxy.run(&["--format", "json", "route", "history", "--verify"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["verified"], &told["fault"]["number"]),
        (&Value::from(false), &Value::from(3))
    );
}
