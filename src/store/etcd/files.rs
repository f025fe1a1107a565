//! The files that the settings name: certificates, keys and the password.
//!
//! They are read at the start, so that a mistake shows there, and again for each new connection or
//! login, so that what is renewed on the disk is used without a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::settings::Settings;

/// Why no etcd can be asked with these settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No member is named.
    #[error("`store.etcd.endpoints` is empty")]
    NoEndpoint,
    /// One of two keys that need each other.
    #[error("`store.etcd.{has}` needs `store.etcd.{lacks}` as well")]
    Alone {
        /// What is set.
        has: &'static str,
        /// What is not.
        lacks: &'static str,
    },
    /// Certificates are named, and no member is reached by TLS.
    #[error("`store.etcd.{0}` is for TLS, and no endpoint begins with https://")]
    NoTls(&'static str),
    /// A file that cannot be read.
    #[error("`store.etcd.{key}`: {}: {error}", path.display())]
    Unreadable {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file that holds something else.
    #[error("`store.etcd.{key}`: {}: {why}", path.display())]
    Unfit {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Unfit,
    },
    /// TLS as such does not work.
    #[error("no TLS: {0}")]
    Tls(rustls::Error),
    /// The system trusts nobody.
    #[error("no root certificates on this system; name some with `store.etcd.ca`")]
    NoRoots,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// No such thing as should be there.
    #[error("no {0} in it")]
    Lacks(&'static str),
    /// No PEM.
    #[error("{0}")]
    Pem(pem::Error),
    /// Nothing that TLS can use.
    #[error("{0}")]
    Tls(rustls::Error),
}

/// Judges the settings as a whole, and the files that they name.
pub(super) fn check(settings: &Settings) -> Result<(), OpenError> {
    if settings.endpoints.is_empty() {
        return Err(OpenError::NoEndpoint);
    }
    let set = |path: &Option<PathBuf>| path.is_some();
    let files = [
        ("ca", set(&settings.ca)),
        ("certificate", set(&settings.certificate)),
        ("key", set(&settings.key)),
    ];
    let needs_tls = files.iter().find(|(_, is_set)| *is_set);
    if let Some((key, _)) = needs_tls
        && !settings.endpoints.iter().any(|address| address.is_tls)
    {
        return Err(OpenError::NoTls(key));
    }
    for (has, is_set, lacks, other) in [
        ("certificate", set(&settings.certificate), "key", set(&settings.key)),
        ("key", set(&settings.key), "certificate", set(&settings.certificate)),
        ("user", settings.user.is_some(), "password_file", set(&settings.password_file)),
        ("password_file", set(&settings.password_file), "user", settings.user.is_some()),
    ] {
        if is_set && !other {
            return Err(OpenError::Alone { has, lacks });
        }
    }
    if let Some(path) = &settings.password_file {
        password(path)?;
    }
    tls(settings).map(drop)
}

/// The password: the file without the end of its line.
pub(super) fn password(path: &Path) -> Result<String, OpenError> {
    let key = "password_file";
    let unreadable = |error| OpenError::Unreadable { key, path: path.to_owned(), error };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(unfit(key, path, Unfit::Lacks("password")));
    }
    Ok(password.to_owned())
}

/// How TLS is spoken with the members; none: with none of them.
pub(super) fn tls(settings: &Settings) -> Result<Option<Arc<ClientConfig>>, OpenError> {
    if !settings.endpoints.iter().any(|address| address.is_tls) {
        return Ok(None);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(OpenError::Tls)?
        .with_root_certificates(roots(settings.ca.as_deref())?);
    let mut config = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("certificate", certificate)?;
            let private = private_key(key)?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| unfit("key", key, Unfit::Tls(error)))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, OpenError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates("ca", path)? {
            store.add(certificate).map_err(|error| unfit("ca", path, Unfit::Tls(error)))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(OpenError::NoRoots);
        }
    }
    Ok(store)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let bytes = bytes(key, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| unfit(key, path, Unfit::Pem(error)))?;
    if chain.is_empty() {
        return Err(unfit(key, path, Unfit::Lacks("certificate")));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, OpenError> {
    match PrivateKeyDer::from_pem_slice(&bytes("key", path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(unfit("key", path, Unfit::Lacks("private key"))),
        Err(error) => Err(unfit("key", path, Unfit::Pem(error))),
    }
}

fn bytes(key: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|error| OpenError::Unreadable { key, path: path.to_owned(), error })
}

fn unfit(key: &'static str, path: &Path, why: Unfit) -> OpenError {
    OpenError::Unfit { key, path: path.to_owned(), why }
}
