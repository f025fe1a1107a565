//! Requests that are passed on: by curl, over each pair of protocols.

use std::io::{Read, Write};
use std::process::{Command, Output};

use crate::daemon::route;
use crate::origin::Origin;
use crate::programs;
use crate::support::{Scene, text};

/// Runs curl against the proxy.
fn curl(scene: &Scene, url: &str, more: &[&str]) -> Output {
    let port = scene.address().port();
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    Command::new("curl")
        .args(["-sS", "--max-time", "60", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(["--cacert", text(&scene.path("operator.pem"))])
        .args(more)
        .arg(format!("https://{host}:{port}/{path}"))
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A scene with one route to an origin that speaks these protocols.
fn scene(protocols: &[&str]) -> (Scene, Origin) {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), protocols);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    (scene, origin)
}

const CLIENTS: [(&str, &str, &str); 2] =
    [("--http1.1", "http/1.1", "1.1"), ("--http2", "h2", "2.0")];

#[test]
fn requests_pass_over_every_pair_of_protocols() {
    for (protocols, backend) in
        [(&["h2"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let (mut scene, origin) = scene(protocols);
        for (flag, client, via) in CLIENTS {
            let claims = [
                "X-Forwarded-For: 10.0.0.1",
                "X-Real-IP: 10.0.0.1",
                "Forwarded: for=10.0.0.1",
                "X-Forwarded-Proto: http",
                "Connection: X-Own",
                "X-Own: 1",
                "Cookie: a=b",
                "Via: 1.0 other",
            ];
            // HTTP/2 knows no Connection, and curl would not send it.
            let claims = claims.iter().filter(|claim| client != "h2" || !claim.contains("X-Own"));
            let claims: Vec<&str> = claims.flat_map(|claim| ["-H", claim]).collect();
            let told = said(&curl(
                &scene,
                "a.apps.test/told?secret=1",
                &[&[flag, "-D-"][..], &claims].concat(),
            ));
            let port = scene.address().port();
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            let status = if client == "h2" { "HTTP/2 200" } else { "HTTP/1.1 200 OK" };
            assert!(head.starts_with(status), "{head}");
            assert!(head.contains("x-end: 1") && head.contains("via: "), "{head}");
            for gone in ["x-hop", "alt-svc"] {
                assert!(!head.contains(gone), "{head}");
            }
            let authority = format!("a.apps.test:{port}");
            let uri = match backend {
                "HTTP/2.0" => format!("https://{authority}/told?secret=1"),
                _ => "/told?secret=1".to_owned(),
            };
            let mut lines: Vec<&str> = body.lines().collect();
            assert_eq!(lines.remove(0), format!("{backend} GET {uri}"));
            lines.retain(|line| !line.starts_with("user-agent: ") && !line.starts_with("accept: "));
            lines.sort_unstable();
            let forwarded = format!("forwarded: for=127.0.0.1;host=\"{authority}\";proto=https");
            let host = format!("host: {authority}");
            let ours = format!("via: {via} mse-proxy");
            let port = format!("x-forwarded-port: {port}");
            let mut expected = vec![
                "cookie: a=b",
                &forwarded,
                "via: 1.0 other",
                &ours,
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: a.apps.test",
                &port,
                "x-forwarded-proto: https",
            ];
            if backend == "HTTP/1.1" {
                expected.push(&host);
            }
            expected.sort_unstable();
            assert_eq!(lines, expected, "{flag}");

            let record = scene.daemon().record();
            let told =
                ["outcome", "method", "path", "protocol"].map(|key| record[key].as_str().unwrap());
            assert_eq!(told, ["closed", "GET", "/told", client]);
            assert_eq!(
                (&record["status"], &record["endpoint"]),
                (&200.into(), &origin.address.to_string().into())
            );
            let record = scene.daemon().record();
            assert_eq!(
                (&record["outcome"], &record["method"]),
                (&"closed".into(), &serde_json::Value::Null)
            );
        }
    }
}

#[test]
fn connections_to_backends_are_kept_and_shared() {
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let (scene, origin) = scene(protocols);
        for (flag, ..) in CLIENTS {
            for _ in 0..4 {
                said(&curl(&scene, "a.apps.test/x", &[flag]));
            }
        }
        // Each worker has a pool of its own.
        let workers = std::thread::available_parallelism().unwrap().get();
        assert!(origin.connections() <= workers, "{} connections", origin.connections());
    }
}

/// How much is passed each way: `GIB=2 cargo test …` for a longer run.
fn large() -> usize {
    let asked = std::env::var("GIB").map(|text| text.parse::<usize>().unwrap() << 30);
    asked.unwrap_or(256 << 20)
}

#[test]
fn bodies_of_any_size_pass_in_constant_memory() {
    let size = large();
    for (protocols, (flag, ..)) in
        [&["h2"][..], &["http/1.1"]].iter().flat_map(|p| CLIENTS.map(|client| (p, client)))
    {
        let (mut scene, _origin) = scene(protocols);
        let file = scene.path("upload");
        std::fs::File::create(&file).unwrap().set_len(size as u64).unwrap();
        said(&curl(&scene, "a.apps.test/echo", &[flag]));
        let before = scene.daemon().peak_memory();
        let to_nowhere = [flag, "--max-time", "3600", "-o", "/dev/null", "-w", "%{size_download}"];
        let down = curl(&scene, &format!("a.apps.test/bytes/{size}"), &to_nowhere);
        assert_eq!(said(&down), size.to_string());
        let up = [flag, "--max-time", "3600", "-T", text(&file)];
        assert_eq!(said(&curl(&scene, "a.apps.test/echo", &up)), size.to_string());
        let after = scene.daemon().peak_memory();
        println!("{size} bytes each way, {protocols:?} {flag}: {before} KiB, then {after} KiB");
        assert!(after < before + 8 * 1024, "{protocols:?} {flag}: {before} KiB, then {after}");
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    let (scene, _origin) = scene(&["http/1.1"]);
    let file = scene.path("upload");
    std::fs::write(&file, vec![b'x'; 100_000]).unwrap();
    let more = [
        "--http1.1",
        "-v",
        "-H",
        "Expect: 100-continue",
        "-T",
        text(&file),
        "--expect100-timeout",
        "50",
    ];
    let output = curl(&scene, "a.apps.test/echo", &more);
    assert_eq!(said(&output), "100000");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("< HTTP/1.1 100 Continue"),
        "{output:?}"
    );
}

#[test]
fn trailers_pass_both_ways() {
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let (scene, _origin) = scene(protocols);
        let mut tls = scene.connect("a.apps.test").unwrap();
        let asking = "POST /back HTTP/1.1\r\nHost: a.apps.test\r\nTE: trailers\r\nConnection: TE, close\r\n\
                      Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx-sum: 1\r\n\r\n";
        tls.write_all(asking.as_bytes()).unwrap();
        let mut heard = String::new();
        tls.read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{protocols:?} {heard}");
        assert!(heard.ends_with("4\r\nhalf\r\n0\r\nx-sum: 1\r\n\r\n"), "{protocols:?} {heard}");
        let told = programs::said(&programs::client(&scene, "streams.py", &["trailers"]));
        assert_eq!(told, "half {'x-sum': '1'}", "{protocols:?}");
    }
}

#[test]
fn a_request_for_another_name_is_misdirected() {
    let (scene, _origin) = scene(&["h2"]);
    for (flag, ..) in CLIENTS {
        for host in ["b.apps.test", "127.0.0.1", "apps.test"] {
            let output =
                curl(&scene, "a.apps.test/", &[flag, "-D-", "-H", &format!("Host: {host}")]);
            let told = said(&output);
            assert!(told.contains(" 421"), "{told}");
            let status = "proxy-status: mse-proxy; error=http_request_error; details=\"this connection is for another name\"";
            assert!(told.contains(status), "{told}");
            assert_eq!(scene.ended().0, "request_refused");
            assert_eq!(scene.ended().0, "closed");
        }
    }
}

#[test]
fn a_backend_that_cannot_be_reached_is_told_in_a_page() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wrong = Origin::start(scene.platform.issue(&["other.test"]).server(), &["h2"]);
    let routes = route("gone.apps.test", gone, &scene.terminating(""))
        + &route("wrong.apps.test", wrong.address, &scene.terminating(""));
    scene.serve_with(&routes, &[("MSE_PROXY_BACKEND_CONNECT_TIMEOUT", "100ms")]);
    for (flag, ..) in CLIENTS {
        for (host, error, outcome) in [
            ("gone.apps.test", "connection_refused", "backend_refused"),
            ("wrong.apps.test", "tls_certificate_error", "backend_tls"),
        ] {
            let told = said(&curl(&scene, &format!("{host}/"), &[flag, "-D-"]));
            assert!(told.contains(" 502") && told.contains(&format!("error={error};")), "{told}");
            assert!(told.ends_with("\r\n\r\n502 the app cannot be reached\n"), "{told}");
            assert_eq!(scene.ended().0, outcome);
            assert_eq!(scene.ended().0, "closed");
        }
    }
}

#[test]
fn requests_are_counted_by_class_and_route() {
    let (mut scene, _origin) = scene(&["h2"]);
    scene.daemon().admin();
    for status in ["204", "302", "404", "503"] {
        said(&curl(&scene, &format!("a.apps.test/status/{status}"), &[]));
        assert_eq!(scene.ended().0, "closed");
    }
    for class in ["2xx", "3xx", "4xx", "5xx"] {
        let count = |scene: &mut Scene, sample: &str| scene.daemon().metric(sample);
        assert_eq!(count(&mut scene, &format!("mse_proxy_requests_total{{class=\"{class}\"}}")), 1);
        let of_route =
            format!("mse_proxy_route_requests_total{{route=\"a.apps.test\",class=\"{class}\"}}");
        assert_eq!(count(&mut scene, &of_route), 1);
    }
}
