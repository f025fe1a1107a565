//! What is to be said of a certificate that a backend shows.

use mse_proxy::admission::certificate::Chain;
use mse_proxy::admission::sight::{Sight, notices};
use mse_proxy::hostname::Pattern;

use crate::certs::{Leaf, chain};
use crate::support::{at, now};

fn told(seen: &Chain, hosts: &[&str], ends_at: Option<&str>) -> Vec<String> {
    let hosts: Vec<Pattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let told = notices(&hosts, ends_at.map(at), seen, now());
    told.iter().map(ToString::to_string).collect()
}

fn leaf(names: &[&str], days: [(i32, u8, u8); 2]) -> Chain {
    let [from, to] = days;
    chain(&[&Leaf { names, common_name: None, from, to }.self_signed().pem])
}

#[test]
fn whatever_is_odd_is_told() {
    let days = [(2026, 5, 1), (2026, 8, 1)];
    let seen = leaf(&["a.test", "*.b.test"], days);
    let none: [String; 0] = [];
    assert_eq!(told(&seen, &["a.test", "x.b.test", "*.b.test"], None), none);
    // To the second: a route may end with its certificate.
    assert_eq!(told(&seen, &["a.test"], Some("2026-08-01T00:00:00Z")), none);
    assert_eq!(
        told(&seen, &["a.test", "b.test", "*.c.test"], Some("2026-08-01T00:00:01Z")),
        [
            "the certificate does not cover b.test",
            "the certificate does not cover *.c.test",
            "the certificate ends at 2026-08-01T00:00:00Z, before the route (2026-08-01T00:00:01Z)",
        ]
    );
    let over = leaf(&["a.test"], [(2026, 1, 1), (2026, 6, 1)]);
    let words = told(&over, &["a.test"], Some("2026-07-01T00:00:00Z"));
    assert_eq!(words, ["the certificate ended at 2026-06-01T00:00:00Z"]);
    let early = leaf(&["a.test"], [(2026, 6, 2), (2026, 8, 1)]);
    let words = told(&early, &["a.test"], None);
    assert_eq!(words, ["the certificate is not valid before 2026-06-02T00:00:00Z"]);
}

#[test]
fn what_is_kept_is_written_and_read() {
    let seen = Sight::from(&leaf(&["*.test"], [(2026, 5, 1), (2026, 8, 1)]));
    let json = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<Sight>(&json).unwrap(), seen);
}
