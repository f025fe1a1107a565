//! `Watch`: what is stored, and then each change in its order, without gaps and repeats.
//!
//! A stream is made as its client reads it. What the client does not read stays in the store's own
//! bounded backlog; who falls behind that is told so and begins anew. Nothing is kept here but the
//! references of the routes that were there at the beginning.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tonic::Status;

use crate::admin::Readiness;
use crate::control::proto::watch_response::Event;
use crate::control::{convert, proto, status};
use crate::registry::keys;
use crate::routing::route::Route;
use crate::source::document;
use crate::source::stored::{self, Handle};
use crate::store::{self, Batch, Revision};

/// How many routes one part of the beginning tells.
const PART: usize = 500;
/// How long a proxy that has just started gets to read its store.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long this proxy gets to learn of what another has told already.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a watcher is told.
pub(super) type Told = Result<proto::WatchResponse, Status>;
/// All of it.
pub(super) type Telling = Pin<Box<dyn Stream<Item = Told> + Send>>;

/// One watcher.
struct Watcher {
    /// What was there, as far as it is still to be told.
    initial: Option<Initial>,
    changes: Box<dyn store::Watch>,
    readiness: watch::Receiver<Readiness>,
    deadline: Option<Instant>,
}

struct Initial {
    routes: VecDeque<Arc<Route>>,
    revision: Revision,
}

impl Initial {
    fn of(handle: &Handle) -> Self {
        let image = handle.image();
        let routes = image.routes().map(|(route, _)| Arc::clone(route)).collect();
        Self { routes, revision: image.revision() }
    }
}

/// Begins to tell; the stream ends with an error, whatever it is: with UNAVAILABLE when the proxy
/// stops.
pub(super) async fn tell(
    handle: &Handle,
    after: Option<Revision>,
    readiness: watch::Receiver<Readiness>,
    deadline: Option<Instant>,
) -> Result<Telling, Status> {
    let loaded = timeout(PATIENCE, handle.reach(0)).await;
    loaded.map_err(|_| Status::unavailable("the store was not read yet"))?;
    let (initial, after) = if let Some(after) = after {
        exists(handle, after).await?;
        (None, after)
    } else {
        let initial = Initial::of(handle);
        let revision = initial.revision;
        (Some(initial), revision)
    };
    // Now, so that whoever reads the beginning slowly misses nothing.
    let changes = handle.store().watch(keys::WATCHED, after).await;
    let changes = changes.map_err(|error| status::of_store(&error))?;
    let watcher = Watcher { initial, changes, readiness, deadline };
    Ok(Box::pin(unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(told) => Some((Ok(told), Some(watcher))),
            Err(end) => Some((Err(end), None)),
        }
    })))
}

/// Refuses a revision that the store has not come to: it is that of another store.
async fn exists(handle: &Handle, after: Revision) -> Result<(), Status> {
    if timeout(CATCH_UP, handle.reach(after)).await.is_ok() {
        return Ok(());
    }
    let newest = handle.store().range(keys::FORMAT).await;
    let newest = newest.map_err(|error| status::of_store(&error))?.revision;
    if newest >= after {
        return Ok(());
    }
    Err(Status::out_of_range(format!(
        "revision {after} is not one of this store, which has come to {newest}: list, and watch from there"
    )))
}

impl Watcher {
    async fn next(&mut self) -> Told {
        if *self.readiness.borrow() == Readiness::Draining {
            return Err(stops());
        }
        if let Some(told) = self.beginning() {
            return Ok(told);
        }
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let drains = |readiness: &Readiness| *readiness == Readiness::Draining;
        loop {
            let batch = tokio::select! {
                batch = self.changes.next() => batch.map_err(|error| status::of_store(&error))?,
                _ = self.readiness.wait_for(drains) => return Err(stops()),
                () = &mut deadline => return Err(Status::deadline_exceeded("watched as long as was asked for")),
            };
            let told = message(batch);
            // The history alone has grown.
            if !told.events.is_empty() {
                return Ok(told);
            }
        }
    }

    /// The next part of what was there.
    fn beginning(&mut self) -> Option<proto::WatchResponse> {
        let Initial { routes, revision } = self.initial.as_mut()?;
        let part = routes.drain(..routes.len().min(PART));
        let events = part
            .map(|route| Event { id: route.id.to_string(), route: Some(convert::message(&route)) });
        let (events, revision) = (events.collect(), *revision);
        let is_complete = routes.is_empty();
        if is_complete {
            self.initial = None;
        }
        Some(proto::WatchResponse { revision, events, is_initial: true, is_complete })
    }
}

fn stops() -> Status {
    Status::unavailable("the proxy stops")
}

/// A transaction as its watchers are told. What is no route is none to them.
fn message(batch: Batch) -> proto::WatchResponse {
    let Batch { revision, changes } = batch;
    let events = changes.into_iter().filter_map(|store::Change { key, value }| {
        let id = keys::route_id(&key)?;
        let text = value.and_then(|value| String::from_utf8(value).ok());
        let route = text.and_then(|text| document::route(&stored::NAME.into(), &text).ok());
        Some(Event { id: id.to_owned(), route: route.map(|route| convert::message(&route)) })
    });
    proto::WatchResponse {
        revision,
        events: events.collect(),
        is_initial: false,
        is_complete: false,
    }
}
