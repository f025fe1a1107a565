//! `RouteService`: each call handed to whoever knows the answer.

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::admin::Eyes;
use crate::control::proto;
use crate::control::proto::route_service_server::RouteService;
use crate::control::read::Moment;

/// What a call gives.
type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug)]
pub(super) struct Routes {
    eyes: Arc<Eyes>,
}

impl Routes {
    pub(super) fn new(eyes: Arc<Eyes>) -> Self {
        Self { eyes }
    }

    /// An answer that looks at every route, made beside the thread that serves all calls.
    async fn heavy<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Eyes) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let eyes = Arc::clone(&self.eyes);
        let answer = spawn_blocking(move || make(&eyes)).await;
        answer.map_err(|_| Status::internal("this answer could not be made"))?.map(Response::new)
    }
}

#[tonic::async_trait]
impl RouteService for Routes {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

    async fn list(&self, request: Request<proto::ListRequest>) -> Answer<proto::ListResponse> {
        let request = request.into_inner();
        self.heavy(move |eyes| Moment::of(eyes).list(&request)).await
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Answer<proto::RouteState> {
        let state = Moment::of(&self.eyes).get(&request.get_ref().id)?;
        Ok(Response::new(state))
    }

    async fn set(&self, _: Request<proto::SetRequest>) -> Answer<proto::WriteResponse> {
        Err(no_store())
    }

    async fn remove(&self, _: Request<proto::RemoveRequest>) -> Answer<proto::WriteResponse> {
        Err(no_store())
    }

    async fn apply(&self, _: Request<proto::ApplyRequest>) -> Answer<proto::ApplyResponse> {
        Err(no_store())
    }

    async fn watch(&self, _: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        Err(no_store())
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Answer<proto::ExplainResponse> {
        Ok(Response::new(Moment::of(&self.eyes).explain(request.get_ref())?))
    }

    async fn history(&self, _: Request<proto::HistoryRequest>) -> Answer<proto::HistoryResponse> {
        Err(no_store())
    }
}

fn no_store() -> Status {
    Status::failed_precondition(
        "this proxy keeps no routes of its own: set store.path (a file) or store.etcd.endpoints",
    )
}
