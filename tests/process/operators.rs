//! Apps whose TLS ends in the proxy: deployed by command, reached with the operator's certificate.

use std::process::Command;

use serde_json::Value;

use crate::enclaves::{Authority, Enclave, KIND, host, outcome, wish};
use crate::route_support::Controlled;
use crate::support::{text, until};

/// What a real client is answered to a question by a name, if it trusts only this authority.
fn curl(proxy: &Controlled, name: &str, path: &str, root: &str) -> (String, bool) {
    let address = proxy.daemon.address;
    let to = format!("{name}:{}:{}", address.port(), address.ip());
    let url = format!("https://{name}:{}{path}", address.port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--max-time", "60", "--noproxy", "*", "--resolve", &to]);
    let output = curl.args(["--cacert", root, &url]).output().unwrap();
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}

#[test]
fn an_operators_app_is_reached_with_the_operators_certificate_and_only_where_its_key_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = tempfile::tempdir().unwrap();
    let (operator, stranger) = (Authority::new(), Authority::new());
    let root = operator.write_root(folder.path());
    let path = certificates.path().display().to_string();
    let mut proxy = Controlled::storing_with(&[
        ("MSE_PROXY_TERMINATE_ZONES", "[\"*.cosmian.dev\"]"),
        ("MSE_PROXY_TERMINATE_CERTIFICATES", &path),
    ]);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let path = wish(folder.path(), "shop", "/204", "");
    let deploy = ["app", "deploy", "--operator-tls", "--path", &path];
    let dry = proxy.json(&[&deploy[..], &["--dry-run"]].concat());
    let (configuration, terminated) =
        (host(&dry["app"], "configuration"), host(&dry["app"], "terminated"));
    assert!(terminated.ends_with(".cosmian.dev"), "{terminated}");
    operator.issue(certificates.path(), &terminated);

    // Its enclave shows a certificate that nobody but itself vouches for.
    let (own, own_key) = stranger.issue(folder.path(), &configuration);
    let enclave = Enclave::start(&[&own, &own_key, "0", "marked"]);
    let backend = enclave.address.to_string();
    proxy.told(&[&deploy[..], &["--backend", &backend]].concat());
    proxy.told(&["app", "phase", "shop", "initializing"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let trusted = stranger.write_root(elsewhere.path());
    until("it is configured by its own certificate", || {
        curl(&proxy, &configuration, "/200", &trusted).1
    });
    assert_eq!(outcome(&proxy, &terminated), "unknown_name");

    // The app takes over with the same key, and is found to run.
    let port = enclave.address.port().to_string();
    drop(enclave);
    let running = Enclave::start(&[&own, &own_key, &port]);
    proxy.daemon.wait_seen("app found");
    until("its name is routed", || outcome(&proxy, &terminated) == "allowed");
    assert_eq!(outcome(&proxy, &configuration), "unknown_name");
    let route = proxy.json(&["route", "show", &terminated]);
    assert_eq!(route["mode"], "terminate", "{route}");
    assert!(route["pin"].as_str().unwrap().starts_with("sha256:"), "{route}");
    let mut last = String::new();
    until("clients meet the operator's certificate", || {
        let (answer, is_reached) = curl(&proxy, &terminated, "/200", &root);
        last.clone_from(&answer);
        is_reached && answer.contains(" 200")
    });
    assert!(last.to_lowercase().contains(&format!("seen-host: {terminated}")), "{last}");

    // Whoever takes its place with another key is not believed, until somebody says that it is meant.
    drop(running);
    let (other, other_key) = Authority::new().issue(elsewhere.path(), &configuration);
    let _another = Enclave::start(&[&other, &other_key, &port]);
    let (answer, _) = curl(&proxy, &terminated, "/200", &root);
    assert!(answer.contains(" 502"), "{answer}");
    proxy.told(&["app", "phase", "shop", "--backend", &backend]);
    until("its new key is known", || curl(&proxy, &terminated, "/200", &root).0.contains(" 200"));

    proxy.told(&["app", "stop", "shop"]);
    until("it is over", || outcome(&proxy, &terminated) == "expired_name");
}

#[test]
fn an_app_runs_by_word_only_if_its_key_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy =
        Controlled::storing_with(&[("MSE_PROXY_TERMINATE_ZONES", "[\"*.cosmian.dev\"]")]);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let path = wish(folder.path(), "shop", "/marked/200", "");
    // A place where nobody is.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let deploy = ["app", "deploy", "--operator-tls", "--path", &path];
    proxy.told(&[&deploy[..], &["--backend", &nobody.to_string()]].concat());
    proxy.told(&["app", "phase", "shop", "initializing"]);
    let refused = proxy.refused(&["app", "phase", "shop", "running"], 1);
    assert!(refused.contains(&format!("nobody knows whom to believe at {nobody}")), "{refused}");
    assert_eq!(proxy.json(&["app", "show", "shop"])["phase"], "initializing");
    let (certificate, key) = Authority::new().issue(folder.path(), "own.test");
    let enclave = Enclave::start(&[&certificate, &key]);
    let backend = enclave.address.to_string();
    proxy.told(&["app", "phase", "shop", "running", "--backend", &backend]);
    let app = proxy.json(&["app", "show", "shop"]);
    until("its name is routed", || outcome(&proxy, &host(&app, "terminated")) == "allowed");

    let found = |proxy: &Controlled, list: bool| {
        let app = if list {
            proxy.json(&["app", "list"])["apps"][0].clone()
        } else {
            proxy.json(&["app", "show", "shop"])
        };
        let hosts = app["hosts"].as_array().unwrap();
        let host = hosts.iter().find(|one| one["role"] == "terminated").unwrap();
        (host["reachable"].clone(), host["hold"].clone())
    };
    for list in [false, true] {
        assert_eq!(found(&proxy, list), (true.into(), Value::Null));
    }
    // A proxy that may not end TLS there does not say that it does.
    proxy.kill();
    proxy.restart_with(&[("MSE_PROXY_TERMINATE_ZONES", "[\"*.other.test\"]")]);
    assert_eq!(outcome(&proxy, &host(&app, "terminated")), "unknown_name");
    for list in [false, true] {
        assert_eq!(found(&proxy, list), (false.into(), "outside_zones".into()));
    }
}

#[test]
fn an_operators_app_is_refused_where_tls_may_not_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Controlled::storing_with(&[("MSE_PROXY_TERMINATE_ZONES", "[\"*.other.test\"]")]);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let path = wish(folder.path(), "shop", "/", "");
    let refused = proxy.refused(&["app", "deploy", "--operator-tls", "--path", &path], 1);
    assert!(refused.contains("list \"*.cosmian.dev\" in terminate.zones"), "{refused}");
    assert_eq!(proxy.json(&["app", "list"])["apps"].as_array().unwrap().len(), 0);
}
