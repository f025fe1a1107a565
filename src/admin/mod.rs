//! What monitoring and people see of a running proxy, over HTTP.
//!
//! `/metrics`, `/live`, `/ready`, `/status.json` and the status page, on a thread and a runtime
//! of their own: however long a scrape takes, neither the data path nor control waits for it.
//! Everything is read, nothing can be changed here, and nothing secret is shown; still it names
//! customers' hosts, which is why it listens on loopback by default.

mod clients;
mod eyes;
mod http;
mod page;
mod query;
mod spares;
mod status;
mod told;
mod watched;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tracing::info;

use crate::proxy::listener::{self, ListenError, listen};

pub use eyes::{Eyes, Readiness};
use spares::Spares;

/// The port that is asked for when nothing is configured.
pub const PORT: u16 = 9180;
/// Answers that look at every route are made on threads of their own, at most this many at a time,
/// so that probes are answered meanwhile.
const HEAVY_THREADS: usize = 2;

/// Where HTTP is served, if anywhere. Written as `ip:port`, or as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Http {
    /// There; port 0 lets the kernel choose.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl Default for Http {
    fn default() -> Self {
        Self::At(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))
    }
}

impl TryFrom<String> for Http {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("`{text}` is no address; write \"127.0.0.1:{PORT}\", \"[::1]:{PORT}\", or \"\" to turn it off")
        })
    }
}

impl From<Http> for String {
    fn from(http: Http) -> Self {
        match http {
            Http::At(address) => address.to_string(),
            Http::Off => Self::new(),
        }
    }
}

/// A socket that listens and is not served yet.
#[derive(Debug)]
pub struct Door {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

/// Opens the socket, if one is wanted.
///
/// # Errors
/// The address cannot be had.
pub fn open(http: Http) -> Result<Option<Door>, ListenError> {
    let Http::At(address) = http else { return Ok(None) };
    let mut doors = listen(&listener::Settings { addresses: vec![address] }, 1)?;
    let Some(door) = doors.pop() else { return Ok(None) };
    let listener = door.of_worker(0).map_err(|error| ListenError { address, error })?;
    let address = door.address();
    Ok(Some(Door { listener, address }))
}

/// A served door. It closes when this is dropped.
pub struct Admin {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Serves it on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread, no runtime or no descriptor.
    pub fn serve(self, eyes: Arc<Eyes>) -> io::Result<Admin> {
        let Self { listener, address } = self;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HEAVY_THREADS)
            .thread_name("admin-heavy")
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let spares = Spares::new()?;
        let (stop, stopping) = watch::channel(false);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(http::serve(listener, spares, eyes, stopping));
            // A heavy answer that is still in the making is for nobody any more.
            runtime.shutdown_background();
        })?;
        info!(url = %format_args!("http://{address}/"), "status page, metrics and probes");
        Ok(Admin { address, stop, thread })
    }
}

impl Admin {
    /// Where it is served, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes it, answers in the making included. Blocks for a moment.
    pub fn close(self) {
        self.stop.send_replace(true);
        // A thread that panicked has said so already.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_nothing() {
        let read = |text: &str| Http::try_from(text.to_owned());
        assert_eq!(read(""), Ok(Http::Off));
        assert_eq!(read("[::1]:0").map(String::from), Ok("[::1]:0".to_owned()));
        assert_eq!(String::from(Http::Off), "");
        for wrong in ["9180", "localhost:9180", "127.0.0.1", "off"] {
            assert!(read(wrong).unwrap_err().contains("127.0.0.1:9180"), "{wrong}");
        }
    }
}
