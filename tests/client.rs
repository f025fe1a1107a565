//! The client of the control service, against a service that fails as a real one rarely does:
//! what is asked again, under which id, for how long, and what the caller is told then.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mse_proxy::control::client::{Client, Error, Refusal, request_id};
use mse_proxy::control::dial::{self, Admin, Dialer};
use mse_proxy::control::proto::route_service_server::{RouteService, RouteServiceServer};
use mse_proxy::control::proto::{
    ApplyRequest, ApplyResponse, ExplainRequest, ExplainResponse, GetRequest, HistoryRequest,
    HistoryResponse, ListRequest, ListResponse, RemoveRequest, RouteState, SetRequest,
    WatchRequest, WatchResponse, WriteResponse,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

/// A write as it came: its id, and whether it told a deadline.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// Answers as it was told to, call by call, and well from then on.
struct Moody {
    moods: Mutex<VecDeque<Code>>,
    words: &'static str,
    seen: Seen,
}

impl Moody {
    fn mood<A: Default>(&self) -> Result<Response<A>, Status> {
        match self.moods.lock().unwrap().pop_front() {
            None | Some(Code::Ok) => Ok(Response::new(A::default())),
            Some(code) => Err(Status::new(code, self.words)),
        }
    }
}

type Answer<A> = Result<Response<A>, Status>;

#[tonic::async_trait]
impl RouteService for Moody {
    type WatchStream = tokio_stream::Empty<Result<WatchResponse, Status>>;

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        self.mood()
    }
    async fn get(&self, _: Request<GetRequest>) -> Answer<RouteState> {
        self.mood()
    }
    async fn set(&self, request: Request<SetRequest>) -> Answer<WriteResponse> {
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        self.seen.lock().unwrap().push((request.into_inner().request_id, has_deadline));
        self.mood()
    }
    async fn remove(&self, _: Request<RemoveRequest>) -> Answer<WriteResponse> {
        self.mood()
    }
    async fn apply(&self, _: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        self.mood()
    }
    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        Ok(Response::new(tokio_stream::empty()))
    }
    async fn explain(&self, _: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        self.mood()
    }
    async fn history(&self, _: Request<HistoryRequest>) -> Answer<HistoryResponse> {
        self.mood()
    }
}

struct Stage {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    seen: Seen,
}

impl Stage {
    fn with(moods: impl IntoIterator<Item = Code>) -> Self {
        Self::saying(moods, "as it was told to")
    }

    fn saying(moods: impl IntoIterator<Item = Code>, words: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let service =
            Moody { moods: Mutex::new(moods.into_iter().collect()), words, seen: Seen::default() };
        let seen = Arc::clone(&service.seen);
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let server =
            tonic::transport::Server::builder().add_service(RouteServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { _folder: folder, socket, seen }
    }

    fn client(&self) -> Client {
        Client::new(Dialer::new(Admin::Unix(self.socket.clone()), None))
    }

    fn ids(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }
}

#[tokio::test]
async fn a_write_is_repeated_under_its_own_id() {
    let stage = Stage::with([Code::Unavailable, Code::Unavailable]);
    stage.client().set(SetRequest::default()).await.unwrap();
    let ids = stage.ids();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
    assert!(stage.seen.lock().unwrap().iter().all(|(_, has_deadline)| *has_deadline));
    let given = SetRequest { request_id: "mine".into(), ..SetRequest::default() };
    stage.client().set(given).await.unwrap();
    assert_eq!(stage.ids()[3], "mine");
    assert_ne!(request_id(), request_id());
}

#[tokio::test]
async fn a_write_that_is_never_answered_is_told_as_unknown() {
    let stage = Stage::with([Code::Unavailable; 100]);
    let error = stage.client().set(SetRequest::default()).await.unwrap_err();
    let Error::Unsure { request_id, cause } = error else { panic!("{error}") };
    let ids = stage.ids();
    assert_eq!(ids.len(), 4, "repetitions are bounded");
    assert_eq!(request_id, ids[0]);
    assert!(matches!(*cause, Error::Refused { refusal: Refusal::Unavailable, .. }), "{cause}");
}

#[tokio::test]
async fn a_write_that_was_surely_not_done_is_no_riddle() {
    let words = "the store does not answer; nothing was changed";
    let stage = Stage::saying([Code::Unavailable; 100], words);
    let error = stage.client().set(SetRequest::default()).await.unwrap_err();
    let Error::Refused { refusal: Refusal::Unavailable, message } = error else {
        panic!("{error}")
    };
    assert_eq!((&*message, stage.ids().len()), (words, 4));
}

#[tokio::test]
async fn refusals_are_told_at_once_and_by_their_kind() {
    for (code, expected) in [
        (Code::InvalidArgument, Refusal::Faulty),
        (Code::NotFound, Refusal::NotFound),
        (Code::FailedPrecondition, Refusal::Precondition),
        (Code::Aborted, Refusal::Stale),
        (Code::AlreadyExists, Refusal::Taken),
        (Code::ResourceExhausted, Refusal::TooMuch),
        (Code::PermissionDenied, Refusal::Denied),
        (Code::Unimplemented, Refusal::Unknown),
        (Code::DataLoss, Refusal::Internal),
    ] {
        let stage = Stage::with([code]);
        let error = stage.client().set(SetRequest::default()).await.unwrap_err();
        let Error::Refused { refusal, message } = error else { panic!("{code:?}: {error}") };
        assert_eq!((refusal, &*message), (expected, "as it was told to"), "{code:?}");
        assert_eq!(stage.ids().len(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn whoever_is_not_there_is_not_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Admin::Unix(folder.path().join("admin.sock"));
    let client = Client::new(Dialer::new(nobody, None));
    let error = client.set(SetRequest::default()).await.unwrap_err();
    let Error::Unreachable(dial::Error::Io(error)) = error else { panic!("{error}") };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = client.watch(None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_watch_that_ends_says_so() {
    let stage = Stage::with([]);
    let mut events = stage.client().watch(Some(7)).await.unwrap();
    assert_eq!(events.next().await.unwrap(), None);
}
