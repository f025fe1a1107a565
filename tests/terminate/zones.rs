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

/// What is written to a store is judged where it is written, and by everybody who reads it.
#[test]
fn no_command_opens_a_sealed_name() {
    let mut scene = Scene::new();
    scene.install("all", &scene.operator.issue(&["sealed.test", "*.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    let (socket, store) = (scene.path("admin.sock"), scene.path("routes.redb"));
    let grpc = format!("unix:{}", socket.display());
    let variables =
        [("MSE_PROXY_ADMIN_GRPC", &*grpc), ("MSE_PROXY_STORE_PATH", store.to_str().unwrap())];
    scene.serve_with("# none\n", &variables);
    let ca = scene.path("platform.pem").display().to_string();
    let back = back.to_string();
    let ask = |arguments: &[&str]| {
        let output = command().args(["--admin", &grpc, "route"]).args(arguments).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let terms = ["--mode", "terminate", "--protocol", "tcp", "--backend-ca", &ca];
    let name = ["--backend", &back, "--backend-name", "a.apps.test"];
    for host in ["sealed.test", "**.test"] {
        let (code, told) = ask(&[&["set", host][..], &terms, &name].concat());
        let rule = format!("not allowed for {host}: it lies in none of terminate.zones");
        assert!(code == Some(1) && told.contains(&rule), "{told}");
    }
    // A text from elsewhere is judged by the proxy alone, which knows its zones.
    let file = scene.path("next.toml");
    std::fs::write(&file, route("sealed.test", &back, "mode = \"terminate\"")).unwrap();
    let (code, told) = ask(&["apply", file.to_str().unwrap(), "--yes"]);
    assert!(code == Some(1) && told.contains("terminate.zones"), "{told}");
    let (code, told) = ask(&[&["set", "a.apps.test"][..], &terms, &name].concat());
    assert_eq!(code, Some(0), "{told}");
    let (_, shown) = ask(&["show", "a.apps.test"]);
    for line in ["terminate: bytes, passed on over TLS", &ca, "name     a.apps.test"] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    until("it is in force", || {
        scene.connect("a.apps.test").is_ok_and(|tls| say(tls, b"x") == b"x")
    });
    connect(scene.address(), "sealed.test", scene.operator.client()).unwrap_err();
}

/// A store that was written to by somebody with other zones, or none of ours.
#[test]
fn what_another_stores_outside_of_the_zones_is_left_out() {
    let mut scene = Scene::new();
    scene.install("all", &scene.operator.issue(&["sealed.test"]));
    let (socket, store) = (scene.path("admin.sock"), scene.path("routes.redb"));
    let grpc = format!("unix:{}", socket.display());
    let store = store.to_str().unwrap();
    let variables = [
        ("MSE_PROXY_ADMIN_GRPC", &*grpc),
        ("MSE_PROXY_STORE_PATH", store),
        ("MSE_PROXY_TERMINATE_ZONES", "**.test"),
    ];
    scene.serve_with("# none\n", &variables);
    let ask = |arguments: &[&str]| {
        let output = command().args(["--admin", &grpc, "route"]).args(arguments).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) =
        ask(&["set", "sealed.test", "--backend", "127.0.0.1:1", "--mode", "terminate"]);
    assert_eq!(code, Some(0), "{told}");
    scene.daemon().signal(rustix::process::Signal::TERM);
    assert!(scene.daemon().wait().success());
    scene.serve_with("# none\n", &variables[..2]);
    connect(scene.address(), "sealed.test", scene.operator.client()).unwrap_err();
    assert_eq!(scene.ended().0, "unknown_name");
    let (_, shown) = ask(&["show", "sealed.test"]);
    assert!(shown.contains("it lies in none of terminate.zones"), "{shown}");
    // To take it away is no crime.
    let (code, told) = ask(&["remove", "sealed.test"]);
    assert_eq!(code, Some(0), "{told}");
}
