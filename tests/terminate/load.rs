//! Both modes at once, under load, while certificates and routes change.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::daemon::{route, until};
use crate::origin::Origin;
use crate::support::{Scene, connect, echo, say, shown};

#[test]
fn no_request_and_no_sealed_session_fails_while_certificates_and_routes_change() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    let enclave = scene.platform.issue(&["sealed.test"]);
    let sealed = echo(enclave.server());
    let routes = route("a.apps.test", origin.address, &scene.terminating(""))
        + &route("sealed.test", sealed, "");
    scene.serve_with(&routes, &[("MSE_PROXY_LOG_ACCESS", "off")]);
    let (address, config) = (scene.address(), scene.platform.client());
    let (is_over, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = |flags: &[&str]| {
        let output = Command::new("h2load")
            .args(["-n", "3000", "-c", "12", "-t", "1"])
            .args(flags)
            .arg(format!("--connect-to=127.0.0.1:{}", address.port()))
            .arg(format!("https://a.apps.test:{}/told", address.port()))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let all =
            "requests: 3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored";
        assert!(told.contains(all) && told.contains("status codes: 3000 2xx"), "{told}");
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        let tls = connect(address, "sealed.test", config.clone()).unwrap();
                        assert_eq!(shown(&tls), enclave.der(), "always the enclave's");
                        assert_eq!(say(tls, b"sealed"), b"sealed");
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let streams = scope.spawn(|| load(&["-m", "10"]));
        let requests = scope.spawn(|| load(&["--h1"]));
        let mut number = 0;
        while !(streams.is_finished() && requests.is_finished()) || number < 3 {
            number += 1;
            let leaf = scene.operator.issue(&["a.apps.test"]);
            scene.install("a", &leaf);
            let more = route(&format!("more-{number}.test"), "127.0.0.1:1", "");
            std::fs::write(scene.path("routes.toml"), format!("{routes}{more}")).unwrap();
            until("the new certificate answers", || {
                scene.connect("a.apps.test").is_ok_and(|tls| shown(&tls) == leaf.der())
            });
        }
        streams.join().unwrap();
        requests.join().unwrap();
        is_over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert!(passed.load(Ordering::SeqCst) > 10);
}
