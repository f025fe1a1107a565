//! Whatever clients of the control service do: it is bounded, and the data path goes on.

use std::sync::Arc;

use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mse_proxy::control::proto::{self, ApplyRequest, GetRequest, ListRequest, SetRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::journey::{Identity, handshake, route, soon};
use crate::support::Controlled;

/// How many connections there may be, and how many streams.
const CONNECTIONS: usize = 64;
const STREAMS: usize = 64;

fn large(bytes: usize) -> proto::Route {
    proto::Route { more: "x".repeat(bytes), ..proto::Route::default() }
}

#[tokio::test]
async fn a_message_has_a_bound_and_that_of_a_whole_set_is_larger() {
    let controlled = Controlled::start("").await;
    let mut client = controlled.client();
    let set = |bytes| SetRequest { route: Some(large(bytes)), ..SetRequest::default() };
    let over = client.set(set(1 << 20)).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted, "{over}");
    assert!(over.message().contains("1048576"), "{over}");
    let within = client.set(set((1 << 20) - 100)).await.unwrap_err();
    assert_ne!(within.code(), Code::ResourceExhausted, "{within}");
    let apply = |bytes| ApplyRequest { routes: vec![large(bytes)], ..ApplyRequest::default() };
    let within = client.apply(apply(8 << 20)).await.unwrap_err();
    assert_ne!(within.code(), Code::ResourceExhausted, "{within}");
    let over = client.apply(apply(64 << 20)).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted, "{over}");
}

/// Begins a call whose message never ends, and gives the code that it is answered with.
async fn unfinished(controlled: &Controlled, method: &str, deadline: &str) -> String {
    let stream = UnixStream::connect(controlled.socket()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // A message of 1000 bytes is announced, and three of them come.
    let begun = Bytes::from_static(&[0, 0, 0, 3, 232, 1, 2, 3]);
    let frames = tokio_stream::once(Ok::<_, std::convert::Infallible>(Frame::data(begun)))
        .chain(tokio_stream::pending());
    let request = Request::post(format!("http://localhost/mse.proxy.v1.RouteService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", deadline)
        .body(BodyExt::boxed_unsync(StreamBody::new(frames)))
        .unwrap();
    let answer = soon("an answer", sender.send_request(request)).await.unwrap();
    answer.headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_deadline_is_kept_also_by_whoever_waits_for_a_place() {
    let controlled = Controlled::start("").await;
    let exceeded = (Code::DeadlineExceeded as i32).to_string();
    assert_eq!(unfinished(&controlled, "Set", "50m").await, exceeded);
    // One set at a time: the second waits for the first, which never comes.
    let both = tokio::join!(
        unfinished(&controlled, "Apply", "100m"),
        unfinished(&controlled, "Apply", "50m")
    );
    assert_eq!(both, (exceeded.clone(), exceeded));
    // Their places are free again.
    let refused = controlled.client().apply(ApplyRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn connections_are_bounded_and_silent_ones_give_their_place_back() {
    let controlled = Controlled::start("").await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(UnixStream::connect(controlled.socket()).await.unwrap());
    }
    // Accepted in order: this one is the first beyond.
    let mut beyond = UnixStream::connect(controlled.socket()).await.unwrap();
    assert_eq!(soon("the end", beyond.read(&mut [0; 1])).await.unwrap(), 0);
    for mut silent in held {
        let mut read = Vec::new();
        let _ = soon("the silent one is let go", silent.read_to_end(&mut read)).await;
    }
    soon("a place is free", controlled.client().list(ListRequest::default())).await.unwrap();
}

#[tokio::test]
async fn streams_are_bounded_and_keep_no_call_out() {
    let controlled = Controlled::start("").await;
    let request = || HealthCheckRequest { service: String::new() };
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut health = HealthClient::new(controlled.channel());
        // Half of the connections stay free.
        if open.len() >= CONNECTIONS / 2 {
            health = HealthClient::clone(&open[open.len() % 8]);
        }
        let mut stream = health.watch(request()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        tokio::spawn(async move { while let Ok(Some(_)) = stream.message().await {} });
        open.push(health);
    }
    let mut health = HealthClient::new(controlled.channel());
    let refused = health.watch(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    soon("a call", health.check(request())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_harms_no_session() {
    let app = Identity::of("app.test");
    let mut routes = route("app.test", app.serve_page("page").await, "");
    for number in 0..3_000 {
        routes += &route(&format!("h{number}.test"), "127.0.0.1:1", "");
    }
    let controlled = Controlled::start(&routes).await;
    let (over, answered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (mut client, over) = (controlled.client(), Arc::clone(&over));
        let answered = Arc::clone(&answered);
        flood.spawn(async move {
            let ended = over.notified();
            tokio::pin!(ended);
            let mut answers = 0;
            loop {
                let ask = async {
                    match number % 4 {
                        0 => drop(client.list(ListRequest::default()).await.unwrap()),
                        1 => {
                            let routes = vec![large(4 << 20)];
                            let request = ApplyRequest { routes, ..ApplyRequest::default() };
                            drop(client.apply(request).await.unwrap_err());
                        }
                        _ => {
                            let request = GetRequest { id: "app.test".into() };
                            drop(client.get(request).await.unwrap());
                        }
                    }
                };
                tokio::select! {
                    () = &mut ended => return answers,
                    () = ask => answers += 1,
                }
                answered.notify_one();
            }
        });
    }
    for _ in 0..100 {
        let stream = controlled.proxy.dial().await;
        let passage = async {
            let (mut tls, shown) = handshake(stream, "app.test", app.trusting()).await.unwrap();
            assert_eq!(shown, app.certificate);
            tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut page = String::new();
            tls.read_to_string(&mut page).await.unwrap();
            assert!(page.ends_with("page"), "{page}");
        };
        soon("a session", passage).await;
        soon("the flood goes on", answered.notified()).await;
    }
    over.notify_waiters();
    while let Some(answers) = flood.join_next().await {
        assert!(answers.unwrap() > 0, "everybody was answered meanwhile");
    }
}
