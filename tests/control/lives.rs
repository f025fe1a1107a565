//! Routes that are changed by gRPC, as real clients meet them: as they would with a routes file.

use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::control::proto::{self, ApplyRequest, RemoveRequest};
use mse_proxy::proxy::connections::OnRemove;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::journey::{self, HeldClock, Identity, RawBackend, handshake, hello, rest, soon, until};
use crate::support::{Controlled, meets, route, set};

fn remove(id: &str) -> RemoveRequest {
    RemoveRequest { id: id.into(), ..RemoveRequest::default() }
}

#[tokio::test]
async fn a_route_that_was_set_shows_the_backends_certificate_and_one_that_leads_elsewhere_the_others()
 {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    let (one, two) = (Identity::of("app.test"), Identity::of("app.test"));
    for identity in [&one, &two] {
        let backend = identity.serve_page("page").await;
        let done = client.set(set(route("app", "app.test", backend))).await.unwrap().into_inner();
        assert!(done.changed && done.revision > 0);
        let shown = async {
            loop {
                let stream = controlled.proxy.dial().await;
                if let Ok((_, shown)) = handshake(stream, "app.test", identity.trusting()).await {
                    return shown;
                }
            }
        };
        let shown = soon("the right certificate", shown).await;
        assert_eq!(shown, identity.certificate, "the backend's own, byte for byte");
    }
    client.remove(remove("app")).await.unwrap();
    meets(&client, "app.test", "unknown_name").await;
    let stream = controlled.proxy.dial().await;
    assert!(handshake(stream, "app.test", two.trusting()).await.is_err());
}

/// A session through a route that was set with this.
async fn session(
    controlled: &Controlled,
    change: impl FnOnce(&mut proto::Route),
) -> (tokio::net::TcpStream, tokio::net::TcpStream, RawBackend) {
    let backend = RawBackend::start().await;
    let mut wanted = route("app", "app.test", backend.address);
    change(&mut wanted);
    controlled.client().set(set(wanted)).await.unwrap();
    meets(&controlled.client(), "app.test", "allowed").await;
    let bytes = hello("app.test", &[]);
    let mut client = controlled.proxy.dial().await;
    client.write_all(&bytes).await.unwrap();
    let reached = backend.accept(&bytes).await;
    (client, reached, backend)
}

#[tokio::test]
async fn live_connections_of_a_removed_route_go_as_configured() {
    for policy in [OnRemove::Keep, OnRemove::Drain, OnRemove::Cut] {
        let controlled = Controlled::stored(Arc::new(SystemClock), |config| {
            config.routes.on_remove = policy;
            config.drain.timeout = "300ms".parse().unwrap();
        })
        .await;
        let (mut client, mut reached, _backend) = session(&controlled, |_| {}).await;
        controlled.client().remove(remove("app")).await.unwrap();
        if policy == OnRemove::Keep {
            meets(&controlled.client(), "app.test", "unknown_name").await;
            reached.write_all(b"still here").await.unwrap();
            let mut answer = [0; 10];
            soon("an answer", client.read_exact(&mut answer)).await.unwrap();
            drop((client, reached));
            let ended = controlled.proxy.outcome().await;
            assert!(["closed", "client_reset"].contains(&ended.as_str()), "{ended}");
            continue;
        }
        let (_, _) = rest(&mut client).await;
        let record = controlled.proxy.record().await;
        assert_eq!(record["outcome"], "route_removed", "{policy:?}");
        let took = record["duration_s"].as_f64().unwrap();
        assert!(policy == OnRemove::Cut || took >= 0.3, "{policy:?}: {took}");
    }
}

#[tokio::test]
async fn a_stored_route_ends_on_time_and_may_be_prolonged() {
    let clock = HeldClock::at("2026-01-01T00:00:00Z");
    let controlled = Controlled::stored(clock.clone(), |_| {}).await;
    let ends = |wanted: &mut proto::Route, at: &str| at.clone_into(&mut wanted.expires_at);
    let (mut client, mut reached, backend) =
        session(&controlled, |wanted| ends(wanted, "2026-01-02T00:00:00Z")).await;
    let mut prolonged = route("app", "app.test", backend.address);
    ends(&mut prolonged, "2026-01-03T00:00:00Z");
    let before = controlled.proxy.revision();
    controlled.client().set(set(prolonged)).await.unwrap();
    until("it is prolonged", || controlled.proxy.revision() > before).await;
    clock.pass("2026-01-02T12:00:00Z");
    reached.write_all(b"goes on").await.unwrap();
    let mut answer = [0; 7];
    soon("an answer", client.read_exact(&mut answer)).await.unwrap();
    clock.pass("2026-01-03T00:00:00Z");
    let (_, _) = rest(&mut client).await;
    assert_eq!(controlled.proxy.outcome().await, "route_expired");
    let mut late = controlled.proxy.dial().await;
    late.write_all(&hello("app.test", &[])).await.unwrap();
    let (answer, _) = rest(&mut late).await;
    assert!(answer.is_empty());
    assert_eq!(controlled.proxy.records(2).await[1]["outcome"], "expired_name");
}

#[tokio::test]
async fn a_set_is_applied_in_one_step_beside_the_routes_of_a_file() {
    let mut controlled = None;
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("routes.toml");
    std::fs::write(&path, journey::route("file.test", "127.0.0.1:1", "")).unwrap();
    controlled.replace(
        Controlled::stored(Arc::new(SystemClock), |config| config.routes.path = Some(path)).await,
    );
    let controlled = controlled.unwrap();
    let mut client = controlled.client();
    let routes = (0..40).map(|n| route(&format!("r{n}"), &format!("r{n}.test"), "127.0.0.1:1"));
    let apply = |routes: Vec<proto::Route>| ApplyRequest { routes, ..ApplyRequest::default() };
    let first: Vec<_> = routes.collect();
    let applied = client.apply(apply(first.clone())).await.unwrap().into_inner();
    assert_eq!((applied.differences.len(), applied.unchanged), (40, 0));
    for host in ["r0.test", "r39.test", "file.test"] {
        meets(&client, host, "allowed").await;
    }
    // Another set: some stay, some go, one is new. The file's are no business of it.
    let mut second = first[..10].to_vec();
    second.push(route("new", "new.test", "127.0.0.1:1"));
    let applied = client.apply(apply(second)).await.unwrap().into_inner();
    assert_eq!((applied.differences.len(), applied.unchanged), (31, 10));
    meets(&client, "new.test", "allowed").await;
    meets(&client, "r39.test", "unknown_name").await;
    meets(&client, "file.test", "allowed").await;
    meets(&client, "r9.test", "allowed").await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let app = Identity::of("app.test");
    let backend = app.serve_page("page").await;
    let mut client = controlled.client();
    let done = client.set(set(route("app", "app.test", backend))).await.unwrap().into_inner();
    let folder = controlled.stop().await;
    let again = Controlled::stored_in(folder, Arc::new(SystemClock), |_| {}).await;
    // Ready means that the store was read.
    let stream = again.proxy.dial().await;
    let (_, shown) = handshake(stream, "app.test", app.trusting()).await.unwrap();
    assert_eq!(shown, app.certificate);
    let request = proto::GetRequest { id: "app".into() };
    let state = again.client().get(request).await.unwrap().into_inner();
    assert_eq!((state.revision, state.source.as_str()), (done.revision, "store"));
}
