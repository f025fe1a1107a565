//! What a daemon has to bear: crowds, floods, stalled clients, a machine without descriptors, being
//! killed, an end that comes for thousands at once. Whoever does nothing wrong never notices.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use mse_proxy::clock::Timestamp;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Daemon, PATIENCE, alone, ask, ask_often, backend, command, echo, hello, route, routes_file,
    until,
};

/// What this process may have open, raised as far as it goes.
fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}

/// As many as wanted, or as many as this machine lets the proxy serve at once.
fn as_many_as_fit(wanted: usize) -> usize {
    // What the proxy (with its pipes) and this process need beside connections, of which the proxy
    // holds two ends.
    let pipes = 2 * 64 * std::thread::available_parallelism().unwrap().get();
    let possible = descriptors().saturating_sub(700 + pipes) / 2;
    assert!(possible >= 1000, "a hard limit of 3000 descriptors is needed: ulimit -Hn");
    wanted.min(possible)
}

/// A backend in a process of its own.
struct Crowd(Child);

impl Crowd {
    fn start() -> (Self, SocketAddr) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/echo.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        (Self(child), (Ipv4Addr::LOCALHOST, port.trim().parse().unwrap()).into())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that is through to a backend which echoes.
fn through(daemon: &Daemon, host: &str) -> TcpStream {
    let bytes = hello(host);
    let mut client = daemon.dial();
    client.write_all(&bytes).unwrap();
    client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    client
}

fn exchange(client: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
}

fn tally(records: impl Iterator<Item = Value>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for record in records {
        *counts.entry(record["outcome"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn ten_thousand_live_connections_end_with_their_route_and_others_go_on() {
    let _turn = alone();
    let count = as_many_as_fit(10_000);
    let (_crowd, address) = Crowd::start();
    let with_end = |end: &str| route("ends.test", address, end) + &route("stays.test", address, "");
    let (_held, routes) = routes_file(&with_end(""));
    let daemon = Daemon::serve(&routes, &[]);
    let before = daemon.peak_memory();
    let mut clients: Vec<_> = (0..count).map(|_| through(&daemon, "ends.test")).collect();
    let grown = daemon.peak_memory() - before;
    eprintln!("{count} connections: {} bytes of memory each", grown * 1024 / count as u64);
    let mut other = through(&daemon, "stays.test");
    daemon.wait_metric("mse_proxy_sessions_open", |open| open > count as u64);

    let end = Timestamp::now() + SignedDuration::from_secs(3);
    std::fs::write(&routes, with_end(&format!("expires_at = {end}"))).unwrap();
    let is_over = AtomicBool::new(false);
    let (last_reset, (rounds, slowest)) = std::thread::scope(|scope| {
        let talks = scope.spawn(|| {
            let (mut rounds, mut slowest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                exchange(&mut other);
                slowest = slowest.max(began.elapsed());
                rounds += 1;
            }
            (rounds, slowest)
        });
        for client in &mut clients {
            let end = client.read(&mut [0]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        }
        let last_reset = Timestamp::now().duration_since(end);
        is_over.store(true, Ordering::Relaxed);
        (last_reset, talks.join().unwrap())
    });
    eprintln!("the last of {count} was reset {last_reset:#} after the end of the route");
    eprintln!("meanwhile another session had {rounds} round trips, the slowest of {slowest:?}");
    assert!(!last_reset.is_negative(), "nobody is cut before the end");
    assert!(last_reset < SignedDuration::from_secs(5), "{last_reset:#}");
    assert!(rounds > 0 && slowest < Duration::from_secs(5), "{rounds} {slowest:?}");
    let counts = tally((0..count).map(|_| daemon.record()));
    assert_eq!(counts.get("route_expired"), Some(&count), "{counts:?}");
    exchange(&mut other);
}

#[test]
fn a_few_long_connections_are_divided_among_the_workers() {
    let workers = std::thread::available_parallelism().unwrap().get();
    let (_crowd, address) = Crowd::start();
    let (_held, routes) = routes_file(&route("app.test", address, ""));
    let daemon = Daemon::serve(&routes, &[]);
    let wait_each = |wanted: u64| {
        for worker in 0..workers {
            let metric = format!("mse_proxy_worker_sessions_open{{worker=\"{worker}\"}}");
            daemon.wait_metric(&metric, |open| open == wanted);
        }
    };
    // By the hash of their addresses alone, two would come to one of two workers every other time.
    for _ in 0..10 {
        wait_each(0);
        let clients: Vec<_> = (0..workers).map(|_| through(&daemon, "app.test")).collect();
        wait_each(1);
        drop(clients);
    }
}

#[test]
fn five_thousand_stalled_hellos_hold_up_no_good_client() {
    let _turn = alone();
    let count = as_many_as_fit(5_000);
    let bytes = hello("app.test");
    let (_held, routes) = routes_file(&route("app.test", echo(bytes.len()), ""));
    let variables =
        [("MSE_PROXY_LIMITS_PENDING_HELLOS_PER_SOURCE", "0"), ("MSE_PROXY_HELLO_TIMEOUT", "10m")];
    let daemon = Daemon::serve(&routes, &variables);
    let mut stalled = Vec::new();
    for number in 0..count {
        let mut client = daemon.dial();
        client.write_all(&bytes[..number % bytes.len()]).unwrap();
        stalled.push(client);
    }
    daemon.wait_metric("mse_proxy_hellos_pending", |pending| pending == count as u64);
    let began = Instant::now();
    ask_often(daemon.address, "app.test", 400, &bytes);
    eprintln!("400 good clients beside {count} stalled ones took {:?}", began.elapsed());
    // Those who stalled are still welcome.
    for (number, client) in stalled.iter_mut().enumerate().step_by(100) {
        client.write_all(&bytes[number % bytes.len()..]).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, bytes);
    }
}

/// Connects from another address of loopback.
fn dial_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

const FLOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn a_flood_from_one_source_leaves_another_served() {
    let _turn = alone();
    let bytes = hello("app.test");
    let (_held, routes) = routes_file(&route("app.test", echo(bytes.len()), ""));
    let variables = [
        ("MSE_PROXY_LIMITS_CONNECTIONS", "400"),
        ("MSE_PROXY_LIMITS_CONNECTIONS_PER_SOURCE", "100"),
        ("MSE_PROXY_LIMITS_PENDING_HELLOS_PER_SOURCE", "50"),
        ("MSE_PROXY_HELLO_TIMEOUT", "10m"),
    ];
    let daemon = Daemon::serve(&routes, &variables);
    let is_over = AtomicBool::new(false);
    let flooded = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let flood = || {
            let mut held = std::collections::VecDeque::new();
            // No more than the ports that a client has.
            while !is_over.load(Ordering::Relaxed) && flooded.load(Ordering::Relaxed) < 20_000 {
                held.push_back(dial_from(FLOOD, daemon.address).unwrap());
                flooded.fetch_add(1, Ordering::Relaxed);
                if held.len() > 200 {
                    held.pop_front();
                }
            }
            until("the others are served", || is_over.load(Ordering::Relaxed));
        };
        for _ in 0..3 {
            scope.spawn(flood);
        }
        until("the flood is there", || flooded.load(Ordering::Relaxed) > 500);
        for _ in 0..200 {
            assert_eq!(ask(daemon.address, "app.test").unwrap(), bytes);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // All have gone; whoever of them was not refused had left.
    daemon.wait_metric("mse_proxy_sessions_open", |open| open == 0);
    let total = flooded.into_inner() + 200;
    let records: Vec<_> = (0..total).map(|_| daemon.record()).collect();
    let of = |source: &str| {
        let prefix = format!("{source}:");
        let is_of = |one: &&Value| one["client"].as_str().unwrap().starts_with(&prefix);
        tally(records.iter().filter(is_of).cloned())
    };
    assert_eq!(of("127.0.0.1"), HashMap::from([("closed".to_owned(), 200)]));
    let flood = of(&FLOOD.to_string());
    eprintln!("the flood: {flood:?}");
    assert!(flood["limit_source"] > 0, "{flood:?}");
}

#[test]
fn without_descriptors_the_nameless_go_first_and_named_sessions_go_on() {
    let _turn = alone();
    descriptors();
    let (_crowd, address) = Crowd::start();
    let (_held, routes) = routes_file(&route("app.test", address, ""));
    let variables =
        [("MSE_PROXY_LIMITS_PENDING_HELLOS_PER_SOURCE", "0"), ("MSE_PROXY_HELLO_TIMEOUT", "10m")];
    let mut daemon = Daemon::serve(&routes, &variables);
    let mut named: Vec<_> = (0..100).map(|_| through(&daemon, "app.test")).collect();
    // From now on the machine is shorter of descriptors than it said at the start.
    let most = u64::try_from(daemon.descriptors() + 60).unwrap();
    let process = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(process), Resource::Nofile, limit).unwrap();
    let mut silent: Vec<_> = (0..200).map(|_| daemon.dial()).collect();
    daemon.wait_log("cannot accept: the machine is short of something");
    // Names that come now find room, and so does whoever looks at the admin port.
    for round in 0..20 {
        named.push(through(&daemon, "app.test"));
        silent.push(daemon.dial());
        exchange(&mut named[round]);
    }
    until("the admin port answers", || {
        daemon.ask_admin("/live").is_ok_and(|(head, _)| head.starts_with("HTTP/1.1 200"))
    });
    for client in &mut named {
        exchange(client);
    }
    let held = named.len();
    let shed: Vec<Value> = daemon.records.try_iter().collect();
    let counts = tally(shed.into_iter());
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["limit_connections"], "only the nameless went");
    eprintln!("{held} named sessions went on, {counts:?} nameless ones were shed");
    // And when the rush is over, all is as before.
    drop(silent);
    daemon.wait_metric("mse_proxy_sessions_open", |open| open == held as u64);
    exchange(&mut through(&daemon, "app.test"));
}

#[test]
fn killed_under_load_it_is_back_on_its_port_at_once() {
    let bytes = hello("app.test");
    let (_held, routes) = routes_file(&route("app.test", echo(bytes.len()), ""));
    let mut daemon = Daemon::serve(&routes, &[]);
    let address = daemon.address;
    let is_over = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // While it is dead there is nobody, or a reset; an answer is never a wrong one.
                    if let Ok(answer) = ask(address, "app.test")
                        && !answer.is_empty()
                    {
                        assert_eq!(answer, bytes);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..5 {
            let before = served.load(Ordering::Relaxed);
            until("clients are served", || served.load(Ordering::Relaxed) > before + 100);
            daemon.signal(Signal::KILL);
            assert_eq!(daemon.wait().code(), None);
            let listen = address.to_string();
            daemon = Daemon::serve(&routes, &[("MSE_PROXY_LISTEN_ADDRESSES", &listen)]);
            assert_eq!(daemon.address, address);
        }
        let before = served.load(Ordering::Relaxed);
        until("clients are served again", || served.load(Ordering::Relaxed) > before + 100);
        is_over.store(true, Ordering::Relaxed);
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_drain_says_so_takes_nobody_lets_finish_and_cuts_the_rest() {
    let (listener, address) = backend();
    let (_held, routes) = routes_file(&route("app.test", address, ""));
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_DRAIN_TIMEOUT", "6s")]);
    let mut sides = Vec::new();
    for _ in 0..3 {
        let mut client = daemon.dial();
        client.write_all(&hello("app.test")).unwrap();
        let (mut reached, _) = listener.accept().unwrap();
        reached.read_exact(&mut vec![0; hello("app.test").len()]).unwrap();
        sides.push((client, reached));
    }
    let (head, _) = daemon.ask_admin("/ready").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    daemon.signal(Signal::TERM);
    let line = daemon.wait_log("\"draining\"");
    assert!(line.contains("\"sessions\":3"), "{line}");
    let (head, why) = daemon.ask_admin("/ready").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && why.contains("draining"), "{head} {why}");
    assert_eq!(daemon.metric("mse_proxy_ready"), 0);
    until("nobody is taken any more", || TcpStream::connect(daemon.address).is_err());
    // One talks on and finishes in its own time.
    let (mut client, mut reached) = sides.pop().unwrap();
    reached.write_all(b"last words").unwrap();
    let mut words = [0; 10];
    client.read_exact(&mut words).unwrap();
    drop((client, reached));
    let line = daemon.wait_log("still draining");
    assert!(line.contains("\"sessions\":2"), "{line}");
    assert_eq!(daemon.wait().code(), Some(0));
    let line = daemon.wait_log("\"drained\"");
    assert!(line.contains("\"cut\":2"), "{line}");
    for (client, _) in &mut sides {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut counts = tally(daemon.records.iter());
    // Looks whether somebody is still taken may have been.
    counts.remove("client_left");
    assert_eq!(counts, HashMap::from([("closed".to_owned(), 1), ("drained".to_owned(), 2)]));
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_and_one_that_is_too_low_is_told() {
    let (_held, routes) = routes_file("# none\n");
    let serve = |limit: &str, connections: &str| {
        let mut start = Command::new("prlimit");
        start.arg(format!("--nofile={limit}")).arg(command().get_program()).arg("serve");
        start
            .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_GRPC", "")
            .env("MSE_PROXY_ROUTES_PATH", &routes)
            .env("MSE_PROXY_LIMITS_CONNECTIONS", connections)
            .env("MSE_PROXY_LOG_FORMAT", "json");
        Daemon::start(start)
    };
    let soft = |daemon: &Daemon| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    // Two for each of 1000 connections, 512 for everything else, and 64 pipes for each core.
    let cores = std::thread::available_parallelism().unwrap().get();
    let hard = (2 * 1000 + 512 + 2 * 64 * cores).to_string();
    let mut daemon = serve(&format!("256:{hard}"), "1500");
    assert_eq!(soft(&daemon), hard);
    daemon.wait_seen("limits.connections cannot be reached and is lowered");
    assert_eq!(daemon.metric("mse_proxy_sessions_limit"), 1000);
    let mut daemon = serve(&format!("256:{hard}"), "1000");
    assert_eq!(soft(&daemon), hard);
    let told = |line: &&String| line.contains("\"WARN\"");
    assert_eq!(daemon.seen().iter().find(told), None, "no noise when all is well");
}

#[test]
fn limits_that_the_machine_cannot_meet_are_told_at_the_start() {
    let (_held, routes) = routes_file("# none\n");
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_LIMITS_CONNECTIONS_PER_ROUTE", "70000")]);
    // No machine has so many ports.
    daemon.wait_seen("limits.connections_per_route allows 70000 connections");
}
