//! `protocol = "tcp"`: TLS on both sides, bytes in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::daemon::{PATIENCE, route, until};
use crate::origin::Origin;
use crate::support::{Scene, Tls, connect, echo, in_seconds, say, shown, text};

#[test]
fn one_port_ends_tls_for_one_name_and_passes_the_other_through() {
    let mut scene = Scene::new();
    let (front, back) =
        (scene.operator.issue(&["a.apps.test"]), scene.platform.issue(&["a.apps.test"]));
    scene.install("a", &front);
    let sealed = scene.platform.issue(&["sealed.test"]);
    let (ended, passed) = (echo(back.server()), echo(sealed.server()));
    let terms = scene.terminating("protocol = \"tcp\"");
    scene.serve(&(route("a.apps.test", ended, &terms) + &route("sealed.test", passed, "")));
    for _ in 0..3 {
        let tls = scene.connect("a.apps.test").unwrap();
        assert_eq!(shown(&tls), front.der(), "the operator's certificate answers");
        assert_eq!(say(tls, b"through two connections"), b"through two connections");
        let record = scene.daemon().record();
        assert_eq!(
            (&record["outcome"], &record["route"]),
            (&"closed".into(), &"a.apps.test".into())
        );
        assert_eq!(
            (&record["to_backend_bytes"], &record["to_client_bytes"]),
            (&23.into(), &23.into())
        );
        assert_eq!(record["endpoint"], ended.to_string());

        let tls = connect(scene.address(), "sealed.test", scene.platform.client()).unwrap();
        assert_eq!(shown(&tls), sealed.der(), "the enclave's certificate answers");
        assert_eq!(say(tls, b"sealed"), b"sealed");
        assert_eq!(scene.ended().0, "closed");
    }
}

#[test]
fn openssl_is_answered_and_both_ends_are_clean() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    scene.serve(&route("a.apps.test", back, &scene.terminating("protocol = \"tcp\"")));
    let (address, ca) = (scene.address().to_string(), scene.path("operator.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_client",
            "-connect",
            &address,
            "-servername",
            "a.apps.test",
            "-CAfile",
            text(&ca),
            "-verify_return_error",
            "-verify_hostname",
            "a.apps.test",
            "-quiet",
            "-no_ign_eof",
            version,
        ];
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It leaves as soon as nothing more is said to it.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"from openssl\n").unwrap();
        let mut heard = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut heard).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
        assert_eq!(heard, "from openssl\n", "{version}");
        assert_eq!(scene.ended(), ("closed".into(), None), "{version}");
    }
}

#[test]
fn much_passes_both_ways_at_once_unchanged() {
    const SIZE: usize = 48 << 20;
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    scene.serve(&route("a.apps.test", back, &scene.terminating("protocol = \"tcp\"")));
    let mut tls = scene.connect("a.apps.test").unwrap();
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut back = vec![0; block.len()];
    for _ in 0..SIZE / block.len() {
        tls.write_all(&block).unwrap();
        tls.read_exact(&mut back).unwrap();
        assert!(back == block);
    }
    assert_eq!(say(tls, b""), b"");
    let record = scene.daemon().record();
    assert_eq!(record["outcome"], "closed");
    assert_eq!(record["to_client_bytes"], SIZE);
}

#[test]
fn a_backend_in_the_clear_only_by_the_word() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    let terms = "mode = \"terminate\"\nprotocol = \"tcp\"\nbackend_tls = \"off\"";
    scene.serve(&route("a.apps.test", address, terms));
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = backend.accept().unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(b"in the clear").unwrap();
        heard
    });
    assert_eq!(say(scene.connect("a.apps.test").unwrap(), b"hello"), b"in the clear");
    assert_eq!(serving.join().unwrap(), b"hello");
    assert_eq!(scene.ended().0, "closed");
}

/// A scene whose one route passes bytes to an echo, on these terms besides.
fn scene(more: &str, variables: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    let terms = scene.terminating(&format!("protocol = \"tcp\"\n{more}"));
    scene.serve_with(&route("a.apps.test", back, &terms), variables);
    scene
}

/// A connection through which something has passed.
fn talking(scene: &Scene) -> Tls {
    let mut tls = scene.connect("a.apps.test").unwrap();
    ping(&mut tls).unwrap();
    tls
}

fn ping(tls: &mut Tls) -> std::io::Result<()> {
    tls.write_all(b"ping")?;
    tls.read_exact(&mut [0; 4])
}

/// That the other side breaks off, and not as one that has finished does.
fn assert_cut(tls: &mut Tls) {
    let end = tls.read(&mut [0; 1]);
    assert!(end.is_err(), "{end:?}");
}

#[test]
fn bytes_are_cut_when_their_route_ends() {
    let scene = scene(&in_seconds(3), &[]);
    let mut tls = talking(&scene);
    assert_cut(&mut tls);
    assert_eq!(scene.ended().0, "route_expired");
    scene.connect("a.apps.test").unwrap_err();
    assert_eq!(scene.ended().0, "expired_name");
}

#[test]
fn bytes_may_finish_in_the_grace_of_their_route() {
    let scene = scene(&format!("{}\ngrace = \"1m\"", in_seconds(2)), &[]);
    let mut tls = talking(&scene);
    until("the name is refused", || {
        let is_refused = scene.connect("a.apps.test").is_err();
        is_refused && scene.ended().0 == "expired_name"
    });
    ping(&mut tls).unwrap();
    assert_eq!(say(tls, b"bye"), b"bye");
    while scene.ended().0 != "closed" {}
}

#[test]
fn bytes_of_a_removed_route_are_drained_or_cut() {
    for (on_remove, drain) in [("cut", "10m"), ("drain", "200ms")] {
        let variables =
            [("MSE_PROXY_ROUTES_ON_REMOVE", on_remove), ("MSE_PROXY_DRAIN_TIMEOUT", drain)];
        let scene = scene("", &variables);
        let mut tls = talking(&scene);
        std::fs::write(scene.path("routes.toml"), route("b.apps.test", "127.0.0.1:1", "")).unwrap();
        assert_cut(&mut tls);
        assert_eq!(scene.ended().0, "route_removed", "{on_remove}");
    }
    let scene = scene("", &[("MSE_PROXY_ROUTES_ON_REMOVE", "keep")]);
    let mut tls = talking(&scene);
    std::fs::write(scene.path("routes.toml"), route("b.apps.test", "127.0.0.1:1", "")).unwrap();
    until("the name is refused", || {
        let is_refused = scene.connect("a.apps.test").is_err();
        scene.record();
        is_refused
    });
    ping(&mut tls).unwrap();
    assert_eq!(say(tls, b"bye"), b"bye");
}

#[test]
fn bytes_have_the_time_of_a_drain_to_finish() {
    for (drain, outcome) in [("10m", "closed"), ("200ms", "drained")] {
        let mut scene = scene("", &[("MSE_PROXY_DRAIN_TIMEOUT", drain)]);
        let mut tls = talking(&scene);
        scene.daemon().admin();
        scene.daemon().signal(Signal::TERM);
        scene.daemon().wait_seen("drain");
        if outcome == "closed" {
            ping(&mut tls).unwrap();
            assert_eq!(say(tls, b"bye"), b"bye");
        } else {
            assert_cut(&mut tls);
        }
        assert_eq!(scene.ended().0, outcome);
        assert!(scene.daemon().wait().success());
    }
}

#[test]
fn who_has_finished_waits_no_longer_than_is_said_for_the_other() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let terms = "mode = \"terminate\"\nprotocol = \"tcp\"\nbackend_tls = \"off\"";
    let variables = [("MSE_PROXY_RELAY_HALF_CLOSE_TIMEOUT", "300ms")];
    scene.serve_with(&route("a.apps.test", backend.local_addr().unwrap(), terms), &variables);
    let mut tls = scene.connect("a.apps.test").unwrap();
    // It is accepted, and never says anything.
    let _silent = backend.accept().unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    assert_cut(&mut tls);
    assert_eq!(scene.ended().0, "half_close_timeout");
}

/// The shortest time that can be set is a minute, so all kinds of connections are silent in the same.
#[test]
fn who_says_nothing_is_cut_after_the_time_that_is_said() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let talking_at = Origin::start(scene.platform.issue(&["live.apps.test"]).server(), &["h2"]);
    let clear = "mode = \"terminate\"\nbackend_tls = \"off\"";
    let routes = route("bytes.apps.test", silent_at, &format!("{clear}\nprotocol = \"tcp\""))
        + &route("requests.apps.test", silent_at, clear)
        + &route("live.apps.test", talking_at.address, &scene.terminating(""));
    scene.serve_with(&routes, &[("MSE_PROXY_RELAY_IDLE_TIMEOUT", "60s")]);
    let mut clients = ["bytes", "requests", "live"].map(|name| {
        let host = format!("{name}.apps.test");
        let tls = scene.connect(&host).unwrap();
        tls.sock.set_read_timeout(Some(4 * PATIENCE)).unwrap();
        (host, tls)
    });
    clients[1].1.write_all(b"GET / HTTP/1.1\r\nHost: requests.apps.test\r\n\r\n").unwrap();
    let live = &mut clients[2].1;
    let asking = "GET /live HTTP/1.1\r\nHost: live.apps.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nping";
    live.write_all(asking.as_bytes()).unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\nping") {
        let mut byte = [0];
        live.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    let began = std::time::Instant::now();
    for (host, tls) in &mut clients {
        assert_cut(tls);
        // Not by the keep-alive of connections without a request, nor by the handshake's time.
        assert!(began.elapsed() > Duration::from_secs(55), "{host}: {:?}", began.elapsed());
    }
    let mut ends = Vec::new();
    while ends.len() < 3 {
        let record = scene.daemon().records.recv_timeout(PATIENCE).unwrap();
        if record["method"].is_null() {
            ends.push((record["sni"].as_str().unwrap().to_owned(), record["outcome"].to_string()));
        }
    }
    ends.sort();
    let idle = |host: &str| (host.to_owned(), "\"idle_timeout\"".to_owned());
    assert_eq!(ends, ["bytes.apps.test", "live.apps.test", "requests.apps.test"].map(idle));
}
