//! When no pipe is to be had, bulky sessions are copied: the same bytes, ends and resets as with
//! pipes, and pipes again as soon as there are some.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use socket2::SockRef;

use crate::support::{Daemon, PATIENCE, backend, hello, route, routes_file};

const MIB: usize = 1 << 20;
/// Far more than what must be copied before a direction counts as bulky.
const BULK: usize = 16 * MIB;
const SPLICED: &str = "mse_proxy_splice_bytes_total";

/// A client and the backend that it was brought to.
struct Pair {
    client: TcpStream,
    backend: TcpStream,
    hello_size: u64,
}

fn pair(daemon: &Daemon, listener: &TcpListener) -> Pair {
    let bytes = hello("app.test");
    let mut client = daemon.dial();
    client.write_all(&bytes).unwrap();
    let mut backend = listener.accept().unwrap().0;
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    backend.read_exact(&mut vec![0; bytes.len()]).unwrap();
    Pair { client, backend, hello_size: bytes.len() as u64 }
}

/// From now on the proxy may open only descriptors below this one; tells what it was before.
fn allow(daemon: &Daemon, below: Option<u64>) -> Option<u64> {
    let process = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: below, maximum };
    prlimit(process, Resource::Nofile, limit).unwrap().current
}

fn pattern(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| ((at / 251 + at % 251) % 256).to_le_bytes()[0] ^ seed).collect()
}

fn carry(from: &mut TcpStream, to: &mut TcpStream, size: usize, seed: u8) {
    let bytes = pattern(size, seed);
    let mut received = vec![0; size];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == bytes, "{size} bytes arrive unchanged");
}

/// Says its last words and finishes; the other side has them whole, then the end.
fn finish(from: &mut TcpStream, to: &mut TcpStream, size: usize, seed: u8) {
    let words = pattern(size, seed);
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.write_all(&words).unwrap();
            from.shutdown(Shutdown::Write).unwrap();
        });
        to.read_to_end(&mut received).unwrap();
    });
    assert!(received == words, "the last words arrive whole, then the end");
}

#[test]
fn without_a_pipe_bulk_is_copied_with_the_same_ends_and_spliced_again_later() {
    let (listener, address) = backend();
    let (_held, routes) = routes_file(&route("app.test", address, ""));
    let daemon = Daemon::serve(&routes, &[]);
    let mut pairs: Vec<Pair> = (0..5).map(|_| pair(&daemon, &listener)).collect();
    assert_eq!(daemon.metric(SPLICED), 0);
    // Not even one that a session gives back.
    let before = allow(&daemon, Some(1));

    for pair in &mut pairs {
        carry(&mut pair.client, &mut pair.backend, BULK, 1);
        carry(&mut pair.backend, &mut pair.client, BULK, 2);
    }
    for client_first in [true, false] {
        let Pair { mut client, mut backend, hello_size } = pairs.pop().unwrap();
        let (first, second) =
            if client_first { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
        finish(first, second, 3 * MIB, 3);
        finish(second, first, 10 * MIB, 4);
        let record = daemon.record();
        assert_eq!(record["outcome"], "closed");
        let (upward, downward) = if client_first { (3, 10) } else { (10, 3) };
        assert_eq!(record["to_backend_bytes"], hello_size + (BULK + upward * MIB) as u64);
        assert_eq!(record["to_client_bytes"], BULK + downward * MIB);
    }
    for (client_breaks, outcome) in [(true, "client_reset"), (false, "backend_reset")] {
        let Pair { client, backend, .. } = pairs.pop().unwrap();
        let (mut breaking, mut other) =
            if client_breaks { (client, backend) } else { (backend, client) };
        // Nobody reads these: they fill both sockets.
        other.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let held_up = other.write_all(&vec![5; 64 * MIB]).unwrap_err();
        assert_eq!(held_up.kind(), ErrorKind::WouldBlock, "a reader that stands still");
        breaking.write_all(b"last words").unwrap();
        let mut words = [0; 10];
        other.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"last words");
        SockRef::from(&breaking).set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaking);
        let end = other.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        assert_eq!(daemon.record()["outcome"], outcome);
    }

    allow(&daemon, before);
    assert_eq!(daemon.metric(SPLICED), 0, "there was no pipe to be had");
    let mut pair = pairs.pop().unwrap();
    carry(&mut pair.client, &mut pair.backend, BULK, 5);
    assert!(daemon.metric(SPLICED) > 0, "and now there is");
    finish(&mut pair.backend, &mut pair.client, 3 * MIB, 6);
}
