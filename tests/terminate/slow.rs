//! Requests that do not end, and those that are too much.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use crate::ambiguous::{CLEAR, End, OK, backend, rest, scene, status_of_ours};
use crate::daemon::{PATIENCE, route};
use crate::programs::{client, said};
use crate::support::Scene;

#[test]
fn half_a_request_is_waited_for_no_longer_than_is_said() {
    let (address, _) = backend(OK, End::Wait);
    let variables = [
        ("MSE_PROXY_TERMINATE_REQUEST_TIMEOUT", "300ms"),
        ("MSE_PROXY_TERMINATE_BODY_TIMEOUT", "300ms"),
        ("MSE_PROXY_TERMINATE_KEEP_ALIVE", "400ms"),
    ];
    let (silent, _) = backend(b"", End::Wait);
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let routes = route("a.apps.test", address, CLEAR) + &route("b.apps.test", silent, CLEAR);
    scene.serve_with(&routes, &variables);
    // A head that does not end.
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.apps").unwrap();
    assert_eq!(rest(&mut tls).0, "");
    assert_eq!(scene.ended(), ("request_refused".into(), Some("slow_head".into())));
    // A body that does not end, before any answer.
    let mut tls = scene.connect("b.apps.test").unwrap();
    tls.write_all(b"POST / HTTP/1.1\r\nHost: b.apps.test\r\nContent-Length: 9\r\n\r\nx").unwrap();
    let (heard, _) = rest(&mut tls);
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    assert!(heard.contains("error=http_request_error"), "{heard}");
    assert_eq!(scene.ended().0, "request_refused");
    scene.ended();
    // Nothing at all, at first and after an exchange.
    let mut tls = scene.connect("a.apps.test").unwrap();
    assert_eq!(rest(&mut tls).0, "");
    assert_eq!(scene.ended().0, "closed");
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.apps.test\r\n\r\n").unwrap();
    let (heard, end) = rest(&mut tls);
    end.unwrap();
    assert!(heard.ends_with("\r\n\r\nok"), "{heard}");
    assert_eq!(scene.ended().0, "closed");
    assert_eq!(scene.ended().0, "closed");
}

/// Bytes that come one by one earn no more time than is said.
#[test]
fn a_trickle_is_no_request() {
    let (silent, _) = backend(b"", End::Wait);
    let variables = [
        ("MSE_PROXY_TERMINATE_REQUEST_TIMEOUT", "500ms"),
        ("MSE_PROXY_TERMINATE_BODY_TIMEOUT", "500ms"),
        ("MSE_PROXY_TERMINATE_BODY_RATE", "1KiB"),
    ];
    let scene = scene(silent, &variables);
    let begin = "POST / HTTP/1.1\r\nHost: a.apps.test\r\n";
    for (begin, drop_by_drop, status, reason) in [
        (begin.to_owned(), "X: y\r\n", "", "slow_head"),
        (format!("{begin}Content-Length: 100000\r\n\r\n"), "x", "408", "slow_body"),
        (format!("{begin}Transfer-Encoding: chunked\r\n\r\n"), "1\r\nx\r\n", "408", "slow_body"),
    ] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(begin.as_bytes()).unwrap();
        tls.sock.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let mut heard = Vec::new();
        let since = std::time::Instant::now();
        loop {
            // It may be closed while this is written.
            let _ = tls.write_all(drop_by_drop.as_bytes());
            let mut bytes = [0; 4096];
            match tls.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(since.elapsed() < PATIENCE, "{reason}: still heard");
        }
        drop(tls);
        let heard = String::from_utf8(heard).unwrap();
        assert_eq!(heard.split(' ').nth(1).unwrap_or_default(), status, "{heard}");
        assert_eq!(scene.ended(), ("request_refused".into(), Some(reason.into())));
        if !status.is_empty() {
            scene.ended();
        }
    }
    assert_eq!(said(&client(&scene, "streams.py", &["slow_body"])), "status 408");
}

#[test]
fn a_head_without_end_is_refused_in_bounded_memory() {
    let (address, heads) = backend(OK, End::Wait);
    let mut scene = scene(address, &[]);
    let before = scene.daemon().peak_memory();
    for name in ["X: ", "X-Many: 1\r\nY: "] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        let begin = format!("GET / HTTP/1.1\r\nHost: a.apps.test\r\n{name}");
        let _ = tls.write_all(begin.as_bytes());
        for _ in 0..64 {
            if tls.write_all(&[b'x'; 16 << 10]).is_err() {
                break;
            }
        }
        let (heard, _) = rest(&mut tls);
        // What it sent beyond may turn the end into a reset before it has read.
        assert!(heard.is_empty() || status_of_ours(&heard) == "431", "{heard}");
    }
    assert_eq!(heads.load(Ordering::SeqCst), 0);
    assert!(scene.daemon().peak_memory() < before + 8 * 1024);
}

#[test]
fn what_is_too_much_is_told_by_the_status_that_fits() {
    let (address, heads) = backend(OK, End::Wait);
    let scene = scene(address, &[]);
    let long = "x".repeat(70_000);
    let many = "X: y\r\n".repeat(101);
    for (text, status, reason) in [
        (format!("GET /{long}"), "414", "long_target"),
        (format!("GET / HTTP/1.1\r\nHost: a.apps.test\r\nX: {long}"), "431", "long_head"),
        (format!("GET / HTTP/1.1\r\nHost: a.apps.test\r\n{many}\r\n"), "431", "many_headers"),
        ("GET / HTTP/3.0\r\nHost: a.apps.test\r\n\r\n".into(), "505", "bad_version"),
        ("\r\n".repeat(100), "400", "empty_lines"),
    ] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(text.as_bytes()).unwrap();
        let (heard, _) = rest(&mut tls);
        assert_eq!(status_of_ours(&heard), status, "{reason}");
        drop(tls);
        let record = scene.record();
        assert_eq!(
            (&record["reason"], &record["status"]),
            (&reason.into(), &status.parse::<u16>().unwrap().into())
        );
        scene.ended();
    }
    assert_eq!(heads.load(Ordering::SeqCst), 0);
}
