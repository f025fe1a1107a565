//! Whole lives of apps: deployed by command, found to run, reached by real clients, and over.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use mse_proxy::clock::{Clock, SystemClock};
use rustix::process::Signal;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::enclaves::{Authority, Enclave, KIND, get, host, outcome, shake, wish};
use crate::etcd;
use crate::named::Named;
use crate::route_support::Controlled;
use crate::support::{PATIENCE, until};

#[test]
fn fifty_silent_clients_do_not_keep_others_out_of_an_app_that_is_configured() {
    let proxy = Controlled::storing("");
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    // Its configuration server answers for it, so it stays what it is.
    let path = wish(folder.path(), "my-app", "/marked/200", "");
    let app = proxy.json(&["app", "deploy", "--path", &path, "--dry-run"])["app"].clone();
    let name = host(&app, "own");
    let (certificate, key) = authority.issue(folder.path(), &name);
    let enclave = Enclave::serve(&certificate, &key);
    let backend = enclave.address.to_string();
    proxy.told(&["app", "deploy", "--path", &path, "--backend", &backend]);
    proxy.told(&["app", "phase", "my-app", "initializing"]);
    until("it is routed", || outcome(&proxy, &name) == "allowed");

    let config = authority.client();
    let address = proxy.daemon.address;
    let silent: Vec<_> = (0..50)
        .map(|_| {
            let name = ServerName::try_from(name.clone()).unwrap();
            let mut connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let mut hello = Vec::new();
            connection.write_tls(&mut hello).unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&hello).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < PATIENCE {
        match shake(&config, address, &name).and_then(|tls| get(tls, &name, "/200")) {
            Ok(answer) if answer.ends_with("200 OK") => break,
            other => last = format!("{other:?}"),
        }
    }
    assert!(began.elapsed() < PATIENCE, "nobody gets in: {last}");
    // One after the other held the place, was dropped, and the rest did not wait for ever.
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    while ends.values().sum::<usize>() < silent.len() {
        let record = proxy.daemon.records.recv_timeout(PATIENCE).unwrap();
        if record["outcome"] != "closed" {
            *ends.entry(record["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(ends.contains_key("idle_timeout") && ends.contains_key("backend_timeout"), "{ends:?}");
    assert_eq!(proxy.json(&["app", "show", "my-app"])["phase"], "initializing");
}

#[test]
fn a_whole_life_with_a_domain_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let dns =
        Named::serve(&[("shop.test", "@ IN A 127.0.0.1\nwww IN CNAME proxy.mse.cosmian.com.\n")]);
    let resolvers = format!("[\"{}\"]", dns.address);
    let root = authority.write_root(folder.path());
    let variables = [("MSE_PROXY_PLATFORM_RESOLVERS", &*resolvers), ("SSL_CERT_FILE", &*root)];
    let mut proxy = Controlled::storing_with(&variables);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let domain = "www.shop.test";
    let (certificate, key) = authority.issue(folder.path(), domain);
    // So near an end that the test sees it, and so far that even a slow machine gets there.
    let ends_at = SystemClock.now() + jiff::SignedDuration::from_secs(60);
    let ssl = format!(
        "expiration_date = \"{ends_at:.0}\"\n[cloud.ssl]\ndomain_name = \"{domain}\"\n\
         private_key = \"{key}\"\ncertificate = \"{certificate}\"\n"
    );
    let path = wish(folder.path(), "shop", "/204", &ssl);
    let dry = proxy.json(&["app", "deploy", "--path", &path, "--dry-run"]);
    let configuration = host(&dry["app"], "configuration");
    let (own, own_key) = authority.issue(folder.path(), &configuration);

    // While it is configured, its enclave shows a certificate of its own, under its own name.
    let enclave = Enclave::start(&[&own, &own_key, "0", "marked"]);
    let backend = enclave.address.to_string();
    let told = proxy.told(&["app", "deploy", "--path", &path, "--backend", &backend]);
    assert!(told.contains(&configuration) && told.contains(domain), "{told}");
    // Of the owner's key, nothing came here.
    let secret = fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let store = fs::read(proxy.path("routes.redb")).unwrap();
    let holds = |bytes: &[u8], words: &str| {
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    };
    assert!(holds(&store, domain) && !holds(&store, secret));
    assert!(!proxy.daemon.seen().concat().contains(secret));
    assert_eq!(outcome(&proxy, &configuration), "unknown_name", "it is spawning");
    let config = authority.client();
    proxy.told(&["app", "phase", "shop", "initializing"]);
    let address = proxy.daemon.address;
    until("its owner can configure it", || {
        shake(&config, address, &configuration)
            .and_then(|tls| get(tls, &configuration, "/200"))
            .is_ok()
    });
    assert_eq!(outcome(&proxy, domain), "unknown_name", "its users cannot reach it yet");
    assert_eq!(proxy.json(&["app", "show", "shop"])["phase"], "initializing");

    // The app takes over in the same place, with its owner's certificate, and is found to run.
    let port = enclave.address.port().to_string();
    drop(enclave);
    let running = Enclave::start(&[&certificate, &key, &port]);
    proxy.daemon.wait_seen("app found");
    assert_eq!(proxy.json(&["app", "show", "shop"])["phase"], "running");
    until("its domain is routed", || outcome(&proxy, domain) == "allowed");
    assert_eq!(outcome(&proxy, &configuration), "unknown_name");

    until("clients meet the owner's certificate", || {
        shake(&config, address, domain).and_then(|tls| get(tls, domain, "/200")).is_ok()
    });
    // A restart in between forgets nothing.
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    proxy.restart_with(&variables);
    let address = proxy.daemon.address;
    let mut live = shake(&config, address, domain).unwrap();
    assert_eq!(proxy.json(&["domain", "show", domain])["claim"], "live");

    // Its end comes with a connection that is alive.
    let mut rest = Vec::new();
    let cut = live.read_to_end(&mut rest);
    assert!(
        SystemClock.now()
            >= ends_at.round(jiff::Unit::Second).unwrap() - jiff::SignedDuration::from_secs(1)
    );
    assert!(cut.is_err() || rest.is_empty(), "cut at its end: {cut:?}");
    assert_eq!(outcome(&proxy, domain), "expired_name");
    until("its end is noted", || {
        let told = proxy.json(&["domain", "show", domain]);
        told["claim"] == "reserved" && proxy.json(&["app", "show", "shop"])["phase"] == "expired"
    });
    // A restart does not set the name free either.
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    proxy.restart_with(&variables);
    assert_eq!(outcome(&proxy, domain), "expired_name");
    proxy.told(&["project", "create", "other"]);
    let text = fs::read_to_string(&path).unwrap();
    let later = text.replace(&format!("expiration_date = \"{ends_at:.0}\"\n"), "");
    let others = later.replace("project = \"default\"", "project = \"other\"");
    fs::write(&path, others).unwrap();
    proxy.told(&["hardware", "book", KIND, "--project", "other"]);
    let refused = proxy.refused(&["app", "deploy", "--path", &path], 1);
    assert!(refused.contains("was another project's until not long ago"), "{refused}");

    // Its own project has it back at once.
    fs::write(&path, later).unwrap();
    let again = ["app", "deploy", "--path", &path, "--backend", &running.address.to_string()];
    assert_eq!(host(&proxy.json(&again)["app"], "configuration"), configuration);
    proxy.told(&["app", "phase", "shop", "initializing"]);
    until("it runs again", || outcome(&proxy, domain) == "allowed");
    proxy.told(&["project", "suspend", "default"]);
    until("its project is suspended", || outcome(&proxy, domain) != "allowed");
}

/// Two deployments at once, each by a proxy of its own, for the last booked hardware.
fn race(proxies: [&Controlled; 2]) {
    proxies[0].told(&["project", "create", "default"]);
    proxies[0].told(&["hardware", "book", KIND]);
    for round in 0..5 {
        let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
        let racers: Vec<_> = (0..2)
            .map(|n| {
                let name = format!("app-{round}-{n}");
                let path = wish(folders[n].path(), &name, "/", "");
                let mut command = proxies[n].command(&["app", "deploy", "--path", &path]);
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outputs: Vec<_> =
            racers.into_iter().map(|racer| racer.wait_with_output().unwrap()).collect();
        let codes: Vec<_> = outputs.iter().map(|output| output.status.code().unwrap()).collect();
        let winner = codes.iter().position(|code| *code == 0);
        let words = outputs.iter().map(|output| crate::support::text(&output.stderr));
        let words: Vec<_> = words.collect();
        assert_eq!(codes.iter().sum::<i32>(), 1, "{codes:?} {words:?}");
        let winner = format!("app-{round}-{}", winner.unwrap());
        assert!(words.concat().contains(KIND), "{words:?}");
        proxies[1].told(&["app", "stop", &winner]);
    }
}

#[test]
fn of_two_deployments_for_the_last_hardware_one_wins_on_a_file() {
    let proxy = Controlled::storing("");
    race([&proxy, &proxy]);
}

#[test]
fn of_two_deployments_for_the_last_hardware_one_wins_in_a_fleet() {
    let etcd = etcd::Server::start(&[]);
    let url = etcd.url();
    let fleet = || Controlled::with("", &[("MSE_PROXY_STORE_ETCD_ENDPOINTS", &url)]);
    let (one, other) = (fleet(), fleet());
    race([&one, &other]);
}

#[test]
fn an_app_that_breaks_while_it_is_configured_is_over_and_each_phase_is_explained() {
    let proxy = Controlled::storing("");
    let folder = tempfile::tempdir().unwrap();
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    // What its configuration server says of itself.
    let path = wish(folder.path(), "shop", "/marked/500", "");
    let app = proxy.json(&["app", "deploy", "--path", &path])["app"].clone();
    let name = host(&app, "own");
    let (certificate, key) = Authority::new().issue(folder.path(), &name);
    let enclave = Enclave::serve(&certificate, &key);
    let explained = || {
        let output = proxy.run(&["explain", &name]);
        crate::support::text(&output.stdout) + &crate::support::text(&output.stderr)
    };
    assert!(explained().contains("unknown_name"), "{}", explained());
    proxy.told(&["app", "phase", "shop", "initializing"]);
    assert!(explained().contains("unknown_name"), "it is nowhere yet: {}", explained());
    let backend = enclave.address.to_string();
    proxy.told(&["app", "phase", "shop", "initializing", "--backend", &backend]);
    until("it is found to be broken", || {
        proxy.json(&["app", "show", "shop"])["phase"] == "on_error"
    });
    until("its name is over", || outcome(&proxy, &name) == "expired_name");
    let words = explained();
    assert!(words.contains("expired_name") && words.contains("default/shop"), "{words}");
    assert_eq!(proxy.json(&["hardware", "list"])["hardware"][1]["free"], 1, "its seat is free");
}

#[test]
fn who_takes_an_apps_place_with_another_certificate_does_not_make_it_run() {
    let proxy = Controlled::storing("");
    let folder = tempfile::tempdir().unwrap();
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let path = wish(folder.path(), "shop", "/204", "");
    let (certificate, key) = Authority::new().issue(folder.path(), "own.test");
    let enclave = Enclave::start(&[&certificate, &key, "0", "marked", "telling"]);
    let backend = enclave.address.to_string();
    proxy.told(&["app", "deploy", "--path", &path, "--backend", &backend]);
    proxy.told(&["app", "phase", "shop", "initializing"]);
    // It was looked at, and asked.
    for _ in 0..2 {
        enclave.told.recv_timeout(PATIENCE).unwrap();
    }
    let port = enclave.address.port().to_string();
    drop(enclave);

    let strangers = tempfile::tempdir().unwrap();
    let (other, other_key) = Authority::new().issue(strangers.path(), "own.test");
    let stranger = Enclave::start(&[&other, &other_key, &port, "telling"]);
    for _ in 0..2 {
        stranger.told.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(proxy.json(&["app", "show", "shop"])["phase"], "initializing");
    drop(stranger);
    let _running = Enclave::start(&[&certificate, &key, &port]);
    until("it is found to run", || proxy.json(&["app", "show", "shop"])["phase"] == "running");
}
