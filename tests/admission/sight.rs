//! What is to be said of a certificate that a backend shows.

use mse_proxy::admission::certificate::Chain;
use mse_proxy::admission::sight::{Sight, cap, notices, shared};
use mse_proxy::hostname::Pattern;

use crate::certs::{Leaf, chain};
use crate::support::{at, now};

fn told(
    seen: &Chain,
    hosts: &[&str],
    ends_at: Option<&str>,
    before: Option<&Chain>,
) -> Vec<String> {
    let hosts: Vec<Pattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let before = before.map(Sight::from);
    let told = notices(&hosts, ends_at.map(at), seen, before.as_ref(), now());
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
    assert_eq!(told(&seen, &["a.test", "x.b.test", "*.b.test"], None, Some(&seen)), none);
    // To the second: a route may end with its certificate.
    assert_eq!(told(&seen, &["a.test"], Some("2026-08-01T00:00:00Z"), None), none);
    assert_eq!(
        told(&seen, &["a.test", "b.test", "*.c.test"], Some("2026-08-01T00:00:01Z"), None),
        [
            "the certificate does not cover b.test",
            "the certificate does not cover *.c.test",
            "the certificate ends at 2026-08-01T00:00:00Z, before the route (2026-08-01T00:00:01Z)",
        ]
    );
    let other = leaf(&["a.test"], days);
    let words = told(&other, &["a.test"], None, Some(&seen));
    let (own, before) = (Sight::from(&other).key, Sight::from(&seen).key);
    assert_eq!(
        words,
        [format!("the certificate is another one than before: its key is {own}, it was {before}")]
    );
    let over = leaf(&["a.test"], [(2026, 1, 1), (2026, 6, 1)]);
    let words = told(&over, &["a.test"], Some("2026-07-01T00:00:00Z"), None);
    assert_eq!(words, ["the certificate ended at 2026-06-01T00:00:00Z"]);
    let early = leaf(&["a.test"], [(2026, 6, 2), (2026, 8, 1)]);
    let words = told(&early, &["a.test"], None, None);
    assert_eq!(words, ["the certificate is not valid before 2026-06-02T00:00:00Z"]);
}

#[test]
fn one_leaf_for_two_apps_is_told_and_no_route_outlives_it() {
    let days = [(2026, 5, 1), (2026, 8, 1)];
    let (seen, other) = (leaf(&["*.test"], days), leaf(&["*.test"], days));
    let (seen, other) = (Sight::from(&seen), Sight::from(&other));
    let project = "p".parse().unwrap();
    let names = ["a", "b"].map(|name| name.parse().unwrap());
    let others = [(&project, &names[0], &other), (&project, &names[1], &seen)];
    let told = shared(&seen, others);
    assert_eq!(told.len(), 1);
    assert!(told[0].to_string().starts_with("`p/b` shows the same certificate"), "{told:?}");

    let not_after = at("2026-08-01T00:00:00Z");
    assert_eq!(cap(None, &seen), not_after);
    assert_eq!(cap(Some(at("2026-09-01T00:00:00Z")), &seen), not_after);
    assert_eq!(cap(Some(now()), &seen), now());
    let json = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<Sight>(&json).unwrap(), seen);
}
