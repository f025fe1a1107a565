//! `route set`, `remove` and `apply` on a running proxy with a store.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;

use crate::route_support::{Controlled, on_terminal, plain};
use crate::support::{PATIENCE, ask, backend, echo, hello, route, text, until};

#[test]
fn a_route_is_made_changed_and_removed_and_serves_meanwhile() {
    let proxy = Controlled::storing("");
    let shop = echo(hello("shop.test").len()).to_string();
    let made = proxy.told(&["route", "set", "shop.test", "--backend", &shop, "--expires-in", "4h"]);
    assert!(made.starts_with("shop.test is set at revision "), "{made}");
    assert!(made.contains(&format!("  → {shop} until ")), "{made}");
    let serves =
        |host: &str| ask(proxy.daemon.address, host).is_ok_and(|bytes| bytes == hello(host));
    until("the route serves", || serves("shop.test"));

    // What is not given stays as it is.
    let end = proxy.json(&["route", "show", "shop.test"])["expires_at"].clone();
    let arguments =
        ["route", "set", "shop.test", "--host", "shop.test,*.shop.test", "--app", "demo/shop"];
    let changed = proxy.told(&arguments);
    assert!(changed.contains("  hosts: shop.test → shop.test, *.shop.test\n"), "{changed}");
    assert!(changed.contains("  app: none → demo/shop\n"), "{changed}");
    assert!(proxy.told(&arguments).contains("is so already, since revision"));
    let shown = proxy.json(&["route", "show", "shop.test"]);
    assert_eq!((&shown["expires_at"], &shown["app"]), (&end, &Value::from("demo/shop")));
    assert_eq!((&shown["source"], &shown["state"]), (&Value::from("store"), &Value::from("live")));
    until("the new host serves", || serves_longer(&proxy, "x.shop.test", &shop));

    proxy.told(&["route", "set", "shop.test", "--expires-at", "never", "--app", ""]);
    let shown = proxy.json(&["route", "show", "shop.test"]);
    assert_eq!((&shown["expires_at"], &shown["app"]), (&Value::Null, &Value::Null));

    let revision = shown["revision"].as_u64().unwrap();
    let stale = (revision - 1).to_string();
    let words =
        proxy.refused(&["route", "set", "shop.test", "--if-revision", &stale, "--grace", "5m"], 1);
    assert!(
        words.contains(&revision.to_string()) && words.contains("somebody changed it"),
        "{words}"
    );
    let words = proxy.refused(&["route", "remove", "shop.test", "--if-revision", &stale], 1);
    assert!(words.contains("somebody changed it"), "{words}");

    let removed = proxy.json(&["route", "remove", "shop.test", "--request-id", "r-1"]);
    let again = proxy.json(&["route", "remove", "shop.test", "--request-id", "r-1"]);
    assert_eq!(removed, again, "a repetition gets the first one's answer");
    until("the route is gone", || !serves("shop.test"));
    let words = proxy.refused(&["route", "remove", "shop.test"], 1);
    assert!(words.contains("there are no routes"), "{words}");
}

/// Whether a host leads to that backend; its hello may be longer than the backend reads.
fn serves_longer(proxy: &Controlled, host: &str, backend: &str) -> bool {
    let verdict = proxy.command(&["--format", "json", "explain", host]).output().unwrap();
    let verdict: Value = serde_json::from_slice(&verdict.stdout).unwrap();
    verdict["allowed"] == true && verdict["route"]["backends"][0] == backend
}

#[test]
fn faults_are_told_all_at_once_and_names_are_kept() {
    let proxy = Controlled::storing(&route("file.test", "127.0.0.1:1", ""));
    let words = proxy.refused(
        &["route", "set", "bad", "--host", "a..b", "--backend", "nowhere", "--grace", "soon"],
        1,
    );
    for expected in ["`a..b` is not a host", "`nowhere` is not a backend", "`grace`"] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    proxy.told(&["route", "set", "shop", "--host", "shop.test", "--backend", "127.0.0.1:1"]);
    let words = proxy
        .refused(&["route", "set", "thief", "--host", "shop.test", "--backend", "127.0.0.1:2"], 1);
    assert!(words.contains("shop.test") && words.contains("\"shop\""), "{words}");
    let words = proxy.refused(&["route", "set", "file.test", "--expires-in", "1h"], 1);
    assert!(words.contains("routes.toml:1:1, and is changed there"), "{words}");

    // A whole route from a text.
    let two = route("a.test", "127.0.0.1:1", "") + &route("b.test", "127.0.0.1:1", "");
    let words = proxy.refused(&["route", "set", "--file", &proxy.file("two.toml", &two)], 1);
    assert!(words.contains("has 2 routes") && words.contains("--keep-others"), "{words}");
    let bad = proxy.file("bad.toml", "[[route]]\nhosts = [\"a.test\"]\nbackend = []\n");
    let words = proxy.refused(&["route", "set", "--file", &bad], 1);
    assert!(words.contains("bad.toml:3:1: `backend` is not a key"), "{words}");
    let mut set = proxy.command(&["route", "set", "--file", "-"]);
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text_of_it = route("piped.test", "127.0.0.1:9", "grace = \"5m\"");
    set.stdin.take().unwrap().write_all(text_of_it.as_bytes()).unwrap();
    let mut told = String::new();
    set.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(set.wait().unwrap().success());
    assert!(told.starts_with("piped.test is set at revision "), "{told}");
    assert_eq!(proxy.json(&["route", "show", "piped.test"])["grace"], "5m");
}

/// A client whose connection is open through the proxy to a backend of the test's own.
fn open(
    proxy: &Controlled,
    host: &str,
    listener: &std::net::TcpListener,
) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(proxy.daemon.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&hello(host)).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = [0; 1];
    served.read_exact(&mut first).unwrap();
    (client, served)
}

#[test]
fn an_apply_tells_what_it_changes_and_cuts_nothing_unasked() {
    let proxy = Controlled::storing_with(&[("MSE_PROXY_ROUTES_ON_REMOVE", "cut")]);
    let (listener, address) = backend();
    let first = route("shop.test", address, "id = \"shop\"\nexpires_at = 2099-01-01T00:00:00Z")
        + &route("old.test", "127.0.0.1:1", "id = \"old\"")
        + &route("same.test", "127.0.0.1:1", "id = \"same\"");
    let file = proxy.file("first.toml", &first);
    let dry = proxy.json(&["route", "apply", &file, "--dry-run"]);
    assert_eq!((&dry["added"], &dry["revision"]), (&Value::from(3), &Value::Null));
    assert_eq!(proxy.json(&["route", "list"])["routes"], Value::Array(vec![]));
    let done = proxy.json(&["route", "apply", &file]);
    assert_eq!(done["added"], 3, "nothing is cut, so nobody is asked");
    let revision = done["revision"].as_u64().unwrap();
    assert!(
        proxy.told(&["route", "apply", &file]).contains("nothing to change: 3 routes unchanged")
    );
    until("the route serves", || serves_longer(&proxy, "shop.test", &address.to_string()));

    let (mut client, _served) = open(&proxy, "shop.test", &listener);
    let next =
        route("shop.test", "127.0.0.1:9", "id = \"shop\"\nexpires_at = 2098-01-01T00:00:00Z")
            + &route("new.test", "127.0.0.1:1", "id = \"new\"")
            + &route("same.test", "127.0.0.1:1", "id = \"same\"");
    let file = proxy.file("next.toml", &next);
    let dry = proxy.told(&["route", "apply", &file, "--dry-run"]);
    let lines: Vec<_> = dry.lines().collect();
    assert!(lines[0].starts_with("CHANGE     ID    ENDS    CUTS  CARRYING  WHAT"), "{dry}");
    assert!(lines[1].starts_with("~ changed  shop  sooner     1"), "{dry}");
    assert!(dry.contains("+ added    new ") && dry.contains("- removed  old "), "{dry}");
    assert!(
        dry.contains("would be: 1 added, 1 changed, 1 removed, 1 unchanged; 1 sooner to end; 1 live connection cut"),
        "{dry}"
    );
    // Nobody can be asked in a pipe; on a terminal, no is no.
    let words = proxy.refused(&["route", "apply", &file], 1);
    assert!(words.contains("--yes agrees to that"), "{words}");
    let apply = proxy.command(&["route", "apply", &file]);
    let (shown, status) = on_terminal(&apply, 100, "n\n");
    assert!(
        plain(&shown).contains("1 live connection cut: agreed?")
            && shown.contains("nothing was changed"),
        "{shown}"
    );
    assert_eq!(status, 1);
    assert_eq!(proxy.json(&["route", "show", "old"])["revision"], revision);
    // Yes is yes.
    let (shown, status) = on_terminal(&apply, 100, "y\n");
    assert_eq!(status, 0, "{shown}");
    assert!(plain(&shown).contains("applied at revision "), "{shown}");
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0, "the connection is cut");

    let faulty = proxy.file("faulty.toml", &(next + "[[route]]\nhosts = [\"x.test\"]\n"));
    let words = proxy.refused(&["route", "apply", &faulty, "--yes"], 1);
    assert!(words.contains("faulty.toml:14:1: `backends` is missing"), "{words}");
    assert!(words.contains("nothing is applied"), "{words}");
}

/// How many routes are in force.
fn listed(proxy: &Controlled) -> usize {
    proxy.json(&["route", "list"])["routes"].as_array().unwrap().len()
}

#[test]
fn what_somebody_else_wrote_meanwhile_is_not_overwritten() {
    let proxy = Controlled::storing("");
    let file = proxy.file("routes-to-be.toml", &route("a.test", "127.0.0.1:1", ""));
    let revision = proxy.json(&["route", "apply", &file])["revision"].to_string();
    proxy.told(&["route", "set", "b.test", "--backend", "127.0.0.1:1"]);
    let words = proxy.refused(&["route", "apply", &file, "--if-revision", &revision], 1);
    assert!(words.contains("somebody changed it meanwhile"), "{words}");
    until("the list has both", || listed(&proxy) == 2);
}

#[test]
fn too_much_is_not_removed_without_a_word() {
    let proxy = Controlled::storing_with(&[("MSE_PROXY_ROUTES_MAX_REMOVED_PERCENT", "30")]);
    let many = |numbers: std::ops::Range<u32>| {
        numbers.fold(String::new(), |all, n| all + &route(&format!("r{n}.test"), "127.0.0.1:1", ""))
    };
    proxy.told(&["route", "apply", &proxy.file("ten.toml", &many(0..10))]);
    let few = proxy.file("few.toml", &many(0..5));
    let words = proxy.refused(&["route", "apply", &few], 1);
    assert!(words.contains("--allow-removal removes them all the same"), "{words}");
    let told = proxy.told(&["route", "apply", &few, "--keep-others"]);
    assert!(told.contains("nothing to change"), "{told}");
    let told = proxy.told(&["route", "apply", &few, "--allow-removal"]);
    assert!(told.contains("5 removed"), "{told}");
    // A file without routes may be a slip.
    let none = proxy.file("none.toml", "# nothing\n");
    let words = proxy.refused(&["route", "apply", &none, "--allow-removal"], 1);
    assert!(words.contains("all 5 routes removed: nobody can be asked here"), "{words}");
    let told = proxy.told(&["route", "apply", &none, "--allow-removal", "--yes"]);
    assert!(told.contains("5 removed"), "{told}");
}

#[test]
fn a_large_set_goes_in_steps_with_a_bar_for_who_looks() {
    let proxy = Controlled::storing("");
    let many = |numbers: std::ops::Range<u32>, port: u16| {
        numbers.fold(String::new(), |all, n| {
            all + &route(&format!("r{n}.test"), format!("127.0.0.1:{port}"), "")
        })
    };
    let file = proxy.file("many.toml", &many(0..300, 1));
    let done = proxy.json(&["route", "apply", &file, "--in-steps", "50"]);
    assert_eq!(done["added"], 300);
    let history = proxy.json(&["route", "history", "--limit", "0"]);
    assert_eq!(history["records"].as_array().unwrap().len(), 6, "one record a step");
    // The bar is for a terminal; what is left there is the result.
    let file = proxy.file("more.toml", &many(100..400, 2));
    let apply = proxy.command(&["route", "apply", &file, "--in-steps", "50", "--yes"]);
    let (shown, status) = on_terminal(&apply, 100, "");
    assert_eq!(status, 0, "{shown}");
    assert!(shown.contains("/8, "), "the bar counts steps: {shown}");
    let shown = plain(&shown);
    assert!(shown.contains("100 added, 200 changed, 100 removed, 0 unchanged"), "{shown}");
    assert!(shown.contains("… 300 more changes; --format json tells all"), "{shown}");
    until("the list has what is left", || listed(&proxy) == 300);
    let output = proxy.run(&["route", "apply", &file, "--in-steps", "50"]);
    assert!(text(&output.stdout).contains("nothing to change"), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
}
