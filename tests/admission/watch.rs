//! What follows of what the backends of a route show: one table of verdicts, and what is new of them.

use std::fmt::Write as _;

use mse_proxy::admission::certificate::Chain;
use mse_proxy::admission::sight::{Kind, Sight};
use mse_proxy::admission::watch::{
    Faults, Glimpse, Verdict, are_apart, called, may_be_looked_at, name_of, owner, seen,
};
use mse_proxy::routing::route::{Hold, Route, Terms};
use mse_proxy::routing::seen::Fit::{Differs, Matches, Unseen};
use mse_proxy::source::document;

use crate::certs::{Day, Leaf, chain};
use crate::support::{at, now};

fn leaf(names: &[&str], to: Day) -> Chain {
    chain(&[&Leaf { names, common_name: None, from: (2026, 5, 1), to }.self_signed().pem])
}

/// A route to so many backends, with these lines.
fn route(hosts: &[&str], backends: usize, lines: &str) -> Route {
    let backends: Vec<_> = (1..=backends).map(|port| format!("10.0.0.1:{port}")).collect();
    let mut text = format!("[[route]]\nhosts = {hosts:?}\nbackends = {backends:?}\n");
    let _ = writeln!(text, "{lines}");
    (*document::route(&"r.toml".into(), &text).unwrap()).clone()
}

fn pinned(to: &Chain) -> String {
    format!("pin = \"{}\"", Sight::from(to).key)
}

fn glimpse(route: &Route, chain: &Chain) -> Glimpse {
    Verdict::of(route, chain, None, None, now()).glimpse
}

/// The words of what is said, and of what of it is new.
fn said(route: &Route, chain: &Chain, before: Option<&Glimpse>, with: Option<&str>) -> [String; 2] {
    let verdict = Verdict::of(route, chain, before, with.map(Into::into), now());
    let all: Vec<_> = verdict.notices.iter().map(|notice| notice.kind().word()).collect();
    let news: Vec<_> = verdict.news(before).map(|notice| notice.kind().word()).collect();
    [all.join(" "), news.join(" ")]
}

const LATE: Day = (2026, 9, 1);
const EARLY: Day = (2026, 8, 1);

#[test]
fn each_look_has_its_verdict_and_what_stands_is_new_once() {
    let (good, renewed) = (leaf(&["a.test"], LATE), leaf(&["a.test"], LATE));
    let (early, over) = (leaf(&["a.test"], EARLY), leaf(&["a.test"], (2026, 6, 1)));
    let strange = leaf(&["b.test"], EARLY);
    let plain = route(&["a.test"], 1, "");
    let ending = route(&["a.test"], 1, "expires_at = 2026-08-15T00:00:00Z");
    let to_good = route(&["a.test"], 1, &pinned(&good));
    let both = route(&["a.test", "*.a.test"], 1, "");
    for (case, route, chain, before, with, all, news) in [
        ("nothing is odd", &plain, &good, None, None, "", ""),
        ("nor at the next look", &plain, &good, Some(&good), None, "", ""),
        ("another leaf", &plain, &renewed, Some(&good), None, "changed", "changed"),
        ("it lasts longer than the route", &ending, &good, None, None, "", ""),
        ("it does not", &ending, &early, None, None, "ends_before", "ends_before"),
        ("that is known", &ending, &early, Some(&early), None, "ends_before", ""),
        ("a route without an end has none before it", &plain, &early, None, None, "", ""),
        ("over", &ending, &over, None, None, "over", "over"),
        ("a name is missing", &both, &good, None, None, "not_covered", "not_covered"),
        (
            "another leaf with the same fault",
            &both,
            &renewed,
            Some(&good),
            None,
            "changed not_covered",
            "changed not_covered",
        ),
        (
            "all at once",
            &ending,
            &strange,
            None,
            None,
            "not_covered ends_before",
            "not_covered ends_before",
        ),
        ("one for two", &plain, &good, Some(&good), Some("p/b"), "shared", "shared"),
        ("the pinned key", &to_good, &good, None, None, "", ""),
        ("another key", &to_good, &renewed, None, None, "other_key", "other_key"),
        (
            "a swapped key",
            &to_good,
            &renewed,
            Some(&good),
            None,
            "changed other_key",
            "changed other_key",
        ),
        ("it stays swapped", &to_good, &renewed, Some(&renewed), None, "other_key", ""),
    ] {
        let before = before.map(|before| glimpse(route, before));
        assert_eq!(said(route, chain, before.as_ref(), with), [all, news], "{case}");
    }
}

#[test]
fn what_was_mended_and_breaks_again_is_new_again() {
    let plain = route(&["a.test"], 1, "");
    let good = leaf(&["a.test"], LATE);
    let alone = glimpse(&plain, &good);
    assert!(alone.faults.are_none());
    let shared = Verdict::of(&plain, &good, Some(&alone), Some("p/b".into()), now());
    assert!(shared.glimpse.faults.have(Kind::Shared));
    assert_eq!(
        shared.notices[0].to_string(),
        "`p/b` shows the same certificate; browsers will use one connection for both"
    );
    assert_eq!(said(&plain, &good, Some(&shared.glimpse), Some("p/b"))[1], "");
    assert_eq!(said(&plain, &good, Some(&shared.glimpse), None)[0], "");
    assert_eq!(said(&plain, &good, Some(&alone), Some("p/b"))[1], "shared");
    // That a leaf has changed stands for nothing.
    let other = leaf(&["a.test"], LATE);
    let changed = Verdict::of(&plain, &other, Some(&alone), None, now());
    assert_eq!((changed.notices.len(), changed.glimpse.faults), (1, Faults::default()));
    let (own, before) = (Sight::from(&other).key, Sight::from(&good).key);
    let words =
        format!("the certificate is another one than before: its key is {own}, it was {before}");
    assert_eq!(changed.notices[0].to_string(), words);
}

#[test]
fn a_route_ends_with_the_last_certificate_of_those_that_are_let_through() {
    let (late, early, other) =
        (leaf(&["a.test"], LATE), leaf(&["a.test"], EARLY), leaf(&["a.test"], (2027, 1, 1)));
    let plain = |backends| route(&["a.test"], backends, "");
    let to_late = |backends| route(&["a.test"], backends, &pinned(&late));
    let (late_end, early_end) = (Some("2026-09-01T00:00:00Z"), Some("2026-08-01T00:00:00Z"));
    for (route, shown, ends_at, fits) in [
        (plain(1), vec![None], None, vec![Unseen]),
        (plain(1), vec![Some(&early)], early_end, vec![Matches]),
        // One replica with an old certificate takes nothing from the others.
        (plain(2), vec![Some(&early), Some(&late)], late_end, vec![Matches; 2]),
        (plain(2), vec![Some(&early), None], None, vec![Matches, Unseen]),
        (to_late(1), vec![None], None, vec![Unseen]),
        (to_late(1), vec![Some(&late)], late_end, vec![Matches]),
        (to_late(2), vec![Some(&late), Some(&other)], late_end, vec![Matches, Differs]),
        (to_late(2), vec![Some(&other), None], None, vec![Differs, Unseen]),
        (to_late(1), vec![Some(&other)], None, vec![Differs]),
    ] {
        let glimpses = shown.iter().map(|chain| chain.map(|chain| glimpse(&route, chain)));
        let seen = seen(&route, &glimpses.collect::<Vec<_>>());
        let fits = if route.pin().is_some() { fits } else { vec![] };
        assert_eq!((seen.ends_at, seen.fits.to_vec()), (ends_at.map(at), fits), "{route:?}");
    }
}

#[test]
fn routes_are_looked_at_in_their_time_under_a_name_of_theirs() {
    let with = |terms: fn(Terms) -> Terms| {
        let plain = route(&["a.test"], 1, "");
        Route::new(
            plain.id.clone(),
            plain.hosts.clone(),
            plain.backends.clone(),
            terms(plain.terms()),
        )
    };
    for (route, may) in [
        (route(&["a.test"], 1, ""), true),
        (route(&["a.test"], 1, "expires_at = 2026-06-01T12:00:01Z"), true),
        (route(&["a.test"], 1, "expires_at = 2026-06-01T12:00:00Z"), false),
        (route(&["a.test"], 1, "not_before = 2026-06-01T12:00:01Z"), false),
        (with(|terms| Terms { is_initializing: true, ..terms }), false),
        (with(|terms| Terms { hold: Some(Hold::Suspended), ..terms }), false),
    ] {
        assert_eq!(may_be_looked_at(&route, now()), may, "{route:?}");
    }
    // A certificate that has ended may be renewed.
    let plain = route(&["a.test"], 1, "");
    let over = seen(&plain, &[Some(glimpse(&plain, &leaf(&["a.test"], (2026, 6, 1))))]);
    assert!(may_be_looked_at(&plain.seen(&over), now()));
    for (hosts, name) in [
        (&["a.test", "b.test"][..], "a.test"),
        (&["*.c.test", "b.test"], "b.test"),
        (&["**.c.test"], "mse-proxy-check.c.test"),
    ] {
        assert_eq!(name_of(&route(hosts, 1, "")).unwrap().as_str(), name);
    }
}

#[test]
fn one_leaf_is_odd_for_two_apps_and_not_for_two_names_of_one() {
    let app =
        |host: &str, backends, app: &str| route(&[host], backends, &format!("app = \"{app}\""));
    let bare = |host: &str, backends| route(&[host], backends, "");
    for (one, other, apart) in [
        (app("a.test", 1, "p/a"), app("b.test", 1, "p/b"), true),
        (app("a.test", 1, "p/a"), app("b.test", 2, "p/a"), false),
        (bare("a.test", 1), bare("b.test", 1), false),
        (bare("a.test", 1), bare("b.test", 2), true),
        (app("a.test", 1, "p/a"), bare("b.test", 2), true),
    ] {
        assert_eq!(are_apart(&one, &other), apart, "{one:?} {other:?}");
        // Whoever has one owner is never apart.
        assert!(!apart || owner(&one) != owner(&other), "{one:?} {other:?}");
    }
    assert_eq!(&*called(&app("a.test", 1, "p/a")), "p/a");
    assert_eq!(&*called(&bare("b.test", 1)), "b.test");
}
