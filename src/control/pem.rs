//! Certificates and keys in PEM files, as both sides of mutual TLS read them.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be read, or has nothing of the kind in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unusable {
    /// Which.
    pub path: PathBuf,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// There is none of these in it.
    #[error("no {0} in PEM is in it")]
    Lacks(&'static str),
    /// It is no PEM.
    #[error("{0}")]
    Pem(pem::Error),
    /// What is in it cannot be trusted by anybody.
    #[error(transparent)]
    Untrusted(rustls::Error),
}

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(path, Why::Lacks("certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, why(error, "certificate"))),
    }
}

/// The private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let key = PrivateKeyDer::from_pem_file(path);
    key.map_err(|error| unusable(path, why(error, "private key")))
}

/// The authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|error| unusable(path, Why::Untrusted(error)))?;
    }
    Ok(roots)
}

fn unusable(path: &Path, why: Why) -> Unusable {
    Unusable { path: path.to_owned(), why }
}

fn why(error: pem::Error, what: &'static str) -> Why {
    match error {
        pem::Error::Io(error) => Why::Io(error),
        pem::Error::NoItemsFound => Why::Lacks(what),
        other => Why::Pem(other),
    }
}
