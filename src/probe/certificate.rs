//! What certificate a backend shows: one short TLS handshake as an ordinary client, and goodbye.
//!
//! Nobody is trusted here and nothing is sent. The server must prove that it holds the key of what
//! it shows; what that is worth is judged elsewhere. A backend may serve one client at a time, so
//! whoever looks stays briefly and comes rarely.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::admission::certificate::{Certificate, Chain, ChainError};
use crate::endpoint::Endpoint;
use crate::hostname::Hostname;
use crate::resolve::Resolve;

/// How long a look may take in all. Enclaves answer within a second; one that is busy may not.
pub(super) const BUDGET: Duration = Duration::from_secs(10);
/// How long goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// The backend's name has no address.
    #[error("the backend's name is not known: {0}")]
    Unresolved(io::Error),
    /// The backend cannot be reached.
    #[error("the backend cannot be reached: {0}")]
    Unreachable(io::Error),
    /// The backend does not speak TLS, or breaks off.
    #[error("the backend makes no TLS connection: {0}")]
    NoHandshake(io::Error),
    /// The backend shows something that is no certificate.
    #[error("what the backend shows is no certificate: {0}")]
    NoChain(#[from] ChainError),
    /// The backend shows another certificate than the trusted one.
    #[error("the backend shows another certificate than before; its key is {key}")]
    Another {
        /// The digest of its key.
        key: String,
    },
    /// The backend does not speak HTTP, or breaks off.
    #[error("the backend does not answer in HTTP: {0}")]
    NoHttp(#[from] hyper::Error),
    /// A path that cannot be asked for.
    #[error("this path cannot be asked for")]
    NoPath,
    /// The backend does not answer.
    #[error("the backend does not answer within {} s", BUDGET.as_secs())]
    Silent,
}

/// Who looks.
#[derive(Clone)]
pub struct Onlooker {
    connector: TlsConnector,
}

impl std::fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onlooker").finish_non_exhaustive()
    }
}

impl Onlooker {
    /// A client that takes every certificate.
    ///
    /// # Errors
    /// What keeps a TLS client from being made.
    pub fn new() -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Anybody(Arc::clone(&provider)));
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut client =
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        // Each look shows what is there now.
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(client)) })
    }

    /// Looks at what a backend shows to a client that asks for a name.
    ///
    /// # Errors
    /// Why nothing was seen.
    pub async fn look(
        &self,
        backend: &Endpoint,
        name: &Hostname,
        resolver: &impl Resolve,
    ) -> Result<Chain, Unseen> {
        self.look_offering(&[], backend, name, resolver).await
    }

    /// The same, as a client that offers these protocols; those of the web, if none.
    ///
    /// # Errors
    /// As [`Onlooker::look`].
    pub async fn look_offering(
        &self,
        protocols: &[Box<[u8]>],
        backend: &Endpoint,
        name: &Hostname,
        resolver: &impl Resolve,
    ) -> Result<Chain, Unseen> {
        let offered = if protocols.is_empty() {
            web()
        } else {
            protocols.iter().map(|name| name.to_vec()).collect()
        };
        let looking = async {
            let mut tls = self.shake_offering(offered, backend, name, resolver).await?;
            let chain = shown(&tls)?;
            // Whoever does not hear it has nothing more to say either.
            let _ = timeout(GOODBYE, tls.shutdown()).await;
            Ok(chain)
        };
        timeout(BUDGET, looking).await.unwrap_or(Err(Unseen::Silent))
    }

    /// Connects and shakes hands, for as long as that takes.
    pub(super) async fn shake(
        &self,
        backend: &Endpoint,
        name: &Hostname,
        resolver: &impl Resolve,
    ) -> Result<TlsStream<Box<dyn Bytes>>, Unseen> {
        self.shake_offering(web(), backend, name, resolver).await
    }

    async fn shake_offering(
        &self,
        protocols: Vec<Vec<u8>>,
        backend: &Endpoint,
        name: &Hostname,
        resolver: &impl Resolve,
    ) -> Result<TlsStream<Box<dyn Bytes>>, Unseen> {
        let unnamed = |error| Unseen::NoHandshake(io::Error::other(error));
        let server = ServerName::try_from(name.as_str().to_owned()).map_err(unnamed)?;
        let stream = connect(backend, resolver).await?;
        let offering = self.connector.with_alpn(protocols);
        offering.connect(server, stream).await.map_err(Unseen::NoHandshake)
    }
}

/// What clients offer unless they want something else.
fn web() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// What came to pass in a handshake.
pub(super) fn shown<S>(tls: &TlsStream<S>) -> Result<Chain, ChainError> {
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    Chain::from_der(shown.iter().map(AsRef::as_ref), false)
}

/// A connection of whatever kind.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Bytes for S {}

async fn connect(backend: &Endpoint, resolver: &impl Resolve) -> Result<Box<dyn Bytes>, Unseen> {
    let addresses = match backend {
        Endpoint::Ip(address) => vec![*address],
        Endpoint::Name(host, port) => {
            let found = resolver.addresses(host).await.map_err(Unseen::Unresolved)?;
            found.into_iter().map(|address| (address, *port).into()).collect()
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(Unseen::Unreachable)?;
            return Ok(Box::new(stream));
        }
    };
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(Unseen::Unreachable)?;
    Ok(Box::new(stream))
}

/// Takes every certificate whose key the server holds.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, known)
    }

    /// Only the key of the leaf is read: the usual way refuses leaves with critical extensions,
    /// which enclaves may have.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let read = Certificate::from_der(leaf);
        let read = read.ok_or(TlsError::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = SubjectPublicKeyInfoDer::from(read.key);
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
