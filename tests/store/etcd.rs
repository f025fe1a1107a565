//! The contract, kept by a fleet's etcd; and what etcd does beside it: members that end, hang or
//! forget, certificates, users, limits.

use std::fs;
use std::time::{Duration, Instant};

use mse_proxy::store::etcd::{Etcd, OpenError, Settings};
use mse_proxy::store::{Batch, Committed, Error, MAX_VALUE, Revision, Shared, Transaction, Watch};
use tempfile::TempDir;

use crate::contract::{Subject, change, check, commit, contract, in_time, put, removal, told};
use crate::model;
use crate::support_etcd::{Authority, Port, Road, Server, open, settings};

/// A store on an etcd of its own.
struct Fleet {
    server: Server,
    store: Shared,
}

impl Subject for Fleet {
    async fn fresh() -> Self {
        let server = Server::start(&[]);
        let store = server.open();
        Self { server, store }
    }

    fn store(&self) -> Shared {
        Shared::clone(&self.store)
    }

    async fn restarted(mut self) -> Self {
        self.server.restart();
        self
    }

    async fn forgetful(self) -> Self {
        let newest = self.store.range("").await.unwrap().revision;
        self.server.etcdctl(&["compaction", &newest.to_string()]);
        self
    }
}

contract!(Fleet);

#[test]
fn it_is_what_the_model_is() {
    // Each story starts an etcd, and each restart another.
    model::compare::<Fleet>(12);
}
