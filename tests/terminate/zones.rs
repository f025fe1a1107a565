//! Sealed by design: no edit of the table opens a name that no zone holds.

use crate::daemon::{command, route, text, until};
use crate::support::{Scene, connect, echo, say, shown};

#[test]
fn a_route_outside_of_the_zones_is_left_out_and_told() {
    let mut scene = Scene::new();
    // There is a certificate that would fit: that alone opens nothing.
    scene.install("sealed", &scene.operator.issue(&["sealed.test", "*.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    let terms = scene.terminating("protocol = \"tcp\"\nbackend_name = \"a.apps.test\"");
    let routes = route("sealed.test", back, &terms)
        + &route("*.test", back, &terms)
        + &route("a.apps.test", back, &terms);
    scene.serve(&routes);
    for host in ["sealed.test", "other.test"] {
        connect(scene.address(), host, scene.operator.client()).unwrap_err();
        assert_eq!(scene.ended().0, "unknown_name");
    }
    assert_eq!(say(scene.connect("a.apps.test").unwrap(), b"x"), b"x");
    assert_eq!(scene.ended().0, "closed");
    let told = scene.daemon().wait_seen("sealed.test: it lies in none of terminate.zones");
    assert!(told.contains("routes.toml:1:1"), "{told}");
}

#[test]
fn an_edit_cannot_open_a_sealed_name() {
    let mut scene = Scene::new();
    scene.install("sealed", &scene.operator.issue(&["sealed.test"]));
    let enclave = scene.platform.issue(&["sealed.test"]);
    let back = echo(enclave.server());
    scene.serve(&route("sealed.test", back, ""));
    let ask = |scene: &mut Scene| {
        let tls = connect(scene.address(), "sealed.test", scene.platform.client());
        tls.map(|tls| shown(&tls))
    };
    assert_eq!(ask(&mut scene).unwrap(), enclave.der());
    // It broke off, having said nothing.
    assert_eq!(scene.daemon().record()["route"], "sealed.test");
    let opened = route("sealed.test", back, &scene.terminating("protocol = \"tcp\""));
    std::fs::write(scene.path("routes.toml"), opened).unwrap();
    scene.daemon().wait_seen("it lies in none of terminate.zones");
    // Never answered with the operator's certificate; refused, once that is in force.
    until("the name is refused", || {
        if let Ok(certificate) = ask(&mut scene) {
            assert_eq!(certificate, enclave.der());
            assert_eq!(scene.daemon().record()["route"], "sealed.test");
            return false;
        }
        assert_eq!(scene.ended().0, "unknown_name");
        true
    });
}

#[test]
fn check_and_explain_judge_by_the_same_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, route("a.apps.test", "127.0.0.1:1", "mode = \"terminate\"")).unwrap();
    let run = |zones: &str, arguments: &[&str]| {
        let mut command = command();
        command.args(arguments).args(["--routes", path.to_str().unwrap()]);
        command.env("MSE_PROXY_TERMINATE_ZONES", zones).output().unwrap()
    };
    let good = run("*.apps.test", &["check"]);
    assert!(good.status.success() && text(&good.stdout).contains("1 good route"), "{good:?}");
    for zones in ["", "other.test,apps.test"] {
        let bad = run(zones, &["check"]);
        assert_eq!(bad.status.code(), Some(1));
        let told = text(&bad.stdout) + &text(&bad.stderr);
        assert!(told.contains("routes.toml:1:1") && told.contains("terminate.zones"), "{told}");
        let refused = run(zones, &["explain", "a.apps.test"]);
        assert!(text(&refused.stdout).contains("unknown_name"), "{refused:?}");
    }
    let explained = run("**.apps.test", &["explain", "a.apps.test"]);
    assert!(
        text(&explained.stdout).contains("terminate: HTTP, passed on over TLS"),
        "{explained:?}"
    );
}
