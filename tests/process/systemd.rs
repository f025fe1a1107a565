//! Under systemd's protocols: notifications to a socket of the test's own, the watchdog of a data
//! path that is really stuck, and sockets that `systemd-socket-activate` hands over.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::{
    Daemon, PATIENCE, ask, backend, command, echo, hello, route, routes_file, serve,
};

/// What stands in for systemd: a notification socket, and all that was said to it.
struct Supervisor {
    folder: tempfile::TempDir,
    told: Receiver<String>,
}

impl Supervisor {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let (sender, told) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(size) = socket.recv(&mut bytes) {
                let words = String::from_utf8(bytes[..size].to_vec()).unwrap();
                if sender.send(words).is_err() {
                    return;
                }
            }
        });
        Self { folder, told }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// Waits for a datagram with a line that begins so.
    fn wait(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(told) if told.lines().any(|line| line.starts_with(words)) => return told,
                Ok(told) => seen.push(told),
                Err(error) => panic!("systemd was not told `{words}` ({error}), but {seen:?}"),
            }
        }
    }

    /// Does what systemd's watchdog does: waits until it was not fed for so long.
    fn wait_starved(&self, interval: Duration) {
        let deadline = Instant::now() + PATIENCE;
        let mut fed = Instant::now();
        loop {
            assert!(Instant::now() < deadline, "the watchdog is still fed");
            match self.told.recv_timeout((fed + interval).saturating_duration_since(Instant::now()))
            {
                Ok(told) if told.contains("WATCHDOG=1") => fed = Instant::now(),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn monotonic_micros() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// So many that reading them takes a while, and a client that comes too early would be refused.
fn many_routes(last: &str, backend: SocketAddr) -> String {
    let mut text: String =
        (0..20_000).map(|number| route(&format!("{number}.test"), "127.0.0.1:1", "")).collect();
    text.push_str(&route(last, backend, ""));
    text
}

#[test]
fn ready_comes_when_the_routes_are_in_force_at_the_start_and_at_each_reload() {
    let supervisor = Supervisor::new();
    let backend = echo(hello("a.test").len());
    let (_held, routes) = routes_file(&many_routes("a.test", backend));
    let notify = supervisor.socket().display().to_string();
    let mut daemon = Daemon::serve(&routes, &[("NOTIFY_SOCKET", &notify)]);
    supervisor.wait("READY=1");
    assert_eq!(ask(daemon.address, "a.test").unwrap(), hello("a.test"));
    for host in ["b.test", "c.test", "d.test"] {
        std::fs::write(&routes, many_routes(host, backend)).unwrap();
        let before = monotonic_micros();
        daemon.signal(Signal::HUP);
        let reloading = supervisor.wait("RELOADING=1");
        let told = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let told: i64 = told.unwrap().parse().unwrap();
        assert!((before..=monotonic_micros()).contains(&told), "{before} {told}");
        supervisor.wait("READY=1");
        assert_eq!(ask(daemon.address, host).unwrap(), hello(host));
    }
    daemon.signal(Signal::TERM);
    supervisor.wait("STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_reload_is_over_though_nothing_changed_and_though_there_is_no_source() {
    let supervisor = Supervisor::new();
    let notify = supervisor.socket().display().to_string();
    let (_held, routes) = routes_file("# none\n");
    for path in [Some(&routes), None] {
        let mut start = command();
        serve(&mut start, &routes);
        start.envs([("NOTIFY_SOCKET", &notify)]);
        if path.is_none() {
            start.env_remove("MSE_PROXY_ROUTES_PATH");
        }
        let daemon = Daemon::start(start);
        supervisor.wait("READY=1");
        daemon.signal(Signal::HUP);
        supervisor.wait("RELOADING=1");
        supervisor.wait("READY=1");
    }
}

#[test]
fn a_stop_tells_how_many_sessions_are_left() {
    let supervisor = Supervisor::new();
    let notify = supervisor.socket().display().to_string();
    let (listener, address) = backend();
    let (_held, routes) = routes_file(&route("app.test", address, ""));
    let variables = [
        ("NOTIFY_SOCKET", notify.as_str()),
        ("WATCHDOG_USEC", "6000000"),
        ("MSE_PROXY_DRAIN_TIMEOUT", "10m"),
    ];
    let mut daemon = Daemon::serve(&routes, &variables);
    supervisor.wait("STATUS=serving: 1 route, 0 open sessions");
    let mut client = daemon.dial();
    client.write_all(&hello("app.test")).unwrap();
    let reached = listener.accept().unwrap();
    supervisor.wait("STATUS=serving: 1 route, 1 open session");
    daemon.signal(Signal::TERM);
    supervisor.wait("STOPPING=1");
    let draining = supervisor.wait("STATUS=draining: 1 session left");
    assert!(draining.contains("EXTEND_TIMEOUT_USEC=20000000"), "{draining}");
    // As long as it drains: more time, a fed watchdog, and a word in the log.
    supervisor.wait("WATCHDOG=1");
    supervisor.wait("EXTEND_TIMEOUT_USEC=");
    let line = daemon.wait_log("still draining");
    assert!(line.contains("\"sessions\":1"), "{line}");
    supervisor.wait("WATCHDOG=1");
    drop((client, reached));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_by_the_data_path_and_starves_with_it() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let supervisor = Supervisor::new();
    let notify = supervisor.socket().display().to_string();
    let micros = INTERVAL.as_micros().to_string();
    let (_held, routes) = routes_file("# none\n");
    let mut start = Command::new("python3");
    start.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/hold_thread.py"));
    start.arg(command().get_program()).stdin(Stdio::piped());
    serve(&mut start, &routes);
    start.envs([("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", &micros)]);
    let mut daemon = Daemon::start(start);
    for _ in 0..5 {
        supervisor.wait("WATCHDOG=1");
    }
    for _ in 0..2 {
        // One worker of several: the others, and the control side, go on.
        writeln!(daemon.stdin(), "hold worker-0").unwrap();
        daemon.wait_log("done: hold");
        supervisor.wait_starved(INTERVAL);
        let line = daemon.wait_log("the data path stands still");
        assert!(line.contains("worker-0, accepting on 127.0.0.1:"), "{line}");
        assert!(!line.contains("worker-1"), "{line}");
        // Control was not held: it still tells what it is told to do.
        writeln!(daemon.stdin(), "release worker-0").unwrap();
        daemon.wait_log("the data path turns again");
        supervisor.wait("WATCHDOG=1");
    }
}

#[test]
fn the_watchdog_is_fed_while_there_is_no_descriptor_left() {
    let supervisor = Supervisor::new();
    let notify = supervisor.socket().display().to_string();
    let (_held, routes) = routes_file("# none\n");
    let mut start = Command::new("prlimit");
    start.arg("--nofile=64:64").arg(command().get_program());
    serve(&mut start, &routes);
    start.envs([("NOTIFY_SOCKET", &*notify), ("WATCHDOG_USEC", "3000000")]);
    let mut daemon = Daemon::start(start);
    let clients: Vec<_> = (0..64).map(|_| daemon.dial()).collect();
    daemon.wait_log("cannot accept: the machine is short of something");
    // The sessions that hold the descriptors say nothing and have 5 s to do so.
    for _ in 0..3 {
        supervisor.wait("WATCHDOG=1");
    }
    drop(clients);
}

#[test]
fn a_systemd_that_does_not_read_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let _unread = UnixDatagram::bind(&socket).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(&socket).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"STATUS=the queue is full").is_ok() {}
    let backend = echo(hello("app.test").len());
    let (_held, routes) = routes_file(&route("app.test", backend, ""));
    let notify = socket.display().to_string();
    let mut daemon = Daemon::serve(&routes, &[("NOTIFY_SOCKET", &notify)]);
    daemon.wait_log("systemd does not read what it is told");
    assert_eq!(ask(daemon.address, "app.test").unwrap(), hello("app.test"));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_notification_socket_that_is_gone_harms_nobody() {
    let (_held, routes) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&routes, &[("NOTIFY_SOCKET", "/nonexistent/notify")]);
    daemon.wait_log("systemd cannot be told");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let (_held, routes) = routes_file("# none\n");
    // Whether descriptor 3 is open does not matter: it is not ours.
    let variables = [("LISTEN_FDS", "1"), ("LISTEN_PID", "1"), ("LISTEN_FDNAMES", "tls")];
    let daemon = Daemon::serve(&routes, &variables);
    assert!(daemon.address.ip().is_loopback());
}

/// A port that nobody has, for a program that takes no port 0. It is below those that the kernel
/// gives to whoever does, so that only another run of these tests could come between.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap() + 10_000;
    let ports = (0..1000).map(|_| first + TRIED.fetch_add(1, Ordering::Relaxed));
    let is_free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && TcpListener::bind((Ipv6Addr::LOCALHOST, *port)).is_ok()
    };
    ports.into_iter().find(is_free).unwrap()
}

/// The real thing, which opens sockets, and becomes the proxy when the first client is there.
fn activate(options: &[&str], routes: &Path) -> Daemon {
    let mut start = Command::new("systemd-socket-activate");
    start.args(options);
    start.arg(format!("--setenv=MSE_PROXY_ROUTES_PATH={}", routes.display()));
    start.arg("--setenv=MSE_PROXY_LOG_FORMAT=json");
    start.arg("--setenv=MSE_PROXY_ADMIN_HTTP=");
    start.arg("--setenv=MSE_PROXY_ADMIN_GRPC=");
    start.arg(command().get_program()).arg("serve").stdin(Stdio::null());
    Daemon::spawn(start)
}

/// Where the descriptors of a process listen, in the order of the first ones.
fn listening(process: u32) -> Vec<SocketAddr> {
    let mut of_inode = HashMap::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, port) = fields[1].split_once(':').unwrap();
            let ip = if address.len() == 8 {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            let port = u16::from_str_radix(port, 16).unwrap();
            of_inode.insert(format!("socket:[{}]", fields[9]), SocketAddr::new(ip, port));
        }
    }
    let descriptors = (3..256).filter_map(|descriptor| {
        std::fs::read_link(format!("/proc/{process}/fd/{descriptor}")).ok()
    });
    let mut addresses = Vec::new();
    for address in descriptors.filter_map(|link| of_inode.get(link.to_str()?).copied()) {
        // Each worker has descriptors of its own.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[test]
fn inherited_sockets_serve_from_the_first_connection_on() {
    let backend = echo(hello("app.test").len());
    let (_held, routes) = routes_file(&route("app.test", backend, ""));
    let port = free_port();
    let (v4, v6) = (format!("--listen=127.0.0.1:{port}"), format!("--listen=[::1]:{port}"));
    let mut daemon = activate(&[&v4, &v6, "--fdname=tls:tls6"], &routes);
    daemon.wait_log("as 4.");
    let addresses = listening(daemon.id());
    let [v4, v6] = addresses[..] else { panic!("{addresses:?}") };
    assert!(v4.is_ipv4() && v6.is_ipv6(), "{addresses:?}");

    // Before there is a proxy.
    assert_eq!(ask(v4, "app.test").unwrap(), hello("app.test"));
    for name in ["tls", "tls6"] {
        let line = daemon.wait_log("a socket is inherited");
        assert!(line.contains(&format!("\"name\":\"{name}\"")), "{line}");
    }
    for address in &addresses {
        let line = daemon.wait_log("\"listening\"");
        assert!(line.contains(&format!("\"address\":\"{address}\"")), "{line}");
    }
    assert_eq!(ask(v6, "app.test").unwrap(), hello("app.test"));
    // In the order in which two workers get to it.
    let records = [daemon.record(), daemon.record()];
    for listener in [v4, v6] {
        let listener = listener.to_string();
        let record = records.iter().find(|record| record["listener"] == listener).unwrap();
        assert_eq!(record["outcome"], "closed");
    }
    // They stand in the place of the configured addresses, not beside them.
    assert_eq!(listening(daemon.id()), addresses);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn an_inherited_socket_that_is_not_for_tcp_clients_is_refused_with_a_remedy() {
    let (_held, routes) = routes_file("# none\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut daemon = activate(&["--listen", path.to_str().unwrap(), "--fdname=wrong"], &routes);
    daemon.wait_log("as 3.");
    let _first = UnixStream::connect(&path).unwrap();
    daemon.wait_log("inherited descriptor 3 (`wrong`) is no listening TCP socket");
    daemon.wait_log("must be a ListenStream= with an IP address or a port");
    assert_eq!(daemon.wait().code(), Some(1));
}

#[test]
fn a_connection_in_place_of_a_socket_is_refused() {
    let (_held, routes) = routes_file("# none\n");
    let listen = format!("--listen=127.0.0.1:{}", free_port());
    let mut daemon = activate(&["--accept", &listen], &routes);
    daemon.wait_log("as 3.");
    let [address] = listening(daemon.id())[..] else { panic!("no address") };
    let _first = TcpStream::connect(address).unwrap();
    daemon.wait_log("is no listening TCP socket");
}
