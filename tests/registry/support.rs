//! Nodes: a source that follows a store and a writer to it, as one proxy has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mse_proxy::clock::{Clock, SystemClock, Timestamp};
use mse_proxy::control::write::{Done, Failed, Settings, Writer};
use mse_proxy::registry::history::{Bounds, Head, Kept, Record};
use mse_proxy::registry::keys;
use mse_proxy::registry::wish::{Request, Wish};
use mse_proxy::routing::route::Route;
use mse_proxy::routing::table::{Publisher, Table, table};
use mse_proxy::source::stored::{Handle, Stored};
use mse_proxy::source::{RouteSet, Source, document};
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{
    Answer, Batch, Change, Committed, Entry, Error, Range, Revision, Shared, Store, Transaction,
    Watch,
};
use mse_proxy::units::Percent;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Far more than any machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An embedded store in a folder of its own.
pub(crate) fn store() -> (Shared, TempDir) {
    let folder = TempDir::new().unwrap();
    let store: Shared = Arc::new(Embedded::open(&folder.path().join("store.db")).unwrap());
    (store, folder)
}

/// One proxy's view of a store.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) writer: Writer,
    pub(crate) sets: mpsc::Receiver<RouteSet>,
    /// What the proxy has in force, for tests that put something there.
    pub(crate) publisher: Publisher,
    pub(crate) by: &'static str,
    _work: JoinSet<()>,
}

pub(crate) fn settings() -> Settings {
    Settings { max_removed_percent: Percent::ALL, history: Bounds::default(), yields: true }
}

impl Node {
    pub(crate) fn new(store: &Shared, by: &'static str) -> Self {
        Self::with(store, by, settings(), Arc::new(SystemClock))
    }

    pub(crate) fn with(
        store: &Shared,
        by: &'static str,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (source, handle) = Stored::new(Arc::clone(store));
        let (publisher, table): (Publisher, Table) = table();
        let (writer, work) = Writer::new(handle.clone(), table, clock, settings);
        let (sender, sets) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(source.run(sender));
        tasks.spawn(work);
        Self { handle, writer, sets, publisher, by, _work: tasks }
    }

    pub(crate) async fn ask(&self, id: &str, wish: Wish) -> Result<Done, Failed> {
        let request = Request { id: id.into(), by: self.by.into(), wish };
        self.writer.write(request, Instant::now() + PATIENCE).await
    }

    pub(crate) async fn set(&self, route: &Arc<Route>) -> Result<Done, Failed> {
        self.ask("", Wish::Set { route: Arc::clone(route), if_revision: None }).await
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<Done, Failed> {
        self.ask("", Wish::Remove { id: id.into(), if_revision: None }).await
    }

    /// Waits for a set of which this is so. Sets are told on the way; none may be lost.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        is_so: impl Fn(&RouteSet) -> bool,
    ) -> RouteSet {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(set)) = tokio::time::timeout_at(deadline, self.sets.recv()).await {
            if is_so(&set) {
                return set;
            }
            seen.push(format!("{:?} {:?}", ids(&set), told(&set)));
        }
        panic!("{what} did not come, but {seen:#?}");
    }

    /// Waits until all that is stored is known here.
    pub(crate) async fn settled(&self) {
        let newest = self.handle.store().range(keys::WATCHED).await.unwrap();
        let newest = newest.entries.iter().map(|entry| entry.revision).max().unwrap_or(0);
        timeout(PATIENCE, self.handle.reach(newest)).await.expect("the image catches up");
    }
}

pub(crate) fn route(id: &str, host: &str, port: u16) -> Arc<Route> {
    let text = format!(
        "[[route]]\nid = \"{id}\"\nhosts = [\"{host}\"]\nbackends = [\"10.0.0.1:{port}\"]\n"
    );
    document::route(&"test".into(), &text).unwrap()
}

pub(crate) fn ids(set: &RouteSet) -> Vec<&str> {
    set.claims.routes().map(|route| &*route.id).collect()
}

pub(crate) fn told(set: &RouteSet) -> Vec<String> {
    set.faults.iter().map(|fault| format!("{}: {}", fault.place.origin, fault.kind)).collect()
}

/// Writes as somebody does who does not know of histories.
pub(crate) async fn put(store: &Shared, changes: &[(&str, Option<&str>)]) -> Revision {
    let change = |(key, value): &(&str, Option<&str>)| Change {
        key: (*key).into(),
        value: value.map(|value| value.as_bytes().to_vec()),
    };
    let transaction = Transaction { checks: vec![], changes: changes.iter().map(change).collect() };
    match store.commit(transaction).await.unwrap() {
        Committed::Done(revision) => revision,
        Committed::Conflict => panic!("nothing was checked"),
    }
}

/// The head and all records, each with its number, bytes and revision.
pub(crate) async fn history(store: &Shared) -> (Head, Vec<(u64, Entry)>) {
    let head = store.get(keys::HEAD).await.unwrap().expect("a head");
    let records = store.range(keys::HISTORY).await.unwrap().entries.into_iter();
    let numbered = records.map(|entry| (keys::record_number(&entry.key).unwrap(), entry));
    (Head::read(&head.value).unwrap(), numbered.collect())
}

pub(crate) fn read(entry: &Entry) -> Record {
    Record::read(&entry.value).unwrap()
}

/// A clock that a test holds.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) std::sync::Mutex<Timestamp>);

impl Clock for Held {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
}

/// A store that can be away. A commit may be made and its answer lost.
#[derive(Debug)]
pub(crate) struct Away {
    store: Shared,
    gone: watch::Sender<bool>,
    loses_answer: AtomicBool,
}

impl Away {
    pub(crate) fn new(store: &Shared) -> Arc<Self> {
        let (gone, loses_answer) = (watch::Sender::new(false), AtomicBool::new(false));
        Arc::new(Self { store: Arc::clone(store), gone, loses_answer })
    }

    pub(crate) fn go(&self) {
        self.gone.send_replace(true);
    }

    pub(crate) fn come_back(&self) {
        self.gone.send_replace(false);
    }

    /// The answer to the next commit gets lost.
    pub(crate) fn lose_an_answer(&self) {
        self.loses_answer.store(true, Ordering::SeqCst);
    }

    fn must_be_there(&self) -> Result<(), Error> {
        if *self.gone.borrow() { Err(away()) } else { Ok(()) }
    }
}

fn away() -> Error {
    Error::Unavailable { why: "connection refused".into(), tried: Duration::ZERO }
}

impl Store for Away {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            self.must_be_there()?;
            self.store.get(key).await
        })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(async move {
            self.must_be_there()?;
            self.store.range(prefix).await
        })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        Box::pin(async move {
            self.must_be_there()?;
            let committed = self.store.commit(transaction).await?;
            if self.loses_answer.swap(false, Ordering::SeqCst) {
                Err(away())
            } else {
                Ok(committed)
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        Box::pin(async move {
            self.must_be_there()?;
            let watch = self.store.watch(prefix, after).await?;
            Ok(Box::new(Cut { watch, gone: self.gone.subscribe() }) as Box<dyn Watch>)
        })
    }

    fn most_changes(&self) -> usize {
        self.store.most_changes()
    }
}

/// A watch that ends when its store goes.
struct Cut {
    watch: Box<dyn Watch>,
    gone: watch::Receiver<bool>,
}

impl Watch for Cut {
    fn next(&mut self) -> Answer<'_, Batch> {
        Box::pin(async move {
            tokio::select! {
                _ = self.gone.wait_for(|gone| *gone) => Err(away()),
                batch = self.watch.next() => batch,
            }
        })
    }
}

/// A store in whose place another one can be put, as if its data had been exchanged.
#[derive(Debug)]
pub(crate) struct Swap(watch::Sender<Shared>);

impl Swap {
    pub(crate) fn new(store: &Shared) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Arc::clone(store))))
    }

    pub(crate) fn to(&self, store: &Shared) {
        self.0.send_replace(Arc::clone(store));
    }

    fn store(&self) -> Shared {
        Arc::clone(&self.0.borrow())
    }
}

impl Store for Swap {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        let store = self.store();
        Box::pin(async move { store.get(key).await })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        let store = self.store();
        Box::pin(async move { store.range(prefix).await })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        let store = self.store();
        Box::pin(async move { store.commit(transaction).await })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        let (store, mut swapped) = (self.store(), self.0.subscribe());
        swapped.mark_unchanged();
        Box::pin(async move {
            let watch = store.watch(prefix, after).await?;
            Ok(Box::new(Swapped { watch, swapped }) as Box<dyn Watch>)
        })
    }

    fn most_changes(&self) -> usize {
        self.store().most_changes()
    }
}

struct Swapped {
    watch: Box<dyn Watch>,
    swapped: watch::Receiver<Shared>,
}

impl Watch for Swapped {
    fn next(&mut self) -> Answer<'_, Batch> {
        Box::pin(async move {
            tokio::select! {
                _ = self.swapped.changed() => Err(away()),
                batch = self.watch.next() => batch,
            }
        })
    }
}
