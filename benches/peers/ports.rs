//! Ports that stay free: below the range from which the kernel takes the ports of outgoing
//! connections, so that none of thousands of clients sits on a proxy's address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
/// What is taken where the kernel does not tell its range.
const USUAL_RANGE: u16 = 32_768;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listens on a free port of loopback.
pub(crate) fn listen() -> io::Result<TcpListener> {
    /// How many ports this process has tried, so that two listeners never get the same.
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let end = first_of_range().max(FIRST + 1);
    let start = u16::try_from(std::process::id() % u32::from(u16::MAX)).unwrap_or_default();
    for _ in 0..end - FIRST {
        let step = start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + step % (end - FIRST);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Without SO_REUSEADDR first: a port with connections that still linger is not free.
        if TcpListener::bind(address).is_ok() {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            return Ok(socket.into());
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port below the ephemeral range"))
}

/// A port of loopback that is free now and that nobody takes by chance.
pub(crate) fn free() -> io::Result<SocketAddr> {
    listen()?.local_addr()
}

fn first_of_range() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(USUAL_RANGE)
}
