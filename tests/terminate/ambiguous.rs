//! Requests that could be read in two ways, half requests, and backends that die: written byte by
//! byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::daemon::route;
use crate::support::{Scene, Tls};

/// A backend in the clear that counts whole heads and answers each connection with these bytes,
/// then ends it in this way.
fn backend(answer: &'static [u8], end: End) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut heard = Vec::new();
                let mut byte = [0];
                while !heard.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        return;
                    }
                    heard.push(byte[0]);
                }
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer);
                match end {
                    End::Finish => drop(stream.shutdown(Shutdown::Write)),
                    End::Reset => {
                        socket2::SockRef::from(&stream)
                            .set_linger(Some(std::time::Duration::ZERO))
                            .unwrap();
                    }
                    End::Wait => drop(stream.read_to_end(&mut heard)),
                }
            });
        }
    });
    (address, heads)
}

#[derive(Debug, Clone, Copy)]
enum End {
    Finish,
    Reset,
    Wait,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLEAR: &str = "mode = \"terminate\"\nbackend_tls = \"off\"";

fn scene(backend: SocketAddr, variables: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    scene.serve_with(&route("a.apps.test", backend, CLEAR), variables);
    scene
}

/// What comes until the end, however that comes.
fn rest(tls: &mut Tls) -> (String, std::io::Result<()>) {
    let mut heard = Vec::new();
    let end = tls.read_to_end(&mut heard);
    (String::from_utf8_lossy(&heard).into_owned(), end.map(drop))
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_refused_and_never_passed_on() {
    let (address, heads) = backend(OK, End::Wait);
    let scene = scene(address, &[]);
    let next = "GET /smuggled HTTP/1.1\r\nHost: a.apps.test\r\n\r\n";
    let with = |lines: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.apps.test\r\n{lines}\r\n\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked";
    for text in [
        with("Content-Length: 5\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{next}")),
        with("Transfer-Encoding: chunked\r\nContent-Length: 5", &format!("0\r\n\r\n{next}")),
        with("Content-Length: 0\r\nContent-Length: 46", next),
        with("Content-Length: 46\r\nContent-Length: 46", next),
        with("Content-Length: 0, 46", next),
        with("Content-Length: +46", next),
        with("Content-Length: 0x2e", next),
        with("Content-Length : 46", next),
        with("Transfer-Encoding: chunked, identity", &format!("0\r\n\r\n{next}")),
        with("Transfer-Encoding: xchunked", &format!("0\r\n\r\n{next}")),
        with("Transfer-Encoding:\u{b}chunked", &format!("0\r\n\r\n{next}")),
        with("Transfer-Encoding : chunked", &format!("0\r\n\r\n{next}")),
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        with("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n"),
        with("X: y\r\n\tContent-Length: 46", next),
        with("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        with("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n"),
        with("X: y\0z", ""),
        with(": y", ""),
        with("X y", ""),
        with("Host: b.apps.test", ""),
        with("Host: a.apps.test", ""),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "GET / HTTP/1.1\nHost: a.apps.test\n\n".into(),
        "GET /a b HTTP/1.1\r\nHost: a.apps.test\r\n\r\n".into(),
        "GET  / HTTP/1.1\r\nHost: a.apps.test\r\n\r\n".into(),
        "GET / HTTP/9.9\r\nHost: a.apps.test\r\n\r\n".into(),
        "GET http://u@a.apps.test/ HTTP/1.1\r\nHost: u@a.apps.test\r\n\r\n".into(),
        "GET http://b.apps.test/ HTTP/1.1\r\nHost: a.apps.test\r\n\r\n".into(),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{next}"),
    ] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(text.as_bytes()).unwrap();
        let (heard, _) = rest(&mut tls);
        let status = heard.split(' ').nth(1);
        if text.starts_with("PRI ") {
            // The preface of a protocol that was not agreed upon gets no answer.
            assert_eq!(heard, "");
            continue;
        }
        assert!(matches!(status, Some("400" | "421" | "505")), "{text:?}: {heard}");
        assert_eq!(
            heard.matches("HTTP/1.1 ").count(),
            1,
            "one answer, then the end: {text:?}: {heard}"
        );
        assert_eq!(heads.load(Ordering::SeqCst), 0, "{text:?}");
    }
    // A chunk that is none breaks the exchange, whatever has been passed on by then.
    for body in [
        "5x\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\n0\n\n",
    ] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(with(chunked, &format!("{body}{next}")).as_bytes()).unwrap();
        let (heard, _) = rest(&mut tls);
        assert!(heard.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {heard}");
        assert!(!heard.starts_with("HTTP/1.1 200"), "{body:?}: {heard}");
    }
}

#[test]
fn good_requests_on_one_connection_are_answered_in_their_order() {
    let (address, heads) = backend(OK, End::Finish);
    let scene = scene(address, &[]);
    let mut tls = scene.connect("a.apps.test").unwrap();
    let get = "GET / HTTP/1.1\r\nHost: a.apps.test\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a.apps.test\r\nConnection: close\r\n\r\n";
    tls.write_all(format!("{get}\r\n{get}{last}").as_bytes()).unwrap();
    let (heard, end) = rest(&mut tls);
    end.unwrap();
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 3, "{heard}");
    assert_eq!(heads.load(Ordering::SeqCst), 3);
}

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
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 431 "), "{heard}");
    }
    assert_eq!(heads.load(Ordering::SeqCst), 0);
    assert!(scene.daemon().peak_memory() < before + 8 * 1024);
}

#[test]
fn a_backend_that_dies_at_any_point_of_its_response_is_told_apart_from_one_that_finished() {
    let whole = |body: &str| Some(body.to_owned());
    for (answer, end, status, body, outcome) in [
        (&b""[..], End::Finish, "502", None, "backend_closed_early"),
        (b"", End::Reset, "502", None, "backend_"),
        (b"HTTP/1.1 2", End::Finish, "502", None, "backend_closed_early"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", End::Finish, "502", None, "backend_closed_early"),
        (b"220 ready\r\n\r\n", End::Finish, "502", None, "backend_protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", End::Finish, "502", None, "backend_"),
        (
            b"HTTP/1.1 101 Sure\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            End::Finish,
            "502",
            None,
            "backend_",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            End::Finish,
            "200",
            None,
            "backend_reset",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            End::Reset,
            "200",
            None,
            "backend_reset",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            End::Finish,
            "200",
            None,
            "backend_reset",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
            End::Finish,
            "200",
            None,
            "backend_reset",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n",
            End::Finish,
            "200",
            whole("half"),
            "closed",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            End::Finish,
            "200",
            whole("until the end"),
            "closed",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n",
            End::Finish,
            "204",
            whole(""),
            "closed",
        ),
    ] {
        let (address, _) = backend(answer, end);
        let mut scene = scene(address, &[]);
        for protocol in ["--http1.1", "--http2"] {
            let port = scene.address().port();
            let output = std::process::Command::new("curl")
                .args(["-sS", "-D-", "--max-time", "60", protocol, "--resolve"])
                .arg(format!("a.apps.test:{port}:127.0.0.1"))
                .args(["--cacert", crate::support::text(&scene.path("operator.pem"))])
                .arg(format!("https://a.apps.test:{port}/"))
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            let case =
                format!("{:?} {end:?} {protocol}: {output:?}", String::from_utf8_lossy(answer));
            assert!(told.split(' ').nth(1).is_some_and(|told| told.starts_with(status)), "{case}");
            if status == "200" || status == "204" {
                // A client must see that something is missing, and only then.
                assert_eq!(output.status.success(), body.is_some(), "{case}");
            }
            if let Some(body) = &body {
                assert_eq!(told.split_once("\r\n\r\n").unwrap().1, body, "{case}");
            }
            let record = scene.daemon().record();
            assert!(record["outcome"].as_str().unwrap().starts_with(outcome), "{record} {case}");
            assert_eq!(record["status"].to_string(), status, "{case}");
            scene.daemon().record();
        }
    }
}
