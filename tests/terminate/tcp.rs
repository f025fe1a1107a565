//! `protocol = "tcp"`: TLS on both sides, bytes in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::daemon::route;
use crate::support::{Scene, connect, echo, say, shown, text};

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
