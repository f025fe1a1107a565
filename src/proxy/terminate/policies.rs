//! What rustls is told for a route: certificates, protocols, tickets, and who must prove what.
//!
//! TLS 1.2 at least, 1.3 by default, X25519MLKEM768 before all other groups. Configurations are made
//! when they are first needed, once a worker for each way in which routes differ. Tickets are sealed
//! with keys that rotate every six hours and that all workers share, but never two ways of judging
//! clients: a session that one name let in is nothing to another that asks for a certificate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, aws_lc_rs as aws, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::proxy::terminate::certificates::Resolver;
use crate::proxy::terminate::trust::{Source, Trusts};
use crate::routing::route::Route;
use crate::routing::termination::{BackendTls, KeyDigest, Protocol, Termination, Trust};

/// How many configurations a worker keeps of each side. Only routes that each name their own
/// authorities need so many; then they are made anew.
const KEPT: usize = 1024;
/// What is offered inside of a terminated connection that carries requests.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a route cannot be served now.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file with the authorities is not good, or not read yet.
    #[error("the authorities of {0:?} are not known")]
    Unknown(Source),
    /// rustls does not take them.
    #[error(transparent)]
    Tls(#[from] Error),
    /// The authorities cannot judge anybody.
    #[error(transparent)]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// The digest of whom clients must prove themselves by, if anybody.
type ClientAuthority = Option<[u8; 32]>;

/// The keys of tickets, one for each way of judging clients; all workers share them.
#[derive(Debug, Default)]
pub struct Tickets {
    known: Mutex<HashMap<ClientAuthority, Arc<dyn ProducesTickets>>>,
}

impl Tickets {
    fn of(&self, authority: ClientAuthority) -> Result<Arc<dyn ProducesTickets>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tickets) = known.get(&authority) {
            return Ok(Arc::clone(tickets));
        }
        if known.len() >= KEPT {
            known.clear();
        }
        let tickets = aws::Ticketer::new()?;
        known.insert(authority, Arc::clone(&tickets));
        Ok(tickets)
    }
}

/// The provider of all cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws::default_provider())
}

type Protocols = Vec<Vec<u8>>;

/// What one worker tells rustls.
#[derive(Debug)]
pub struct Policies {
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    trusts: Trusts,
    tickets: Arc<Tickets>,
    servers: Kept<(Protocols, ClientAuthority), ServerConfig>,
    clients: Kept<(Protocols, Proof), ClientConfig>,
}

/// What proves a backend to be the right one, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Proof {
    Authorities([u8; 32]),
    Key(KeyDigest),
}

/// Configurations that were made.
type Kept<K, V> = RefCell<HashMap<K, Arc<V>>>;

fn kept<K: Eq + Hash, V>(
    all: &Kept<K, V>,
    key: K,
    make: impl FnOnce() -> Result<V, PolicyError>,
) -> Result<Arc<V>, PolicyError> {
    if let Some(known) = all.borrow().get(&key) {
        return Ok(Arc::clone(known));
    }
    let fresh = Arc::new(make()?);
    let mut all = all.borrow_mut();
    if all.len() >= KEPT {
        all.clear();
    }
    all.insert(key, Arc::clone(&fresh));
    Ok(fresh)
}

impl Policies {
    /// Policies that rest on these parts.
    #[must_use]
    pub fn new(resolver: Resolver, trusts: Trusts, tickets: Arc<Tickets>) -> Self {
        let resolver = Arc::new(resolver);
        let (servers, clients) = (Kept::default(), Kept::default());
        Self { provider: provider(), resolver, trusts, tickets, servers, clients }
    }

    /// Who tells the certificates.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Who knows whom routes trust.
    #[must_use]
    pub fn trusts(&self) -> &Trusts {
        &self.trusts
    }

    /// How clients of a route are received.
    ///
    /// # Errors
    /// Its authorities are not known.
    pub fn receiving(
        &self,
        route: &Route,
        how: &Termination,
    ) -> Result<Arc<ServerConfig>, PolicyError> {
        let own = route.alpn().iter().map(|name| name.to_vec());
        let protocols: Protocols = match how.protocol {
            Protocol::Http if route.alpn().is_empty() => HTTP.map(<[u8]>::to_vec).into(),
            // The better one first, in whichever order they were written.
            Protocol::Http => {
                let mut protocols: Protocols = own.collect();
                protocols.sort_by_key(|name| HTTP.iter().position(|known| known == name));
                protocols
            }
            Protocol::Tcp => own.collect(),
        };
        let authorities = how.client_ca.clone().map(|path| {
            let source = Source::File(path);
            self.trusts.known(&source).ok_or(PolicyError::Unknown(source))
        });
        let authorities = authorities.transpose()?;
        let authority = authorities.as_ref().map(|authorities| authorities.digest);
        kept(&self.servers, (protocols.clone(), authority), || {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
                .with_safe_default_protocol_versions()?;
            let builder = match authorities {
                None => builder.with_no_client_auth(),
                Some(authorities) => {
                    let roots = Arc::clone(&authorities.roots);
                    let provider = Arc::clone(&self.provider);
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder.with_cert_resolver(Arc::clone(&self.resolver) as _);
            config.alpn_protocols = protocols;
            config.ticketer = self.tickets.of(authority)?;
            // Whoever takes no tickets has a handshake each time: a table would have to be bounded.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok(config)
        })
    }

    /// How the backend of a route is spoken to, if over TLS; these protocols are offered to it.
    ///
    /// # Errors
    /// Its authorities are not known.
    pub fn dialling(
        &self,
        how: &Termination,
        protocols: Protocols,
    ) -> Result<Option<Arc<ClientConfig>>, PolicyError> {
        let BackendTls::Verified { trust, .. } = &how.backend else { return Ok(None) };
        let source = match trust {
            Trust::Platform => Source::Platform,
            Trust::Authorities(path) => Source::File(Arc::clone(path)),
            Trust::Key(key) => {
                let verifier =
                    Arc::new(OnlyKey { key: *key, provider: Arc::clone(&self.provider) });
                let proof = Proof::Key(*key);
                return kept(&self.clients, (protocols.clone(), proof), || {
                    self.client(verifier, protocols)
                })
                .map(Some);
            }
        };
        let authorities = self.trusts.known(&source).ok_or(PolicyError::Unknown(source))?;
        let proof = Proof::Authorities(authorities.digest);
        kept(&self.clients, (protocols.clone(), proof), || {
            let (roots, provider) = (Arc::clone(&authorities.roots), Arc::clone(&self.provider));
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
            self.client(verifier, protocols)
        })
        .map(Some)
    }

    fn client(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        protocols: Protocols,
    ) -> Result<ClientConfig, PolicyError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        Ok(config)
    }
}

/// Accepts one key, whatever the certificate around it says: that of an enclave may carry critical
/// extensions, its own issuer, and any dates.
#[derive(Debug)]
struct OnlyKey {
    key: KeyDigest,
    provider: Arc<CryptoProvider>,
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, certificate) =
        parsed.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(certificate.tbs_certificate.subject_pki.raw.to_vec())
}

impl ServerCertVerifier for OnlyKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if digest(&SHA256, &key_of(leaf)?).as_ref() == self.key.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            let why = CertificateError::ApplicationVerificationFailure;
            Err(Error::InvalidCertificate(why))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key_of(leaf)?);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
