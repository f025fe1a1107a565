//! The admin port: probes, `/status.json`, how questions are answered, and that nobody and nothing
//! keeps it from answering.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Daemon, Delay, PATIENCE, backend, command, echo, held_up, hello, route, routes_file, serving,
    text,
};
use crate::web::{self, answer, exchange, get, request, scrape};

#[test]
fn while_the_routes_are_not_there_it_is_alive_and_not_ready() {
    let (_held, path) = routes_file(&route("app.test", "127.0.0.1:1", ""));
    let (mut daemon, delay) = starting(&path);
    let admin = daemon.admin();
    for _ in 0..3 {
        let ready = get(admin, "/ready");
        assert_eq!(ready.status, 503);
        assert_eq!(ready.body, "starting: 0 of 1 sources have told their routes\n");
        let live = get(admin, "/live");
        assert_eq!((live.status, live.body.as_str()), (200, "alive\n"));
    }
    let status = get(admin, "/status.json").json();
    assert_eq!(status["state"], "starting");
    assert_eq!(status["why"], "starting: 0 of 1 sources have told their routes");
    assert_eq!(status["sources"], Value::Array(vec![]));
    let samples = scrape(admin);
    samples.assert("mse_proxy_ready", 0);
    samples.assert("mse_proxy_table_revision", 0);
    drop(delay);
    daemon.wait_listening();
    assert_eq!(get(admin, "/ready").status, 200);
    scrape(admin).assert("mse_proxy_table_revision", 1);
}

#[test]
fn a_stop_does_not_wait_for_routes_that_do_not_come() {
    let (_held, path) = routes_file(&route("app.test", "127.0.0.1:1", ""));
    let (mut daemon, delay) = starting(&path);
    assert_eq!(get(daemon.admin(), "/ready").status, 503);
    daemon.signal(Signal::TERM);
    daemon.wait_log("told to stop before the first routes came");
    // A thread that a tracer holds keeps its process.
    drop(delay);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// A proxy whose disk takes very long to open its routes file.
fn starting(routes: &Path) -> (Daemon, Delay) {
    held_up(&serving(routes), routes)
}

#[test]
fn while_it_drains_it_is_alive_and_not_ready_and_says_for_whom_it_waits() {
    let (listener, address) = backend();
    let (_held, path) = routes_file(&route("app.test", address, ""));
    let mut daemon = Daemon::serve(&path, &[("MSE_PROXY_DRAIN_TIMEOUT", "10m")]);
    let admin = daemon.admin();
    let ready = get(admin, "/ready");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    scrape(admin).assert("mse_proxy_ready", 1);
    let mut client = daemon.dial();
    client.write_all(&hello("app.test")).unwrap();
    let (reached, _) = listener.accept().unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_log("draining");
    let ready = get(admin, "/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body, "draining: 1 session is still open\n");
    assert_eq!(get(admin, "/live").status, 200);
    assert_eq!(get(admin, "/status.json").json()["state"], "draining");
    let samples = scrape(admin);
    samples.assert("mse_proxy_ready", 0);
    samples.assert("mse_proxy_sessions_open", 1);
    drop((client, reached));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn every_question_has_its_answer() {
    let (_held, path) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&path, &[]);
    let admin = daemon.admin();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/live", "text/plain; charset=utf-8"),
        ("/ready", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/status.json", "application/json"),
    ] {
        let got = get(admin, path);
        assert_eq!((got.status, got.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(got.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = got.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");

        let head = exchange(admin, &request("HEAD", path));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), Some(kind), "{path}");
        assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 0, "{path}");

        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let denied = exchange(admin, &request(method, path));
            assert_eq!(denied.status, 405, "{method} {path}");
            assert_eq!(denied.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for path in ["/metrics/", "/Ready", "/status", "/../etc/passwd", "/favicon.ico", "//"] {
        let missing = get(admin, path);
        assert_eq!(missing.status, 404, "{path}");
        assert!(missing.body.contains("/status.json"), "it names what there is: {missing:?}");
    }
    assert_eq!(get(admin, "/ready?verbose=1").status, 200, "what is asked beside is left alone");
    let old = exchange(admin, "GET /live HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.body.as_str()), (200, "alive\n"));
    assert_eq!(exchange(admin, "what is this?\r\n\r\n").status, 400);
    let long = format!("GET /live HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(exchange(admin, &long).status, 431);
    // What curl sends, and that it is content.
    let curl = Command::new("curl").args(["-fsS", &format!("http://{admin}/ready")]).output();
    assert_eq!(text(&curl.unwrap().stdout), "ready\n");
}

/// The ids of the routes that are told.
fn ids(status: &Value) -> Vec<&str> {
    let rows = status["routes"]["rows"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[test]
fn the_status_tells_routes_by_urgency_their_faults_and_their_traffic() {
    let bytes = hello("app.test");
    let content = route("calm.test", "127.0.0.1:1", "")
        + &route("later.test", "127.0.0.1:1", "not_before = 2099-01-01T00:00:00Z")
        + &route("old.test", "127.0.0.1:1", "expires_at = 2020-01-01T00:00:00Z")
        + &route("far.test", "127.0.0.1:1", "expires_at = 2099-01-01T00:00:00Z")
        + &route(
            "app.test",
            echo(bytes.len()),
            "app = \"acme/shop\"\nexpires_at = 2098-01-01T00:00:00Z",
        )
        + &route("app.test", "127.0.0.1:1", "id = \"thief\"")
        + "[[route]]\nhosts = [\"broken.test\"]\nbackend = 1\n";
    let (_held, path) = routes_file(&content);
    let mut daemon = Daemon::serve(&path, &[]);
    let admin = daemon.admin();
    let mut client = daemon.dial();
    client.write_all(&bytes).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    assert_eq!(daemon.record()["outcome"], "closed");
    let mut client = daemon.dial();
    client.write_all(&hello("no.test")).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    assert_eq!(daemon.record()["outcome"], "unknown_name");

    let status = get(admin, "/status.json").json();
    assert_eq!(status["name"], "mse-proxy");
    assert_eq!(status["state"], "ready");
    assert_eq!(status["why"], Value::Null);
    assert_eq!(status["revision"], 1);
    assert!(status["uptime_s"].as_f64().unwrap() >= 0.0);
    assert_eq!(status["sessions"]["total"], 2);
    assert_eq!(status["sessions"]["open"], 0);
    assert_eq!(status["bytes"]["to_client"], bytes.len());
    let outcomes = status["outcomes"].as_array().unwrap();
    let told: Vec<_> = outcomes
        .iter()
        .map(|one| {
            (one["outcome"].as_str().unwrap(), one["stage"].as_str().unwrap(), &one["count"])
        })
        .collect();
    let one = Value::from(1);
    assert_eq!(told, [("closed", "relay", &one), ("unknown_name", "name", &one)]);

    let source = &status["sources"][0];
    assert_eq!((&source["name"], &source["routes"]), (&"file".into(), &6.into()));
    assert_eq!((&source["left_out"], &source["conflicts"]), (&1.into(), &1.into()));
    assert_eq!(source["last_success"], Value::Null);
    assert_eq!(source["fault_count"], 2, "an unknown key, and a missing one");
    let faults = source["faults"].as_array().unwrap();
    let told =
        |words: &str| faults.iter().any(|fault| fault["message"].as_str().unwrap().contains(words));
    assert!(told("did you mean `backends`") && told("`backends` is missing"), "{faults:?}");
    assert!(faults[0]["at"].as_str().unwrap().contains("routes.toml:26:1"), "{faults:?}");
    assert_eq!(status["conflict_count"], 1);
    assert!(status["conflicts"][0]["message"].as_str().unwrap().contains("app.test"));

    let routes = &status["routes"];
    for (state, count) in
        [("live", 3), ("pending", 1), ("expired", 1), ("faulty", 2), ("matching", 6)]
    {
        assert_eq!(routes[state], count, "{state}");
    }
    assert_eq!(
        ids(&status),
        ["thief", "app.test", "far.test", "calm.test", "later.test", "old.test"],
        "faults first, then whose end is nearest, then who has none, who is to come, who is gone"
    );
    let app = &routes["rows"][1];
    assert_eq!((&app["app"], &app["sessions"]), (&"acme/shop".into(), &1.into()));
    assert_eq!(app["to_backend_bytes"], bytes.len());
    assert_eq!(app["expires_at"], "2098-01-01T00:00:00Z");
    assert!(app["remaining_s"].as_f64().unwrap() > 1e9);
    assert!(routes["rows"][5]["remaining_s"].as_f64().unwrap() < 0.0);

    for (query, wanted) in [
        ("filter=acme", &["app.test"][..]),
        ("filter=EXPIRED", &["old.test"]),
        ("filter=faulty", &["thief"]),
        ("filter=nothing+here", &[]),
        ("limit=2", &["thief", "app.test"]),
        ("limit=1&filter=test", &["thief"]),
        ("limit=0", &[]),
    ] {
        let status = get(admin, &format!("/status.json?{query}")).json();
        assert_eq!(ids(&status), wanted, "{query}");
    }
}

#[test]
fn the_status_is_bounded_and_says_how_much_there_is() {
    let mut content = String::new();
    for number in 0..5_200 {
        content += &route(&format!("r{number}.test"), "127.0.0.1:1", "");
    }
    for number in 0..60 {
        let _ = writeln!(content, "[[route]]\nhosts = [\"-{number}.test\"]\nbackends = [\"a:1\"]");
        content +=
            &route(&format!("r{number}.test"), "127.0.0.1:1", &format!("id = \"t{number}\""));
    }
    let (_held, path) = routes_file(&content);
    let mut daemon = Daemon::serve(&path, &[]);
    let admin = daemon.admin();
    for (query, count) in [("", 500), ("?limit=7", 7), ("?limit=999999999", 5_000)] {
        let status = get(admin, &format!("/status.json{query}")).json();
        assert_eq!(ids(&status).len(), count, "{query}");
        assert_eq!(status["routes"]["matching"], 5_260);
        assert_eq!(status["sources"][0]["fault_count"], 60);
        assert_eq!(status["sources"][0]["faults"].as_array().unwrap().len(), 50);
        assert_eq!(status["conflict_count"], 60);
        assert_eq!(status["conflicts"].as_array().unwrap().len(), 50);
    }
}

#[test]
fn whoever_stands_in_the_way_makes_room_for_a_probe() {
    let (_held, path) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&path, &[]);
    let admin = daemon.admin();
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..150 {
        let mut stream = web::dial(admin);
        // Some say nothing, some break off, some do not listen to a long answer.
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /ready HTT").unwrap(),
            _ => stream.write_all(request("GET", "/metrics").as_bytes()).unwrap(),
        }
        held.push(stream);
    }
    for _ in 0..3 {
        assert_eq!(get(admin, "/ready").body, "ready\n");
        assert_eq!(get(admin, "/status.json").json()["state"], "ready");
    }
    assert!(held.len() == 150, "they stood there all the time");
}

#[test]
fn a_client_that_only_trickles_is_let_go() {
    let (_held, path) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&path, &[]);
    let admin = daemon.admin();
    let mut slow = web::dial(admin);
    slow.write_all(b"GET /ready").unwrap();
    let mut read = Vec::new();
    // Whether by an answer (408) or without: it ends.
    let _ = slow.read_to_end(&mut read);
    assert!(!text(&read).contains("ready\n"), "{}", text(&read));
    assert_eq!(get(admin, "/ready").status, 200);
}

/// The names of a process's threads.
fn threads(process: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| Some(name(task.ok()?).ok()?.trim().to_owned())).collect()
}

#[test]
fn it_can_be_turned_off() {
    let (_held, path) = routes_file("# none\n");
    let off = Daemon::serve(&path, &[("MSE_PROXY_ADMIN_HTTP", "")]);
    let on = Daemon::serve(&path, &[]);
    assert!(threads(on.id()).contains(&"admin".to_owned()));
    assert!(!threads(off.id()).contains(&"admin".to_owned()));
}

#[test]
fn a_port_in_use_is_told_with_a_remedy_of_its_own() {
    let (_held, address) = backend();
    let output = command()
        .arg("serve")
        .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_HTTP", address.to_string())
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    for expected in [
        &format!("admin.http: cannot listen on {address}"),
        "another program listens there",
        "MSE_PROXY_ADMIN_HTTP=127.0.0.1:0 lets the kernel choose a port",
        "MSE_PROXY_ADMIN_HTTP= turns metrics, probes and the status page off",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
}

/// Sets how many descriptors a process may have, for now.
fn limit(process: u32, descriptors: usize) {
    let arguments = [format!("--pid={process}"), format!("--nofile={descriptors}:")];
    let output = Command::new("prlimit").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn without_any_descriptor_it_can_still_be_watched() {
    let (listener, address) = backend();
    let (_held, path) = routes_file(&route("app.test", address, ""));
    let mut daemon = Daemon::serve(&path, &[("MSE_PROXY_HELLO_TIMEOUT", "10m")]);
    let admin = daemon.admin();
    let enter = || {
        let mut client = daemon.dial();
        client.write_all(&hello("app.test")).unwrap();
        (client, listener.accept().unwrap())
    };
    let sessions: Vec<_> = (0..8).map(|_| enter()).collect();
    let most = daemon.descriptors();
    limit(daemon.id(), most);
    // More than fit into what is free below that. They are shed, as they have shown no name, and
    // the next ones take their place.
    let strangers: Vec<_> = (0..40).map(|_| daemon.dial()).collect();
    daemon.wait_log("cannot accept");
    let began = Instant::now();
    for _ in 0..25 {
        for (path, status) in [("/live", 200), ("/ready", 200), ("/", 200), ("/nothing", 404)] {
            assert_eq!(get(admin, path).status, status, "{path}");
        }
        assert_eq!(get(admin, "/status.json").json()["state"], "ready");
        let samples = scrape(admin);
        samples.assert("process_max_fds", f64::from(u32::try_from(most).unwrap()));
        assert!(samples.of("process_resident_memory_bytes") > 0.0);
        assert!(samples.of("process_threads") > 0.0);
    }
    // Clients that hold the spare ones and say nothing make room as well.
    let idle: Vec<_> = (0..12).map(|_| web::dial(admin)).collect();
    assert_eq!(get(admin, "/ready").status, 200);
    // It takes a second or two; without the spare ones, a second or more for each answer.
    assert!(began.elapsed() < PATIENCE);
    let samples = scrape(admin);
    assert!(samples.of("mse_proxy_accept_errors_total{kind=\"descriptors\"}") > 0.0);
    assert!(samples.of("mse_proxy_sessions_open") >= 8.0, "nobody with a name was shed");
    drop((idle, strangers));
    limit(daemon.id(), most + 100);
    let mut client = daemon.dial();
    client.write_all(&hello("app.test")).unwrap();
    let _reached = listener.accept().unwrap();
    assert_eq!(get(admin, "/ready").status, 200);
    drop(sessions);
}

/// What one scrape of this table weighs, at the least, in bytes.
const LARGE: usize = 5_000_000;

#[test]
fn a_scrape_of_a_large_table_keeps_no_session_waiting() {
    let bytes = hello("r7.test");
    let backend = echo(bytes.len());
    let content = (0..20_000).fold(String::new(), |text, number| {
        text + &route(&format!("r{number}.test"), backend, "expires_at = 2099-01-01T00:00:00Z")
    });
    let (_held, path) = routes_file(&content);
    let mut daemon = Daemon::serve(&path, &[("MSE_PROXY_TELEMETRY_MAX_ROUTES", "20000")]);
    let admin = daemon.admin();
    let one = || {
        let mut client = daemon.dial();
        client.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, bytes);
    };
    // A scraper that takes its time: its answer is on the way for all of these sessions.
    let mut slow = web::dial(admin);
    slow.write_all(request("GET", "/metrics").as_bytes()).unwrap();
    slow.read_exact(&mut [0; 9]).unwrap();
    for _ in 0..200 {
        one();
    }
    let body = answer_after(slow);
    assert!(body > LARGE, "{body} bytes");
    // Scrapers without a pause, and sessions beside them until both have seen enough of each other.
    let done = std::sync::atomic::AtomicUsize::new(0);
    let sessions = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(get(admin, "/metrics").body.len() > LARGE);
                    assert_eq!(ids(&get(admin, "/status.json").json()).len(), 500);
                    assert_eq!(get(admin, "/live").status, 200);
                }
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let mut sessions = 0;
        while done.load(std::sync::atomic::Ordering::Relaxed) < 2 || sessions < 500 {
            one();
            sessions += 1;
        }
        sessions
    });
    for _ in 0..200 + sessions {
        assert_eq!(daemon.record()["outcome"], "closed");
    }
    let samples = scrape(admin);
    samples.assert("mse_proxy_sessions_total{outcome=\"closed\"}", f64::from(200 + sessions));
    samples.assert(
        "mse_proxy_route_sessions_total{route=\"r7.test\",outcome=\"closed\"}",
        f64::from(200 + sessions),
    );
    assert_eq!(samples.series("mse_proxy_route_sessions_open").len(), 20_000);
}

/// Reads the rest of an answer whose first bytes were read, and gives its length.
fn answer_after(mut stream: TcpStream) -> usize {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest.len()
}

#[test]
fn a_request_with_a_body_is_answered_too() {
    let (_held, path) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&path, &[]);
    let mut stream = web::dial(daemon.admin());
    let body = "x".repeat(1000);
    write!(stream, "POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{body}")
        .unwrap();
    assert_eq!(answer(stream).status, 405);
}
