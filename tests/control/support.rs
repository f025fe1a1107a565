//! A proxy with a control service, and clients of that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mse_proxy::clock::{Clock, SystemClock};
use mse_proxy::config::Config;
use mse_proxy::control::address::Address;
use mse_proxy::control::dial::{Admin, Dialer};
use mse_proxy::control::proto::route_service_client::RouteServiceClient;
use mse_proxy::control::proto::{self, ExplainRequest, SetRequest};
use tonic::transport::{Channel, Endpoint};

use crate::journey::{Proxy, until_told};

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

    /// The same with a store in a file.
    pub(crate) async fn stored(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::stored_in(folder, clock, change).await
    }

    /// The same in a folder where there may be something already.
    pub(crate) async fn stored_in(
        folder: tempfile::TempDir,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (socket, store) = (folder.path().join("admin.sock"), folder.path().join("routes.redb"));
        let proxy = Proxy::with("", clock, |config| {
            config.admin.grpc = Address::Unix(socket);
            config.store.path = Some(store);
            config.routes.path = None;
            change(config);
        })
        .await;
        Self { proxy, folder }
    }

    /// Stops it, and gives what it has kept.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.proxy.stop().await;
        self.folder
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

/// A route as it is sent.
pub(crate) fn route(id: &str, host: &str, backend: impl std::fmt::Display) -> proto::Route {
    proto::Route {
        id: id.into(),
        hosts: vec![host.into()],
        backends: vec![backend.to_string()],
        ..proto::Route::default()
    }
}

/// A request to set it.
pub(crate) fn set(route: proto::Route) -> SetRequest {
    SetRequest { route: Some(route), ..SetRequest::default() }
}

/// What a client of the proxy meets under a name, asked again and again until it is as expected:
/// what was written is in force a moment later.
pub(crate) async fn meets(client: &Client, host: &str, expected: &str) {
    until_told(&format!("{host} meets {expected}"), async || {
        let request = ExplainRequest { host: host.into(), ..ExplainRequest::default() };
        let told = client.clone().explain(request).await.unwrap().into_inner();
        let meets = if told.allowed { "allowed" } else { &told.outcome };
        meets == expected
    })
    .await;
}

pub(crate) fn unix(socket: &Path) -> Channel {
    let dialer = Dialer::new(Admin::Unix(socket.to_owned()), None);
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(dialer)
}
