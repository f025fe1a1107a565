//! Routes that change while clients come: what is read again, and what clients see of it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{Daemon, PATIENCE, backend, hello, route};

/// A backend that answers each hello with one letter.
fn letter(letter: u8) -> SocketAddr {
    let (listener, address) = backend();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if stream.read(&mut [0; 512]).is_ok_and(|size| size > 0) {
                let _ = stream.write_all(&[letter]);
            }
        }
    });
    address
}

fn ask(daemon: &Daemon, host: &str) -> u8 {
    let mut stream = daemon.dial();
    stream.write_all(&hello(host)).unwrap();
    let mut letter = [0];
    stream.read_exact(&mut letter).unwrap();
    letter[0]
}

fn many(count: usize, backend: SocketAddr, changed: Option<(usize, SocketAddr)>) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let backend = changed.filter(|(which, _)| *which == number).map_or(backend, |(_, to)| to);
        let _ = write!(text, "{}", route(&format!("h{number}.test"), backend, ""));
        text
    })
}

/// As a careful program does it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// Waits until a file is no longer so fresh that it is read again in any case.
fn wait_aged(path: &Path) {
    let changed = u64::try_from(std::fs::metadata(path).unwrap().ctime()).unwrap();
    let aged = SystemTime::UNIX_EPOCH + Duration::from_secs(changed + 3);
    while let Ok(left) = aged.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
}

#[test]
fn in_a_folder_only_the_changed_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one.toml"), folder.path().join("other.toml"));
    std::fs::write(&one, route("one.test", "127.0.0.1:1", "")).unwrap();
    std::fs::write(&other, route("other.test", "127.0.0.1:1", "")).unwrap();
    wait_aged(&other);
    let mut daemon = Daemon::serve(folder.path(), &[("MSE_PROXY_LOG_LEVEL", "debug")]);
    replace(&other, &route("other.test", "127.0.0.1:2", ""));
    let is_of = |line: &str, file: &Path| line.contains(&format!("{:?}", file.display()));
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("\"changed\":\"1: other.test\"")) {
        lines.push(daemon.wait_log("{"));
    }
    let of_other: Vec<_> = lines.iter().filter(|line| is_of(line, &other)).collect();
    assert!(of_other.iter().any(|line| line.contains("it was replaced")), "{lines:#?}");
    // A file that is opened says so: that it was read, or that there is nothing new in it.
    assert!(!lines.iter().any(|line| is_of(line, &one)), "{lines:#?}");
}

#[test]
fn one_change_among_many_routes_is_read_alone_and_no_connection_is_lost() {
    let (old, new) = (letter(b'o'), letter(b'n'));
    let count = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, many(count, old, None)).unwrap();
    let mut daemon = Daemon::serve(&path, &[("MSE_PROXY_LOG_ACCESS", "off")]);
    let done = Arc::new(AtomicBool::new(false));
    let (address, stop) = (daemon.address, Arc::clone(&done));
    let others = std::thread::spawn(move || {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Never the one that changes.
            stream.write_all(&hello(&format!("h{}.test", asked * 2 % count))).unwrap();
            let mut letter = [0];
            stream.read_exact(&mut letter).unwrap();
            assert_eq!(letter, [b'o']);
            asked += 1;
        }
        asked
    });
    let host = "h2501.test";
    for (to, letter) in [(new, b'n'), (old, b'o'), (new, b'n')] {
        replace(&path, &many(count, old, Some((2_501, to))));
        let deadline = Instant::now() + PATIENCE;
        while ask(&daemon, host) != letter {
            assert!(Instant::now() < deadline, "the change does not come into force");
        }
        for _ in 0..50 {
            assert_eq!(ask(&daemon, host), letter, "an old answer after a new one");
        }
        let read: Value = serde_json::from_str(&daemon.wait_log("\"fresh\"")).unwrap();
        let number = |key: &str| read[key].as_u64().unwrap();
        assert!(number("pieces") > 5, "{read}");
        assert!((1..=3).contains(&number("fresh")), "{read}");
        daemon.wait_log("\"changed\":\"1: h2501.test\"");
    }
    done.store(true, Ordering::Relaxed);
    assert!(others.join().unwrap() > 0);
}
