//! `RouteService`: each call handed to whoever knows the answer.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::admin::Eyes;
use crate::control::convert::{self, Faulty};
use crate::control::gate::Deadline;
use crate::control::peer::Peer;
use crate::control::proto::route_service_server::RouteService;
use crate::control::read::Moment;
use crate::control::watch::Telling;
use crate::control::write::{Done, Writer};
use crate::control::{impact, past, proto, status, watch};
use crate::proxy::connections::OnRemove;
use crate::registry::wish::{self, Others, Wish};
use crate::routing::route::Route;
use crate::source::stored::Handle;

/// How many routes' faults one refusal tells.
const MOST_FAULTY: usize = 20;

/// What a call gives.
type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) eyes: Arc<Eyes>,
    pub(super) on_remove: OnRemove,
    pub(super) registry: Option<Registry>,
}

/// Where routes are kept that can be changed here.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    pub(super) handle: Handle,
    pub(super) writer: Writer,
}

impl Routes {
    fn registry(&self) -> Result<&Registry, Status> {
        self.registry.as_ref().ok_or_else(status::no_store)
    }

    /// An answer that looks at every route, made beside the threads that serve all calls.
    async fn heavy<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Moment<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let (eyes, handle) = (Arc::clone(&self.eyes), self.handle().cloned());
        let answer = beside(move || make(&Moment::of(&eyes, handle.as_ref()))).await?;
        answer.map(Response::new)
    }

    fn handle(&self) -> Option<&Handle> {
        self.registry.as_ref().map(|registry| &registry.handle)
    }

    async fn write(&self, asked: Asked, id: String, wish: Wish) -> Result<Done, Status> {
        let request = wish::Request { id, by: asked.by, wish };
        Ok(self.registry()?.writer.write(request, asked.until).await?)
    }
}

/// Who asked, and until when an answer is waited for.
pub(super) struct Asked {
    pub(super) by: String,
    until: Instant,
}

impl Asked {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let peer = request.extensions().get::<Peer>();
        let deadline = request.extensions().get::<Deadline>();
        // Both are put there before any call.
        let (peer, deadline) = peer.zip(deadline).ok_or_else(|| Status::internal("who asks?"))?;
        Ok(Self { by: peer.to_string(), until: deadline.call })
    }
}

async fn beside<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let answer = spawn_blocking(make).await;
    answer.map_err(|_| Status::internal("this answer could not be made"))
}

/// The routes of a whole set, or all that is wrong with them.
fn all(routes: &[proto::Route]) -> Result<Vec<Arc<Route>>, Faulty> {
    let (mut good, mut words, mut count) = (Vec::with_capacity(routes.len()), Vec::new(), 0);
    for (message, place) in routes.iter().zip(0..) {
        match convert::route(message) {
            Ok(route) => good.push(route),
            Err(Faulty(more)) => {
                count += 1;
                if count <= MOST_FAULTY {
                    let name = Some(&message.id).filter(|id| !id.is_empty());
                    let name = name.or_else(|| message.hosts.first());
                    let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
                    words.extend(more.iter().map(|more| format!("routes[{place}]{name}: {more}")));
                }
            }
        }
    }
    if count > MOST_FAULTY {
        words.push(format!("and {} more routes have faults", count - MOST_FAULTY));
    }
    if words.is_empty() { Ok(good) } else { Err(Faulty(words)) }
}

fn written(done: &Done) -> Response<proto::WriteResponse> {
    let changed = !done.differences.is_empty();
    Response::new(proto::WriteResponse { revision: done.revision, changed })
}

#[tonic::async_trait]
impl RouteService for Routes {
    type WatchStream = Telling;

    async fn list(&self, request: Request<proto::ListRequest>) -> Answer<proto::ListResponse> {
        let request = request.into_inner();
        self.heavy(move |moment| moment.list(&request)).await
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Answer<proto::RouteState> {
        let moment = Moment::of(&self.eyes, self.handle());
        Ok(Response::new(moment.get(&request.get_ref().id)?))
    }

    async fn set(&self, request: Request<proto::SetRequest>) -> Answer<proto::WriteResponse> {
        self.registry()?;
        let asked = Asked::of(&request)?;
        let proto::SetRequest { route, if_revision, request_id } = request.into_inner();
        let route = convert::route(&route.unwrap_or_default())?;
        let done = self.write(asked, request_id, Wish::Set { route, if_revision }).await?;
        Ok(written(&done))
    }

    async fn remove(&self, request: Request<proto::RemoveRequest>) -> Answer<proto::WriteResponse> {
        self.registry()?;
        let asked = Asked::of(&request)?;
        let proto::RemoveRequest { id, if_revision, request_id } = request.into_inner();
        let wish = Wish::Remove { id: id.into(), if_revision };
        Ok(written(&self.write(asked, request_id, wish).await?))
    }

    async fn apply(&self, request: Request<proto::ApplyRequest>) -> Answer<proto::ApplyResponse> {
        let registry = self.registry()?;
        let asked = Asked::of(&request)?;
        let request = request.into_inner();
        let proto::ApplyRequest { routes, removals, .. } = request;
        let proto::ApplyRequest { dry_run, if_revision, request_id, allow_removal, .. } = request;
        let others = match (request.keep_others, removals.is_empty()) {
            (true, _) => Others::StayBut(removals.into_iter().map(Arc::from).collect()),
            (false, true) => Others::Go,
            (false, false) => {
                let words = "removals: only with keep_others; without it, all others are removed";
                return Err(Status::invalid_argument(words));
            }
        };
        let routes = beside(move || all(&routes)).await??;
        let wish = Wish::Apply { routes, if_revision, allow_removal, others };
        let (done, differences) = if dry_run {
            let request = wish::Request { id: String::new(), by: asked.by, wish };
            let writer = registry.writer.clone();
            let done = beside(move || writer.rehearse(&request)).await??;
            let told = impact::foretell(&self.eyes, self.on_remove, &done.differences).await;
            (done, told)
        } else {
            let done = self.write(asked, request_id, wish).await?;
            let told = impact::tell(&done.differences);
            (done, told)
        };
        let Done { revision, unchanged, .. } = done;
        let revision = if dry_run { 0 } else { revision };
        Ok(Response::new(proto::ApplyResponse { differences, revision, unchanged }))
    }

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Telling> {
        let handle = &self.registry()?.handle;
        let deadline = request.extensions().get::<Deadline>().and_then(|deadline| deadline.asked);
        let (after, readiness) = (request.get_ref().after, self.eyes.readiness.clone());
        Ok(Response::new(watch::tell(handle, after, readiness, deadline).await?))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Answer<proto::ExplainResponse> {
        let moment = Moment::of(&self.eyes, self.handle());
        Ok(Response::new(moment.explain(request.get_ref())?))
    }

    async fn history(
        &self,
        request: Request<proto::HistoryRequest>,
    ) -> Answer<proto::HistoryResponse> {
        let store = self.registry()?.handle.store();
        Ok(Response::new(past::page(store, request.get_ref()).await?))
    }
}
