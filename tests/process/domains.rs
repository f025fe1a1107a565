//! Customers' own domains by command, before a real DNS server.

use std::io::{Read, Write};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::json;

use crate::enclaves::{Authority, KIND, outcome, wish};
use crate::named::Named;
use crate::route_support::Controlled;
use crate::support::{text, until};

#[test]
fn a_domain_is_listed_shown_and_checked_and_its_gate_follows_its_dns() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let here = Named::serve(&[("shop.test", "www IN CNAME proxy.mse.cosmian.com.\n")]);
    let elsewhere = Named::serve(&[
        ("shop.test", "www IN CNAME else.where.test.\n"),
        ("where.test", "else IN A 127.0.0.9\n"),
    ]);
    let root = authority.write_root(folder.path());
    let resolvers = asking(&here);
    let variables = [("MSE_PROXY_PLATFORM_RESOLVERS", &*resolvers), ("SSL_CERT_FILE", &*root)];
    let mut proxy = Controlled::storing_with(&variables);
    assert_eq!(proxy.json(&["domain", "list"])["domains"], serde_json::json!([]));
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["project", "create", "other"]);
    proxy.told(&["hardware", "book", KIND]);
    let domain = "www.shop.test";
    let (certificate, key) = authority.issue(folder.path(), domain);
    let ssl = format!(
        "[cloud.ssl]\ndomain_name = \"{domain}\"\nprivate_key = \"{key}\"\n\
         certificate = \"{certificate}\"\n"
    );
    let path = wish(folder.path(), "shop", "/marked/200", &ssl);
    proxy.told(&["app", "deploy", "--path", &path, "--backend", "127.0.0.1:1"]);
    proxy.told(&["app", "phase", "shop", "initializing"]);
    proxy.told(&["app", "phase", "shop", "running"]);
    until("it is routed", || outcome(&proxy, domain) == "allowed");

    let list = proxy.told(&["domain", "list"]);
    assert!(list.starts_with("DOMAIN         GATE  CLAIM  APP"), "{list}");
    assert!(list.contains("www.shop.test  open  live   default/shop"), "{list}");
    let others = proxy.json(&["domain", "list", "--project", "other"]);
    assert_eq!(others["domains"], serde_json::json!([]));
    let shown = proxy.told(&["domain", "show", domain]);
    assert!(shown.starts_with("www.shop.test is open\n") && shown.contains("until"), "{shown}");
    let checked = proxy.json(&["domain", "check", domain]);
    assert_eq!((&checked["seen"], &checked["why"]), (&"here".into(), &().into()));
    assert!(proxy.told(&["domain", "check", domain]).contains("leads here"));

    // Its DNS leads elsewhere: what was found, what to create, and after three times the gate closes.
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    let resolvers = asking(&elsewhere);
    proxy.restart_with(&[("MSE_PROXY_PLATFORM_RESOLVERS", &resolvers)]);
    let output = proxy.run(&["domain", "check", domain]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("else.where.test"), "{told}");
    assert!(told.contains("create www.shop.test. CNAME proxy.mse.cosmian.com."), "{told}");
    until("its gate is closed", || {
        proxy.run(&["domain", "check", domain]);
        proxy.json(&["domain", "show", domain])["gate"] == "suspended"
    });
    until("nobody gets through", || outcome(&proxy, domain) == "suspended");
    let refused = proxy.refused(&["domain", "check", "other.test"], 1);
    assert!(refused.contains("no app has or had the domain `other.test`"), "{refused}");
}

/// The settings that make a proxy ask a DNS server.
fn asking(dns: &Named) -> String {
    format!("[\"{}\"]", dns.address)
}

/// What the access log says of a client that asks for a domain, with a protocol or without.
fn asked(
    proxy: &Controlled,
    authority: &Authority,
    domain: &str,
    alpn: &[u8],
) -> serde_json::Value {
    let mut config = (*authority.client()).clone();
    config.alpn_protocols =
        [alpn].iter().filter(|one| !one.is_empty()).map(|one| one.to_vec()).collect();
    let name = ServerName::try_from(domain.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut client = proxy.daemon.dial();
    client.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "{answer:?}");
    proxy.daemon.record()
}

#[test]
fn nothing_is_forwarded_for_a_domain_that_nobody_has_seen_lead_here_and_show_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let root = authority.write_root(folder.path());
    let leading = "www IN CNAME proxy.mse.cosmian.com.\n";
    let (silent, here) =
        (Named::serve(&[("shop.test", "")]), Named::serve(&[("shop.test", leading)]));
    let resolvers = asking(&silent);
    let variables = [("MSE_PROXY_PLATFORM_RESOLVERS", &*resolvers), ("SSL_CERT_FILE", &*root)];
    let mut proxy = Controlled::storing_with(&variables);
    let token = proxy.json(&["project", "create", "default"])["token"].as_str().unwrap().to_owned();
    proxy.told(&["hardware", "book", KIND]);
    let domain = "www.shop.test";
    let (certificate, key) = authority.issue(folder.path(), domain);
    let ssl = format!(
        "[cloud.ssl]\ndomain_name = \"{domain}\"\nprivate_key = \"{key}\"\n\
         certificate = \"{certificate}\"\n"
    );
    let path = wish(folder.path(), "shop", "/", &ssl);

    // Its DNS fails: that is no reason against it, and none to forward anything.
    let output = proxy.run(&["app", "deploy", "--path", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("nothing is forwarded until it leads here"));
    proxy.told(&["app", "phase", "shop", "initializing"]);
    proxy.told(&["app", "phase", "shop", "running", "--backend", "127.0.0.1:1"]);
    until("it is held back", || outcome(&proxy, domain) == "domain_pending");
    for alpn in ["", "h2", "acme-tls/1"] {
        let record = asked(&proxy, &authority, domain, alpn.as_bytes());
        let told = ["outcome", "sni", "endpoint", "to_backend_bytes"].map(|key| &record[key]);
        assert_eq!(
            told,
            [&json!("domain_pending"), &json!(domain), &json!(null), &json!(0)],
            "{alpn}"
        );
    }
    let shown = proxy.told(&["app", "show", "shop"]);
    assert!(shown.contains("www.shop.test (held back: domain_pending)"), "{shown}");
    let explained = text(&proxy.run(&["explain", domain]).stdout);
    assert!(explained.contains("domain_pending"), "{explained}");

    // It leads here, and does not show whose it is, as is demanded now.
    let restart = |proxy: &mut Controlled, dns: &Named| {
        proxy.daemon.signal(Signal::TERM);
        assert!(proxy.daemon.wait().success());
        let demand = ("MSE_PROXY_PLATFORM_REQUIRE_OWNERSHIP", "true");
        proxy.restart_with(&[("MSE_PROXY_PLATFORM_RESOLVERS", &asking(dns)), demand]);
    };
    restart(&mut proxy, &here);
    let output = proxy.run(&["domain", "check", domain]);
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("create _mse-proxy.{domain}. TXT \"{token}\"");
    assert!(text(&output.stdout).contains(&wanted), "{}", text(&output.stdout));
    assert_eq!(proxy.json(&["domain", "show", domain])["gate"], "pending");
    assert_eq!(asked(&proxy, &authority, domain, b"acme-tls/1")["outcome"], "domain_pending");

    let shown =
        Named::serve(&[("shop.test", &format!("{leading}_mse-proxy.www TXT \"{token}\"\n"))]);
    restart(&mut proxy, &shown);
    proxy.told(&["domain", "check", domain]);
    assert_eq!(proxy.json(&["domain", "show", domain])["gate"], "open");
    until("it is let through", || outcome(&proxy, domain) == "allowed");
    assert_eq!(asked(&proxy, &authority, domain, b"acme-tls/1")["outcome"], "backend_refused");
}
