//! The files in `systemd/`, judged by systemd's own tools and against what the binary really does.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use mse_proxy::config::Config;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Daemon, command, echo, hello, route, text};

const SERVICE: &str = include_str!("../../systemd/mse-proxy.service");
const SOCKET: &str = include_str!("../../systemd/mse-proxy.socket");

/// Where the unit expects the binary.
const INSTALLED: &str = "/usr/local/bin/mse-proxy";

/// Both units in a folder, with this build in the place of the installed one.
fn units() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let service = folder.path().join("mse-proxy.service");
    let socket = folder.path().join("mse-proxy.socket");
    assert!(SERVICE.contains(&format!("ExecStart={INSTALLED} serve --config")));
    std::fs::write(&service, SERVICE.replace(INSTALLED, env!("CARGO_BIN_EXE_mse-proxy"))).unwrap();
    std::fs::write(&socket, SOCKET).unwrap();
    (folder, service, socket)
}

/// All values of a key, in the order in which they stand.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    values(unit, key).pop().unwrap_or_else(|| panic!("no {key}"))
}

fn analyze(arguments: &[&str], files: &[&Path]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).args(files).output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let (_held, service, socket) = units();
    let (is_good, words) = analyze(&["verify"], &[&service, &socket]);
    // 253 brought notify-reload; before, the line is ignored as the unit intends, and told.
    let version = analyze(&["--version"], &[]).1;
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let expected = "Failed to parse service type, ignoring: notify-reload";
    let faults: Vec<&str> = words
        .lines()
        .filter(|line| {
            !(version < 253 && line.contains("mse-proxy.service") && line.ends_with(expected))
        })
        .collect();
    assert!(is_good && faults.is_empty(), "{faults:?}");
    assert_eq!(values(SERVICE, "Type"), ["notify", "notify-reload"]);
}

#[test]
fn the_service_is_exposed_as_little_as_promised() {
    let (_held, service, _) = units();
    let (is_good, words) =
        analyze(&["security", "--offline=yes", "--threshold=15", "--no-pager"], &[&service]);
    let overall = words.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level: f64 =
        overall.split("service: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(is_good && level <= 1.5, "{words}");
}

#[test]
fn the_units_fit_the_built_in_configuration() {
    let config = Config::default();
    let seconds = |key| value(SERVICE, key).strip_suffix('s').unwrap().parse::<u64>().unwrap();
    // Cut sessions and the access log get 5 s each for their last words.
    assert!(seconds("TimeoutStopSec") >= config.drain.timeout.0.as_secs() + 10);
    let descriptors: usize = value(SERVICE, "LimitNOFILE").parse().unwrap();
    assert!(descriptors >= 2 * config.limits.connections.count() + 256);
    let port: u16 = value(SOCKET, "ListenStream").parse().unwrap();
    assert_eq!(config.listen.addresses, [std::net::SocketAddr::from(([0_u16; 8], port))]);
}

/// The system calls that the unit allows.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::from_iter(members("@default"));
    for list in values(SERVICE, "SystemCallFilter") {
        let (list, forbids) = list.strip_prefix('~').map_or((list, false), |list| (list, true));
        for call in list.split_whitespace().flat_map(members) {
            let _ = if forbids { allowed.remove(&call) } else { allowed.insert(call) };
        }
    }
    // Never denied, whatever the lists say: systemd.exec(5).
    allowed.extend(members("@default"));
    allowed
}

/// A call itself, or what systemd puts into a group.
fn members(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let (is_good, words) = analyze(&["syscall-filter", word], &[]);
    assert!(is_good, "{words}");
    let words = words.lines().skip(1).map(str::trim);
    words.filter(|word| !word.is_empty() && !word.starts_with('#')).flat_map(members).collect()
}

#[test]
fn the_system_calls_that_the_proxy_makes_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let (calls, routes) = (folder.path().join("calls"), folder.path().join("routes.toml"));
    let backend = echo(hello("ip.test").len());
    let named = format!("localhost:{}", backend.port());
    std::fs::write(&routes, route("ip.test", backend, "") + &route("dn.test", named, "")).unwrap();
    let mut start = Command::new("strace");
    start.args(["-f", "-qq", "--summary-only", "--summary-columns=name"]);
    start.arg("-o").arg(&calls).arg(command().get_program()).arg("serve");
    let log = folder.path().join("access.log").display().to_string();
    let socket = format!("unix:{}", folder.path().join("run/admin.sock").display());
    let variables = [
        ("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0"),
        ("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0"),
        ("MSE_PROXY_ADMIN_GRPC", &socket),
        ("MSE_PROXY_ROUTES_PATH", routes.to_str().unwrap()),
        ("MSE_PROXY_LOG_FORMAT", "json"),
        ("MSE_PROXY_LOG_ACCESS", &log),
    ];
    let mut daemon = Daemon::start({
        start.envs(variables);
        start
    });
    for host in ["ip.test", "dn.test", "no.test"] {
        let mut client = daemon.dial();
        client.write_all(&hello(host)).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    }
    let children = format!("/proc/{0}/task/{0}/children", daemon.id());
    let proxy: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let signal = |signal| kill_process(Pid::from_raw(proxy).unwrap(), signal).unwrap();
    signal(Signal::HUP);
    daemon.wait_log("asked to read the routes again");
    signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));

    let summary = std::fs::read_to_string(&calls).unwrap();
    let made: BTreeSet<String> = summary
        .lines()
        .map(str::trim)
        .filter(|line| line.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|line| !line.is_empty() && !["syscall", "total"].contains(line))
        .map(str::to_owned)
        .collect();
    assert!(made.contains("epoll_wait") && made.contains("prlimit64"), "{summary}");
    let denied: Vec<_> = made.difference(&allowed_calls()).cloned().collect();
    assert!(denied.is_empty(), "the unit denies {denied:?}");
}
