//! Watchers: everything that is there, then every change, exactly once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mse_proxy::clock::SystemClock;
use mse_proxy::control::proto::{RemoveRequest, WatchRequest, WatchResponse};
use tonic::{Code, Request, Streaming};

use crate::journey::soon;
use crate::support::{Client, Controlled, route, set};

type Known = BTreeMap<String, String>;

fn apply(known: &mut Known, told: &WatchResponse) {
    for event in &told.events {
        match &event.route {
            Some(route) => drop(known.insert(event.id.clone(), route.backends[0].clone())),
            None => drop(known.remove(&event.id)),
        }
    }
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    soon("a change is told", stream.message()).await.unwrap().unwrap()
}

/// What is there, and under which revision.
async fn beginning(stream: &mut Streaming<WatchResponse>) -> (Known, u64) {
    let mut known = Known::new();
    loop {
        let told = next(stream).await;
        assert!(told.is_initial);
        apply(&mut known, &told);
        if told.is_complete {
            return (known, told.revision);
        }
    }
}

async fn write(client: &mut Client, id: &str, backend: u16) -> u64 {
    let wanted = route(id, &format!("{id}.test"), format!("127.0.0.1:{backend}"));
    client.set(set(wanted)).await.unwrap().into_inner().revision
}

#[tokio::test]
async fn a_watcher_sees_everything_once_and_goes_on_where_it_was() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    for n in 0..20 {
        write(&mut client, &format!("r{n}"), 1).await;
    }
    let mut stream = client.watch(WatchRequest { after: None }).await.unwrap().into_inner();
    let (mut known, mut seen) = beginning(&mut stream).await;
    assert_eq!(known.len(), 20);
    // Changes while it watches, while it is away, and again while it watches.
    let mut expected = known.clone();
    for round in 2..5 {
        let mut newest = 0;
        for n in 0..10 {
            let id = format!("r{n}");
            newest = write(&mut client, &id, round).await;
            expected.insert(id, format!("127.0.0.1:{round}"));
        }
        let id = format!("r{}", 10 + round);
        let request = RemoveRequest { id: id.clone(), ..RemoveRequest::default() };
        newest = newest.max(client.remove(request).await.unwrap().into_inner().revision);
        expected.remove(&id);
        while seen < newest {
            let told = next(&mut stream).await;
            assert!(told.revision > seen && !told.is_initial, "in order, no repeats");
            seen = told.revision;
            apply(&mut known, &told);
        }
        assert_eq!(known, expected);
        if round == 3 {
            continue;
        }
        drop(stream);
        expected.insert("away".into(), format!("127.0.0.1:{round}"));
        write(&mut client, "away", round).await;
        stream = client.watch(WatchRequest { after: Some(seen) }).await.unwrap().into_inner();
    }
}

#[tokio::test]
async fn a_revision_of_another_store_is_told_apart() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    let newest = write(&mut client, "a", 1).await;
    let refused = client.watch(WatchRequest { after: Some(newest + 1000) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains(&newest.to_string()), "{refused}");
}

#[tokio::test]
async fn a_watcher_keeps_to_its_own_deadline() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    let mut request = Request::new(WatchRequest { after: None });
    // Told to the proxy alone: the client itself would wait for ever.
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = client.watch(request).await.unwrap().into_inner();
    beginning(&mut stream).await;
    let end = soon("the deadline", stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end}");
}

#[tokio::test]
async fn watchers_are_let_go_when_the_proxy_stops() {
    let mut controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    let mut stream = client.watch(WatchRequest { after: None }).await.unwrap().into_inner();
    beginning(&mut stream).await;
    controlled.proxy.stop().await;
    let end = soon("the end", stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("stops"), "{end}");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_so_and_holds_up_nobody() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let mut client = controlled.client();
    let mut slow = controlled.client();
    let mut stream = slow.watch(WatchRequest { after: None }).await.unwrap().into_inner();
    beginning(&mut stream).await;
    // Large routes, so that what is on the way does not hold them all.
    let hosts: Vec<_> = (0..1_500).map(|n| format!("h{n}.large.test")).collect();
    let mut newest = 0;
    for n in 0..600_u16 {
        let mut wanted = route("large", "large.test", format!("127.0.0.1:{}", n + 1));
        wanted.hosts.clone_from(&hosts);
        newest = client.set(set(wanted)).await.unwrap().into_inner().revision;
    }
    // It reads again: up to a point in order, and then it is told that it was too slow, or it has
    // missed nothing at all.
    let mut seen = 0;
    let end = loop {
        match soon("what was on the way", stream.message()).await {
            Ok(Some(told)) => {
                assert!(told.revision > seen);
                seen = told.revision;
                if seen == newest {
                    break None;
                }
            }
            Ok(None) => panic!("it ends with a reason"),
            Err(end) => break Some(end),
        }
    };
    let end = end.unwrap_or_else(|| panic!("the backlog has no bound"));
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    // And goes on from where it was, or is told that it is too late for that.
    let again = slow.watch(WatchRequest { after: Some(seen) }).await;
    match again {
        Ok(stream) => assert!(next(&mut stream.into_inner()).await.revision > seen),
        Err(late) => assert_eq!(late.code(), Code::OutOfRange, "{late}"),
    }
    tokio::time::timeout(Duration::from_secs(30), write(&mut client, "b", 1)).await.unwrap();
}
