//! Which certificate answers, and how one follows upon another.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::daemon::{route, until};
use crate::support::{Authority, Leaf, Scene, TCP, connect, echo, is_shown, shown};

fn serving(install: impl FnOnce(&Scene)) -> Scene {
    let mut scene = Scene::new();
    install(&scene);
    let routes = scene.all_apps();
    scene.serve(&routes);
    scene
}

#[test]
fn the_most_specific_certificate_answers() {
    let mut leaves = Vec::new();
    let scene = serving(|scene| {
        let exact = scene.operator.issue(&["a.apps.test"]);
        let wild = scene.operator.issue(&["*.apps.test"]);
        let several = scene.operator.issue(&["b.apps.test", "*.sub.apps.test"]);
        let longer = scene.operator.issue_with(&["c.apps.test"], |params| {
            params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        });
        let shorter = scene.operator.issue_with(&["c.apps.test"], |params| {
            params.not_after = rcgen::date_time_ymd(2080, 1, 1);
        });
        leaves = vec![exact, wild, several, longer, shorter];
        for (name, leaf) in ["0", "1", "2", "3", "4"].iter().zip(&leaves) {
            scene.install(name, leaf);
        }
        // Both in one file will do as well.
        let both = format!("{}{}", leaves[2].key, leaves[2].chain);
        std::fs::write(scene.path("certificates/2.pem"), both).unwrap();
        std::fs::remove_file(scene.path("certificates/2.key")).unwrap();
    });
    for (host, leaf) in [
        ("a.apps.test", 0),
        ("A.Apps.TEST", 0),
        ("other.apps.test", 1),
        ("b.apps.test", 2),
        ("x.sub.apps.test", 2),
        ("c.apps.test", 3),
    ] {
        assert!(is_shown(&scene, host, &leaves[leaf]), "{host}");
    }
    scene.connect("x.y.sub.apps.test").unwrap_err();
}

#[test]
fn a_bad_pair_never_takes_the_place_of_a_good_one() {
    let good = std::cell::OnceCell::new();
    let mut scene = serving(|scene| {
        let leaf = good.get_or_init(|| scene.operator.issue(&["a.apps.test"]));
        scene.install("a", leaf);
    });
    let good = good.get().unwrap();
    assert!(is_shown(&scene, "a.apps.test", good));
    let fresh = scene.operator.issue(&["a.apps.test"]);
    let old = scene.operator.issue_with(&["a.apps.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let early = scene.operator.issue_with(&["a.apps.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2080, 1, 1);
    });
    let nameless = scene.operator.issue(&[]);
    let stranger = Authority::new("stranger");
    let disordered = Leaf { chain: fresh.chain.clone() + &stranger.pem, key: fresh.key.clone() };
    let mixed = Leaf { chain: fresh.chain.clone(), key: old.key.clone() };
    let torn =
        Leaf { chain: fresh.chain[..fresh.chain.len() / 2].to_owned(), key: fresh.key.clone() };
    for (bad, words) in [
        (&mixed, "its key is not that of the certificate"),
        (&old, "it expired at 2021-01-01T00:00:00Z"),
        (&early, "it is not valid before 2080-01-01T00:00:00Z"),
        (&nameless, "it has no DNS name"),
        (&disordered, "certificate 2 of it did not issue the one before"),
        (&torn, "it is no PEM"),
        (&Leaf { chain: String::new(), key: fresh.key.clone() }, "there is no certificate in it"),
        (&Leaf { chain: fresh.chain.clone(), key: String::new() }, "there is no private key in it"),
    ] {
        scene.install("a", bad);
        let told = scene.daemon().wait_seen(words);
        assert!(told.contains("a.pem") && told.contains("\"is_kept\":true"), "{told}");
        assert!(is_shown(&scene, "a.apps.test", good), "{words}");
    }
    scene.install("a", &fresh);
    until("the mended pair answers", || is_shown(&scene, "a.apps.test", &fresh));
    // The chain with its issuer is in order.
    let whole = scene.operator.issue(&["a.apps.test"]);
    let whole = Leaf { chain: whole.chain + &scene.operator.pem, key: whole.key };
    scene.install("a", &whole);
    until("the whole chain answers", || is_shown(&scene, "a.apps.test", &whole));
    // A folder that is suddenly empty looks like a missing mount.
    for name in ["a.pem", "a.key"] {
        std::fs::remove_file(scene.path("certificates").join(name)).unwrap();
    }
    scene.daemon().wait_seen("which looks like a missing mount");
    assert!(is_shown(&scene, "a.apps.test", &whole));
    // One that is gone from a folder with others goes.
    scene.install("b", &scene.operator.issue(&["b.apps.test"]));
    until("the removed one answers no more", || scene.connect("a.apps.test").is_err());
}

#[test]
fn a_certificate_is_swapped_under_load_and_no_handshake_fails() {
    let scene = serving(|scene| scene.install("a", &scene.operator.issue(&["a.apps.test"])));
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (address, config) = (scene.address(), scene.operator.client());
    let seen = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let tls = connect(address, "a.apps.test", config.clone()).unwrap();
                        seen.push(shown(&tls));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    seen.dedup();
                    seen
                })
            })
            .collect();
        for _ in 0..10 {
            let leaf = scene.operator.issue(&["a.apps.test"]);
            scene.install("a", &leaf);
            until("the new certificate answers", || is_shown(&scene, "a.apps.test", &leaf));
        }
        is_over.store(true, Ordering::SeqCst);
        let seen = clients.into_iter().flat_map(|client| client.join().unwrap());
        seen.map(|certificate| certificate.to_vec()).collect::<HashSet<_>>()
    });
    assert!(seen.len() > 5, "the clients saw {} certificates", seen.len());
    assert!(count.load(Ordering::SeqCst) > 20);
}

#[test]
fn what_ends_soon_and_what_is_wrong_can_be_seen() {
    let mut scene = serving(|scene| {
        let in_days = |days: u64| {
            // One hour more than whole days, so that a slow test sees the same.
            let more = std::time::Duration::from_secs(days * 86_400 + 3_600);
            let end = std::time::SystemTime::now() + more;
            move |params: &mut rcgen::CertificateParams| params.not_after = end.into()
        };
        scene.install("soon", &scene.operator.issue_with(&["soon.apps.test"], in_days(5)));
        scene.install("late", &scene.operator.issue_with(&["late.apps.test"], in_days(50)));
        let (one, other) = (scene.operator.issue(&["x"]), scene.operator.issue(&["x"]));
        scene.install("bad", &Leaf { chain: one.chain, key: other.key });
    });
    let told = scene.daemon().wait_seen("a certificate ends soon");
    assert!(told.contains("soon.pem") && told.contains("\"days\":5"), "{told}");
    scene.daemon().admin();
    for (state, count) in [("good", 2), ("expired", 0), ("faulty", 1)] {
        let sample = format!("mse_proxy_certificates{{state=\"{state}\"}}");
        assert_eq!(scene.daemon().metric(&sample), count, "{state}");
    }
    let (_, metrics) = scene.daemon().ask_admin("/metrics").unwrap();
    let ends = metrics.lines().filter_map(|line| {
        let rest =
            line.strip_prefix("mse_proxy_certificate_expiry_timestamp_seconds{certificate=\"")?;
        let (file, end) = rest.split_once("\"} ")?;
        Some((file.rsplit('/').next()?.to_owned(), end.parse::<f64>().ok()?))
    });
    let ends: std::collections::BTreeMap<_, _> = ends.collect();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let days = |file: &str| ((ends[file] - now) / 86_400.0).floor();
    assert_eq!((ends.len(), days("soon.pem"), days("late.pem")), (2, 5.0, 50.0));
    let (_, status) = scene.daemon().ask_admin("/status.json").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let certificates = &status["certificates"];
    assert_eq!((&certificates["good"], &certificates["fault_count"]), (&2.into(), &1.into()));
    assert_eq!(certificates["nearest"][0]["names"][0], "soon.apps.test");
    assert_eq!(certificates["nearest"][0]["days"], 5);
    let fault = certificates["faults"][0].to_string();
    assert!(fault.contains("bad.pem") && fault.contains("not that of the certificate"), "{fault}");
}

#[test]
fn a_route_without_a_certificate_is_told_before_a_client_comes() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["backend.test"]).server());
    let terms = scene.terminating(TCP);
    let mut routes = route("a.apps.test", back, &terms);
    scene.serve(&routes);
    scene.daemon().admin();
    let bare = |scene: &mut Scene| -> Vec<String> {
        let (_, status) = scene.daemon().ask_admin("/status.json").unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let bare = &status["certificates"]["bare"];
        bare.as_array().unwrap().iter().map(|one| one["at"].as_str().unwrap().to_owned()).collect()
    };
    assert!(bare(&mut scene).is_empty());
    for host in ["b.apps.test", "*.one.apps.test", "**.any.apps.test", "*.two.apps.test"] {
        routes += &route(host, back, &terms);
    }
    // Sealed: it needs none.
    routes += &route("c.apps.test", back, "");
    std::fs::write(scene.path("routes.toml"), routes).unwrap();
    for pattern in ["**.any.apps.test", "*.one.apps.test", "*.two.apps.test", "b.apps.test"] {
        scene.daemon().wait_seen(&format!("no certificate is good for {pattern}"));
    }
    until("four are told", || bare(&mut scene).len() == 4);
    assert_eq!(scene.daemon().metric("mse_proxy_routes_without_certificate"), 4);
    // One label lies too deep below `two`.
    let names = ["b.apps.test", "x.one.apps.test", "x.y.any.apps.test", "x.y.two.apps.test"];
    scene.install("rest", &scene.operator.issue(&names));
    until("one is left", || bare(&mut scene) == ["route *.two.apps.test"]);
    scene.install("two", &scene.operator.issue(&["*.two.apps.test"]));
    until("none is left", || bare(&mut scene).is_empty());
    assert_eq!(scene.daemon().metric("mse_proxy_routes_without_certificate"), 0);
    // It stayed so for some changes of the table and the certificates, and was told once.
    let again =
        scene.daemon().seen().iter().filter(|line| line.contains("good for *.two.apps.test"));
    assert_eq!(again.count(), 0, "beside the one that was waited for");
}
