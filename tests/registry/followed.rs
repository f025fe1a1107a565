//! The source that follows the store.

use std::sync::Arc;

use mse_proxy::registry::keys;
use mse_proxy::routing::text;
use mse_proxy::store::Shared;

use crate::support::{Away, Node, ids, put, route, store, told};

fn text_of(id: &str, host: &str) -> String {
    text::write(&route(id, host, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_told_at_once_and_after_each_change() {
    let (store, _folder) = store();
    let mut empty = Node::new(&store, "test");
    let first = empty.until("an empty set", |_| true).await;
    assert_eq!((ids(&first).len(), first.faults.len(), &*first.source), (0, 0, "store"));
    let done = empty.set(&route("b", "b.test", 1)).await.unwrap();
    let set = empty.until("the first route", |set| ids(set) == ["b"]).await;
    assert_eq!(set.revision, Some(done.revision));
    assert_eq!(set.claims.iter().next().unwrap().origin.to_string(), "store");
    let mut other = Node::new(&store, "other");
    let set = other.until("what was there", |_| true).await;
    assert_eq!((ids(&set), set.revision), (vec!["b"], Some(done.revision)));
    other.set(&route("a", "a.test", 1)).await.unwrap();
    empty.until("a route that another one wrote", |set| ids(set) == ["a", "b"]).await;
    other.remove("b").await.unwrap();
    empty.until("its end", |set| ids(set) == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_left_out_and_told_by_its_key_and_the_others_stay() {
    let (store, _folder) = store();
    let good = text_of("good", "good.test");
    let two = good.clone() + &text_of("more", "more.test");
    let elsewhere = text_of("x", "x.test");
    let garbage = format!("{}colour = 1\n", text_of("keys", "keys.test"));
    put(
        &store,
        &[
            ("routes/good", Some(&good)),
            ("routes/not-toml", Some("[[route")),
            ("routes/none", Some("# nothing\n")),
            ("routes/two", Some(&two)),
            ("routes/other", Some(&elsewhere)),
            ("routes/keys", Some(&garbage)),
        ],
    )
    .await;
    let mut node = Node::new(&store, "test");
    let set = node.until("the first set", |_| true).await;
    assert_eq!((ids(&set), set.left_out), (vec!["good"], 5));
    let told = told(&set).join("\n");
    for words in [
        "store routes/keys:5:1: `colour` is not a key of a route",
        "store routes/none: must be one [[route]] and nothing else; 0 stand here",
        "store routes/two: must be one [[route]] and nothing else; 2 stand here",
        "store routes/not-toml:1:8: this is no TOML",
        "store routes/other: the route says that its id is \"x\", its key says otherwise",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    // Each is mended by itself, through the API as well.
    node.set(&route("none", "none.test", 1)).await.unwrap();
    let set = node.until("one that was mended", |set| ids(set) == ["good", "none"]).await;
    assert_eq!(set.left_out, 4);
    put(&store, &[("routes/two", None), ("routes/other", None), ("routes/keys", None)]).await;
    node.remove("not-toml").await.unwrap();
    let set = node.until("all of them", |set| set.left_out == 0).await;
    assert_eq!((ids(&set), set.faults.len()), (vec!["good", "none"], 0));
    // And comes by itself.
    put(&store, &[("routes/good", Some("?")), ("routes/fine", Some(&text_of("fine", "f.test")))])
        .await;
    let set = node.until("a new fault", |set| set.left_out == 1).await;
    assert_eq!(ids(&set), ["fine", "none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_takes_nothing_and_says_so_until_it_is_back() {
    let (store, _folder) = store();
    put(&store, &[("routes/a", Some(&text_of("a", "a.test")))]).await;
    let away = Away::new(&store);
    let shared: Shared = Arc::clone(&away) as _;
    let mut node = Node::new(&shared, "test");
    node.until("the first set", |set| ids(set) == ["a"]).await;
    away.go();
    let set = node.until("the fault", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&set), ["a"]);
    let words = "store: the store does not answer: connection refused; the last good route stays";
    assert_eq!(told(&set), [words]);
    // Meanwhile somebody else writes.
    put(&store, &[("routes/b", Some(&text_of("b", "b.test")))]).await;
    away.come_back();
    let set = node.until("what came meanwhile", |set| ids(set) == ["a", "b"]).await;
    assert_eq!(set.faults.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_from_the_start_is_told_and_followed_later() {
    let (store, _folder) = store();
    put(&store, &[("routes/a", Some(&text_of("a", "a.test")))]).await;
    let away = Away::new(&store);
    away.go();
    let shared: Shared = Arc::clone(&away) as _;
    let mut node = Node::new(&shared, "test");
    let set = node.until("a first set in any case", |_| true).await;
    assert_eq!((ids(&set).len(), set.faults.len()), (0, 1));
    away.come_back();
    let set = node.until("the routes", |set| ids(set) == ["a"]).await;
    assert_eq!(set.faults.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_suddenly_empty_takes_nothing() {
    let (store, _folder) = store();
    let (other, _other_folder) = crate::support::store();
    let swap = crate::support::Swap::new(&store);
    let shared: Shared = Arc::clone(&swap) as _;
    let mut node = Node::new(&shared, "test");
    node.set(&route("a", "a.test", 1)).await.unwrap();
    node.set(&route("b", "b.test", 1)).await.unwrap();
    node.until("the routes", |set| ids(set) == ["a", "b"]).await;
    swap.to(&other);
    let set = node.until("the fault", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&set), ["a", "b"]);
    assert!(told(&set)[0].contains("is empty, which looks like another or a new one"), "{set:?}");
    // One that was restored from an older state is followed.
    let behind = Node::new(&other, "elsewhere");
    behind.set(&route("a", "a.test", 1)).await.unwrap();
    let set = node.until("what was restored", |set| ids(set) == ["a"]).await;
    assert_eq!(set.faults.len(), 0);
    node.settled().await;
    node.set(&route("c", "c.test", 1)).await.unwrap();
    node.until("a new route there", |set| ids(set) == ["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_later_version_is_left_alone() {
    let (store, _folder) = store();
    put(&store, &[(keys::FORMAT, Some("2")), ("routes/a", Some(&text_of("a", "a.test")))]).await;
    let mut node = Node::new(&store, "test");
    let set = node.until("the fault", |_| true).await;
    assert_eq!(ids(&set).len(), 0);
    assert!(told(&set)[0].contains("has the format \"2\", which this version"), "{set:?}");
    put(&store, &[(keys::FORMAT, Some("1"))]).await;
    node.until("the routes", |set| ids(set) == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_is_told_and_stops_no_route() {
    let (store, _folder) = store();
    let mut node = Node::new(&store, "test");
    node.set(&route("a", "a.test", 1)).await.unwrap();
    let head = store.get(keys::HEAD).await.unwrap().unwrap().value;
    put(&store, &[(keys::HEAD, Some("{}"))]).await;
    let set = node.until("the fault", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&set), ["a"]);
    assert!(told(&set)[0].starts_with("store: routes-head: this is no head"), "{set:?}");
    put(&store, &[(keys::HEAD, Some(str::from_utf8(&head).unwrap()))]).await;
    node.until("its mending", |set| set.faults.is_empty()).await;
    node.set(&route("a", "a.test", 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_stays_the_same_value() {
    let (store, _folder) = store();
    let texts: Vec<_> = (0..5_000)
        .map(|number| {
            let id = format!("r{number:04}");
            (keys::route(&id), text_of(&id, &format!("{id}.test")))
        })
        .collect();
    let changes: Vec<_> = texts.iter().map(|(key, text)| (&**key, Some(&**text))).collect();
    put(&store, &changes).await;
    let away = Away::new(&store);
    let shared: Shared = Arc::clone(&away) as _;
    let mut node = Node::new(&shared, "test");
    let first = node.until("all of them", |set| set.claims.len() == 5_000).await;
    let addresses = |set: &mse_proxy::source::RouteSet| -> Vec<usize> {
        set.claims.passages().iter().map(mse_proxy::routing::claims::Passage::address).collect()
    };
    // Everything is read again after an outage.
    away.go();
    node.until("the fault", |set| !set.faults.is_empty()).await;
    put(&store, &[("routes/r2500", None)]).await;
    away.come_back();
    let second = node.until("one less", |set| set.claims.len() == 4_999).await;
    let known = addresses(&first);
    let fresh = addresses(&second).into_iter().filter(|one| !known.contains(one)).count();
    assert_eq!(fresh, 1);
}
