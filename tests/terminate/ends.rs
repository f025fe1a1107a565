//! The same life as that of sealed connections: expiry, removal, drain.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::daemon::route;
use crate::origin::Origin;
use crate::support::{Scene, Tls, in_seconds, text};

/// A scene whose one route has these terms besides.
fn scene(more: &str) -> (Scene, Origin) {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["http/1.1"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating(more)));
    (scene, origin)
}

const GET: &[u8] = b"GET /status/204 HTTP/1.1\r\nHost: a.apps.test\r\n\r\n";

/// One head of a response.
fn head(tls: &mut Tls) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
        heard.push(byte[0]);
    }
    String::from_utf8(heard).unwrap()
}

#[test]
fn an_expired_route_answers_no_further_request_on_an_open_connection() {
    let (mut scene, _origin) = scene(&format!("{}\ngrace = \"1m\"", in_seconds(3)));
    let (mut idle, mut busy) =
        (scene.connect("a.apps.test").unwrap(), scene.connect("a.apps.test").unwrap());
    for tls in [&mut idle, &mut busy] {
        tls.write_all(GET).unwrap();
        assert!(head(tls).starts_with("HTTP/1.1 204"));
        assert_eq!(scene.daemon().record()["status"], 204);
    }
    // An exchange is under way when the end comes, and may finish in the grace.
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: a.apps.test\r\nContent-Length: 2\r\n\r\nx")
        .unwrap();
    // The one without is closed, well before its keep-alive would end.
    let mut heard = Vec::new();
    idle.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    assert_eq!(scene.ended().0, "closed");
    scene.connect("a.apps.test").unwrap_err();
    assert_eq!(scene.ended().0, "expired_name");
    busy.write_all(b"y").unwrap();
    busy.write_all(GET).unwrap();
    let (mut heard, first) = (Vec::new(), head(&mut busy));
    assert!(first.starts_with("HTTP/1.1 200") && first.contains("connection: close"), "{first}");
    let _ = busy.read_to_end(&mut heard);
    assert_eq!(heard, b"2", "nothing but the body of the one exchange");
    assert_eq!(scene.daemon().record()["method"], "POST");
}

#[test]
fn an_upload_is_cut_when_its_route_ends() {
    let (mut scene, _origin) = scene(&in_seconds(2));
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(
        b"POST /echo HTTP/1.1\r\nHost: a.apps.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .unwrap();
    let cut = loop {
        // As fast as the line takes it.
        if let Err(error) = tls
            .write_all(b"400\r\n")
            .and_then(|()| tls.write_all(&[b'x'; 0x400]))
            .and_then(|()| tls.write_all(b"\r\n"))
        {
            break error;
        }
    };
    assert!(
        matches!(cut.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{cut}"
    );
    let ends = [scene.daemon().record(), scene.daemon().record()];
    assert!(ends.iter().any(|record| record["outcome"] == "route_expired"), "{ends:?}");
}

#[test]
fn an_upload_over_http_2_is_cut_when_its_route_ends() {
    let (scene, _origin) = scene(&in_seconds(2));
    let file = scene.path("upload");
    std::fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    let port = scene.address().port();
    let output = Command::new("curl")
        .args(["-sS", "-D-", "--http2", "--limit-rate", "1M", "-T", text(&file), "--resolve"])
        .arg(format!("a.apps.test:{port}:127.0.0.1"))
        .args(["--cacert", text(&scene.path("operator.pem"))])
        .arg(format!("https://a.apps.test:{port}/echo"))
        .output()
        .unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let ends = [scene.record(), scene.record()];
    assert!(ends.iter().any(|record| record["outcome"] == "route_expired"), "{ends:?}");
    assert!(ends.iter().any(|record| record["method"] == "PUT"), "{ends:?}");
}

#[test]
fn a_prolonged_route_keeps_its_connections() {
    let mut scene = Scene::new();
    let names = ["a.apps.test", "b.apps.test"];
    scene.install("both", &scene.operator.issue(&names));
    let origin = Origin::start(scene.platform.issue(&names).server(), &["http/1.1"]);
    let soon = in_seconds(6);
    let routes = |ends: [&str; 2]| -> String {
        let both = names.iter().zip(ends);
        both.map(|(host, end)| route(host, origin.address, &scene.terminating(end))).collect()
    };
    let (before, after) = (routes([&soon, &soon]), routes([&in_seconds(600), &soon]));
    scene.serve(&before);
    let (mut tls, mut other) = (scene.connect(names[0]).unwrap(), scene.connect(names[1]).unwrap());
    tls.write_all(GET).unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 204"));
    std::fs::write(scene.path("routes.toml"), after).unwrap();
    // It ends when the first was to end as well.
    let mut heard = Vec::new();
    let _ = other.read_to_end(&mut heard);
    assert!(heard.is_empty());
    tls.write_all(GET).unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 204"));
}

#[test]
fn a_route_that_leads_elsewhere_answers_no_further_request_by_the_old_way() {
    let (mut scene, _old) = scene("");
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(GET).unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 204"));
    scene.daemon().record();
    let fresh = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    let routes = route("a.apps.test", fresh.address, &scene.terminating(""));
    std::fs::write(scene.path("routes.toml"), routes).unwrap();
    // It was without a request, so it ends at once.
    let mut heard = Vec::new();
    tls.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    assert_eq!(scene.ended().0, "closed");
    let mut tls = scene.connect("a.apps.test").unwrap();
    tls.write_all(GET).unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 204"));
    assert_eq!(fresh.connections(), 1);
}

#[test]
fn a_stop_closes_what_is_idle_and_lets_the_rest_finish() {
    let (mut scene, _origin) = scene("");
    let (mut idle, mut busy) =
        (scene.connect("a.apps.test").unwrap(), scene.connect("a.apps.test").unwrap());
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: a.apps.test\r\nContent-Length: 2\r\n\r\nx")
        .unwrap();
    // HTTP/2: nghttp says when it hears GOAWAY.
    let port = scene.address().port();
    let file = scene.path("upload");
    std::fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
    let mut slow = Command::new("curl")
        .args(["-sS", "-v", "--http2", "--limit-rate", "4M", "-T", text(&file), "--resolve"])
        .arg(format!("a.apps.test:{port}:127.0.0.1"))
        .args(["--cacert", text(&scene.path("operator.pem"))])
        .arg(format!("https://a.apps.test:{port}/echo"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(slow.stderr.take().unwrap()).lines();
    told.find(|line| line.as_ref().unwrap().starts_with("> PUT ")).unwrap().unwrap();
    scene.daemon().admin();
    scene.daemon().wait_metric("mse_proxy_sessions_open", |open| open == 3);
    scene.daemon().signal(Signal::TERM);
    let mut heard = Vec::new();
    idle.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    busy.write_all(b"y").unwrap();
    let first = head(&mut busy);
    // It may have been answered just before its own session heard of the stop.
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    busy.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"2");
    let mut answer = String::new();
    slow.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, (8 << 20).to_string());
    let told: Vec<String> = told.map_while(Result::ok).collect();
    assert!(slow.wait().unwrap().success(), "{told:#?}");
    assert!(scene.daemon().wait().success());
}
