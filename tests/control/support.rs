//! A proxy with a control service, and clients of that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mse_proxy::clock::{Clock, SystemClock};
use mse_proxy::config::Config;
use mse_proxy::control::address::Address;
use mse_proxy::control::dial::{Admin, Dialer};
use mse_proxy::control::proto::route_service_client::RouteServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::journey::Proxy;

pub(crate) type Client = RouteServiceClient<Channel>;

/// A proxy whose control service is on a Unix socket of the test's own.
pub(crate) struct Controlled {
    pub(crate) proxy: Proxy,
    folder: tempfile::TempDir,
}

impl Controlled {
    pub(crate) async fn start(routes: &str) -> Self {
        Self::with(routes, Arc::new(SystemClock), |_| {}).await
    }

    pub(crate) async fn with(
        routes: &str,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let proxy = Proxy::with(routes, clock, |config| {
            config.admin.grpc = Address::Unix(socket);
            change(config);
        })
        .await;
        Self { proxy, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// A connection of its own, once it is used.
    pub(crate) fn channel(&self) -> Channel {
        unix(&self.socket())
    }

    pub(crate) fn client(&self) -> Client {
        RouteServiceClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }
}

pub(crate) fn unix(socket: &Path) -> Channel {
    let dialer = Dialer::new(Admin::Unix(socket.to_owned()), None);
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(dialer)
}
