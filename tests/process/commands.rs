//! `check`, `explain` and words typed wrong.

use std::sync::Arc;

use mse_proxy::config::Config;
use serde_json::Value;

use crate::support::{command, route, run, text};

/// A file with this text, in a folder that lives as long as it is held.
fn file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn the_explained_configuration_is_the_built_in_one() {
    let text = include_str!("../../config/mse-proxy.toml");
    let name: Arc<str> = "config/mse-proxy.toml".into();
    let read = Config::read(&Config::default(), Some((&name, text)), []).unwrap();
    assert_eq!(read, Config::default());
    // Every key is there: none can be forgotten when one is added.
    let table: toml::Table = text.parse().unwrap();
    let whole = toml::Table::try_from(Config::default()).unwrap();
    explained(&whole, &table);
    for unset in ["# path =", "# client_ca =", "# password_file ="] {
        assert!(text.contains(unset), "what has no default is explained too: {unset}");
    }
}

/// Every key of the one table is in the other, that of sections in sections too.
fn explained(whole: &toml::Table, table: &toml::Table) {
    for (key, value) in whole {
        let found = table.get(key);
        assert!(found.is_some(), "{key} is not explained");
        if let (Some(whole), Some(table)) = (value.as_table(), found.unwrap().as_table()) {
            explained(whole, table);
        }
    }
}

#[test]
fn check_finds_all_faults_of_a_configuration_at_once() {
    let (_held, path) = file(
        "mse-proxy.toml",
        "[hello]\ntimeout = 5\nmax_sise = \"64KiB\"\nmax_size = \"1B\"\n\n[relays]\nidle_timeout = \"1h\"\n\n\
         [relay]\nidle_timeout = \"30s\"\n\n[limits]\nconnections = 0\n",
    );
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    for expected in [
        ":2:11: `hello.timeout`:",
        ":3:1: `hello.max_sise` is not known; did you mean `hello.max_size`?",
        ":4:12: `hello.max_size`: must be between 1KiB and 16MiB",
        ":6:2: `relays` is not known; did you mean `relay`?",
        ":10:16: `relay.idle_timeout`: must be at least 60s",
        ":13:15: `limits.connections`: must be at least 1",
        "^^^^^^^^",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    assert!(text(&output.stdout).starts_with("6 faults"), "{}", text(&output.stdout));
}

#[test]
fn check_tells_where_text_is_no_toml() {
    let (_held, path) = file("mse-proxy.toml", "[hello]\ntimeout = \n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("mse-proxy.toml:2:"), "{}", text(&output.stderr));
    let output = run(&["check", "--config", "/nowhere/mse-proxy.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot be read"));
}

#[test]
fn check_finds_all_faults_of_routes_at_once() {
    let content = route("good.test", "127.0.0.1:1", "")
        + "[[route]]\nhosts = [\"a..b\", \"-x.test\"]\nbackends = [\"127.0.0.1\"]\nexpires_at = 2026-01-01\n"
        + "color = 1\n\n[[route]]\nhosts = [\"good.test\"]\nbackends = [\"127.0.0.1:2\"]\n"
        + "\n[[route]]\nid = \"x\"\nhosts = [\"x.test\"]\nbackends = [\"127.0.0.1:2\"]\npin = \"sha256:00\"\n";
    let (_held, path) = file("routes.toml", &content);
    let output = run(&["check", "--routes", &path]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    for expected in [
        "routes.toml:6:10: `a..b` is not a host: a label of the name is empty",
        "routes.toml:6:18: `-x.test` is not a host",
        "routes.toml:7:13: `127.0.0.1` is not a backend: the port is missing",
        "routes.toml:8:14: `expires_at`: the time of day is missing; write 2026-01-01T00:00:00Z",
        "routes.toml:9:1: `color` is not a key of a route",
        "routes.toml:19:7: `pin`: a key digest is written as sha256: and 64 hexadecimal digits",
        "routes.toml:11:1: the id \"good.test\" is already that of the route at",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    assert!(text(&output.stdout).contains("7 faults, 1 good route"), "{}", text(&output.stdout));

    let output = run(&["--format", "json", "check", "--routes", &path]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["faults"].as_array().unwrap().len(), 7);
    assert_eq!(json["routes"], 1);
}

#[test]
fn check_warns_of_limits_that_this_machine_cannot_meet() {
    let (_held, path) = file("mse-proxy.toml", "[limits]\nconnections = 4000000000\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "it may be meant for another machine");
    let words = text(&output.stderr);
    assert!(words.contains("this machine: limits.connections needs 62500000MiB of"), "{words}");
    let output = run(&["--format", "json", "check", "--config", &path]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["warnings"].as_array().unwrap().iter().any(|one| {
        one.as_str().unwrap().starts_with("limits.connections needs 62500000MiB of memory")
    }));
}

#[test]
fn check_is_content_with_the_examples() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let (config, routes) = (format!("{folder}/mse-proxy.toml"), format!("{folder}/routes.toml"));
    let output = run(&["check", "--config", &config, "--routes", &routes]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "no faults, 3 good routes\n");
}

#[test]
fn explain_tells_route_and_reason() {
    let content = route("*.w.test", "127.0.0.1:1", "id = \"wild\"")
        + &route("app.w.test", "127.0.0.1:2", "id = \"app\"\nexpires_at = 2030-01-01T00:00:00Z")
        + &route("later.test", "127.0.0.1:3", "not_before = 2031-01-01T00:00:00Z")
        + &route("app.w.test", "127.0.0.1:4", "id = \"acme\"\nalpn = [\"acme-tls/1\"]");
    let (_held, path) = file("routes.toml", &content);
    let ask = |arguments: &[&str]| {
        let all = [&["explain", "--routes", &path, "--format", "json"], arguments].concat();
        let output = run(&all);
        let json: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code().unwrap(), json)
    };
    for (arguments, status, outcome, id) in [
        (&["x.w.test"][..], 0, None, Some("wild")),
        (&["APP.W.TEST.", "--at", "2029-12-31T23:59:59Z"], 0, None, Some("app")),
        (&["app.w.test", "--at", "2030-01-01T00:00:00Z"], 1, Some("expired_name"), Some("app")),
        (
            &["app.w.test", "--at", "2030-01-01T00:00:00Z", "--alpn", "h2,acme-tls/1"],
            0,
            None,
            Some("acme"),
        ),
        (&["later.test", "--at", "+1h"], 1, Some("not_yet_valid"), Some("later.test")),
        (&["w.test"], 1, Some("unknown_name"), None),
        (&["a.b.w.test"], 1, Some("unknown_name"), None),
        (&["192.0.2.1"], 1, Some("invalid_sni"), None),
    ] {
        let (code, json) = ask(arguments);
        assert_eq!(code, status, "{arguments:?}: {json}");
        assert_eq!(json["outcome"].as_str(), outcome, "{arguments:?}: {json}");
        assert_eq!(json["route"]["id"].as_str(), id, "{arguments:?}: {json}");
    }
    let output = run(&["explain", "app.w.test", "--routes", &path, "--at", "2029-12-31T00:00:00Z"]);
    let prose = text(&output.stdout);
    assert!(prose.contains("let through") && prose.contains("127.0.0.1:2"), "{prose}");
    assert!(prose.contains("in 1d 0h"), "{prose}");
}

#[test]
fn wrong_usage_is_told_apart_from_refusals() {
    for arguments in [&["sever"][..], &["explain"], &["explain", "a.test", "--at", "tomorrow"], &[]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert!(text(&run(&["sever"]).stderr).contains("serve"), "the nearest command is named");
}

#[test]
fn the_environment_goes_before_the_file_and_is_judged_as_well() {
    let (_held, path) = file("mse-proxy.toml", "[log]\nlevel = \"loud\"\n");
    let check = |variables: &[(&str, &str)]| {
        command()
            .args(["check", "--config", &path])
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    };
    let words = text(
        &check(&[("MSE_PROXY_HELO_TIMEOUT", "5s"), ("MSE_PROXY_LIMITS_CONNECTIONS", "many")])
            .stderr,
    );
    for expected in [
        "mse-proxy.toml:2:9: `log.level`: unknown variant `loud`",
        "environment variable MSE_PROXY_HELO_TIMEOUT: `MSE_PROXY_HELO_TIMEOUT` is not known; did you mean `MSE_PROXY_HELLO_TIMEOUT`?",
        "environment variable MSE_PROXY_LIMITS_CONNECTIONS: `limits.connections`",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    let read = |variables: &[(&str, &str)]| {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let name: Arc<str> = "file".into();
        Config::read(&Config::default(), Some((&name, "[hello]\ntimeout = \"7s\"")), variables)
            .unwrap()
    };
    let config = read(&[
        ("MSE_PROXY_HELLO_TIMEOUT", "9s"),
        ("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:1, [::1]:2"),
        ("MSE_PROXY_ROUTES_PATH", "/etc/routes"),
        ("MSE_PROXY_ROUTES_STRICT", "true"),
        ("MSE_PROXY_LIMITS_CONNECTIONS", "77"),
        ("UNRELATED", "x"),
    ]);
    assert_eq!(config.hello.timeout, "9s".parse().unwrap());
    assert_eq!(config.listen.addresses.len(), 2);
    assert_eq!(config.routes.path.as_deref(), Some(std::path::Path::new("/etc/routes")));
    assert!(config.routes.strict);
    assert_eq!(config.limits.connections.count(), 77);
    assert_eq!(read(&[]).hello.timeout, "7s".parse().unwrap());
}

#[test]
fn manual_pages_are_written_for_all_commands() {
    let output = run(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(".TH mse-proxy 1"), "{}", text(&output.stdout));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(run(&["man", "--dir", pages.to_str().unwrap()]).status.success());
    for page in ["mse-proxy", "mse-proxy-serve", "mse-proxy-route", "mse-proxy-route-apply"] {
        let path = pages.join(format!("{page}.1"));
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(source.starts_with(".ie"), "{page}: {source}");
    }
    let apply = std::fs::read_to_string(pages.join("mse-proxy-route-apply.1")).unwrap();
    assert!(apply.contains("dry\\-run"), "{apply}");
    let output = run(&["man", "--dir", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn completions_are_printed_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        for word in ["explain", "history", "in-steps", "admin-cert"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn sections_in_sections_are_read_and_judged_like_others() {
    let (_held, path) = file(
        "mse-proxy.toml",
        "[admin.tls]\nkey = \"k.pem\"\nkez = 1\n\n[store]\nhistory_max_age = \"soon\"\n\n\
         [store.etcd]\nendpoint = []\ntimeout = \"1ms\"\n\n[store.etc]\nx = 1\n",
    );
    let output = command()
        .args(["check", "--config", &path])
        .env("MSE_PROXY_STORE_ETCD_PREFIX", "")
        .output()
        .unwrap();
    let words = text(&output.stderr);
    for expected in [
        ":3:1: `admin.tls.kez` is not known; did you mean `admin.tls.key`?",
        ":6:19: `store.history_max_age`:",
        ":9:1: `store.etcd.endpoint` is not known; did you mean `store.etcd.endpoints`?",
        ":10:11: `store.etcd.timeout`:",
        "`store.etc` is not known",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    let name: Arc<str> = "file".into();
    let text = "[store]\netcd = { endpoints = [\"http://a:1\"], max_changes = 77 }\n";
    let variables = [
        ("MSE_PROXY_STORE_ETCD_ENDPOINTS", "http://b:1, http://c:1"),
        ("MSE_PROXY_ADMIN_TLS_CLIENT_CA", "/ca.pem"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::read(&Config::default(), Some((&name, text)), variables).unwrap();
    assert_eq!(config.store.etcd.endpoints.len(), 2);
    assert_eq!(config.store.etcd.max_changes, 77.try_into().unwrap());
    assert_eq!(config.admin.tls.client_ca.as_deref(), Some(std::path::Path::new("/ca.pem")));
}
