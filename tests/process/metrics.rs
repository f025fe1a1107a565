//! `/metrics` of the real binary: what is promised is there, in Prometheus's form, and the numbers
//! are those of the traffic.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, backend, echo, hello, route, text};
use crate::web::{Samples, get, scrape};

/// The contract: name, kind, labels of one sample that is there from the start.
const PROMISED: [(&str, &str, &str); 37] = [
    ("mse_proxy_sessions_total", "counter", "{outcome=\"closed\"}"),
    ("mse_proxy_sessions_open", "gauge", ""),
    ("mse_proxy_worker_sessions_open", "gauge", "{worker=\"0\"}"),
    ("mse_proxy_sessions_limit", "gauge", ""),
    ("mse_proxy_hellos_pending", "gauge", ""),
    ("mse_proxy_hello_bytes", "histogram", ""),
    ("mse_proxy_hello_seconds", "histogram", ""),
    ("mse_proxy_connect_seconds", "histogram", ""),
    ("mse_proxy_first_byte_seconds", "histogram", ""),
    ("mse_proxy_relayed_bytes_total", "counter", "{direction=\"to_client\"}"),
    ("mse_proxy_splice_bytes_total", "counter", ""),
    ("mse_proxy_requests_total", "counter", "{class=\"2xx\"}"),
    ("mse_proxy_handshake_failures_total", "counter", "{reason=\"unknown_ca\"}"),
    ("mse_proxy_certificates", "gauge", "{state=\"good\"}"),
    ("mse_proxy_routes_without_certificate", "gauge", ""),
    ("mse_proxy_routes", "gauge", "{state=\"faulty\"}"),
    ("mse_proxy_routes_ending", "gauge", "{within=\"24h\"}"),
    ("mse_proxy_table_revision", "gauge", ""),
    ("mse_proxy_source_fault", "gauge", "{source=\"file\"}"),
    ("mse_proxy_source_last_success_timestamp_seconds", "gauge", "{source=\"file\"}"),
    ("mse_proxy_source_conflicts", "gauge", "{source=\"file\"}"),
    ("mse_proxy_source_revision", "gauge", "{source=\"file\"}"),
    ("mse_proxy_route_sessions_total", "counter", "{route=\"app.test\",outcome=\"closed\"}"),
    ("mse_proxy_route_sessions_open", "gauge", "{route=\"app.test\"}"),
    (
        "mse_proxy_route_relayed_bytes_total",
        "counter",
        "{route=\"app.test\",direction=\"to_backend\"}",
    ),
    ("mse_proxy_route_expiry_timestamp_seconds", "gauge", "{route=\"app.test\"}"),
    ("mse_proxy_accept_errors_total", "counter", "{kind=\"descriptors\"}"),
    ("mse_proxy_access_records_dropped_total", "counter", ""),
    ("mse_proxy_clock_lead_seconds", "gauge", ""),
    ("mse_proxy_ready", "gauge", ""),
    ("mse_proxy_build_info", "gauge", concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}")),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("process_threads", "gauge", ""),
];

/// 2098-01-01T00:00:00Z.
const END: &str = "expires_at = 2098-01-01T00:00:00Z";
const END_SECONDS: f64 = 4_039_372_800.0;

/// Runs `promtool check metrics` on a text.
fn promtool(metrics: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn every_promised_metric_is_there_and_prometheus_finds_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    // A label may contain whatever an id may.
    let odd = "a\\\"b\\\\c {x=\\\"1\\\"} é";
    std::fs::write(
        &routes,
        route("app.test", "127.0.0.1:1", END)
            + &route("odd.test", "127.0.0.1:1", &format!("id = \"{odd}\"")),
    )
    .unwrap();
    let mut daemon = Daemon::serve(&routes, &[]);
    let told = get(daemon.admin(), "/metrics").body;
    let samples = Samples::read(&told);
    for (name, kind, labels) in PROMISED {
        assert!(told.contains(&format!("# HELP {name} ")), "{name} is not explained");
        assert!(told.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        let parts: &[&str] =
            if kind == "histogram" { &["_count", "_sum", "_bucket{le=\"+Inf\"}"] } else { &[""] };
        for part in parts {
            samples.of(&format!("{name}{part}{labels}"));
        }
    }
    samples.assert(&format!("mse_proxy_route_sessions_open{{route=\"{odd}\"}}"), 0);
    assert_eq!(promtool(&told), (true, String::new()));
    let (is_good, words) = promtool("# TYPE a_seconds counter\na_seconds 1\n");
    assert!(!is_good && words.contains("a_seconds"), "promtool would find faults: {words}");
}

/// One client that sends these bytes and reads to the end.
fn client(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut client = daemon.dial();
    client.write_all(bytes).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    daemon.record()["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn the_numbers_are_those_of_the_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let bytes = hello("app.test");
    let (listener, held) = backend();
    let closed = backend().1;
    let good = route("app.test", echo(bytes.len()), END)
        + &route("held.test", held, "")
        + &route("down.test", closed, "")
        + &route("old.test", closed, "expires_at = 2020-01-01T00:00:00Z")
        + &route("later.test", closed, "not_before = 2099-01-01T00:00:00Z");
    let faulty = good.clone()
        + "[[route]]\nhosts = [\"broken.test\"]\nbackend = 1\n"
        + &route("app.test", closed, "id = \"thief\"");
    std::fs::write(&routes, faulty).unwrap();
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_BACKEND_CONNECT_TIMEOUT", "100ms")]);
    let admin = daemon.admin();

    let before = scrape(admin);
    before.assert("mse_proxy_source_fault{source=\"file\"}", 1);
    before.assert("mse_proxy_source_last_success_timestamp_seconds{source=\"file\"}", 0);
    assert_eq!(before.sum("mse_proxy_sessions_total").to_bits(), 0);
    for (state, count) in [("live", 3), ("pending", 1), ("expired", 1), ("faulty", 2)] {
        before.assert(&format!("mse_proxy_routes{{state=\"{state}\"}}"), count);
    }
    before.assert("mse_proxy_table_revision", 1);
    before.assert("mse_proxy_route_expiry_timestamp_seconds{route=\"app.test\"}", END_SECONDS);
    assert_eq!(before.series("mse_proxy_route_expiry_timestamp_seconds").len(), 2);

    let mut sizes = 0;
    for (host, outcome, count) in [
        ("app.test", "closed", 3),
        ("no.test", "unknown_name", 2),
        ("old.test", "expired_name", 1),
        ("later.test", "not_yet_valid", 1),
        ("down.test", "backend_refused", 2),
    ] {
        for _ in 0..count {
            let bytes = hello(host);
            // The record's header is no part of the message.
            sizes += bytes.len() - 5;
            assert_eq!(client(&daemon, &bytes), outcome);
        }
    }
    assert_eq!(client(&daemon, b"GET / HTTP/1.1\r\n\r\n"), "plain_http");
    let after = scrape(admin);
    for (outcome, count) in [
        ("closed", 3),
        ("unknown_name", 2),
        ("expired_name", 1),
        ("not_yet_valid", 1),
        ("backend_refused", 2),
        ("plain_http", 1),
        ("internal", 0),
    ] {
        after.assert(&format!("mse_proxy_sessions_total{{outcome=\"{outcome}\"}}"), count);
    }
    assert_eq!(after.series("mse_proxy_sessions_total").len(), 37, "all outcomes, from the start");
    after.assert("mse_proxy_sessions_total{outcome=\"suspended\"}", 0);
    let size = f64::from(u32::try_from(bytes.len()).unwrap());
    let sizes = f64::from(u32::try_from(sizes).unwrap());
    for (series, value) in [
        ("mse_proxy_relayed_bytes_total{direction=\"to_backend\"}", 3.0 * size),
        ("mse_proxy_relayed_bytes_total{direction=\"to_client\"}", 3.0 * size),
        ("mse_proxy_hello_bytes_count", 9.0),
        ("mse_proxy_hello_bytes_sum", sizes),
        ("mse_proxy_hello_bytes_bucket{le=\"256\"}", 9.0),
        ("mse_proxy_hello_seconds_count", 9.0),
        ("mse_proxy_connect_seconds_count", 5.0),
        ("mse_proxy_connect_seconds_bucket{le=\"+Inf\"}", 5.0),
        ("mse_proxy_first_byte_seconds_count", 3.0),
        ("mse_proxy_route_sessions_total{route=\"app.test\",outcome=\"closed\"}", 3.0),
        ("mse_proxy_route_sessions_total{route=\"down.test\",outcome=\"backend_refused\"}", 2.0),
        ("mse_proxy_route_sessions_total{route=\"old.test\",outcome=\"expired_name\"}", 1.0),
        (
            "mse_proxy_route_relayed_bytes_total{route=\"app.test\",direction=\"to_client\"}",
            3.0 * size,
        ),
        ("mse_proxy_route_relayed_bytes_total{route=\"held.test\",direction=\"to_client\"}", 0.0),
        ("mse_proxy_sessions_open", 0.0),
    ] {
        after.assert(series, value);
    }
    // Each of the two that found a closed port tried again, first after 20 ms.
    assert!(after.of("mse_proxy_connect_seconds_sum") >= 0.04);
    assert!(after.of("mse_proxy_connect_seconds_bucket{le=\"0.01\"}") <= 3.0);

    open_sessions_show_while_they_are_open(&mut daemon, &listener);
    a_mended_file_shows(&mut daemon, &routes, &good);
}

fn open_sessions_show_while_they_are_open(daemon: &mut Daemon, listener: &std::net::TcpListener) {
    let admin = daemon.admin();
    let bytes = hello("held.test");
    let nameless = daemon.dial();
    let mut named = daemon.dial();
    named.write_all(&bytes).unwrap();
    let (mut reached, _) = listener.accept().unwrap();
    reached.read_exact(&mut vec![0; bytes.len()]).unwrap();
    // The first was accepted before the second, but another worker may be slower with it.
    let open = until(admin, |samples| samples.of("mse_proxy_sessions_open") > 1.5);
    open.assert("mse_proxy_hellos_pending", 1);
    open.assert("mse_proxy_route_sessions_open{route=\"held.test\"}", 1);
    // Bytes count while the session runs, not at its end.
    reached.write_all(&[7; 1000]).unwrap();
    named.read_exact(&mut [0; 1000]).unwrap();
    let way = "mse_proxy_route_relayed_bytes_total{route=\"held.test\",direction=\"to_client\"}";
    until(admin, |samples| samples.of(way) > 999.0).assert(way, 1000);
    drop((nameless, named, reached));
    let gone = until(admin, |samples| samples.of("mse_proxy_sessions_open") < 0.5);
    gone.assert("mse_proxy_route_sessions_open{route=\"held.test\"}", 0);
    gone.assert("mse_proxy_hellos_pending", 0);
}

fn a_mended_file_shows(daemon: &mut Daemon, routes: &std::path::Path, good: &str) {
    let admin = daemon.admin();
    std::fs::write(routes, good.to_owned() + &route("new.test", "127.0.0.1:1", "")).unwrap();
    daemon.signal(Signal::HUP);
    let fault = "mse_proxy_source_fault{source=\"file\"}";
    let mended = until(admin, |samples| samples.of(fault) < 0.5);
    mended.assert("mse_proxy_table_revision", 2);
    mended.assert("mse_proxy_routes{state=\"faulty\"}", 0);
    mended.assert("mse_proxy_routes{state=\"live\"}", 4);
    let told = mended.of("mse_proxy_source_last_success_timestamp_seconds{source=\"file\"}");
    assert!(told >= mended.of("process_start_time_seconds") - 1.0);
}

/// Scrapes until something is so.
fn until(admin: std::net::SocketAddr, is_so: impl Fn(&Samples) -> bool) -> Samples {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let samples = scrape(admin);
        if is_so(&samples) {
            return samples;
        }
        assert!(std::time::Instant::now() < deadline, "{samples:#?}");
    }
}

#[test]
fn series_of_routes_are_capped_and_the_rest_is_counted_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let bytes = hello("r0.test");
    let backend = echo(bytes.len());
    let content: String = (0..6)
        .map(|number| {
            let end = format!("expires_at = 2090-01-0{}T00:00:00Z", number + 1);
            route(&format!("r{number}.test"), backend, &end)
        })
        .collect();
    std::fs::write(&routes, content).unwrap();
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_TELEMETRY_MAX_ROUTES", "2")]);
    let admin = daemon.admin();
    for number in [4, 2, 0, 1, 0, 4] {
        assert_eq!(client(&daemon, &hello(&format!("r{number}.test"))), "closed");
    }
    let samples = scrape(admin);
    let closed =
        |route| format!("mse_proxy_route_sessions_total{{route=\"{route}\",outcome=\"closed\"}}");
    samples.assert(&closed("r4.test"), 2);
    samples.assert(&closed("r2.test"), 1);
    samples.assert(&closed("_other"), 3);
    for family in [
        "mse_proxy_route_sessions_total",
        "mse_proxy_route_sessions_open",
        "mse_proxy_route_expiry_timestamp_seconds",
    ] {
        assert_eq!(samples.series(family).len(), 3, "{family}");
    }
    // Under `_other`, the end that comes next among those without a place: that of r0.
    samples.assert("mse_proxy_route_expiry_timestamp_seconds{route=\"_other\"}", 3_786_912_000.0);
    assert_eq!(promtool(&get(admin, "/metrics").body), (true, String::new()));
}
