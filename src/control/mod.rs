//! The services by which routes and apps are read and changed while the proxy runs, over gRPC.
//!
//! [`proto`] is `route.proto` and `app.proto` as Rust. The side that answers has threads and a runtime of its own,
//! as the admin room does: neither the data path nor the expiry of routes waits for anything that is
//! asked here. Whoever may open the Unix socket, or has a certificate of the right
//! authority, may do everything. [`dial`] and [`client`] are the side that asks: they know a running
//! proxy by its endpoint and nothing else of it.

mod accept;
pub mod address;
mod apps;
pub mod client;
pub mod convert;
pub mod dial;
mod gate;
mod impact;
mod past;
mod peer;
mod pem;
pub mod proto;
mod read;
mod registry_client;
mod serve;
mod service;
mod status;
pub mod tls;
mod unix;
mod watch;
pub mod write;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tracing::info;

use crate::admin::Eyes;
use crate::clock::Clock;
use crate::proxy::connections::OnRemove;
use crate::proxy::listener::{self, ListenError, listen};
use crate::registrar::Registrar;
use crate::resolve::dns::Dns;
use crate::source::stored::Handle;
use accept::Listener;
use address::Address;
use service::Registry;
use tls::Tls;
use unix::Bound;
use write::Writer;

pub use tls::TlsError;
pub use unix::UnixError;

/// One that judges writes, and one that answers meanwhile.
const THREADS: usize = 2;
/// Answers that look at every route are made on threads of their own, at most this many at a time.
const HEAVY_THREADS: usize = 2;

/// Why the control service cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Unix socket cannot be had.
    #[error(transparent)]
    Unix(#[from] UnixError),
    /// The TCP address cannot be had.
    #[error(transparent)]
    Tcp(#[from] ListenError),
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A socket that listens and is not served yet.
#[derive(Debug)]
pub struct Door {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Unix(Bound),
    Tcp(TcpListener, Arc<Tls>),
}

/// Opens the socket, if one is wanted.
///
/// # Errors
/// It cannot be had; nothing is left behind then.
pub fn open(address: &Address, tls: &tls::Settings) -> Result<Option<Door>, OpenError> {
    let (socket, address) = match address {
        Address::Off => return Ok(None),
        Address::Unix(path) => (Socket::Unix(Bound::open(path)?), address.clone()),
        Address::Tcp(tcp) => {
            let tls = Tls::load(tls)?;
            let mut doors = listen(&listener::Settings { addresses: vec![*tcp] }, 1)?;
            let Some(door) = doors.pop() else { return Ok(None) };
            let blame = |error| ListenError { address: *tcp, error };
            let listener = door.of_worker(0).map_err(blame)?;
            (Socket::Tcp(listener, Arc::new(tls)), Address::Tcp(door.address()))
        }
    };
    Ok(Some(Door { socket, address }))
}

/// What can be asked about and changed.
#[derive(Debug)]
pub struct Subject {
    /// What can be seen.
    pub eyes: Arc<Eyes>,
    /// What becomes of live connections whose route goes.
    pub on_remove: OnRemove,
    /// Where routes are kept that can be changed, if anywhere, and by which rules.
    pub store: Option<(Handle, write::Settings)>,
    /// Who keeps apps and projects there.
    pub registrar: Option<Arc<Registrar<Dns>>>,
}

/// A served door. It closes when this is dropped.
pub struct Control {
    address: Address,
    stop: tokio::sync::watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Serves it on threads of its own.
    ///
    /// # Errors
    /// The system gives no thread, no runtime or no descriptor.
    pub fn serve(self, subject: Subject) -> io::Result<Control> {
        let Self { socket, address } = self;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .max_blocking_threads(HEAVY_THREADS)
            .thread_name("grpc")
            .build()?;
        let entered = runtime.enter();
        let (listener, bound) = match socket {
            Socket::Unix(bound) => {
                let listener = tokio::net::UnixListener::from_std(bound.listener()?)?;
                (Listener::Unix(listener), Some(bound))
            }
            Socket::Tcp(listener, tls) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                (Listener::Tcp(listener, tls), None)
            }
        };
        let Subject { eyes, on_remove, store, registrar } = subject;
        let registry = store.map(|(handle, settings)| {
            let clock = Arc::clone(&eyes.clock) as Arc<dyn Clock>;
            let (writer, work) = Writer::new(handle.clone(), eyes.table.clone(), clock, settings);
            tokio::spawn(work);
            Registry { handle, writer }
        });
        drop(entered);
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let readiness = eyes.readiness.clone();
        let clock = Arc::clone(&eyes.clock) as Arc<dyn Clock>;
        let apps = apps::Apps { registrar, clock };
        let routes = service::Routes { eyes, on_remove, registry };
        let thread = std::thread::Builder::new().name("grpc".into()).spawn(move || {
            runtime.block_on(serve::serve(listener, (routes, apps), readiness, stopping));
            // First, so that nobody is led to a socket that answers no more.
            drop(bound);
            // A heavy answer that is still in the making is for nobody any more.
            runtime.shutdown_background();
        })?;
        info!(%address, "control service");
        Ok(Control { address, stop, thread })
    }
}

impl Control {
    /// Where it is served, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Closes it. Calls that run get a moment to finish, and this blocks for as long.
    pub fn close(self) {
        self.stop.send_replace(true);
        // A thread that panicked has said so already.
        let _ = self.thread.join();
    }
}
