//! Lookup against a plain model: scan all routes, rank those that fit.

use std::sync::Arc;

use mse_proxy::clock::Timestamp;
use mse_proxy::hostname::{Hostname, Pattern};
use mse_proxy::routing::claims::{Claims, Passage};
use mse_proxy::routing::route::{Claim, Lifetime, Origin, Phase, Route, Terms};
use mse_proxy::routing::snapshot::{Conflict, Miss, Snapshot};
use mse_proxy::wire::client_hello::Alpn;
use proptest::collection::vec;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn claim(
    number: u32,
    hosts: &[&str],
    alpn: &[&str],
    lifetime: (Option<i64>, Option<i64>),
) -> Claim {
    let terms = Terms {
        lifetime: Lifetime {
            not_before: lifetime.0.map(at),
            expires_at: lifetime.1.map(at),
            ..Lifetime::default()
        },
        alpn: alpn.iter().map(|name| name.as_bytes().into()).collect(),
        ..Terms::default()
    };
    let hosts: Vec<_> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let backends = vec!["127.0.0.1:1".parse().unwrap()];
    let route = Route::new(format!("r{number}").into(), hosts, backends, terms);
    let origin = Origin { source: "t.toml".into(), line: number, column: 1 };
    Claim { route: Arc::new(route), origin }
}

fn plain(number: u32, hosts: &[&str]) -> Claim {
    claim(number, hosts, &[], (None, None))
}

fn alpn(names: &[&str]) -> Alpn {
    Alpn::from_names(names.iter().map(|name| name.as_bytes()))
}

fn found<'a>(snapshot: &'a Snapshot, name: &str, names: &[&str]) -> Option<&'a str> {
    snapshot.find(&name.parse().unwrap(), &alpn(names)).map(|route| &*route.id)
}

#[test]
fn the_most_specific_pattern_wins() {
    let (snapshot, conflicts) = Snapshot::build([
        plain(1, &["**.test"]),
        plain(2, &["**.w.test"]),
        plain(3, &["*.w.test"]),
        plain(4, &["a.w.test"]),
        plain(5, &["*.b.w.test"]),
    ]);
    assert!(conflicts.is_empty());
    for (name, id) in [
        ("a.w.test", Some("r4")),
        ("x.w.test", Some("r3")),
        ("y.x.w.test", Some("r2")),
        ("y.b.w.test", Some("r5")),
        ("z.y.b.w.test", Some("r2")),
        ("w.test", Some("r1")),
        ("test", None),
        ("w.example", None),
    ] {
        assert_eq!(found(&snapshot, name, &[]), id, "{name}");
    }
}

#[test]
fn with_alpn_goes_before_without_and_the_clients_order_decides() {
    let (snapshot, conflicts) = Snapshot::build([
        plain(1, &["a.test"]),
        claim(2, &["a.test"], &["acme-tls/1"], (None, None)),
        claim(3, &["a.test"], &["h2", "h3"], (None, None)),
        claim(4, &["b.test"], &["h2"], (None, None)),
        plain(5, &["*.test"]),
    ]);
    assert!(conflicts.is_empty());
    for (name, names, id) in [
        ("a.test", &[][..], "r1"),
        ("a.test", &["http/1.1"], "r1"),
        ("a.test", &["acme-tls/1"], "r2"),
        ("a.test", &["acme-tls/1", "h2"], "r2"),
        ("a.test", &["h3", "acme-tls/1"], "r3"),
        ("b.test", &["h2"], "r4"),
        // Its only route does not take the hello: the next pattern may.
        ("b.test", &["http/1.1"], "r5"),
    ] {
        assert_eq!(found(&snapshot, name, names), Some(id), "{name} {names:?}");
    }
}

#[test]
fn who_comes_second_is_left_out_whole_and_told_who_was_first() {
    let (snapshot, conflicts) = Snapshot::build([
        plain(1, &["a.test", "*.a.test"]),
        plain(2, &["b.test", "a.test"]),
        claim(3, &["a.test"], &["h2", "h3"], (None, None)),
        claim(4, &["a.test"], &["h3"], (None, None)),
        plain(1, &["other.test"]),
        plain(6, &["b.test"]),
    ]);
    let told: Vec<_> = conflicts
        .iter()
        .map(|(claim, conflict)| (&*claim.route.id, conflict.to_string()))
        .collect();
    assert_eq!(
        told,
        [
            ("r2", "a.test is already claimed by the route \"r1\" at t.toml:1:1".to_owned()),
            ("r4", "a.test is already claimed by the route \"r3\" at t.toml:3:1".to_owned()),
            ("r1", "the id \"r1\" is already that of the route at t.toml:1:1".to_owned()),
        ]
    );
    assert!(matches!(conflicts[2].1, Conflict::Id { .. }));
    // Nothing of a route that is left out stays: its other name is free.
    assert_eq!(found(&snapshot, "b.test", &[]), Some("r6"));
    assert_eq!(snapshot.len(), 3);
}

#[test]
fn an_expired_winner_never_falls_through() {
    let (snapshot, _) = Snapshot::build([
        plain(1, &["*.w.test"]),
        claim(2, &["a.w.test"], &[], (Some(100), Some(200))),
        claim(3, &["a.w.test"], &["h2"], (None, Some(150))),
    ]);
    let ask = |second, names: &[&str]| {
        snapshot
            .lookup(&"a.w.test".parse().unwrap(), &alpn(names), at(second))
            .map(|route| route.id.to_string())
    };
    assert!(matches!(ask(99, &[]), Err(Miss::NotYet(route)) if &*route.id == "r2"));
    assert_eq!(ask(100, &[]).unwrap(), "r2");
    assert_eq!(ask(199, &[]).unwrap(), "r2");
    assert!(matches!(ask(200, &[]), Err(Miss::Expired(route)) if &*route.id == "r2"));
    assert!(matches!(ask(150, &["h2"]), Err(Miss::Expired(route)) if &*route.id == "r3"));
    let unknown = snapshot.lookup(&"x.example".parse().unwrap(), &alpn(&[]), at(0));
    assert_eq!(unknown.unwrap_err(), Miss::Unknown);
}

#[test]
fn two_hundred_thousand_hosts_are_found() {
    let claims = (0..200_000).map(|number| plain(number, &[&format!("h{number}.apps.test")]));
    let (snapshot, conflicts) = Snapshot::build(claims);
    assert!(conflicts.is_empty());
    for number in (0..200_000).step_by(997) {
        let id = format!("r{number}");
        assert_eq!(found(&snapshot, &format!("H{number}.apps.test."), &[]), Some(id.as_str()));
    }
    assert_eq!(found(&snapshot, "h200000.apps.test", &[]), None);
}

/// The rule, written down as plainly as possible.
fn model<'a>(claims: &'a [Claim], name: &Hostname, offered: &Alpn) -> Option<&'a Arc<Route>> {
    let rank = |pattern: &Pattern| match pattern {
        Pattern::Exact(name) => (usize::MAX, 2, name.as_str().len()),
        Pattern::OneLabel(suffix) => (suffix.as_str().split('.').count(), 1, 0),
        Pattern::AnyDepth(suffix) => (suffix.as_str().split('.').count(), 0, 0),
    };
    let fits = claims.iter().flat_map(|claim| {
        let patterns = claim.route.hosts.iter().filter(|pattern| pattern.covers(name));
        patterns.map(move |pattern| (rank(pattern), &claim.route))
    });
    let fits = fits.filter_map(|(rank, route)| {
        // Without a protocol comes after every protocol that the client offers.
        let asked = if route.alpn().is_empty() {
            Some(usize::MAX)
        } else {
            offered.iter().position(|name| route.alpn().iter().any(|own| **own == *name))
        };
        Some((rank, asked?, route))
    });
    fits.max_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)))
        .map(|(.., route)| route)
}

fn host() -> impl Strategy<Value = String> {
    // Few labels, so that names and patterns meet.
    vec("[abc]", 1..5).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    (prop_oneof![Just(""), Just("*."), Just("**.")], host())
        .prop_map(|(star, host)| format!("{star}{host}"))
}

fn protocols() -> impl Strategy<Value = Vec<String>> {
    vec("[xyz]", 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn lookup_agrees_with_the_plain_rule(
        routes in vec((vec(pattern(), 1..4), protocols(), proptest::option::of(0i64..50), proptest::option::of(0i64..50)), 0..20),
        asked in vec((host(), protocols(), 0i64..50), 1..30),
    ) {
        let claims = routes.iter().enumerate().map(|(number, (hosts, names, start, end))| {
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            claim(u32::try_from(number).unwrap(), &hosts, &names, (*start, *end))
        });
        let claims: Vec<Claim> = claims.collect();
        let (snapshot, conflicts) = Snapshot::build(claims.iter().cloned());
        let kept: Vec<Claim> = claims.into_iter().filter(|claim| !conflicts.iter().any(|(left_out, _)| left_out == claim)).collect();
        prop_assert_eq!(kept.len(), snapshot.len());
        for (name, names, second) in &asked {
            let name: Hostname = name.parse().unwrap();
            let offered = Alpn::from_names(names.iter().map(std::string::String::as_bytes));
            let expected = model(&kept, &name, &offered);
            prop_assert_eq!(snapshot.find(&name, &offered), expected, "{} {}", name, offered);
            let judged = snapshot.lookup(&name, &offered, at(*second));
            match expected.map(|route| (route, route.lifetime().phase(at(*second)))) {
                None => prop_assert_eq!(judged, Err(Miss::Unknown)),
                Some((route, Phase::Live)) => prop_assert_eq!(judged, Ok(route)),
                Some((route, Phase::NotYet)) => prop_assert_eq!(judged, Err(Miss::NotYet(route.clone()))),
                Some((route, Phase::Expired)) => prop_assert_eq!(judged, Err(Miss::Expired(route.clone()))),
            }
        }
    }
}

/// One claim after the other, as plainly as possible: set after set, and of each those first whose
/// ids the older table has.
fn admitted(old: &Snapshot, sets: &[Vec<Claim>]) -> Vec<Claim> {
    let in_turn = sets.iter().flat_map(|claims| {
        let (first, then): (Vec<_>, Vec<_>) =
            claims.iter().partition(|claim| old.by_id(&claim.route.id).is_some());
        first.into_iter().chain(then)
    });
    let mut kept: Vec<Claim> = Vec::new();
    for claim in in_turn {
        let clashes = |other: &Claim| {
            let (own, theirs) = (&claim.route, &other.route);
            let share_a_host = own.hosts.iter().any(|host| theirs.hosts.contains(host));
            let overlap = match (own.alpn(), theirs.alpn()) {
                ([], []) => true,
                ([], _) | (_, []) => false,
                (own, theirs) => own.iter().any(|name| theirs.contains(name)),
            };
            own.id == theirs.id || share_a_host && overlap
        };
        if !kept.iter().any(clashes) {
            kept.push(claim.clone());
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_table_that_follows_upon_another_has_what_the_plain_rule_admits(
        pool in vec(vec((0..12_u32, vec(pattern(), 1..3), protocols()), 0..4), 1..8),
        tables in vec(vec(vec(0..8_usize, 0..6), 0..3), 1..6),
    ) {
        // Passages that several sets have in common are shared by them.
        let passages: Vec<Claims> = pool.iter().map(|claims| {
            let claims = claims.iter().map(|(number, hosts, names)| {
                let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                claim(*number, &hosts, &names, (None, None))
            });
            claims.collect()
        }).collect();
        let mut table = Snapshot::default();
        for sets in tables {
            let sets: Vec<Claims> = sets.iter().map(|set| {
                let chosen = set.iter().map(|which| &passages[which % passages.len()]);
                chosen.flat_map(Claims::passages).cloned().collect()
            }).collect();
            let all: Vec<Vec<Claim>> = sets.iter().map(|claims| claims.iter().collect()).collect();
            let kept = admitted(&table, &all);
            let (next, left_out) = Snapshot::merge(&table, &sets);
            let told = all.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(kept.len() + left_out.len(), told);
            for out in &left_out {
                prop_assert!(all[out.set].contains(&out.claim));
            }
            let whole: Vec<usize> = sets.iter().flat_map(Claims::passages)
                .filter(|passage| !left_out.iter().any(|out| {
                    passage.written().iter().any(|one| Arc::ptr_eq(&one.route, &out.claim.route))
                }))
                .map(Passage::address)
                .collect();
            let known = next.whole_passages();
            prop_assert!(whole.iter().all(|address| known.contains(address)));
            prop_assert_eq!(next.len(), kept.len());
            prop_assert_eq!(next.claims().count(), kept.len());
            for claim in &kept {
                let found = next.by_id(&claim.route.id).map(|written| &written.route);
                prop_assert_eq!(found, Some(&claim.route));
                prop_assert_eq!(next.origin(&claim.route.id), Some(claim.origin.clone()));
            }
            table = next;
        }
    }
}
