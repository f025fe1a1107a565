//! Mutual TLS for the control service: who we are, and whom we let ask.
//!
//! The files are looked at before each handshake, and read again when one of them changed: a
//! renewed certificate is in use from the next connection on. What cannot be used is told, and what
//! was read last stays.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::control::pem;

/// The section `admin.tls` of the configuration: all of it, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Our chain in PEM, leaf first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The authorities in PEM that clients' certificates come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// The files that TLS takes.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

impl Settings {
    fn files(&self) -> Result<Files, TlsError> {
        let named = |path: &Option<PathBuf>, key| path.clone().ok_or(TlsError::Unset(key));
        Ok(Files {
            certificate: named(&self.certificate, "certificate")?,
            key: named(&self.key, "key")?,
            client_ca: named(&self.client_ca, "client_ca")?,
        })
    }
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is not named.
    #[error("admin.tls.{0} is not set, and over TCP the service is only had with mutual TLS")]
    Unset(&'static str),
    /// A file that is named and not there.
    #[error("{}: no such file", .0.display())]
    Missing(PathBuf),
    /// A file is to blame in another way.
    #[error(transparent)]
    File(pem::Unusable),
    /// They can be read, and do not fit together.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities cannot vouch for anybody.
    #[error("the authorities of clients cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

impl From<pem::Unusable> for TlsError {
    fn from(unusable: pem::Unusable) -> Self {
        match unusable.why {
            pem::Why::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::Missing(unusable.path)
            }
            _ => Self::File(unusable),
        }
    }
}

/// What a file looked like: another look means another content, perhaps.
type Looks = [Option<(u64, u64, u64, i64, i64, i64, i64)>; 3];

/// The files, and what was made of them last.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    last: Mutex<(Looks, Arc<ServerConfig>)>,
}

impl Tls {
    pub(super) fn load(settings: &Settings) -> Result<Self, TlsError> {
        let files = settings.files()?;
        // Looked at first: what changes while it is read is read again.
        let looks = looks(&files);
        let config = read(&files)?;
        Ok(Self { files, last: Mutex::new((looks, config)) })
    }

    /// What is right for the next connection. Looks at the disk.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let looks = looks(&self.files);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != looks {
            last.0 = looks;
            match read(&self.files) {
                Ok(config) => {
                    info!("the certificates of admin.tls were read again");
                    last.1 = config;
                }
                Err(error) => warn!(%error, "admin.tls: what was read before stays in use"),
            }
        }
        Arc::clone(&last.1)
    }
}

fn looks(Files { certificate, key, client_ca }: &Files) -> Looks {
    [certificate, key, client_ca].map(|path| {
        let of = |found: Metadata| {
            let (modified, changed) = (found.mtime(), found.ctime());
            let (modified_ns, changed_ns) = (found.mtime_nsec(), found.ctime_nsec());
            (found.dev(), found.ino(), found.size(), modified, modified_ns, changed, changed_ns)
        };
        std::fs::metadata(path).ok().map(of)
    })
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = pem::authorities(&files.client_ca)?;
    let chain = pem::certificates(&files.certificate)?;
    let key = pem::private_key(&files.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Who comes back shows its certificate again: it is judged by the authorities of that moment.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
