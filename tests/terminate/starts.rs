//! A start with certificates that take long to be read: who waits for them, and who does not.

use crate::daemon::{route, until};
use crate::support::{Scene, connect, echo, is_shown, say, shown};

#[test]
fn sealed_clients_wait_for_no_certificate_and_others_wait_until_theirs_is_read() {
    let mut scene = Scene::new();
    let leaf = scene.operator.issue(&["a.apps.test"]);
    scene.install("a", &leaf);
    let enclave = scene.platform.issue(&["sealed.test"]);
    let sealed = echo(enclave.server());
    let routes = scene.all_apps() + &route("sealed.test", sealed, "");
    let delay = scene.serve_held_up(&routes, &[]);
    scene.daemon().admin();

    // Nothing was read, and nothing will be until the delay is over.
    let tls = connect(scene.address(), "sealed.test", scene.platform.client()).unwrap();
    assert_eq!(shown(&tls), enclave.der());
    assert_eq!(say(tls, b"sealed"), b"sealed");
    let (head, why) = scene.daemon().ask_admin("/ready").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(why, "starting: certificates are being read (0 so far); sealed names are served\n");
    assert_eq!(scene.daemon().metric("mse_proxy_ready"), 0);
    // Nobody knows yet whether a route has no certificate.
    assert_eq!(scene.daemon().metric("mse_proxy_routes_without_certificate"), 0);

    let (address, config) = (scene.address(), scene.operator.client());
    let waiting = std::thread::spawn(move || connect(address, "a.apps.test", config));
    scene.daemon().wait_metric("mse_proxy_sessions_open", |open| open == 1);
    until("its hello was read", || scene.daemon().metric("mse_proxy_hellos_pending") == 0);
    assert!(!waiting.is_finished());
    drop(delay);
    assert_eq!(shown(&waiting.join().unwrap().unwrap()), leaf.der());
    let is_ready = |scene: &mut Scene| {
        scene.daemon().ask_admin("/ready").unwrap().0.starts_with("HTTP/1.1 200")
    };
    until("it is ready", || is_ready(&mut scene));
    assert!(is_shown(&scene, "a.apps.test", &leaf));
    // From now on, who has no certificate is told so at once.
    scene.connect("b.apps.test").unwrap_err();
}

#[test]
fn who_waits_for_a_certificate_waits_no_longer_than_a_handshake_may_take() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let routes = scene.all_apps();
    let short = [("MSE_PROXY_TERMINATE_HANDSHAKE_TIMEOUT", "1s")];
    let delay = scene.serve_held_up(&routes, &short);
    scene.connect("a.apps.test").unwrap_err();
    assert_eq!(scene.ended().0, "no_certificate");
    drop(delay);
}
