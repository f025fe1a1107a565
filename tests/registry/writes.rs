//! One writer: what it does, what it refuses, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use mse_proxy::control::write::{Failed, Settings};
use mse_proxy::registry::image::Value;
use mse_proxy::registry::keys;
use mse_proxy::registry::refusal::Refusal;
use mse_proxy::registry::wish::{Others, Request, Wish};
use mse_proxy::routing::route::{Claim, Origin};
use mse_proxy::routing::snapshot::{Conflict, Snapshot};
use mse_proxy::routing::text;
use mse_proxy::store::Error;
use mse_proxy::units::Percent;
use tokio::time::Instant;

use crate::support::{Away, Node, history, put, read, route, settings, store};

fn refused(failed: Result<mse_proxy::control::write::Done, Failed>) -> Refusal {
    match failed {
        Err(Failed::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_created_replaced_and_removed_and_each_leaves_its_record() {
    let (store, _folder) = store();
    let node = Node::new(&store, "unix:uid=7(eve) pid=1");
    let (first, second) = (route("a", "a.test", 1), route("a", "a.test", 2));
    let created = node.set(&first).await.unwrap();
    assert_eq!((created.differences[0].before.as_ref(), created.unchanged), (None, 0));
    let same = node.set(&first).await.unwrap();
    assert_eq!((same.revision, same.differences.len(), same.unchanged), (created.revision, 0, 1));
    let changed = node.set(&second).await.unwrap();
    assert!(changed.revision > created.revision);
    assert_eq!(changed.differences[0].before, Some(Value::Route(Arc::clone(&first))));
    let stored = store.get(&keys::route("a")).await.unwrap().unwrap();
    assert_eq!((stored.value, stored.revision), (text::write(&second).into(), changed.revision));
    let removed = node.remove("a").await.unwrap();
    assert_eq!(store.get(&keys::route("a")).await.unwrap(), None);
    assert_eq!(refused(node.remove("a").await), Refusal::NotFound { id: "a".into() });

    assert_eq!(store.get(keys::FORMAT).await.unwrap().unwrap().value, b"1");
    let (head, records) = history(&store).await;
    assert_eq!((head.number, head.oldest, records.len()), (3, 1, 3));
    let texts: Vec<_> = records
        .iter()
        .map(|(number, entry)| {
            let record = read(entry);
            assert_eq!((record.number, &*record.by), (*number, "unix:uid=7(eve) pid=1"));
            let [change] = record.changes.as_slice() else { panic!("{record:?}") };
            (change.before.clone(), change.after.clone(), entry.revision)
        })
        .collect();
    let (first, second) = (Some(text::write(&first)), Some(text::write(&second)));
    assert_eq!(texts[0], (None, first.clone(), created.revision));
    assert_eq!(texts[1], (first, second.clone(), changed.revision));
    assert_eq!(texts[2], (second, None, removed.revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_revision_is_refused_with_the_current_one() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    let set = |port, if_revision| Wish::Set { route: route("a", "a.test", port), if_revision };
    let stale = |asked, current| Refusal::Stale { id: Some("a".into()), asked, current };
    assert_eq!(refused(node.ask("", set(1, Some(5))).await), stale(5, 0));
    let first = node.ask("", set(1, Some(0))).await.unwrap().revision;
    assert_eq!(refused(node.ask("", set(2, Some(0))).await), stale(0, first));
    let second = node.ask("", set(2, Some(first))).await.unwrap().revision;
    let refusal = refused(node.ask("", set(3, Some(first))).await);
    assert_eq!(refusal, stale(first, second));
    let words =
        format!("route \"a\": if_revision is {first}, but the current revision is {second}");
    assert_eq!(refusal.to_string(), words);
    let remove = |if_revision| Wish::Remove { id: "a".into(), if_revision };
    assert_eq!(refused(node.ask("", remove(Some(first))).await), stale(first, second));
    // A whole set is as old as what was last written, removed routes included.
    let apply = |if_revision| Wish::Apply {
        routes: vec![],
        if_revision,
        allow_removal: true,
        others: Others::Go,
    };
    let removed = node.ask("", remove(Some(second))).await.unwrap().revision;
    let whole = Refusal::Stale { id: None, asked: second, current: removed };
    assert_eq!(refused(node.ask("", apply(Some(second))).await), whole);
    node.ask("", apply(Some(removed))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_refused_with_who_has_it() {
    let (store, _folder) = store();
    let mut node = Node::new(&store, "test");
    node.set(&route("first", "a.test", 1)).await.unwrap();
    let refusal = refused(node.set(&route("second", "a.test", 2)).await);
    let words = "route \"second\": a.test is already claimed by the stored route \"first\"";
    assert_eq!(refusal.to_string(), words);
    // Nor may both come in one transaction.
    let (one, other) = (route("x", "x.test", 1), route("y", "x.test", 2));
    let (one, other) = tokio::join!(node.set(&one), node.set(&other));
    assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1, "{one:?} {other:?}");
    // What is in force from elsewhere and goes first.
    let origin = Origin { source: "routes.toml".into(), line: 3, column: 1 };
    let claim = Claim { route: route("file", "f.test", 1), origin: origin.clone() };
    node.publisher.publish(Snapshot::build([claim]).0);
    let conflict = |pattern: &str| Conflict::Pattern {
        pattern: pattern.parse().unwrap(),
        id: "file".into(),
        first: origin.clone(),
    };
    let refusal = refused(node.set(&route("mine", "f.test", 1)).await);
    let expected = Refusal::Elsewhere { id: "mine".into(), conflict: conflict("f.test") };
    assert_eq!(refusal, expected);
    assert!(refusal.to_string().contains("\"file\" at routes.toml:3:1"), "{refusal}");
    let same_id = refused(node.set(&route("file", "other.test", 1)).await);
    assert!(matches!(same_id, Refusal::Elsewhere { .. }), "{same_id:?}");
    // When the incumbent goes, another may have the name.
    node.remove("first").await.unwrap();
    node.set(&route("second", "a.test", 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_routes_that_go_first_ask_nobody_else() {
    let (store, _folder) = store();
    let clock = Arc::new(mse_proxy::clock::SystemClock);
    let mut node = Node::with(&store, "t", Settings { yields: false, ..settings() }, clock);
    let origin = Origin { source: "routes.toml".into(), line: 3, column: 1 };
    let claim = Claim { route: route("file", "f.test", 1), origin };
    node.publisher.publish(Snapshot::build([claim]).0);
    node.set(&route("mine", "f.test", 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_a_request_gets_the_first_answer_and_changes_nothing() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    let set = |port| Wish::Set { route: route("a", "a.test", port), if_revision: None };
    let first = node.ask("r-1", set(1)).await.unwrap();
    node.ask("r-2", set(2)).await.unwrap();
    let repeated = node.ask("r-1", set(1)).await.unwrap();
    assert!(repeated.is_repeat);
    assert_eq!((repeated.revision, &repeated.differences), (first.revision, &first.differences));
    assert_eq!(
        store.get(&keys::route("a")).await.unwrap().unwrap().value,
        text::write(&route("a", "a.test", 2)).into_bytes()
    );
    // The same id for something else is no repetition.
    let reused = refused(node.ask("r-1", set(3)).await);
    assert_eq!(reused, Refusal::Reused { number: 1 });
    // What changed nothing is answered as it was, whatever has come since.
    let idle = node.ask("r-3", set(2)).await.unwrap();
    assert_eq!(idle.differences, vec![]);
    node.ask("r-4", set(4)).await.unwrap();
    let again = node.ask("r-3", set(2)).await.unwrap();
    assert_eq!((again.revision, again.unchanged, again.differences.len()), (idle.revision, 1, 0));
    for id in ["x".repeat(65), "a\nb".into()] {
        assert_eq!(refused(node.ask(&id, set(5)).await), Refusal::RequestId);
    }
    let (head, _) = history(&store).await;
    assert_eq!(head.number, 4);
    // At the same time, too.
    let five = [(); 5].map(|()| node.ask("r-5", set(5)));
    let answers = futures_util::future::join_all(five).await;
    let revisions: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().revision).collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    assert_eq!(history(&store).await.0.number, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_set_is_applied_in_one_step_and_rehearsed_without_one() {
    let (store, _folder) = store();
    let percent = Percent::try_from(30).unwrap();
    let settings = Settings { max_removed_percent: percent, ..settings() };
    let node = Node::with(&store, "test", settings, Arc::new(mse_proxy::clock::SystemClock));
    let apply = |routes: Vec<_>, allow_removal| Wish::Apply {
        routes,
        if_revision: None,
        allow_removal,
        others: Others::Go,
    };
    let one = |number: u16| route(&format!("r{number}"), &format!("r{number}.test"), 1);
    let ten: Vec<_> = (0..10).map(one).collect();
    let rehearsal = |wish| Request { id: String::new(), by: "test".into(), wish };
    node.settled().await;
    let told = node.writer.rehearse(&rehearsal(apply(ten.clone(), false))).unwrap();
    assert_eq!((told.revision, told.differences.len()), (0, 10));
    assert_eq!(store.range(keys::WATCHED).await.unwrap().entries, vec![]);
    let done = node.ask("", apply(ten.clone(), false)).await.unwrap();
    assert_eq!(done.differences, told.differences);
    // Three go, one changes, one is new, the others stay.
    let mut next: Vec<_> = (3..10).map(one).collect();
    next[0] = route("r3", "r3.test", 2);
    next.push(one(10));
    let done = node.ask("apply-1", apply(next.clone(), false)).await.unwrap();
    let ids: Vec<_> = done.differences.iter().map(|one| &*one.id).collect();
    assert_eq!((ids, done.unchanged), (vec!["r0", "r1", "r10", "r2", "r3"], 6));
    let revisions = store.range(keys::WATCHED).await.unwrap().entries;
    assert_eq!(revisions.iter().filter(|entry| entry.revision == done.revision).count(), 3);
    let repeated = node.ask("apply-1", apply(next, false)).await.unwrap();
    assert_eq!(
        (repeated.revision, &repeated.differences, repeated.unchanged),
        (done.revision, &done.differences, 6)
    );
    // More than may go.
    let few: Vec<_> = (3..8).map(one).collect();
    let refusal = refused(node.ask("", apply(few.clone(), false)).await);
    assert_eq!(refusal, Refusal::TooMuchRemoved { removed: 3, of: 8, percent });
    assert_eq!(node.writer.rehearse(&rehearsal(apply(few.clone(), false))), Err(refusal.into()));
    node.ask("", apply(few, true)).await.unwrap();
    // Routes of one set that cannot stand beside each other.
    let refusal = refused(node.ask("", apply(vec![one(1), route("x", "r1.test", 9)], true)).await);
    let words = "route \"x\" of this set: r1.test is already claimed by the route \"r1\"";
    assert!(refusal.to_string().starts_with(words), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_routes_are_applied_and_the_others_stay() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    let apply = |routes: Vec<_>, gone: &[&str]| Wish::Apply {
        routes,
        if_revision: None,
        allow_removal: false,
        others: Others::StayBut(gone.iter().map(|id| Arc::from(*id)).collect()),
    };
    let one = |id: &str, host: &str| route(id, host, 1);
    let three = vec![one("a", "a.test"), one("b", "b.test"), one("c", "c.test")];
    node.ask("", apply(three, &[])).await.unwrap();
    // Two exchange their names, one goes, one is new, one that is not there goes as well.
    let next = vec![one("a", "b.test"), one("b", "a.test"), one("d", "c.test")];
    let done = node.ask("", apply(next.clone(), &["c", "nobody"])).await.unwrap();
    let ids: Vec<_> = done.differences.iter().map(|one| &*one.id).collect();
    assert_eq!((ids, done.unchanged), (vec!["a", "b", "c", "d"], 0));
    let done = node.ask("", apply(next, &[])).await.unwrap();
    assert_eq!((done.differences.len(), done.unchanged), (0, 3));
    // A route that stays keeps its name.
    let refusal = refused(node.ask("", apply(vec![one("x", "a.test")], &[])).await);
    assert!(matches!(refusal, Refusal::Taken { ref rival, .. } if **rival == *"b"), "{refusal}");
    node.ask("", apply(vec![one("x", "a.test")], &["b"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused() {
    let (store, _folder) = store();
    let node = Node::new(&store, "test");
    let long = route(&"𝔞".repeat(250), "a.test", 1);
    assert!(matches!(refused(node.set(&long).await), Refusal::Id { .. }));
    let hosts: Vec<_> = (0..3_000).map(|host| format!("\"host-number-{host}.test\"")).collect();
    let text =
        format!("[[route]]\nid = 'a'\nhosts = [{}]\nbackends = ['10.0.0.1:1']", hosts.join(","));
    let wide = mse_proxy::source::document::route(&"t".into(), &text).unwrap();
    let refusal = refused(node.set(&wide).await);
    assert!(refusal.to_string().contains("give it fewer hosts"), "{refusal}");
    // The head of the history decides what may follow: without it, nothing.
    node.set(&route("b", "b.test", 1)).await.unwrap();
    put(&store, &[(keys::HEAD, Some("?"))]).await;
    node.settled().await;
    assert_eq!(refused(node.set(&route("b", "b.test", 2)).await), Refusal::NoHead);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_the_repetition_finds_it_done() {
    let (store, _folder) = store();
    let away = Away::new(&store);
    let shared: mse_proxy::store::Shared = Arc::clone(&away) as _;
    let node = Node::new(&shared, "test");
    node.settled().await;
    let wish = || Wish::Set { route: route("a", "a.test", 1), if_revision: Some(0) };
    away.lose_an_answer();
    let failed = node.ask("once", wish()).await.unwrap_err();
    assert!(matches!(failed, Failed::Unknown(Some(Error::Unavailable { .. }))), "{failed:?}");
    assert!(failed.to_string().contains("repeat it with the same request id"), "{failed}");
    let done = node.ask("once", wish()).await.unwrap();
    assert!(done.is_repeat);
    assert_eq!(history(&store).await.0.number, 1);
    // Away before anything was tried: nothing was changed, and that is said.
    away.go();
    let failed = node.ask("twice", wish()).await.unwrap_err();
    assert!(matches!(failed, Failed::Away(Some(_))), "{failed:?}");
    assert!(failed.to_string().ends_with("nothing was changed"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_never_read_ends_a_write_by_its_deadline() {
    let (store, _folder) = store();
    let away = Away::new(&store);
    away.go();
    let shared: mse_proxy::store::Shared = Arc::clone(&away) as _;
    let node = Node::new(&shared, "test");
    let wish = Wish::Set { route: route("a", "a.test", 1), if_revision: None };
    let request = Request { id: String::new(), by: "test".into(), wish };
    let deadline = Instant::now() + Duration::from_millis(50);
    let failed = node.writer.write(request, deadline).await.unwrap_err();
    assert!(matches!(failed, Failed::Away(None) | Failed::Unknown(None)), "{failed:?}");
    away.come_back();
    node.set(&route("a", "a.test", 1)).await.unwrap();
}
