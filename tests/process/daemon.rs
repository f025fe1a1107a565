//! `serve`: a process that starts, reloads, stops, and neither leaks nor swells.

use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Daemon, ask, backend, command, echo, hello, route, text, until};

#[test]
fn it_starts_without_any_file_and_stops_on_sigterm() {
    let mut start = command();
    start
        .arg("serve")
        .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .env("MSE_PROXY_LOG_FORMAT", "json");
    let mut daemon = Daemon::start(start);
    let mut client = daemon.dial();
    client.write_all(&hello("app.test")).unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    drop(client);
    assert_eq!(daemon.record()["outcome"], "unknown_name");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_port_in_use_is_told_with_a_remedy() {
    let (_held, address) = backend();
    let output = command()
        .arg("serve")
        .env("MSE_PROXY_LISTEN_ADDRESSES", address.to_string())
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(words.contains(&format!("cannot listen on {address}")), "{words}");
    assert!(words.contains("another program listens there"), "{words}");
}

#[test]
fn two_proxies_cannot_share_a_port_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, "# none\n").unwrap();
    let first = Daemon::serve(&routes, &[]);
    let output = command()
        .arg("serve")
        .env("MSE_PROXY_LISTEN_ADDRESSES", first.address.to_string())
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn sighup_reads_the_routes_again() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, route("a.test", "127.0.0.1:1", "")).unwrap();
    let mut daemon = Daemon::serve(&routes, &[]);
    daemon.signal(Signal::HUP);
    daemon.wait_log("asked to read the routes again");
    std::fs::write(&routes, "[[route]]\nhosts = [\"a.test\"]\nbackend = 1\n").unwrap();
    let line = daemon.wait_log("did you mean");
    assert!(line.contains("routes.toml:3:1"), "{line}");
}

#[test]
fn a_second_sigterm_cuts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let (listener, address) = backend();
    std::fs::write(&routes, route("app.test", address, "")).unwrap();
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_DRAIN_TIMEOUT", "10m")]);
    let mut client = daemon.dial();
    let hello = hello("app.test");
    client.write_all(&hello).unwrap();
    // Relayed, and not merely connected: who is cut while connecting is refused instead.
    let mut reached = listener.accept().unwrap().0;
    reached.read_exact(&mut vec![0; hello.len()]).unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_log("draining");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let end = client.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert_eq!(daemon.record()["outcome"], "drained");
}

#[test]
fn twenty_thousand_short_connections_leak_no_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let bytes = hello("app.test");
    std::fs::write(&routes, route("app.test", echo(bytes.len()), "")).unwrap();
    let daemon = Daemon::serve(&routes, &[]);
    let before = daemon.descriptors();
    let one = |host_bytes: &[u8], wanted: &[u8]| {
        let mut client = daemon.dial();
        client.write_all(host_bytes).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, wanted);
    };
    let unknown = hello("no.test");
    for round in 0..20_000 {
        // Every tenth is refused, so that both ways out are walked.
        if round % 10 == 0 { one(&unknown, &[]) } else { one(&bytes, &bytes) }
    }
    let records: Vec<_> = (0..20_000).map(|_| daemon.record()).collect();
    let closed = records.iter().filter(|record| record["outcome"] == "closed").count();
    assert_eq!(closed, 18_000);
    // A record is written when its session is dropped, just before its sockets are.
    until(&format!("no more descriptors than {before}"), || daemon.descriptors() <= before);
}

#[test]
fn without_descriptors_it_waits_instead_of_spinning_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let bytes = hello("app.test");
    std::fs::write(&routes, route("app.test", echo(bytes.len()), "")).unwrap();
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 80; exec \"$0\" serve", env!("CARGO_BIN_EXE_mse-proxy")])
        .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .env("MSE_PROXY_ROUTES_PATH", &routes)
        .env("MSE_PROXY_LOG_FORMAT", "json")
        .env("MSE_PROXY_HELLO_TIMEOUT", "10m")
        .env("MSE_PROXY_LIMITS_PENDING_HELLOS_PER_SOURCE", "0");
    let mut daemon = Daemon::start(limited);
    daemon.wait_seen("limits.connections cannot be reached and is lowered");
    let silent: Vec<_> = (0..120).map(|_| daemon.dial()).collect();
    // Pauses grow from 10 ms to a second, so five warnings of each worker take well over 100 ms of
    // waiting; a loop that spins writes thousands in that time.
    let began = std::time::Instant::now();
    let workers = std::thread::available_parallelism().unwrap().get();
    for _ in 0..5 * workers {
        daemon.wait_log("cannot accept");
    }
    assert!(began.elapsed().as_millis() > 100, "{:?}", began.elapsed());
    drop(silent);
    // Those who wait in the kernel's queue are gone as well, but are still to be accepted.
    until("a client gets through", || {
        ask(daemon.address, "app.test").is_ok_and(|answer| answer == bytes)
    });
}

#[test]
fn a_hundred_mib_to_a_slow_reader_stay_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let (listener, address) = backend();
    std::fs::write(&routes, route("app.test", address, "")).unwrap();
    let daemon = Daemon::serve(&routes, &[]);
    let mut client = daemon.dial();
    let bytes = hello("app.test");
    client.write_all(&bytes).unwrap();
    let (mut reached, _) = listener.accept().unwrap();
    reached.read_exact(&mut vec![0; bytes.len()]).unwrap();
    let before = daemon.peak_memory();
    let sender = std::thread::spawn(move || {
        let chunk = vec![5; 1 << 20];
        for _ in 0..100 {
            reached.write_all(&chunk).unwrap();
        }
    });
    // A reader that takes a little at a time, and always leaves the proxy's side full.
    let mut received = 0;
    let mut small = vec![0; 4096];
    while received < 100 << 20 {
        let count = client.read(&mut small).unwrap();
        assert_ne!(count, 0);
        received += count;
    }
    sender.join().unwrap();
    let grown = daemon.peak_memory() - before;
    assert!(grown < 2048, "{grown} KiB more memory for one slow reader");
}

#[test]
fn the_demo_prints_lines_that_work() {
    let mut start = command();
    start
        .args(["serve", "--demo"])
        .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = start.spawn().unwrap();
    let mut printed = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let mut chunk = [0; 4096];
    while !printed.contains("Ctrl-C stops the demo") {
        let count = stdout.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "the demo ended: {printed}");
        printed.push_str(&text(&chunk[..count]));
    }
    let curls: Vec<&str> =
        printed.lines().filter(|line| line.trim_start().starts_with("curl --")).collect();
    assert_eq!(curls.len(), 2, "{printed}");
    for curl in curls {
        let output = std::process::Command::new("sh").args(["-c", curl]).output().unwrap();
        let page = text(&output.stdout);
        let digest = page
            .lines()
            .find_map(|line| line.strip_prefix("sha256 "))
            .unwrap_or_else(|| panic!("{curl}: {page}"));
        assert!(
            printed.contains(digest),
            "the page tells the digest that the demo printed: {page}"
        );
    }
    let routes: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("mse-proxy route"))
        .collect();
    assert_eq!(routes.len(), 2, "{printed}");
    for line in routes {
        let line = format!("{} route{line}", command().get_program().display());
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    let folder =
        printed.split("--cacert ").nth(1).unwrap().split('/').take(3).collect::<Vec<_>>().join("/");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left behind");
}
