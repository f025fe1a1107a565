//! A routes file and a store in one proxy: who goes first, and how the access log joins the history.

use crate::route_support::Controlled;
use crate::support::{ask, echo, hello, route, until};
use crate::web::{get, scrape};

fn is_served(proxy: &Controlled, host: &str) -> bool {
    ask(proxy.daemon.address, host).is_ok_and(|answer| !answer.is_empty())
}

#[test]
fn a_file_goes_before_the_store_and_every_place_names_both() {
    let (file, store) = (echo(hello("shared.test").len()), echo(hello("shared.test").len()));
    let mut proxy = Controlled::storing(&route("file.test", file, ""));
    let admin = proxy.daemon.admin();
    let backend = store.to_string();
    proxy.told(&["route", "set", "mine", "--host", "shared.test", "--backend", &backend]);
    until("the stored route", || is_served(&proxy, "shared.test"));
    let status = get(admin, "/status.json").json();
    // By their names: apps, file, store.
    let standing = &status["sources"][2];
    assert_eq!((&standing["name"], &standing["conflicts"]), (&"store".into(), &0.into()));
    assert!(standing["revision"].as_u64() > Some(0), "{standing}");
    assert_eq!(status["store_revision"], standing["revision"]);
    assert_eq!(status["sources"][1]["revision"], serde_json::Value::Null);

    // A file takes the name away.
    let both = route("file.test", file, "") + &route("shared.test", file, "");
    proxy.file("routes.toml", &both);
    until("the conflict", || {
        let samples = scrape(admin);
        samples.of("mse_proxy_source_conflicts{source=\"store\"}") > 0.5
    });
    let samples = scrape(admin);
    samples.assert("mse_proxy_source_fault{source=\"store\"}", 1);
    samples.assert("mse_proxy_source_fault{source=\"file\"}", 0);
    samples.assert("mse_proxy_routes{state=\"faulty\"}", 1);
    samples.assert("mse_proxy_routes{state=\"live\"}", 2);
    let status = get(admin, "/status.json").json();
    let conflict = &status["conflicts"][0];
    assert_eq!(conflict["at"], "store");
    let message = conflict["message"].as_str().unwrap();
    let place = format!("{}:5:1", proxy.path("routes.toml").display());
    let words = format!("already claimed by the route \"shared.test\" at {place}");
    assert!(message.contains(&words), "{message}");
    let logged = proxy.daemon.wait_log("route left out");
    assert!(logged.contains("mine") && logged.contains(&place), "{logged}");
    // And a write that would lose is refused with who has the name.
    let refused =
        proxy.refused(&["route", "set", "third", "--host", "file.test", "--backend", &backend], 1);
    let place = format!("{}:1:1", proxy.path("routes.toml").display());
    assert!(refused.contains(&place) && refused.contains("routes.precedence"), "{refused}");

    // When the file lets go, the store's route has the name again.
    proxy.file("routes.toml", &route("file.test", file, ""));
    until("the freed name", || {
        scrape(admin).of("mse_proxy_source_conflicts{source=\"store\"}") < 0.5
    });
    scrape(admin).assert("mse_proxy_routes{state=\"live\"}", 2);
}

#[test]
fn a_record_tells_the_revision_of_the_change_that_let_it_in() {
    let backend = echo(hello("a.test").len()).to_string();
    let proxy = Controlled::storing("");
    assert!(!is_served(&proxy, "a.test"));
    let before = proxy.daemon.record();
    assert_eq!(before["outcome"], "unknown_name");
    proxy.told(&["route", "set", "a.test", "--backend", &backend]);
    until("the route", || is_served(&proxy, "a.test"));
    let allowed = loop {
        let record = proxy.daemon.record();
        if record["outcome"] == "closed" {
            break record;
        }
    };
    let history = proxy.json(&["route", "history", "a.test"]);
    let revision = history["records"][0]["revision"].clone();
    assert!(revision.as_u64() > Some(0), "{history}");
    assert_eq!(allowed["store_revision"], revision, "{allowed}");
    assert!(before["store_revision"].as_u64() < revision.as_u64(), "{before}");
}

#[test]
fn without_a_store_a_record_tells_no_revision_of_one() {
    let backend = echo(hello("a.test").len());
    let proxy = Controlled::serve(&route("a.test", backend, ""));
    ask(proxy.daemon.address, "a.test").unwrap();
    let record = proxy.daemon.record();
    assert_eq!(record["store_revision"], serde_json::Value::Null);
    assert!(record.as_object().unwrap().contains_key("store_revision"));
}
