//! Serving: the services, their limits, and how they end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::error;

use crate::admin::Readiness;
use crate::control::accept::{Listener, accept};
use crate::control::gate::{Gate, MAX_MESSAGE, MAX_SET, STREAMS};
use crate::control::proto::app_service_server::AppServiceServer;
use crate::control::proto::domain_service_server::DomainServiceServer;
use crate::control::proto::hardware_service_server::HardwareServiceServer;
use crate::control::proto::project_service_server::ProjectServiceServer;
use crate::control::proto::route_service_server::RouteServiceServer;
use crate::control::{apps, service};

/// Connections that wait between their arrival and the server.
const ARRIVED: usize = 8;
/// A client that is gone without a word is noticed after so long, and so long again.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// What a client may send ahead of its being read, for each stream and in all: 64 connections hold
/// 64 MiB at the most, and a set of 64 MiB still flows.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// The headers of a call; ours have some hundred bytes.
const MAX_HEADERS: u32 = 16 << 10;
/// How long calls that run get to finish when the proxy stops.
const GRACE: Duration = Duration::from_secs(2);
/// The messages of health and reflection: names.
const MAX_NAME: usize = 16 << 10;

/// What the service is, as grpcurl and others ask for it.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.bin"));

/// Serves until `stop` says true, or its sender is gone.
pub(super) async fn serve(
    listener: Listener,
    services: (service::Routes, apps::Apps),
    readiness: watch::Receiver<Readiness>,
    mut stop: watch::Receiver<bool>,
) {
    let mut beside = JoinSet::new();
    let (admitted, arrived) = mpsc::channel::<io::Result<_>>(ARRIVED);
    beside.spawn(accept(listener, admitted));
    let health = HealthReporter::new();
    beside.spawn(tell_health(health.clone(), readiness));
    let gate = match gate(services, health) {
        Ok(gate) => gate,
        // The descriptors are our own: a test would show it.
        Err(error) => return error!(%error, "admin.grpc cannot be described"),
    };
    let mut stopped = stop.clone();
    let serving = Server::builder()
        .max_concurrent_streams(u32::try_from(STREAMS).ok())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(gate, ReceiverStream::new(arrived), async move {
            let _ = stopped.changed().await;
        });
    let patience = async {
        let _ = stop.changed().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            error!(%error, "admin.grpc is not served any more");
        },
        () = patience => {}
    }
}

fn gate(
    (routes, apps): (service::Routes, apps::Apps),
    health: HealthReporter,
) -> Result<Gate, tonic_reflection::server::Error> {
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (routes, apps) = (Arc::new(routes), Arc::new(apps));
    let service =
        |most| RouteServiceServer::from_arc(Arc::clone(&routes)).max_decoding_message_size(most);
    let health = HealthService::from_health_reporter(health);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let calls = Routes::new(service(MAX_MESSAGE))
        .add_service(
            AppServiceServer::from_arc(Arc::clone(&apps)).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ProjectServiceServer::from_arc(Arc::clone(&apps))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            HardwareServiceServer::from_arc(Arc::clone(&apps))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(DomainServiceServer::from_arc(apps).max_decoding_message_size(MAX_MESSAGE))
        .add_service(health.max_decoding_message_size(MAX_NAME))
        // Clients of both generations are about.
        .add_service(describe().build_v1()?.max_decoding_message_size(MAX_NAME))
        .add_service(describe().build_v1alpha()?.max_decoding_message_size(MAX_NAME));
    Ok(Gate::new(calls, Routes::new(service(MAX_SET))))
}

/// Keeps `grpc.health.v1` true: serving while new clients of the proxy are welcome.
async fn tell_health(health: HealthReporter, mut readiness: watch::Receiver<Readiness>) {
    let names = [
        "",
        <RouteServiceServer<service::Routes> as NamedService>::NAME,
        <AppServiceServer<apps::Apps> as NamedService>::NAME,
        <ProjectServiceServer<apps::Apps> as NamedService>::NAME,
        <HardwareServiceServer<apps::Apps> as NamedService>::NAME,
        <DomainServiceServer<apps::Apps> as NamedService>::NAME,
    ];
    loop {
        let status = match *readiness.borrow_and_update() {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::Starting { .. }
            | Readiness::Unread
            | Readiness::Uncertified
            | Readiness::Draining => ServingStatus::NotServing,
        };
        for service in names {
            health.set_service_status(service, status).await;
        }
        if readiness.changed().await.is_err() {
            return;
        }
    }
}
