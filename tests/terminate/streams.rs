//! What real clients of other languages do: WebSocket, gRPC, httpx, HTTP/2 without manners.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::daemon::{route, until};
use crate::origin::Origin;
use crate::programs::{PYTHON, client, said, scene_before};
use crate::support::{Scene, say, shown as shown_by, text};

#[test]
fn a_websocket_passes_over_http_1() {
    let (mut scene, _server) = scene_before("websocket.py", &[]);
    assert_eq!(said(&client(&scene, "websocket.py", &["talk"])), "talked");
    let (request, session) = (scene.daemon().record(), scene.daemon().record());
    let (request, session) =
        if request["method"].is_null() { (session, request) } else { (request, session) };
    assert_eq!((&request["status"], &request["path"]), (&101.into(), &"/live".into()));
    assert_eq!((&request["outcome"], &session["outcome"]), (&"closed".into(), &"closed".into()));
    assert!(session["to_client_bytes"].as_u64() > Some(3_200_000), "{session}");
}

#[test]
fn a_websocket_passes_over_http_2_to_a_backend_of_http_1() {
    let (mut scene, _server) = scene_before("websocket.py", &[]);
    assert_eq!(said(&client(&scene, "streams.py", &["websocket"])), "talked");
    let request = scene.daemon().record();
    assert_eq!((&request["status"], &request["method"]), (&200.into(), &"CONNECT".into()));
    assert_eq!(request["outcome"], "closed");
}

#[test]
fn a_websocket_passes_over_http_1_to_a_backend_that_speaks_http_2_alone() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    let mut tls = scene.connect("a.apps.test").unwrap();
    let asking = "GET /live HTTP/1.1\r\nHost: a.apps.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tls.write_all(asking.as_bytes()).unwrap();
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    for line in [
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "upgrade: websocket",
        "x-path: /live",
    ] {
        assert!(heard.contains(line), "{heard}");
    }
    assert_eq!(say(tls, b"any bytes"), b"any bytes");
    let record = scene.daemon().record();
    assert_eq!((&record["outcome"], &record["status"]), (&"closed".into(), &101.into()));
}

#[test]
fn a_browser_talks_through_it() {
    for server in ["websocket.py", "backend.py"] {
        let (mut scene, _server) = scene_before(server, &[]);
        let (page, log, records) = browse(&mut scene);
        assert!(page.contains("heard: from a browser (chat)"), "{page} {log}");
        let of = |path: &str| records.iter().find(|record| record["path"] == path).unwrap();
        let (page, live) = (of("/page"), of("/live"));
        assert_eq!((&page["protocol"], &page["status"]), (&"h2".into(), &200.into()));
        // It has asked within the connection that it had.
        assert_eq!((&live["protocol"], &live["method"]), (&"h2".into(), &"CONNECT".into()));
    }
}

/// What a browser shows of a page whose WebSocket has spoken, what it logs, and what is recorded of
/// its requests.
fn browse(scene: &mut Scene) -> (String, String, Vec<serde_json::Value>) {
    let shown = scene.operator.issue(&["a.apps.test"]);
    scene.install("a", &shown);
    until("it answers with that", || {
        scene.connect("a.apps.test").is_ok_and(|tls| shown_by(&tls) == shown.der())
    });
    let profile = tempfile::tempdir().unwrap();
    let port = scene.address().port();
    let pinned = shown.pin_base64();
    let output = Command::new("timeout")
        .args(["-k", "5", "120", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-first-run", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--host-resolver-rules=MAP a.apps.test 127.0.0.1")
        // It knows no authority of this test: this one key, and no other, may be shown.
        .arg(format!("--ignore-certificate-errors-spki-list={pinned}"))
        .args(["--dump-dom", &format!("https://a.apps.test:{port}/page")])
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut records = Vec::new();
    while !records.iter().any(|record: &serde_json::Value| record["path"] == "/live") {
        records.push(scene.record());
    }
    (said(&output), String::from_utf8_lossy(&output.stderr).into_owned(), records)
}

#[test]
fn every_kind_of_grpc_call_passes() {
    let (mut scene, _server) = scene_before("calls.py", &[]);
    assert_eq!(said(&client(&scene, "calls.py", &["call"])), "called");
    let records: Vec<_> = (0..5).map(|_| scene.daemon().record()).collect();
    assert!(records.iter().all(|record| record["outcome"] == "closed"), "{records:#?}");
}

#[test]
fn streams_that_break_the_rules_are_refused_and_never_passed_on() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    // What would be ambiguous is so in HTTP/1.1.
    let server = scene.platform.issue(&["a.apps.test"]).server();
    let origin = Origin::start(server, &["http/1.1"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    let ask = |case: &str| said(&client(&scene, "streams.py", &[case]));
    for case in [
        "no_method",
        "no_path",
        "no_scheme",
        "two_methods",
        "two_paths",
        "late_pseudo",
        "unknown_pseudo",
        "response_pseudo",
        "upper_case",
        "connection",
        "upgrade",
        "transfer_encoding",
        "te_gzip",
        "line_in_value",
        "line_in_name",
        "colon_in_name",
        "space_in_path",
        "space_in_method",
        "empty_path",
        "bad_path",
        "user_authority",
        "line_authority",
        "other_host",
        "two_hosts",
        "two_lengths",
        "other_authority",
        "connect",
        "large_head",
    ] {
        let told = ask(case);
        let is_refused = told.starts_with("reset ")
            || told.starts_with("goaway ")
            || ["status 400", "status 421", "status 431", "status 501"].contains(&told.as_str());
        assert!(is_refused, "{case}: {told}");
        assert_eq!(origin.connections(), 0, "{case}");
    }
    assert_eq!(ask("good"), "status 200");
    for case in ["long_body", "short_body"] {
        let told = ask(case);
        assert!(!told.starts_with("status 2"), "{case}: {told}");
    }
}

#[test]
fn httpx_is_answered_over_both_protocols() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    let port = scene.address().port();
    let program = format!(
        r#"
import httpcore, httpx, socket
real = socket.create_connection
socket.create_connection = lambda address, *more, **most: real(("127.0.0.1", address[1]), *more, **most)
for http2 in (False, True):
    with httpx.Client(http2=http2, verify="{ca}", timeout=30) as client:
        for _ in range(3):
            answer = client.post("https://a.apps.test:{port}/back", content=b"x" * 300000)
            assert answer.content == b"x" * 300000 and answer.status_code == 200
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1"), answer.http_version
            assert "mse-proxy" in answer.headers["via"]
print("answered")
"#,
        ca = text(&scene.path("operator.pem"))
    );
    let output = Command::new(PYTHON).args(["-c", &program]).output().unwrap();
    assert_eq!(said(&output), "answered");
}
