//! What can be asked of any proxy, wherever its routes come from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::config::Config;
use mse_proxy::control::address::Address;
use mse_proxy::control::proto::route_service_client::RouteServiceClient;
use mse_proxy::control::proto::{self, ExplainRequest, GetRequest, ListRequest, Phase};
use mse_proxy::server;
use mse_proxy::units::Period;
use tokio::io::AsyncWriteExt as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::journey::{HeldClock, RawBackend, hello, route, soon, until};
use crate::support::{Controlled, unix};

fn ids(response: &proto::ListResponse) -> Vec<String> {
    let routes = response.routes.iter().map(|state| state.route.as_ref().unwrap());
    routes.map(|route| route.id.clone()).collect()
}

#[tokio::test]
async fn routes_are_listed_page_by_page_each_exactly_once() {
    let mut routes = String::new();
    for number in 0..25 {
        let app = if number % 2 == 0 { "app = \"project/even\"" } else { "" };
        let _ = writeln!(routes, "{}", route(&format!("h{number:02}.test"), "127.0.0.1:1", app));
    }
    let controlled = Controlled::start(&routes).await;
    let mut client = controlled.client();
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRequest { page_size: 10, page_token, ..ListRequest::default() };
        let page = client.list(request).await.unwrap().into_inner();
        assert_eq!(page.total, 25);
        assert!(page.routes.len() <= 10);
        all.extend(ids(&page));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..25).map(|number| format!("h{number:02}.test")).collect();
    assert_eq!(all, expected);
    for (contains, source, count) in
        [("EVEN", "", 13), ("h1", "", 10), ("", "file", 25), ("", "store", 0), ("nothing", "", 0)]
    {
        let (contains, source) = (contains.to_owned(), source.to_owned());
        let request = ListRequest { contains, source, ..ListRequest::default() };
        let page = client.list(request).await.unwrap().into_inner();
        assert_eq!((page.routes.len(), page.total), (count, count as u64));
    }
    let wrong = ListRequest { page_token: "x".into(), ..ListRequest::default() };
    assert_eq!(client.list(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_route_is_told_with_its_place_its_phase_and_its_live_connections() {
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let backend = RawBackend::start().await;
    let routes = route(
        "app.test",
        backend.address,
        "id = \"app\"\nexpires_at = 2026-01-02T00:00:00Z\ngrace = \"2d\"\nalpn = [\"h2\"]",
    ) + &route("app.test", "127.0.0.1:9", "id = \"rival\"\nalpn = [\"h2\"]")
        + &route("later.test", "127.0.0.1:9", "not_before = 2026-01-01T00:00:01Z");
    let controlled = Controlled::with(&routes, clock.clone(), |_| {}).await;
    let bytes = hello("app.test", &[b"h2"]);
    let mut stream = controlled.proxy.dial().await;
    stream.write_all(&bytes).await.unwrap();
    let _reached = backend.accept(&bytes).await;
    let mut client = controlled.client();
    let mut get = async |id: &str| {
        client.get(GetRequest { id: id.into() }).await.map(tonic::Response::into_inner)
    };
    let app = get("app").await.unwrap();
    assert_eq!((app.phase(), app.open_connections), (Phase::Live, 1));
    assert_eq!((app.source.as_str(), app.fault.as_str(), app.revision), ("file", "", 0));
    assert!(app.origin.ends_with("routes.toml:1:1"), "{}", app.origin);
    let told = app.route.unwrap();
    assert_eq!(told.hosts, ["app.test"]);
    assert_eq!(told.backends, [backend.address.to_string()]);
    assert_eq!(told.expires_at, "2026-01-02T00:00:00Z");
    assert_eq!((told.grace.as_str(), told.alpn.as_slice()), ("2d", &["h2".to_owned()][..]));
    let rival = get("rival").await.unwrap();
    assert_eq!((rival.phase(), rival.open_connections), (Phase::Faulty, 0));
    assert!(rival.fault.contains("already claimed"), "{}", rival.fault);
    assert_eq!(get("later.test").await.unwrap().phase(), Phase::Pending);
    clock.pass("2026-01-02T00:00:00Z");
    assert_eq!(get("app").await.unwrap().phase(), Phase::Expired);
    assert_eq!(get("later.test").await.unwrap().phase(), Phase::Live);
    assert_eq!(get("nobody").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn explain_answers_of_the_running_proxy() {
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let routes = route("*.w.test", "127.0.0.1:1", "id = \"wild\"")
        + &route("app.w.test", "127.0.0.1:1", "expires_at = 2026-01-02T00:00:00Z");
    let controlled = Controlled::with(&routes, clock.clone(), |_| {}).await;
    let mut client = controlled.client();
    let mut ask = async |host: &str, at: &str| {
        let request = ExplainRequest { host: host.into(), at: at.into(), ..Default::default() };
        client.explain(request).await.map(tonic::Response::into_inner)
    };
    let allowed = ask("APP.w.test.", "").await.unwrap();
    assert!(allowed.allowed);
    assert_eq!((allowed.host.as_str(), allowed.outcome.as_str()), ("app.w.test", ""));
    assert_eq!(allowed.at, "2026-01-01T00:00:00Z");
    assert_eq!(allowed.table_revision, controlled.proxy.revision());
    let expired = ask("app.w.test", "2026-01-02T00:00:00Z").await.unwrap();
    assert_eq!((expired.allowed, expired.outcome.as_str()), (false, "expired_name"));
    assert_eq!(expired.route.as_ref().unwrap().phase(), Phase::Expired);
    assert!(expired.why.contains("2026-01-02T00:00:00Z"), "{}", expired.why);
    let unknown = ask("nobody.test", "").await.unwrap();
    assert_eq!((unknown.outcome.as_str(), unknown.route), ("unknown_name", None));
    assert_eq!(ask("192.0.2.1", "").await.unwrap().outcome, "invalid_sni");
    assert_eq!(ask("x.test", "tomorrow").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_store_writes_are_refused_with_the_remedy() {
    let controlled = Controlled::start("").await;
    let mut client = controlled.client();
    let set = client.set(proto::SetRequest::default()).await.unwrap_err();
    let remove = client.remove(proto::RemoveRequest::default()).await.unwrap_err();
    let apply = client.apply(proto::ApplyRequest::default()).await.unwrap_err();
    let watch = client.watch(proto::WatchRequest::default()).await.unwrap_err();
    let history = client.history(proto::HistoryRequest::default()).await.unwrap_err();
    for status in [set, remove, apply, watch, history] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("store.path"), "{}", status.message());
    }
}

#[tokio::test]
async fn health_follows_the_life_of_the_proxy() {
    let backend = RawBackend::start().await;
    let mut controlled = Controlled::start(&route("app.test", backend.address, "")).await;
    let mut health = HealthClient::new(controlled.channel());
    for service in ["", "mse.proxy.v1.RouteService"] {
        let request = HealthCheckRequest { service: service.into() };
        let told = health.check(request).await.unwrap().into_inner();
        assert_eq!(told.status, ServingStatus::Serving as i32);
    }
    let request = HealthCheckRequest { service: "nobody".into() };
    assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound);
    // A live session keeps the stop waiting, and whoever watches is told meanwhile.
    let bytes = hello("app.test", &[]);
    let mut session = controlled.proxy.dial().await;
    session.write_all(&bytes).await.unwrap();
    let reached = backend.accept(&bytes).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut watching = health.watch(request.clone()).await.unwrap().into_inner();
    let first = watching.message().await.unwrap().unwrap();
    assert_eq!(first.status, ServingStatus::Serving as i32);
    let socket = controlled.socket();
    let running = controlled.proxy.running.take().unwrap();
    let stopping = tokio::spawn(running.stop(std::future::pending()));
    let next = soon("the drain is told", watching.message()).await.unwrap().unwrap();
    assert_eq!(next.status, ServingStatus::NotServing as i32);
    let told = health.check(request).await.unwrap().into_inner();
    assert_eq!(told.status, ServingStatus::NotServing as i32);
    drop((session, reached));
    soon("the proxy stops", stopping).await.unwrap();
    assert!(!socket.exists(), "the socket is gone with its proxy");
    let end = soon("the stream ends", watching.message()).await;
    assert!(matches!(end, Err(_) | Ok(None)), "{end:?}");
}

#[tokio::test]
async fn while_the_first_routes_are_awaited_it_answers_and_is_not_serving() {
    // A member of etcd that takes connections and says nothing.
    let silent = RawBackend::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let mut config = Config::default();
    config.listen.addresses = vec!["127.0.0.1:0".parse().unwrap()];
    config.admin.http = String::new().try_into().unwrap();
    config.admin.grpc = Address::Unix(socket.clone());
    config.log.access = "off".to_owned().try_into().unwrap();
    config.store.etcd.endpoints = vec![format!("http://{}", silent.address).try_into().unwrap()];
    config.store.etcd.timeout = "60s".parse::<Period>().unwrap().try_into().unwrap();
    let starting = tokio::spawn(async move {
        server::start(&config, Arc::new(SystemClock), Vec::new()).await.map(drop)
    });
    until("the socket is there", || socket.exists()).await;
    let mut health = HealthClient::new(unix(&socket));
    let request = HealthCheckRequest { service: String::new() };
    let told = soon("an answer", health.check(request)).await.unwrap().into_inner();
    assert_eq!(told.status, ServingStatus::NotServing as i32);
    let mut client = RouteServiceClient::new(unix(&socket));
    let list = client.list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.total, list.revision), (0, 0));
    let mut write = Request::new(proto::RemoveRequest { id: "a".into(), ..Default::default() });
    write.set_timeout(std::time::Duration::from_millis(200));
    let refused = soon("an answer", client.remove(write)).await.unwrap_err();
    let codes = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
    assert!(codes.contains(&refused.code()), "{refused}");
    starting.abort();
    until("the socket goes with a start that is given up", || !socket.exists()).await;
}

#[tokio::test]
async fn a_stranger_learns_the_service_by_reflection() {
    let controlled = Controlled::start("").await;
    let mut client = ServerReflectionClient::new(unix(&controlled.socket()));
    let ask =
        |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("mse.proxy.v1.RouteService".into())),
    ];
    let answers = client.server_reflection_info(Request::new(tokio_stream::iter(questions))).await;
    let mut answers = answers.unwrap().into_inner();
    let mut next = async || answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!() };
    let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["mse.proxy.v1.RouteService", "grpc.health.v1.Health"] {
        assert!(names.contains(name), "{names:?}");
    }
    let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!() };
    let text = String::from_utf8_lossy(&file.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("allow_removal"), "fields are described");
}
