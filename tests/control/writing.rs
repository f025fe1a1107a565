//! What a write answers: done, refused with the reason, or done before.

use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::control::proto::difference::Kind;
use mse_proxy::control::proto::{
    self, ApplyRequest, GetRequest, HistoryRequest, ListRequest, Phase, RemoveRequest, SetRequest,
};
use mse_proxy::registry::history::Head;
use mse_proxy::registry::verify::Chain;
use tokio::io::AsyncWriteExt as _;
use tonic::Code;

use crate::journey::{self, RawBackend, hello, until};
use crate::support::{Client, Controlled, meets, route, set};

async fn start() -> (Controlled, Client) {
    let controlled = Controlled::stored(Arc::new(SystemClock), |_| {}).await;
    let client = controlled.client();
    (controlled, client)
}

#[tokio::test]
async fn a_stale_revision_is_refused_with_the_current_one() {
    let (_controlled, mut client) = start().await;
    let create = SetRequest { if_revision: Some(0), ..set(route("a", "a.test", "127.0.0.1:1")) };
    let first = client.set(create.clone()).await.unwrap().into_inner();
    let again = client.set(create).await.unwrap_err();
    assert_eq!(again.code(), Code::Aborted);
    assert!(again.message().contains(&first.revision.to_string()), "{}", again.message());
    let changed = route("a", "a.test", "127.0.0.1:2");
    let update = SetRequest { if_revision: Some(first.revision), ..set(changed.clone()) };
    let second = client.set(update.clone()).await.unwrap().into_inner();
    assert!(second.revision > first.revision);
    assert_eq!(client.set(update).await.unwrap_err().code(), Code::Aborted);
    // What is so already is no change, and keeps its revision.
    let same = client.set(set(changed)).await.unwrap().into_inner();
    assert_eq!((same.changed, same.revision), (false, second.revision));
    let now = client.get(GetRequest { id: "a".into() }).await.unwrap().into_inner();
    assert_eq!(now.revision, second.revision);
    let stale =
        RemoveRequest { id: "a".into(), if_revision: Some(first.revision), ..Default::default() };
    assert_eq!(client.remove(stale).await.unwrap_err().code(), Code::Aborted);
    let stale = ApplyRequest { if_revision: Some(first.revision), ..Default::default() };
    assert_eq!(client.apply(stale).await.unwrap_err().code(), Code::Aborted);
    let gone = RemoveRequest { id: "nobody".into(), ..Default::default() };
    assert_eq!(client.remove(gone).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_and_its_owner_named() {
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("routes.toml");
    std::fs::write(&path, journey::route("file.test", "127.0.0.1:1", "id = \"filed\"")).unwrap();
    let controlled =
        Controlled::stored(Arc::new(SystemClock), |config| config.routes.path = Some(path)).await;
    let mut client = controlled.client();
    client.set(set(route("one", "a.test", "127.0.0.1:1"))).await.unwrap();
    for (id, host, owner) in [("two", "a.test", "one"), ("three", "file.test", "filed")] {
        let taken = client.set(set(route(id, host, "127.0.0.1:1"))).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
        assert!(taken.message().contains(owner), "{}", taken.message());
    }
    let twice = vec![route("x", "x.test", "127.0.0.1:1"), route("y", "x.test", "127.0.0.1:1")];
    let apply = ApplyRequest { routes: twice, ..ApplyRequest::default() };
    let refused = client.apply(apply).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(client.list(ListRequest::default()).await.unwrap().into_inner().total, 2);
}

#[tokio::test]
async fn whoever_repeats_a_write_gets_the_first_answer() {
    let (_controlled, mut client) = start().await;
    let request = SetRequest {
        request_id: "deploy-7".into(),
        if_revision: Some(0),
        ..set(route("a", "a.test", "127.0.0.1:1"))
    };
    let first = client.set(request.clone()).await.unwrap().into_inner();
    client.set(set(route("a", "a.test", "127.0.0.1:2"))).await.unwrap();
    let repeated = client.set(request.clone()).await.unwrap().into_inner();
    assert_eq!(repeated, first);
    let state = client.get(GetRequest { id: "a".into() }).await.unwrap().into_inner();
    assert_eq!(state.route.unwrap().backends, ["127.0.0.1:2"], "it is not done twice");
    let other =
        SetRequest { request_id: "deploy-7".into(), ..set(route("b", "b.test", "127.0.0.1:1")) };
    assert_eq!(client.set(other).await.unwrap_err().code(), Code::InvalidArgument);
    let long = SetRequest { request_id: "x".repeat(65), ..request };
    assert_eq!(client.set(long).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn all_faults_of_a_route_and_of_a_set_are_told_at_once() {
    let (_controlled, mut client) = start().await;
    let bad = proto::Route {
        hosts: vec!["a b".into()],
        backends: vec!["10.0.0.1".into()],
        grace: "soon".into(),
        ..proto::Route::default()
    };
    let refused = client.set(set(bad.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message().lines().count(), 3, "{}", refused.message());
    let routes = vec![route("good", "good.test", "127.0.0.1:1"), bad];
    let refused = client.apply(ApplyRequest { routes, ..Default::default() }).await.unwrap_err();
    assert!(refused.message().starts_with("routes[1] \"a b\": "), "{}", refused.message());
    let many = vec![proto::Route::default(); 5_000];
    let refused =
        client.apply(ApplyRequest { routes: many, ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().len() < 8_000);
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_cut_and_changes_nothing() {
    let (controlled, mut client) = start().await;
    let backend = RawBackend::start().await;
    let kept = proto::Route {
        expires_at: "2099-01-01T00:00:00Z".into(),
        ..route("kept", "kept.test", backend.address)
    };
    let before = vec![
        kept.clone(),
        route("moved", "moved.test", backend.address),
        route("gone", "gone.test", backend.address),
        route("quiet", "quiet.test", backend.address),
    ];
    let apply =
        |routes: Vec<proto::Route>, dry_run| ApplyRequest { routes, dry_run, ..Default::default() };
    client.apply(apply(before.clone(), false)).await.unwrap();
    // Two live connections through one, one through each of two others; one of them carries bytes.
    let mut open = Vec::new();
    for host in ["kept.test", "moved.test", "gone.test", "gone.test"] {
        meets(&client, host, "allowed").await;
        let bytes = hello(host, &[]);
        let mut stream = controlled.proxy.dial().await;
        stream.write_all(&bytes).await.unwrap();
        open.push((stream, backend.accept(&bytes).await));
    }
    let (mut busy, busy_backend) = open.pop().unwrap();
    let flow = tokio::spawn(async move {
        let _held = busy_backend;
        let bytes = [7; 1000];
        while busy.write_all(&bytes).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let sooner = proto::Route { expires_at: "2098-01-01T00:00:00Z".into(), ..kept };
    let wanted = vec![
        sooner,
        route("moved", "moved.test", "127.0.0.1:9"),
        route("new", "new.test", backend.address),
        route("quiet", "quiet.test", backend.address),
    ];
    let told = client.apply(apply(wanted, true)).await.unwrap().into_inner();
    flow.abort();
    assert_eq!((told.revision, told.unchanged), (0, 1));
    let of = |id: &str| told.differences.iter().find(|one| one.id == id).unwrap();
    let short = |id: &str| {
        let one = of(id);
        (one.kind(), one.ends_sooner, one.cut_connections)
    };
    assert_eq!(told.differences.len(), 4);
    assert_eq!(short("kept"), (Kind::Changed, true, 0));
    assert_eq!(short("moved"), (Kind::Changed, false, 1));
    assert_eq!(short("gone"), (Kind::Removed, false, 2));
    assert_eq!(short("new"), (Kind::Added, false, 0));
    assert!(of("moved").detail.contains("127.0.0.1:9"), "{}", of("moved").detail);
    assert_eq!(of("moved").cut_bytes_per_second, 0, "it is silent");
    let rate = of("gone").cut_bytes_per_second;
    assert!((1..=10_000_000).contains(&rate), "{rate}");
    // Nothing has happened.
    let list = client.list(ListRequest::default()).await.unwrap().into_inner();
    let routes: Vec<_> = list.routes.into_iter().map(|state| state.route.unwrap()).collect();
    let mut expected = before;
    expected.sort_by(|one, other| one.id.cmp(&other.id));
    for route in &mut expected {
        "passthrough".clone_into(&mut route.mode);
    }
    assert_eq!(routes, expected);
    until("those who stay are still there", || controlled.proxy.open_sessions() == 3).await;
}

#[tokio::test]
async fn the_history_names_who_did_what_and_its_chain_holds() {
    let (_controlled, mut client) = start().await;
    for n in 0..3 {
        client.set(set(route("a", "a.test", format!("127.0.0.1:{}", n + 1)))).await.unwrap();
        client
            .set(set(route(&format!("b{n}"), &format!("b{n}.test"), "127.0.0.1:1")))
            .await
            .unwrap();
    }
    let request = RemoveRequest { id: "a".into(), request_id: "bye".into(), ..Default::default() };
    let removed = client.remove(request).await.unwrap().into_inner();
    let ask = |id: &str, after, page_size| HistoryRequest { id: id.into(), after, page_size };
    let of_a = client.history(ask("a", 0, 0)).await.unwrap().into_inner();
    let numbers: Vec<_> = of_a.records.iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 3, 5, 7]);
    let last = &of_a.records[3];
    assert_eq!((last.revision, last.request_id.as_str()), (removed.revision, "bye"));
    let uid = rustix::process::getuid().as_raw();
    let by = format!("unix:uid={uid}");
    assert!(last.by.starts_with(&by), "{}", last.by);
    assert!(last.by.ends_with(&format!("pid={}", std::process::id())), "{}", last.by);
    assert!(last.changes[0].before.contains("127.0.0.1:3") && last.changes[0].after.is_empty());
    assert!(of_a.records[0].changes[0].before.is_empty());
    // Page by page, and the chain of all.
    let (mut all, mut after) = (Vec::new(), 0);
    let head = loop {
        let page = client.history(ask("", after, 2)).await.unwrap().into_inner();
        assert!(page.records.len() <= 2);
        after = page.records.last().unwrap().number;
        let head = (page.head_number, page.head_digest.clone(), page.oldest);
        all.extend(page.records);
        if !page.more {
            break head;
        }
    };
    assert_eq!(all.len(), 7);
    let digest = head.1.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let head = Head { number: head.0, digest, oldest: head.2 };
    let chain = |tamper: Option<usize>| {
        let mut chain = Chain::new(head.oldest);
        for (index, record) in all.iter().enumerate() {
            let mut stored = record.stored.clone();
            if tamper == Some(index) {
                let at = stored.iter().position(|byte| *byte == b'b').unwrap();
                stored[at] = b'c';
            }
            chain.check(record.number, &stored)?;
        }
        chain.finish(&head)
    };
    assert!(chain(None).is_ok());
    assert_eq!(chain(Some(3)).unwrap_err().number(), 4, "the one that was tampered with is named");
}

#[tokio::test]
async fn stored_routes_are_listed_with_their_revisions() {
    let (_controlled, mut client) = start().await;
    let mut newest = 0;
    for n in 0..5 {
        let done = client.set(set(route(&format!("r{n}"), &format!("r{n}.test"), "127.0.0.1:1")));
        newest = done.await.unwrap().into_inner().revision;
    }
    meets(&client, "r4.test", "allowed").await;
    let request = ListRequest { source: "store".into(), ..ListRequest::default() };
    let list = client.list(request).await.unwrap().into_inner();
    assert_eq!((list.total, list.revision), (5, newest));
    let revisions: Vec<_> = list.routes.iter().map(|state| state.revision).collect();
    assert!(revisions.is_sorted() && revisions[4] == newest, "{revisions:?}");
    assert!(
        list.routes.iter().all(|state| state.phase() == Phase::Live && state.origin == "store")
    );
}

#[tokio::test]
async fn a_part_of_the_routes_is_applied_and_the_others_stay() {
    let (_controlled, mut client) = start().await;
    let routes: Vec<_> =
        ["a", "b", "c"].map(|id| route(id, &format!("{id}.test"), "127.0.0.1:1")).into();
    client.apply(ApplyRequest { routes, ..Default::default() }).await.unwrap();
    let part = ApplyRequest {
        routes: vec![route("d", "d.test", "127.0.0.1:1")],
        keep_others: true,
        removals: vec!["b".into()],
        ..Default::default()
    };
    let without = ApplyRequest { keep_others: false, ..part.clone() };
    assert_eq!(client.apply(without).await.unwrap_err().code(), Code::InvalidArgument);
    let done = client.apply(part).await.unwrap().into_inner();
    assert_eq!(done.differences.len(), 2);
    for (id, is_there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(client.get(GetRequest { id: id.into() }).await.is_ok(), is_there, "{id}");
    }
}

#[tokio::test]
async fn more_than_may_go_goes_only_when_that_is_confirmed() {
    let controlled = Controlled::stored(Arc::new(SystemClock), |config| {
        config.routes.max_removed_percent = 50.try_into().unwrap();
    })
    .await;
    let mut client = controlled.client();
    let routes: Vec<_> =
        ["a", "b", "c"].map(|id| route(id, &format!("{id}.test"), "127.0.0.1:1")).into();
    client.apply(ApplyRequest { routes: routes.clone(), ..Default::default() }).await.unwrap();
    let fewer = ApplyRequest { routes: routes[..1].to_vec(), ..Default::default() };
    for dry_run in [true, false] {
        let fewer = ApplyRequest { dry_run, ..fewer.clone() };
        let refused = client.apply(fewer).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("2 of 3"), "{refused}");
    }
    let done = client.apply(ApplyRequest { allow_removal: true, ..fewer }).await.unwrap();
    assert_eq!(done.into_inner().differences.len(), 2);
}
