//! Listening sockets.
//!
//! A door has a socket for each worker (`SO_REUSEPORT`), among which the kernel divides those who
//! come: no worker is woken for another's client, and a slow trickle does not all go to the one that
//! happens to wake first. A socket that was inherited is shared by all of them instead.
//!
//! With `SO_REUSEPORT` alone, a second proxy of the same user would silently take half of the
//! connections. So the first socket of a door is bound without it, which the kernel refuses while
//! anybody else listens there, and is given it only then.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::info;

use crate::proxy::transport::tune;
use crate::systemd::Inherited;

/// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// The section `listen` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen. `[::]` also takes IPv4; port 0 lets the kernel choose.
    pub addresses: Vec<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { addresses: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443))] }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub error: io::Error,
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Door {
    /// The address, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket of the worker with this number, from 0.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of_worker(&self, number: usize) -> io::Result<TcpListener> {
        let socket = self.sockets.get(number % self.sockets.len().max(1));
        socket.ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }
}

/// Opens a door on every address, or none at all, with a socket for each of so many workers.
///
/// # Errors
/// The first address that cannot be had.
pub fn listen(settings: &Settings, workers: usize) -> Result<Vec<Door>, ListenError> {
    let open = |&address| open(address, workers).map_err(|error| ListenError { address, error });
    settings.addresses.iter().map(open).collect()
}

/// Takes over sockets that were opened for us; they stand in the place of `listen.addresses`. What
/// they are bound to is the business of whoever opened them.
///
/// # Errors
/// The first socket that does not take our options.
pub fn adopt(inherited: Vec<Inherited>) -> io::Result<Vec<Door>> {
    let adopt_one = |Inherited { name, socket }| {
        tune(&SockRef::from(&socket))?;
        let address = socket.local_addr()?;
        info!(%address, name, "a socket is inherited, and listen.addresses is not used");
        Ok(Door { address, sockets: vec![socket] })
    };
    inherited.into_iter().map(adopt_one).collect()
}

fn open(address: SocketAddr, workers: usize) -> io::Result<Door> {
    let first = bind(address, false)?;
    let chosen = first.local_addr()?.as_socket().unwrap_or(address);
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind(chosen, true)?);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(Door { address: chosen, sockets: sockets.into_iter().map(TcpListener::from).collect() })
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` means every address of the machine; any other IPv6 address means itself.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of the process before it to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket)
}
