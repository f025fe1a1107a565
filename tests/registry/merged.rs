//! From the store to the table: what is in force when files and store meet, and when the store goes.

use std::sync::Arc;

use mse_proxy::clock::{SystemClock, Timestamp};
use mse_proxy::reconcile::{Precedence, Reconciler, Report};
use mse_proxy::routing::snapshot::Miss;
use mse_proxy::routing::table::{Table, table};
use mse_proxy::source::stored::Stored;
use mse_proxy::source::{RouteSet, Source, document};
use mse_proxy::store::Shared;
use mse_proxy::wire::client_hello::Alpn;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Away, PATIENCE, put, store};

/// A table of files and a store.
struct House {
    table: Table,
    reports: watch::Receiver<Report>,
    files: mpsc::Sender<RouteSet>,
    _work: JoinSet<()>,
}

impl House {
    fn new(store: &Shared) -> Self {
        let (publisher, table) = table();
        let precedence = Precedence::default();
        let reconciler =
            Reconciler::new(publisher, table.clone(), Arc::new(SystemClock), precedence);
        let reports = reconciler.reports();
        let (files, sets) = mpsc::channel(16);
        let (source, _) = Stored::new(Arc::clone(store));
        let mut work = JoinSet::new();
        work.spawn(source.run(files.clone()));
        work.spawn(reconciler.run(sets));
        Self { table, reports, files, _work: work }
    }

    /// What a file says from now on.
    async fn file(&self, text: &str) {
        let claims = document::read(&"routes.toml".into(), text).claims;
        let set = RouteSet {
            source: "file".into(),
            claims,
            faults: Vec::new(),
            left_out: 0,
            revision: None,
        };
        self.files.send(set).await.unwrap();
    }

    async fn until(&mut self, what: &str, is_so: impl FnMut(&Report) -> bool) -> Report {
        let report = timeout(PATIENCE, self.reports.wait_for(is_so)).await;
        report.unwrap_or_else(|_| panic!("{what}")).unwrap().clone()
    }

    fn has(&self, id: &str) -> bool {
        self.table.current().snapshot.by_id(id).is_some()
    }
}

fn text(id: &str, host: &str, more: &str) -> String {
    format!("[[route]]\nid = \"{id}\"\nhosts = [\"{host}\"]\nbackends = [\"10.0.0.1:1\"]\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bad_or_conflicts_in_the_store_stops_nothing_else() {
    let (store, _folder) = store();
    put(
        &store,
        &[
            ("routes/one", Some(&text("one", "one.test", ""))),
            ("routes/taken", Some(&text("taken", "file.test", ""))),
            ("routes/bad", Some("hosts = 1")),
            ("routes/twice", Some(&text("twice", "one.test", ""))),
        ],
    )
    .await;
    let mut house = House::new(&store);
    house.file(&text("file", "file.test", "")).await;
    let report = house
        .until("both sources", |report| report.sources.len() == 2 && report.conflicts.len() == 2)
        .await;
    let told: Vec<_> = report
        .conflicts
        .iter()
        .map(|(claim, conflict)| format!("{} at {}: {conflict}", claim.route.id, claim.origin))
        .collect();
    let words =
        "taken at store: file.test is already claimed by the route \"file\" at routes.toml:1:1";
    assert!(told.contains(&words.to_owned()), "{told:?}");
    let words = "twice at store: one.test is already claimed by the route \"one\" at store";
    assert!(told.contains(&words.to_owned()), "{told:?}");
    let standing = &report.sources[1];
    assert_eq!((&*standing.name, standing.conflicts, standing.left_out), ("store", 2, 1));
    assert!(house.has("one") && house.has("file") && !house.has("taken") && !house.has("twice"));
    // A route that comes goes in beside all that; one that is mended, too.
    let good = text("bad", "bad.test", "");
    put(&store, &[("routes/new", Some(&text("new", "new.test", ""))), ("routes/bad", Some(&good))])
        .await;
    house.until("the mending", |report| report.sources[1].left_out == 0).await;
    assert!(house.has("new") && house.has("bad"));
    // When the file lets go of the name, the store's route has it.
    house.file("").await;
    house.until("the freed name", |report| report.conflicts.len() == 1).await;
    assert!(house.has("taken") && !house.has("file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_routes_stay_and_end_on_time() {
    let (store, _folder) = store();
    let end = "expires_at = 2098-01-01T00:00:00Z\n";
    let revision = put(&store, &[("routes/a", Some(&text("a", "a.test", end)))]).await;
    let away = Away::new(&store);
    let shared: Shared = Arc::clone(&away) as _;
    let mut house = House::new(&shared);
    let standing = |report: &Report| report.sources.first().cloned();
    house.until("the route", |report| standing(report).is_some_and(|one| !one.has_fault())).await;
    away.go();
    let report = house
        .until("the fault", |report| standing(report).is_some_and(|one| one.has_fault()))
        .await;
    let standing = &report.sources[0];
    assert_eq!((standing.routes, standing.revision), (1, Some(revision)));
    let snapshot = house.table.current().snapshot;
    assert_eq!(snapshot.store_revision(), Some(revision));
    let look = |at: &str| {
        let at: Timestamp = at.parse().unwrap();
        snapshot.lookup(&"a.test".parse().unwrap(), &Alpn::default(), at).map(|route| &*route.id)
    };
    assert_eq!(look("2097-12-31T23:59:59Z"), Ok("a"));
    assert!(matches!(look("2098-01-01T00:00:00Z"), Err(Miss::Expired(_))));
}
