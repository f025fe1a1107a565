//! Listening sockets.
//!
//! One socket an address, shared by all workers: its queue belongs to nobody, so nothing in it is
//! lost or reset when a worker stops, and a port that is in use is an error (with `SO_REUSEPORT` a
//! second proxy of the same user would silently take half of the connections).

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

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

/// Opens a listening socket on every address, or none at all.
///
/// # Errors
/// The first address that cannot be had.
pub fn listen(settings: &Settings) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let open = |&address| open(address).map_err(|error| ListenError { address, error });
    settings.addresses.iter().map(open).collect()
}

/// Takes over sockets that were opened for us; they stand in the place of `listen.addresses`. What
/// they are bound to is the business of whoever opened them.
///
/// # Errors
/// The first socket that does not take our options.
pub fn adopt(inherited: Vec<Inherited>) -> io::Result<Vec<std::net::TcpListener>> {
    let adopt_one = |Inherited { name, socket }| {
        tune(&SockRef::from(&socket))?;
        let address = socket.local_addr()?;
        info!(%address, name, "a socket is inherited, and listen.addresses is not used");
        Ok(socket)
    };
    inherited.into_iter().map(adopt_one).collect()
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` means every address of the machine; any other IPv6 address means itself.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of the process before it to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
