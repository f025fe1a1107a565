//! Customers' own domains by command, before a real DNS server.

use crate::enclaves::{Authority, KIND, outcome, wish};
use crate::named::Named;
use crate::route_support::Controlled;
use crate::support::until;

#[test]
fn a_domain_is_listed_shown_and_checked_and_its_gate_follows_its_dns() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let here = Named::serve(&[("shop.test", "www IN CNAME proxy.mse.cosmian.com.\n")]);
    let elsewhere = Named::serve(&[
        ("shop.test", "www IN CNAME else.where.test.\n"),
        ("where.test", "else IN A 127.0.0.9\n"),
    ]);
    let asking = |dns: &Named| format!("[\"{}\"]", dns.address);
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
    proxy.daemon.signal(rustix::process::Signal::TERM);
    assert!(proxy.daemon.wait().success());
    let resolvers = asking(&elsewhere);
    proxy.restart_with(&[("MSE_PROXY_PLATFORM_RESOLVERS", &resolvers)]);
    let output = proxy.run(&["domain", "check", domain]);
    let told = crate::support::text(&output.stdout);
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
