//! One HTTP/2 connection to one member.
//!
//! It is dialled, used and dropped; it never becomes another one behind the caller's back. So
//! a call knows to whom it speaks, and whether its request may have gone out: tonic's own channel
//! connects again by itself and cannot tell.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::iter::successors;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower_service::Service;

use super::settings::Address;
use crate::endpoint::Endpoint;

/// Pings while an answer or a change is awaited. etcd hangs up on whoever pings more often than every
/// 5 s (`--grpc-keepalive-min-time`), or while nothing is awaited.
const PING_INTERVAL: Duration = Duration::from_secs(7);
/// With it, a peer that has fallen silent is given up after 12 s.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// While nothing is awaited the kernel asks.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection, shared by whoever calls over it. It closes with its last owner.
#[derive(Clone)]
pub(super) struct Link {
    sender: SendRequest<Body>,
    origin: Uri,
    driver: Arc<Driver>,
}

/// The task that moves the bytes of a connection.
struct Driver {
    task: JoinHandle<()>,
    /// Why it ended, where that was a failure: a TLS alert, for example, which comes late.
    end: Arc<OnceLock<String>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a member could not be dialled.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("no HTTP/2: {0}")]
    Http2(String),
    /// An address that is no URL, or no name for TLS.
    #[error("it cannot be dialled")]
    Address,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The request never left.
    #[error("the connection was gone: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection broke off: {0}")]
    Lost(String),
}

/// An error with all that led to it.
fn chain(error: &dyn Error) -> String {
    let causes = successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Link {
    /// Connects to a member. The caller bounds the time. The other side has said nothing yet when
    /// this returns, except for TLS.
    pub(super) async fn dial(
        address: &Address,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, DialError> {
        let origin: Uri = address.to_string().parse().map_err(|_| DialError::Address)?;
        let (stream, name) = match &address.endpoint {
            Endpoint::Ip(at) => (TcpStream::connect(at).await, at.ip().to_string()),
            Endpoint::Name(name, port) => {
                (TcpStream::connect((name.as_str(), *port)).await, name.as_str().to_owned())
            }
            Endpoint::Unix(_) => return Err(DialError::Address),
        };
        let stream = stream.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let keepalive = TcpKeepalive::new()
            .with_time(TCP_KEEPALIVE)
            .with_interval(TCP_KEEPALIVE / 3)
            .with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(DialError::Connect)?;
        match tls.filter(|_| address.is_tls) {
            None if address.is_tls => Err(DialError::Address),
            None => Self::speak(stream, origin).await,
            Some(config) => {
                let name = ServerName::try_from(name).map_err(|_| DialError::Address)?;
                let connecting = TlsConnector::from(config).connect(name, stream);
                Self::speak(connecting.await.map_err(DialError::Tls)?, origin).await
            }
        }
    }

    async fn speak<S>(stream: S, origin: Uri) -> Result<Self, DialError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| DialError::Http2(chain(&error)))?;
        let end = Arc::new(OnceLock::new());
        let noted = Arc::clone(&end);
        let task = tokio::spawn(async move {
            // Noted before it is dropped, which is when those who wait for an answer are told.
            let mut connection = pin!(connection);
            if let Err(error) = (&mut connection).await {
                let _ = noted.set(chain(&error));
            }
        });
        Ok(Self { sender, origin, driver: Arc::new(Driver { task, end }) })
    }

    /// What to say of a request that failed.
    fn why(&self, error: &hyper::Error) -> String {
        self.driver.end.get().cloned().unwrap_or_else(|| chain(error))
    }

    /// What a generated client puts before its paths.
    pub(super) fn origin(&self) -> Uri {
        self.origin.clone()
    }

    /// Whether it is known to be of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether both are one connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Incoming>;
    type Error = LinkError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, LinkError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        // Asked in `call`: what fails here would lose its type on the way through tonic.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut link = self.clone();
        Box::pin(async move {
            if let Err(error) = link.sender.ready().await {
                return Err(LinkError::NotSent(link.why(&error)));
            }
            let sending = link.sender.try_send_request(request);
            sending.await.map_err(|mut error| {
                // hyper gives the request back if not a byte of it was written.
                let is_unsent = error.take_message().is_some();
                let why = link.why(&error.into_error());
                if is_unsent { LinkError::NotSent(why) } else { LinkError::Lost(why) }
            })
        })
    }
}
