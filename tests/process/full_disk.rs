//! A proxy whose disk is full: writes are refused with what to do, all else goes on, it may even be
//! killed and started there; and when there is room again, it takes writes again.
//!
//! The disk is a tmpfs of a few MiB in a mount namespace that a process of the test's own keeps open,
//! so that a proxy can be started there more than once (`tests/store/full.rs` says why a tmpfs). The test
//! itself reaches it by way of that process's root.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::route_support::Controlled;
use crate::support::{ask, echo, hello, until};

/// What keeps the namespace: says that the disk is there, and waits until its input ends.
const KEEP: &str = "mount -t tmpfs -o size=4m tmpfs \"$0\" && echo mounted && exec cat";

/// A small disk that only this test and its proxies see.
struct Disk {
    keeper: Child,
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", KEEP]).arg(folder.path());
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n");
        Self { keeper, folder }
    }

    /// What runs a program where the disk is seen.
    fn inside(&self) -> Vec<String> {
        let mut under = vec!["nsenter".to_owned(), format!("--target={}", self.keeper.id())];
        under.push("--mount".into());
        if !geteuid().is_root() {
            under.extend(["--user".into(), "--preserve-credentials".into()]);
        }
        under
    }

    /// A file on it, as its proxies name it.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The disk as this process can see it.
    fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.folder.path().strip_prefix("/").unwrap())
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let ballast = self.seen().join("ballast");
        let mut ballast = OpenOptions::new().append(true).create(true).open(ballast).unwrap();
        for size in [64 << 10, 4096, 1] {
            while let Ok(written) = ballast.write(&vec![0; size]) {
                assert!(written > 0);
            }
        }
    }

    fn clear(&self) {
        fs::remove_file(self.seen().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Writes routes until one is refused; gives the words of that, and counts those that were not.
fn write_until_refused(proxy: &Controlled, written: &mut usize) -> String {
    // A route is small and what the store's file has set aside is not: it takes a folder of many.
    for _ in 0..1_000 {
        let many = (0..100).fold(String::new(), |all, at| {
            let id = *written + at;
            all + &crate::support::route(&format!("r{id}.test"), "127.0.0.1:1", "")
        });
        let file = proxy.file("many.toml", &many);
        let output = proxy.run(&["route", "apply", &file, "--keep-others"]);
        if output.status.code() != Some(0) {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            return crate::support::text(&output.stderr);
        }
        *written += 100;
    }
    panic!("this disk is never full");
}

fn assert_told(words: &str, store: &Path) {
    for expected in
        [&*store.display().to_string(), "No space left", "nothing was changed", "make room"]
    {
        assert!(words.contains(expected), "`{expected}` is missing in: {words}");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let disk = Disk::mount();
    let store = disk.path("routes.redb");
    let (inside, path) = (disk.inside(), store.display().to_string());
    let under: Vec<_> = inside.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().unwrap();
    let variables = [("MSE_PROXY_STORE_PATH", &*path)];
    let mut proxy = Controlled::start_under(&under, folder, "", &variables);
    let host = hello("served.test");
    let backend = echo(host.len()).to_string();
    proxy.told(&["route", "set", "served.test", "--backend", &backend]);
    let serves = |proxy: &Controlled| ask(proxy.daemon.address, "served.test").unwrap() == host;
    until("it serves", || serves(&proxy));

    disk.fill();
    let mut written = 0;
    let words = write_until_refused(&proxy, &mut written);
    assert_told(&words, &store);
    let records = proxy.json(&["route", "history", "--limit", "0"])["records"].clone();
    let is_whole = |proxy: &mut Controlled, written: usize| {
        assert!(serves(proxy));
        let routes = proxy.json(&["route", "list"])["routes"].as_array().unwrap().len();
        assert_eq!(routes, written + 1);
        let told = proxy.told(&["route", "history", "--verify"]);
        assert!(told.starts_with("verified: "), "{told}");
        proxy.daemon.admin();
        let (head, _) = proxy.daemon.ask_admin("/ready").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    };
    is_whole(&mut proxy, written);
    assert_eq!(proxy.json(&["route", "history", "--limit", "0"])["records"], records);

    // Killed and started on the full disk: it serves what it has, and still takes nothing.
    proxy.kill();
    proxy.restart();
    is_whole(&mut proxy, written);
    let words = write_until_refused(&proxy, &mut written);
    assert_told(&words, &store);
    is_whole(&mut proxy, written);

    // With room again, writes are taken, and served, without anybody's doing.
    disk.clear();
    let revision = proxy.json(&["route", "set", "latest.test", "--backend", &backend])["revision"]
        .as_u64()
        .unwrap();
    assert!(revision > 0);
    written += 1;
    let later = hello("latest.test");
    until("the new route serves", || ask(proxy.daemon.address, "latest.test").unwrap() == later);
    is_whole(&mut proxy, written);
    proxy.daemon.signal(Signal::TERM);
    assert!(proxy.daemon.wait().success());
    proxy.restart();
    is_whole(&mut proxy, written);
}
