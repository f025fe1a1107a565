//! Routes from a store, followed while the proxy runs.
//!
//! Everything is read once, then each change is watched from there; whenever that breaks off, all is
//! read again. What is stored under one key may be no route: it is left out, with a fault that names
//! the key, and the others stay. A store that does not answer, or that is suddenly empty, takes
//! nothing away: the last good set stays, with a fault. Whoever writes to the store judges by the
//! same image of it, through a [`Handle`].

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::registry::history::{Head, Kept, Unreadable};
use crate::registry::image::{Change, Image, Value};
use crate::registry::keys;
use crate::registry::refusal::MAX_ROUTE;
use crate::source::crew::spread;
use crate::source::document;
use crate::source::fault::{Fault, FaultKind};
use crate::source::pauses::Pauses;
use crate::source::place::Place;
use crate::source::teller::{Closed, Teller};
use crate::source::{RouteSet, Source};
use crate::store::{self, Batch, Entry, Range, Revision};

/// The name of this source.
pub const NAME: &str = "store";
/// How many batches that are there already are taken at once.
const MOST_BATCHES: usize = 1000;
/// How many entries a thread reads at a time.
const AT_ONCE: usize = 500;
/// Fewer entries are read before threads for them have started.
const WORTH_THREADS: usize = 5_000;
/// More threads would wait for memory.
const MOST_THREADS: usize = 8;
/// Faults that are told of single keys; whoever has more mends them by a program.
const MAX_FAULTS: usize = 1000;

/// A view of the stored routes for those who change them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: store::Shared,
    image: RwLock<Image>,
    reached: watch::Sender<Reached>,
}

/// How far an image has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The newest transaction that it knows.
    pub revision: Revision,
    /// Whether the store was read at all.
    pub is_loaded: bool,
}

/// What is wrong with single keys, by the ids.
type Faults = BTreeMap<Arc<str>, Vec<Fault>>;

impl Handle {
    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &store::Shared {
        &self.shared.store
    }

    /// What is stored, as far as it is known here. To be held for a moment only: the source waits.
    pub fn image(&self) -> RwLockReadGuard<'_, Image> {
        self.shared.image.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the image has come, and will.
    #[must_use]
    pub fn reached(&self) -> watch::Receiver<Reached> {
        self.shared.reached.subscribe()
    }

    /// Waits until the store was read and the image knows this transaction, however long that takes.
    pub async fn reach(&self, revision: Revision) {
        let is_there = |reached: &Reached| reached.is_loaded && reached.revision >= revision;
        // Cannot fail: the sender is in our own hands.
        let _ = self.reached().wait_for(is_there).await;
    }
}

impl Shared {
    fn image_mut(&self) -> RwLockWriteGuard<'_, Image> {
        self.image.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the image has come.
    fn note(&self) {
        let revision = self.image.read().unwrap_or_else(PoisonError::into_inner).revision();
        self.reached.send_replace(Reached { revision, is_loaded: true });
    }

    /// Puts all that is stored in the place of what was known.
    fn adopt(&self, range: Range) -> Result<(Faults, Option<FaultKind>), FaultKind> {
        let revision = range.revision;
        let is_first = !self.reached.borrow().is_loaded;
        let read = Reading::of_all(range.entries, if is_first { cores() } else { 1 });
        let mut image = self.image_mut();
        let (kept, had_head) = (image.len(), image.head().is_some());
        if read.head.is_none() && !image.is_empty() && (had_head || read.changes.is_empty()) {
            return Err(FaultKind::StoreHollow { kept });
        }
        if revision < image.revision() {
            let was = image.revision();
            warn!(was, revision, "the store is older than it was: it must have been restored");
            *image = Image::new(&NAME.into());
        }
        let stays: HashSet<&str> = read.changes.iter().map(|change| &*change.id).collect();
        let known = image.routes().map(|(route, _)| &route.id);
        let known = known.chain(image.unreadable().map(|(id, _)| id));
        let gone = known.filter(|id| !stays.contains(&***id)).cloned();
        let gone = gone.map(|id| Change { id, value: None, revision }).collect::<Vec<_>>();
        let changes = gone.into_iter().chain(read.changes).collect();
        image.apply(changes, read.head, revision);
        Ok((read.faults, read.head_fault))
    }
}

/// What keys and values say.
#[derive(Debug, Default)]
struct Reading {
    changes: Vec<Change>,
    faults: Faults,
    head: Option<(Option<Head>, Revision)>,
    /// What is wrong with it.
    head_fault: Option<FaultKind>,
}

/// How many cores read what is stored at the start. Later the data path goes first.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS)
}

impl Reading {
    /// Reads entries, on so many threads.
    fn of_all(entries: Vec<Entry>, threads: usize) -> Self {
        let threads = if entries.len() > WORTH_THREADS { threads } else { 1 };
        let mut entries = entries.into_iter().map(|Entry { key, value, revision }| {
            (store::Change { key, value: Some(value) }, revision)
        });
        let of = |part: Vec<_>| Self::of(part.into_iter());
        let parts = spread(threads, of, |hand_out| {
            loop {
                let part: Vec<_> = entries.by_ref().take(AT_ONCE).collect();
                if part.is_empty() {
                    return Ok::<(), Infallible>(());
                }
                hand_out(part);
            }
        });
        let mut whole = Self::default();
        for part in parts.into_iter().flatten() {
            whole.changes.extend(part.changes);
            whole.faults.extend(part.faults);
            whole.head = part.head.or(whole.head);
            whole.head_fault = part.head_fault.or(whole.head_fault);
        }
        whole
    }

    /// Reads changes, each with the transaction that it belongs to.
    fn of(changes: impl Iterator<Item = (store::Change, Revision)>) -> Self {
        let mut reading = Self::default();
        for (store::Change { key, value }, revision) in changes {
            if key == keys::HEAD {
                let head = Head::read(&value.unwrap_or_default());
                let fault = |why: &Unreadable| FaultKind::StoreHead { why: why.to_string() };
                reading.head_fault = head.as_ref().err().map(fault);
                reading.head = Some((head.ok(), revision));
            } else if let Some(id) = keys::route_id(&key) {
                let id: Arc<str> = id.into();
                let value = value.map(|value| reading.value(&id, &value));
                reading.changes.push(Change { id, value, revision });
            }
        }
        reading
    }

    fn value(&mut self, id: &Arc<str>, bytes: &[u8]) -> Value {
        match route(id, bytes) {
            Ok(route) => Value::Route(route),
            Err(faults) => {
                self.faults.insert(Arc::clone(id), faults);
                let end = bytes.len().min(MAX_ROUTE / 2);
                let beginning = bytes.get(..end).unwrap_or_default();
                Value::Unreadable(String::from_utf8_lossy(beginning).into())
            }
        }
    }
}

/// The route that is stored under an id.
fn route(id: &Arc<str>, bytes: &[u8]) -> Result<Arc<crate::routing::route::Route>, Vec<Fault>> {
    let source = || Arc::from(format!("{NAME} {}", keys::route(id)));
    let fault = |kind| vec![Fault { place: Place::of_source(&source()), kind }];
    let text = str::from_utf8(bytes)
        .map_err(|error| fault(FaultKind::NotUtf8 { offset: error.valid_up_to(), kept: 0 }))?;
    // Nearly all are good, and need no name for the place of a fault.
    let route = document::route(id, text).or_else(|_| document::route(&source(), text))?;
    if route.id != *id {
        return Err(fault(FaultKind::OtherId { id: route.id.to_string() }));
    }
    Ok(route)
}

/// A store that is followed.
#[derive(Debug)]
pub struct Stored {
    shared: Arc<Shared>,
    faults: Faults,
    /// What is wrong with the head of the history.
    head_fault: Option<FaultKind>,
    /// Why the store could not be read.
    trouble: Option<FaultKind>,
}

impl Stored {
    /// Follows a store.
    #[must_use]
    pub fn new(store: store::Shared) -> (Self, Handle) {
        let image = RwLock::new(Image::new(&NAME.into()));
        let shared = Arc::new(Shared { store, image, reached: watch::Sender::default() });
        let handle = Handle { shared: Arc::clone(&shared) };
        (Self { shared, faults: Faults::new(), head_fault: None, trouble: None }, handle)
    }

    /// Reads all that is stored.
    async fn load(&mut self) -> Result<(), FaultKind> {
        let kept = self.shared.image.read().unwrap_or_else(PoisonError::into_inner).len();
        let failed = |why| FaultKind::Store { why, kept };
        let format = self.shared.store.get(keys::FORMAT).await.map_err(failed)?;
        let other = format.filter(|format| format.value != keys::FORMAT_VALUE.as_bytes());
        if let Some(format) = other {
            let found = String::from_utf8_lossy(&format.value).into_owned();
            return Err(FaultKind::StoreFormat { found, kept });
        }
        let range = self.shared.store.range(keys::WATCHED).await.map_err(failed)?;
        let shared = Arc::clone(&self.shared);
        // A million texts take seconds to read.
        let adopted = tokio::task::spawn_blocking(move || shared.adopt(range)).await;
        (self.faults, self.head_fault) = adopted.unwrap_or_else(|error| {
            error!(%error, "what is stored could not be read");
            Err(FaultKind::StoreUnread { kept })
        })?;
        self.shared.note();
        Ok(())
    }

    /// Takes over what a transaction changed.
    fn take(&mut self, batch: Batch) {
        let Batch { revision, changes } = batch;
        let read = Reading::of(changes.into_iter().map(|change| (change, revision)));
        for change in &read.changes {
            self.faults.remove(&change.id);
        }
        self.faults.extend(read.faults);
        if read.head.is_some() {
            self.head_fault = read.head_fault;
        }
        self.shared.image_mut().apply(read.changes, read.head, revision);
    }

    /// What is wanted now.
    fn set(&self) -> RouteSet {
        let image = self.shared.image.read().unwrap_or_else(PoisonError::into_inner);
        let whole = self.trouble.iter().chain(&self.head_fault).map(|kind| {
            let place = Place::of_source(&NAME.into());
            Fault { place, kind: kind.clone() }
        });
        let single = self.faults.values().flatten();
        let mut faults: Vec<_> = whole.chain(single.clone().take(MAX_FAULTS).cloned()).collect();
        let untold = single.count().saturating_sub(MAX_FAULTS);
        if untold > 0 {
            let place = Place::of_source(&NAME.into());
            faults.push(Fault { place, kind: FaultKind::Untold(untold) });
        }
        RouteSet {
            source: NAME.into(),
            claims: image.claims(),
            faults,
            left_out: self.faults.len(),
            revision: self.shared.reached.borrow().is_loaded.then(|| image.revision()),
        }
    }

    /// Tells every change, until the store cannot tell them any more, or nobody listens.
    async fn follow(&mut self, teller: &mut Teller) -> Result<(), store::Error> {
        let after = self.shared.reached.borrow().revision;
        let mut watch = self.shared.store.watch(keys::WATCHED, after).await?;
        loop {
            // Whoever takes sets may be busy: meanwhile the image goes on, for those who write.
            tokio::select! {
                batch = watch.next() => {
                    let mut next = Some(batch);
                    for _ in 0..MOST_BATCHES {
                        let Some(batch) = next else { break };
                        self.take(batch?);
                        next = watch.next().now_or_never();
                    }
                    self.shared.note();
                    teller.is_due = true;
                }
                turn = teller.turn() => match turn {
                    Ok(()) => teller.tell(self.set()),
                    Err(Closed) => return Ok(()),
                },
            }
        }
    }
}

impl Source for Stored {
    async fn run(mut self, sets: mpsc::Sender<RouteSet>) {
        let mut teller = Teller::new(sets);
        let mut pauses = Pauses::default();
        loop {
            let began = Instant::now();
            self.trouble = self.load().await.err();
            teller.is_due = true;
            if self.trouble.is_none() {
                match self.follow(&mut teller).await {
                    Ok(()) => return,
                    Err(why) => info!(%why, "the store no longer tells its changes"),
                }
            }
            let pause = pauses.after(began.elapsed());
            if teller.rest(pause, || self.set()).await.is_err() {
                return;
            }
        }
    }
}
