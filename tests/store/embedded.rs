//! The contract, kept by the file of one proxy alone.

use std::sync::Arc;

use mse_proxy::store::Shared;
use mse_proxy::store::embedded::Embedded;
use tempfile::TempDir;

use crate::contract::{Subject, contract};
use crate::model;

/// A store in a folder of its own.
pub(crate) struct File {
    store: Shared,
    folder: TempDir,
}

impl File {
    fn open(folder: TempDir) -> Self {
        let store = Embedded::open(&folder.path().join("store.db")).unwrap();
        Self { store: Arc::new(store), folder }
    }
}

impl Subject for File {
    async fn fresh() -> Self {
        Self::open(TempDir::new().unwrap())
    }

    fn store(&self) -> Shared {
        Arc::clone(&self.store)
    }

    async fn restarted(self) -> Self {
        let Self { store, folder } = self;
        assert_eq!(Arc::strong_count(&store), 1, "nobody uses it any more");
        drop(store);
        Self::open(folder)
    }

    async fn forgetful(self) -> Self {
        self.restarted().await
    }
}

contract!(File);

#[test]
fn it_is_what_the_model_is() {
    model::compare::<File>(64);
}
