//! Which store a proxy has: a file, a fleet's etcd, or none.

use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::store::embedded::{self, Embedded};
use crate::store::etcd::{self, Etcd};
use crate::store::{Error, Shared};

/// Why there is no store although one is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two are configured.
    #[error("store.path and store.etcd.endpoints are both set, and a proxy has one store")]
    Both,
    /// The file cannot be had.
    #[error("store.path: {0}")]
    Embedded(#[from] embedded::OpenError),
    /// The settings of etcd cannot be used.
    #[error("{0}")]
    Etcd(#[from] etcd::OpenError),
    /// The thread that opens it has failed.
    #[error("store.path: {0}")]
    Failed(Error),
}

/// Opens the store that is configured, if one is. That of a file is read once as a whole; etcd is
/// asked nothing yet.
///
/// # Errors
/// It cannot be had; nothing was changed then.
pub async fn open(path: Option<&Path>, etcd: &etcd::Settings) -> Result<Option<Shared>, OpenError> {
    match (path, etcd.endpoints.is_empty()) {
        (None, true) => Ok(None),
        (Some(_), false) => Err(OpenError::Both),
        (None, false) => Ok(Some(Arc::new(Etcd::open(etcd)?))),
        (Some(path), true) => {
            let path = path.to_owned();
            let opened = spawn_blocking(move || Embedded::open(&path)).await;
            let failed = |error: tokio::task::JoinError| {
                OpenError::Failed(Error::Damaged(error.to_string()))
            };
            Ok(Some(Arc::new(opened.map_err(failed)??)))
        }
    }
}
