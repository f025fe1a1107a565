//! Dialling a backend within one budget.
//!
//! The endpoints of a route are tried in their order, and again after a short growing pause: an
//! enclave's port refuses for seconds while its configuration server hands over to the app, and
//! for a single backend trying again beats marking it as down. The budget covers everything; when
//! it is spent, the last failure tells the outcome.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_nodelay;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::outcome::Outcome;
use crate::proxy::backend::addresses::Addresses;
use crate::proxy::connections::Ledger;
use crate::proxy::descriptors::is_shortage;
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::engine::reactor::Reactor;
use crate::proxy::engine::socket::Socket;
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::seen::Fit;
use crate::units::Period;

/// The first pause; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause: half a second of unneeded waiting at the most.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The section `backend` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The whole budget, retries included.
    pub connect_timeout: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: Period(Duration::from_secs(5)) }
    }
}

/// Why no endpoint could be reached within the budget: the last thing that was tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The port is closed, or nobody listens at the path.
    #[error("connection refused")]
    Refused,
    /// No answer came.
    #[error("no answer")]
    TimedOut,
    /// DNS has told no address yet.
    #[error("no address is known")]
    Unresolved,
    /// None of them was seen to have the key that the route is pinned to.
    #[error("no backend was seen to have the pinned key")]
    Unproven,
    /// No way leads there.
    #[error("unreachable: {0}")]
    Unreachable(io::Error),
    /// We could not even try.
    #[error("{0}")]
    Local(io::Error),
}

impl From<&ConnectError> for Outcome {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::BackendRefused,
            ConnectError::TimedOut => Self::BackendTimeout,
            ConnectError::Unresolved | ConnectError::Unreachable(_) => Self::BackendUnreachable,
            ConnectError::Unproven => Self::BackendTls,
            ConnectError::Local(_) => Self::Internal,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A Unix socket whose queue is full would block.
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::Unreachable(error),
            _ => Self::Local(error),
        }
    }
}

impl From<Passed> for ConnectError {
    fn from(Passed: Passed) -> Self {
        Self::TimedOut
    }
}

/// Who can connect to the backends of a route.
pub trait Connect: 'static {
    /// What a connection is.
    type Stream: Transport;

    /// Connects to one endpoint of the route, and tells its place among them; or gives up when its budget is spent. `timer` is the
    /// session's own, and free to be set meanwhile.
    ///
    /// # Errors
    /// The last failure.
    fn connect(
        &self,
        route: &Route,
        timer: &mut Deadline,
    ) -> impl Future<Output = Result<(Self::Stream, usize), ConnectError>>;
}

/// Connects over the network.
#[derive(Debug)]
pub struct Dialer {
    reactor: Reactor,
    budget: Duration,
    addresses: Addresses,
    ledger: Arc<Ledger>,
}

impl Dialer {
    /// A dialer of the worker with this reactor, that reads the addresses of named backends from `addresses`, and when descriptors
    /// run out gives up sessions of `ledger` that have shown no name for one that has.
    #[must_use]
    pub fn new(
        reactor: Reactor,
        settings: &Settings,
        addresses: Addresses,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { reactor, budget: settings.connect_timeout.0, addresses, ledger }
    }

    /// Tries one endpoint until `deadline`.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        timer: &mut Deadline,
    ) -> Result<Socket, ConnectError> {
        match endpoint {
            Endpoint::Ip(address) => self.tcp(*address, deadline, timer).await,
            Endpoint::Unix(path) => {
                timer.set(deadline);
                Ok(timer.bound(Socket::connect_unix(&self.reactor, path)).await??)
            }
            Endpoint::Name(name, port) => {
                let addresses = self.addresses.known(name).ok_or(ConnectError::Unresolved)?;
                let mut last = ConnectError::Unresolved;
                for (index, address) in addresses.iter().enumerate() {
                    let share = share(deadline, addresses.len() - index);
                    let address = SocketAddr::new(*address, *port);
                    match self.tcp(address, share, timer).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    async fn tcp(
        &self,
        address: SocketAddr,
        deadline: Instant,
        timer: &mut Deadline,
    ) -> Result<Socket, ConnectError> {
        timer.set(deadline);
        // Keepalive is for those who stay: the relay asks for it.
        let prepare = |socket: BorrowedFd<'_>| Ok(set_tcp_nodelay(socket, true)?);
        Ok(timer.bound(Socket::connect(&self.reactor, address, prepare)).await??)
    }
}

impl Connect for Dialer {
    type Stream = Socket;

    async fn connect(
        &self,
        route: &Route,
        timer: &mut Deadline,
    ) -> Result<(Socket, usize), ConnectError> {
        let deadline = Instant::now() + self.budget;
        let mut pause = FIRST_PAUSE;
        loop {
            let is_let_through = |place: &usize| route.fit(*place) == Fit::Matches;
            let mut left = (0..route.backends.len()).filter(is_let_through).count();
            let mut last = ConnectError::Unproven;
            for (index, endpoint) in route.backends.iter().enumerate() {
                if !is_let_through(&index) {
                    continue;
                }
                let share = share(deadline, left);
                left -= 1;
                match self.dial(endpoint, share, timer).await {
                    Ok(stream) => return Ok((stream, index)),
                    Err(error) => last = error,
                }
            }
            if matches!(last, ConnectError::Unproven) || Instant::now() + pause >= deadline {
                return Err(last);
            }
            if matches!(&last, ConnectError::Local(error) if is_shortage(error)) {
                self.ledger.shed(1, Instant::now());
            }
            timer.set(Instant::now() + pause);
            timer.passed().await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Until when the first of `left` candidates may try, so that a silent one leaves time for the rest.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let parts = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + deadline.saturating_duration_since(now) / parts
}
