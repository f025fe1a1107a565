//! The access log of the real binary: the journal, files that are rotated, disks that are full and
//! readers that stand still. Sessions never notice, and what is lost is counted.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mse_proxy::clock::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    Daemon, PATIENCE, alone, ask, ask_often, command, echo, hello, route, routes_file, serving,
    until,
};

/// How many records may wait, and what a pipe and the writer's hands hold beside that.
const QUEUE: usize = 16_384;
const LOST: &str = "mse_proxy_access_records_dropped_total";

fn echoed() -> (tempfile::TempDir, PathBuf) {
    routes_file(&route("app.test", echo(hello("app.test").len()), ""))
}

/// A proxy whose access log goes there.
fn logging_to(routes: &Path, place: &str) -> Daemon {
    Daemon::serve(routes, &[("MSE_PROXY_LOG_ACCESS", place)])
}

/// What journald would make of a datagram.
fn entry(socket: &UnixDatagram) -> BTreeMap<String, String> {
    let mut bytes = vec![0; 1 << 20];
    let size = socket.recv(&mut bytes).unwrap();
    let mut rest = &bytes[..size];
    let mut fields = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let (name, value) = line.split_once('=').unwrap();
        fields.insert(name.to_owned(), value.to_owned());
        rest = &rest[end + 1..];
    }
    fields
}

fn journald(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn each_record_is_an_entry_of_the_journal() {
    let (folder, routes) = echoed();
    let path = folder.path().join("journal");
    let journal = journald(&path);
    let mut daemon = logging_to(&routes, &format!("journald:{}", path.display()));
    ask(daemon.address, "app.test").unwrap();
    let closed = entry(&journal);
    for (name, value) in [
        ("SYSLOG_IDENTIFIER", "mse-proxy"),
        ("PRIORITY", "7"),
        ("MSE_PROXY_OUTCOME", "closed"),
        ("MSE_PROXY_SNI", "app.test"),
        ("MSE_PROXY_ROUTE", "app.test"),
        ("MSE_PROXY_BLAME", "nobody"),
        ("MSE_PROXY_ECH", "false"),
        ("MSE_PROXY_TO_CLIENT_BYTES", &hello("app.test").len().to_string()),
        ("MSE_PROXY_LISTENER", &daemon.address.to_string()),
    ] {
        assert_eq!(closed.get(name).map(String::as_str), Some(value), "{name}: {closed:?}");
    }
    assert!(closed["MESSAGE"].starts_with("closed 127.0.0.1:"), "{closed:?}");
    assert!(closed["MESSAGE"].contains(" app.test -> "), "{closed:?}");
    assert!(!closed.contains_key("MSE_PROXY_REASON"), "what there is not is left out: {closed:?}");

    // A journald that goes away and comes back.
    drop(journal);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(daemon.address, "app.test").unwrap(), hello("app.test"));
    daemon.wait_metric(LOST, |lost| lost >= 1);
    daemon.wait_log("the access log cannot be written");
    let journal = journald(&path);
    ask(daemon.address, "no.test").unwrap();
    let unknown = entry(&journal);
    assert_eq!(unknown["MSE_PROXY_OUTCOME"], "unknown_name");
    let line = daemon.wait_log("the access log is written, but some of it was lost");
    assert!(line.contains("\"lost\":1"), "{line}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn what_cannot_be_opened_is_told_at_the_start_with_a_remedy() {
    for (place, words, remedy) in [
        ("journald:/nonexistent/socket", "journald cannot be reached at", "journald:/path"),
        ("/nonexistent/access.log", "/nonexistent/access.log cannot be opened", "its folder"),
    ] {
        let output = command()
            .arg("serve")
            .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_GRPC", "")
            .env("MSE_PROXY_LOG_ACCESS", place)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(words) && told.contains(remedy), "{told}");
    }
}

/// All records of some files, each once.
fn read_all(files: &[PathBuf]) -> Vec<Value> {
    let mut records: Vec<Value> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: `{line}`"))
        };
        records.extend(text.lines().map(parse));
    }
    let numbers: HashSet<_> = records.iter().map(|one| one["session"].to_string()).collect();
    assert_eq!(numbers.len(), records.len(), "no record is written twice");
    records
}

/// Sessions from four sides, for as long as `meanwhile` takes. Gives how many there were.
fn under_load(address: SocketAddr, meanwhile: impl FnOnce()) -> usize {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let side = || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(ask(address, "app.test").unwrap(), hello("app.test"));
                count += 1;
            }
            count
        };
        let sides: Vec<_> = (0..4).map(|_| scope.spawn(side)).collect();
        meanwhile();
        is_over.store(true, Ordering::Relaxed);
        sides.into_iter().map(|side| side.join().unwrap()).sum()
    })
}

/// Runs Debian's logrotate once on a file, whether it is due or not.
fn logrotate(folder: &Path, log: &Path, how: &str) {
    let rules = folder.join("rotate.conf");
    let text = format!("{} {{\n  rotate 20\n  missingok\n  {how}\n}}\n", log.display());
    std::fs::write(&rules, text).unwrap();
    let output = Command::new("logrotate")
        .args(["--force", "--state"])
        .arg(folder.join("rotate.state"))
        .arg(&rules)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn nothing_is_lost_when_logrotate_renames_the_file_under_load() {
    let (held, routes) = echoed();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let mut daemon = logging_to(&routes, log.to_str().unwrap());
    let address = daemon.address;
    let hang_up = format!("postrotate\n    kill -HUP {}\n  endscript", daemon.id());
    let sessions = under_load(address, || {
        for turn in 1..=8 {
            let size = || std::fs::metadata(&log).map_or(0, |file| file.len());
            until("something is logged", || size() > 0);
            logrotate(held.path(), &log, &hang_up);
            daemon.wait_log("the access log was opened again");
            assert_eq!(files_in(logs.path()).len(), turn + 1);
        }
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(read_all(&files_in(logs.path())).len(), sessions);
}

#[test]
fn copytruncate_leaves_whole_records_and_no_hole() {
    let (held, routes) = echoed();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let mut daemon = logging_to(&routes, log.to_str().unwrap());
    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    for _ in 0..3 {
        ask_often(daemon.address, "app.test", 100, &hello("app.test"));
        until("all is written", || lines() == 100);
        // What comes between its copy and its truncation logrotate itself loses: nothing does here.
        logrotate(held.path(), &log, "copytruncate");
        assert_eq!(lines(), 0);
    }
    ask_often(daemon.address, "app.test", 100, &hello("app.test"));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(read_all(&files_in(logs.path())).len(), 400);
}

#[test]
fn a_file_that_cannot_be_opened_again_goes_on_being_written() {
    let (_held, routes) = echoed();
    let logs = tempfile::tempdir().unwrap();
    let (log, old) = (logs.path().join("access.log"), logs.path().join("access.log.1"));
    let mut daemon = logging_to(&routes, log.to_str().unwrap());
    ask(daemon.address, "app.test").unwrap();
    std::fs::rename(&log, &old).unwrap();
    // Not even root can open a folder for writing.
    std::fs::create_dir(&log).unwrap();
    daemon.signal(Signal::HUP);
    let line = daemon.wait_log("the access log cannot be opened again");
    assert!(line.contains(log.to_str().unwrap()), "{line}");
    ask(daemon.address, "app.test").unwrap();
    until("the old file grows", || read_all(std::slice::from_ref(&old)).len() == 2);
    std::fs::remove_dir(&log).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_log("the access log was opened again");
    ask(daemon.address, "app.test").unwrap();
    until("the new file grows", || read_all(std::slice::from_ref(&log)).len() == 1);
}

#[test]
fn a_full_disk_is_told_once_and_stops_nobody() {
    let (_held, routes) = echoed();
    let mut daemon = logging_to(&routes, "/dev/full");
    ask_often(daemon.address, "app.test", 400, &hello("app.test"));
    daemon.wait_metric(LOST, |lost| lost >= 400);
    assert_eq!(daemon.metric(LOST), 400);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_log("drained");
    let told = |line: &&String| line.contains("the access log cannot be written");
    let lines: Vec<&String> = daemon.seen().iter().filter(told).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("No space left on device"), "{lines:?}");
}

#[test]
fn every_record_is_written_before_it_ends() {
    let (_held, routes) = echoed();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    for _ in 0..5 {
        let _ = std::fs::remove_file(&log);
        let mut daemon = logging_to(&routes, log.to_str().unwrap());
        ask_often(daemon.address, "app.test", 400, &hello("app.test"));
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(read_all(std::slice::from_ref(&log)).len(), 400);
    }
}

#[test]
fn a_reader_of_the_access_log_that_stands_still_stops_nobody() {
    let _turn = alone();
    let (_held, routes) = routes_file("# none\n");
    let (unread, stdout) = std::io::pipe().unwrap();
    let mut daemon = Daemon::spawn_to(serving(&routes), stdout);
    daemon.wait_listening();
    let sessions = QUEUE + 2_000;
    ask_often(daemon.address, "no.test", sessions, &[]);
    daemon.wait_log("whoever reads the access log stands still");
    daemon.wait_metric(LOST, |lost| lost > 100);
    // It reads again: what waited comes, and what was lost is told, and nothing is in between.
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(unread).lines() {
            let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let line = daemon.wait_log("the access log is written, but some of it was lost");
    let line: Value = serde_json::from_str(&line).unwrap();
    let lost = usize::try_from(line["lost"].as_u64().unwrap()).unwrap();
    until("all is read", || read.load(Ordering::Relaxed) + lost >= sessions);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    reader.join().unwrap();
    assert_eq!(read.load(Ordering::Relaxed) + lost, sessions);
}

#[test]
fn it_stops_though_nobody_reads_the_access_log() {
    let _turn = alone();
    let (_held, routes) = routes_file("# none\n");
    let (_unread, stdout) = std::io::pipe().unwrap();
    let mut daemon = Daemon::spawn_to(serving(&routes), stdout);
    daemon.wait_listening();
    // More than a pipe holds.
    ask_often(daemon.address, "no.test", 1_000, &[]);
    daemon.signal(Signal::TERM);
    let began = std::time::Instant::now();
    assert_eq!(daemon.wait().code(), Some(0));
    // It is patient for 5 s.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    daemon.wait_log("the access log could not be written to its end");
}

#[test]
fn a_reader_of_the_log_that_stands_still_holds_up_neither_sessions_nor_their_end() {
    let (_echo, routes) = echoed();
    let there = std::fs::read_to_string(&routes).unwrap();
    let (listener, reached) = crate::support::backend();
    let refused = route("refused.test", "127.0.0.1:1", "");
    let with_end = |end: &str| there.clone() + &refused + &route("ends.test", reached, end);
    std::fs::write(&routes, with_end("")).unwrap();
    let mut start = serving(&routes);
    start.env("MSE_PROXY_LOG_LEVEL", "debug").env("MSE_PROXY_BACKEND_CONNECT_TIMEOUT", "1ms");
    let mut child = start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            break line["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
        }
    };
    // From here on nobody reads. Each refused session has a line of 200 bytes; a pipe takes 64 KiB.
    ask_often(address, "refused.test", 2_000, &[]);
    assert_eq!(ask(address, "app.test").unwrap(), hello("app.test"));
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&hello("ends.test")).unwrap();
    let (mut backend, _) = listener.accept().unwrap();
    backend.read_exact(&mut vec![0; hello("ends.test").len()]).unwrap();
    std::fs::write(&routes, with_end(&format!("expires_at = {}", Timestamp::now()))).unwrap();
    let end = client.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let process = Pid::from_child(&child);
    kill_process(process, Signal::TERM).unwrap();
    until("it stops", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
