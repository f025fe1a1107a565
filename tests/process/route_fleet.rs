//! Commands against a fleet's etcd, which bounds what one transaction may change.

use crate::route_support::Controlled;
use crate::support::{route, until};

#[path = "../store/support_etcd.rs"]
#[allow(
    dead_code,
    clippy::expect_used,
    reason = "a part of it is enough here; its words are for who runs tests"
)]
pub(crate) mod support_etcd;

#[test]
fn a_large_set_is_refused_with_the_remedy_and_goes_in_steps() {
    let etcd = support_etcd::Server::start(&[]);
    let url = etcd.url();
    let one = Controlled::with("", &[("MSE_PROXY_STORE_ETCD_ENDPOINTS", &url)]);
    let other = Controlled::with("", &[("MSE_PROXY_STORE_ETCD_ENDPOINTS", &url)]);
    let many = |port: u16| {
        (0..300).fold(String::new(), |all, n| {
            all + &route(&format!("r{n}.test"), format!("127.0.0.1:{port}"), "")
        })
    };
    let file = one.file("many.toml", &many(1));
    let dry = one.json(&["route", "apply", &file, "--dry-run"]);
    assert_eq!(dry["added"], 300, "what would change is told, however it is applied then");
    let words = one.refused(&["route", "apply", &file], 1);
    assert!(words.contains("--in-steps 100 applies it in several transactions"), "{words}");
    let done = one.json(&["route", "apply", &file, "--in-steps", "100"]);
    assert_eq!(done["added"], 300);
    // The whole fleet has them, and what one changes is seen through the other.
    let count =
        |proxy: &Controlled| proxy.json(&["route", "list"])["routes"].as_array().unwrap().len();
    until("the other proxy has them", || count(&other) == 300);
    other.told(&["route", "set", "r7.test", "--backend", "127.0.0.1:2"]);
    until("the change is known here", || {
        let dry = one.json(&["route", "apply", &file, "--dry-run"]);
        let ids = dry["differences"].as_array().unwrap().iter().map(|one| one["id"].clone());
        ids.collect::<Vec<_>>() == ["r7.test"]
    });
    assert!(one.told(&["route", "history", "--verify"]).contains("verified: 4 records"));
}
