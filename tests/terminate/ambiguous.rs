//! Requests that could be read in two ways, bad ones behind good ones, and backends that die: written
//! byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::daemon::route;
use crate::support::{Scene, Tls};

/// A backend in the clear that counts whole heads and answers each connection with these bytes,
/// then ends it in this way.
pub(crate) fn backend(answer: &'static [u8], end: End) -> (SocketAddr, Arc<AtomicUsize>) {
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
pub(crate) enum End {
    Finish,
    Reset,
    Wait,
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const CLEAR: &str = "mode = \"terminate\"\nbackend_tls = \"off\"";

pub(crate) fn scene(backend: SocketAddr, variables: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    scene.serve_with(&route("a.apps.test", backend, CLEAR), variables);
    scene
}

/// A backend in the clear that never answers, and knows whether it has heard of the request that was
/// smuggled.
fn swallowing() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let has_heard = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&has_heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard);
                if heard.windows(8).any(|window| window == b"smuggled") {
                    told.store(true, Ordering::SeqCst);
                }
            });
        }
    });
    (address, has_heard)
}

/// What comes until the end, however that comes.
pub(crate) fn rest(tls: &mut Tls) -> (String, std::io::Result<()>) {
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
        with(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nContent-Length: 46",
            next,
        )
        .replace("POST", "GET"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{next}"),
    ] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(text.as_bytes()).unwrap();
        let (heard, _) = rest(&mut tls);
        assert!(["400", "421", "505"].contains(&status_of_ours(&heard)), "{text:?}: {heard}");
        assert_eq!(heads.load(Ordering::SeqCst), 0, "{text:?}");
        // Else it is waited for.
        drop(tls);
        let ended = scene.ended();
        assert!(ended.0 == "request_refused" && ended.1.is_some(), "{text:?}: {ended:?}");
        assert_eq!(scene.ended().0, "closed", "{text:?}");
    }
    // A chunk that is none breaks the exchange, whatever has been passed on by then.
    let (address, smuggled) = swallowing();
    let scene = self::scene(address, &[]);
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
        assert_eq!(status_of_ours(&heard), "400", "{body:?}: {heard}");
        assert!(!smuggled.load(Ordering::SeqCst), "{body:?}");
    }
}

/// The status of the one answer, which is ours: a page, with the reason in `Proxy-Status`.
pub(crate) fn status_of_ours(heard: &str) -> &str {
    assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "one answer, then the end: {heard}");
    let (lines, page) = heard.split_once("\r\n\r\n").unwrap();
    let status = lines.split(' ').nth(1).unwrap();
    assert!(
        lines.contains("proxy-status: mse-proxy; error=http_request_error; details="),
        "{heard}"
    );
    assert!(page.starts_with(status) && page.ends_with('\n'), "{heard}");
    status
}

#[test]
fn a_bad_request_behind_good_ones_is_answered_in_its_turn() {
    let (address, heads) = backend(OK, End::Finish);
    let scene = scene(address, &[]);
    let get = "GET /good HTTP/1.1\r\nHost: a.apps.test\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: a.apps.test\r\nX y\r\n\r\n";
    for cut in [0, 3, get.len() - 1, get.len() + 30, 2 * get.len() + bad.len() - 1] {
        let text = format!("{get}{get}{bad}{get}");
        let (first, second) = text.split_at(cut);
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(first.as_bytes()).unwrap();
        tls.flush().unwrap();
        tls.write_all(second.as_bytes()).unwrap();
        let (heard, end) = rest(&mut tls);
        end.unwrap();
        let statuses: Vec<_> =
            heard.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "200", "400"], "{heard}");
        drop(tls);
        assert_eq!(heads.swap(0, Ordering::SeqCst), 2);
        let mut paths: Vec<_> = (0..4).map(|_| scene.record()["path"].clone()).collect();
        paths.retain(|path| !path.is_null());
        assert_eq!(paths, ["/good", "/good", "/bad"]);
    }
}

/// Whoever asks for an upgrade may say what comes next before it was granted.
#[test]
fn what_comes_behind_a_question_for_an_upgrade_is_looked_at_once_it_is_refused() {
    let (address, heads) = backend(OK, End::Finish);
    let scene = scene(address, &[]);
    let upgrade = "GET / HTTP/1.1\r\nHost: a.apps.test\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a.apps.test\r\nConnection: close\r\n\r\n";
    for (next, statuses) in [(last, ["200", "200"]), ("\u{81}\0\0\r\n\r\n", ["200", "400"])] {
        let mut tls = scene.connect("a.apps.test").unwrap();
        tls.write_all(format!("{upgrade}{next}").as_bytes()).unwrap();
        let (heard, end) = rest(&mut tls);
        end.unwrap();
        let told: Vec<_> = heard.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(told, statuses, "{heard}");
    }
    assert_eq!(heads.load(Ordering::SeqCst), 3);
}

#[test]
fn a_client_that_leaves_within_a_head_leaves_no_request() {
    let (address, _) = backend(OK, End::Wait);
    let scene = scene(address, &[]);
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.ap").unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    assert_eq!(rest(&mut tls).0, "");
    let record = scene.record();
    assert_eq!(
        (&record["outcome"], &record["method"]),
        (&"client_reset".into(), &serde_json::Value::Null)
    );
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
