//! Reaching a running proxy: over its unix socket, or over TCP with mutual TLS.
//!
//! A [`Dialer`] opens connections for the gRPC client and keeps what went wrong last as a value:
//! by the time an error has come through the layers above, it is words without a cause. TLS 1.3
//! tells a client whose certificate is refused only when it reads, so what reading says is kept
//! as well.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tower_service::Service;

use crate::control::pem;

/// Where a proxy is asked if nobody says otherwise: as `admin.grpc`'s own default.
pub const DEFAULT: &str = "unix:/run/mse-proxy/admin.sock";
/// How long it may take until a connection stands, TLS included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a running proxy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// By the socket at this path.
    Unix(PathBuf),
    /// By TLS, where both sides show certificates.
    Https {
        /// A name or an address; the certificate must be for it.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Why a text is no [`Admin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write unix:/path/of/the/socket, or https://host:port")]
pub struct NotAdmin;

impl FromStr for Admin {
    type Err = NotAdmin;

    fn from_str(text: &str) -> Result<Self, NotAdmin> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(NotAdmin) };
        }
        let rest = text.strip_prefix("https://").ok_or(NotAdmin)?;
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or(NotAdmin)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| NotAdmin)?;
        ServerName::try_from(host).map_err(|_| NotAdmin)?;
        Ok(Self::Https { host: host.to_owned(), port })
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } if host.contains(':') => {
                write!(f, "https://[{host}]:{port}")
            }
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

/// Why no connection stands.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The kernel says no, or the name cannot be resolved.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// One of the two sides does not accept the other.
    #[error("{0}")]
    Tls(rustls::Error),
    /// Nobody answered in time.
    #[error("nobody answered within {}s", .0.as_secs())]
    Silent(Duration),
}

/// At which point something went wrong.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No connection came about.
    Opening(Error),
    /// It broke, or the other side ended it with a reason.
    Carrying(Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(Arc::new(error)),
        }
    }
}

/// Why what was named cannot serve to show who we are, or to know the proxy.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file is to blame.
    #[error(transparent)]
    File(#[from] pem::Unusable),
    /// They are read, but do not fit together.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Reads what mutual TLS takes. Without `ca`, the proxy is known by the system's authorities.
///
/// # Errors
/// [`CredentialError`], with the file that is to blame.
pub fn credentials(
    ca: Option<&Path>,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ClientConfig>, CredentialError> {
    let roots = if let Some(path) = ca {
        pem::authorities(path)?
    } else {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_good, _bad) = roots.add_parsable_certificates(found.certs);
        roots
    };
    let chain = pem::certificates(certificate)?;
    let key = pem::private_key(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Opens connections to one proxy.
#[derive(Debug, Clone)]
pub struct Dialer {
    admin: Admin,
    credentials: Option<Arc<ClientConfig>>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Dialer {
    /// Dials this proxy. Only [`Admin::Https`] needs credentials.
    #[must_use]
    pub fn new(admin: Admin, credentials: Option<Arc<ClientConfig>>) -> Self {
        Self { admin, credentials, failure: Arc::default() }
    }

    /// What went wrong last, if anything did since this was asked.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a failure. What TLS says explains what comes of it, and stays.
    fn note(&self, failure: Failure) {
        let mut kept = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*kept, Some(Failure::Carrying(Error::Tls(_)))) {
            *kept = Some(failure);
        }
    }

    /// Whoever has refused our certificate will do so again, and is not asked in a circle.
    fn was_refused(&self) -> Result<(), Error> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Failure::Carrying(error @ Error::Tls(_))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    async fn dial(self) -> Result<Connection, Error> {
        self.was_refused()?;
        let opened = timeout(PATIENCE, self.open()).await.unwrap_or(Err(Error::Silent(PATIENCE)));
        match opened {
            Ok(stream) => Ok(TokioIo::new(Noting { stream, dialer: self })),
            Err(error) => {
                self.note(Failure::Opening(error.clone()));
                Err(error)
            }
        }
    }

    async fn open(&self) -> Result<Stream, Error> {
        match &self.admin {
            Admin::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Admin::Https { host, port } => {
                let missing = || rustls::Error::General("no client certificate was named".into());
                let config = self.credentials.clone().ok_or_else(|| Error::Tls(missing()))?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
            }
        }
    }
}

type Stream = Box<dyn Duplex>;
type Connection = TokioIo<Noting>;

/// Whatever carries bytes both ways.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Service<Uri> for Dialer {
    type Response = Connection;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// A connection whose first words of failure are kept.
pub struct Noting {
    stream: Stream,
    dialer: Dialer,
}

impl Noting {
    /// Whoever does not take our bytes any more may have told why, which waits to be read.
    fn with_last_words<T>(
        &mut self,
        result: io::Result<T>,
        context: &mut Context<'_>,
    ) -> io::Result<T> {
        result.map_err(|error| {
            let mut rest = [0; 1024];
            let read = Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut rest));
            if let Poll::Ready(Err(why)) = read { why } else { error }
        })
    }

    /// Keeps what went wrong, and hands it on.
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            let error = Error::from(error);
            self.dialer.note(Failure::Carrying(error.clone()));
            io::Error::new(kind, error)
        })
    }
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        Poll::Ready(self.noted(read))
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        let written = self.with_last_words(written, context);
        Poll::Ready(self.noted(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        let flushed = self.with_last_words(flushed, context);
        Poll::Ready(self.noted(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_read_back() {
        for (text, shown) in [
            (DEFAULT, DEFAULT),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("https://proxy.test:9443", "https://proxy.test:9443"),
            ("https://127.0.0.1:9443/", "https://127.0.0.1:9443"),
            ("https://[::1]:9443", "https://[::1]:9443"),
        ] {
            let admin: Admin = text.parse().unwrap();
            assert_eq!(admin.to_string(), shown);
            assert_eq!(shown.parse(), Ok(admin));
        }
        for text in [
            "",
            "unix:",
            "unix:x.sock",
            "http://a:1",
            "https://a",
            "https://:1",
            "a:1",
            "https://a:b",
        ] {
            assert_eq!(text.parse::<Admin>(), Err(NotAdmin), "{text}");
        }
    }
}
