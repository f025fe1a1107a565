//! Asking a running proxy: each call with a deadline, each write with an id of its own.
//!
//! A write that was not answered may have happened. So it is repeated with the same id, which gives
//! the first one's answer, a bounded number of times; if that does not help either, the error says
//! that nothing is known, and under which id to ask again. This is the one place where a gRPC
//! status becomes an [`Error`].

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming, TimeoutExpired};
use tracing::debug;

use super::dial::{self, Dialer, Failure};
use super::proto::route_service_client::RouteServiceClient;
use super::proto::{
    ApplyRequest, ApplyResponse, ExplainRequest, ExplainResponse, GetRequest, HistoryRequest,
    HistoryResponse, ListRequest, ListResponse, RemoveRequest, RouteState, SetRequest,
    WatchRequest, WatchResponse, WriteResponse,
};
use crate::registry::digest::hexadecimal;

/// How long one attempt at a call may take. A store that waits for its disk answers far sooner.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a whole set of routes: judging a hundred thousand takes seconds.
pub(super) const LONG_PATIENCE: Duration = Duration::from_mins(1);
/// How often a call that was not answered is tried, and how long is waited after the first time;
/// after each further one twice as long. A proxy that restarts is back by then.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// An answer larger than this is refused. A page of 5000 routes with long lists fits.
pub(super) const MAX_ANSWER: usize = 256 << 20;
/// What the proxy says of a write that was surely not done, though the store did not answer.
const NOT_DONE: &str = "nothing was changed";
/// How long an id of a write is, in random bytes.
const ID_BYTES: usize = 16;

/// Why a proxy did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection stands.
    #[error("{0}")]
    Unreachable(dial::Error),
    /// A connection stood, and broke before the answer.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer within {}s", .0.as_secs())]
    Silent(Duration),
    /// It answered, and refuses.
    #[error("{message}")]
    Refused {
        /// In which way.
        refusal: Refusal,
        /// Its own words.
        message: String,
    },
    /// A write was not answered: it may have happened or not.
    #[error("{cause}; whether it was done is not known")]
    Unsure {
        /// Whoever asks again under this id gets the first one's answer; empty, if it has none.
        request_id: String,
        /// What was seen of it last.
        cause: Box<Error>,
    },
}

/// In which way a proxy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Something in the request is wrong.
    Faulty,
    /// No such route.
    NotFound,
    /// No store, or too much would be removed.
    Precondition,
    /// The route was changed meanwhile.
    Stale,
    /// Another route has the name.
    Taken,
    /// That revision is no longer kept.
    TooOld,
    /// Over a bound.
    TooMuch,
    /// Its store does not answer.
    Unavailable,
    /// We may not.
    Denied,
    /// It does not know this call.
    Unknown,
    /// Anything else: a fault of the proxy.
    Internal,
}

impl Refusal {
    fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::Faulty,
            Code::NotFound => Self::NotFound,
            Code::FailedPrecondition => Self::Precondition,
            Code::Aborted => Self::Stale,
            Code::AlreadyExists => Self::Taken,
            Code::OutOfRange => Self::TooOld,
            Code::ResourceExhausted => Self::TooMuch,
            Code::Unavailable => Self::Unavailable,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::Unimplemented => Self::Unknown,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::DataLoss => Self::Internal,
        }
    }
}

impl Error {
    /// Whether asking again may help.
    fn is_open(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Silent(_) => true,
            Self::Refused { refusal, .. } => *refusal == Refusal::Unavailable,
            Self::Unsure { .. } => false,
        }
    }

    /// Whether a write may have been done all the same.
    fn leaves_open(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            Self::Lost(_) | Self::Silent(_) | Self::Unsure { .. } => true,
            Self::Refused { refusal, message } => {
                *refusal == Refusal::Unavailable && !message.contains(NOT_DONE)
            }
        }
    }
}

/// An id for a write, as nobody else will choose it.
#[must_use]
pub fn request_id() -> String {
    let mut bytes = [0; ID_BYTES];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // Without a source of randomness there is no id, and so no answer to a repetition.
        return String::new();
    }
    hexadecimal(&bytes)
}

/// One running proxy, as somebody asks it. Dials when first asked, and again when a connection
/// broke.
#[derive(Debug, Clone)]
pub struct Client {
    service: RouteServiceClient<Channel>,
    channel: Channel,
    dialer: Dialer,
}

/// Whether a call that was not answered is asked again.
#[derive(Debug, Clone)]
pub(super) enum Repeat {
    /// It is: to do it twice changes nothing.
    Freely,
    /// It is, under this id, which keeps it from being done twice.
    Under(String),
    /// It is not: it would be done twice.
    Never,
}

impl Repeat {
    /// The id under which a write is known, if it is a write; empty, if it has none.
    fn write(&self) -> Option<String> {
        match self {
            Self::Freely => None,
            Self::Under(id) => Some(id.clone()),
            Self::Never => Some(String::new()),
        }
    }
}

impl Client {
    /// Whoever answers that dialer.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        // The authority is not that of a real host: the dialer alone decides where it goes.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(dialer.clone());
        let service = RouteServiceClient::new(channel.clone());
        let service = service.max_decoding_message_size(MAX_ANSWER);
        Self { service, channel, dialer }
    }

    /// One page of routes.
    ///
    /// # Errors
    /// [`Error`], as for all calls.
    pub async fn list(&self, message: ListRequest) -> Result<ListResponse, Error> {
        let call = async |mut service: Service, request| service.list(request).await;
        self.ask(&self.service, "List", PATIENCE, Repeat::Freely, message, call).await
    }

    /// One route.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is none.
    pub async fn get(&self, id: &str) -> Result<RouteState, Error> {
        let call = async |mut service: Service, request| service.get(request).await;
        self.ask(
            &self.service,
            "Get",
            PATIENCE,
            Repeat::Freely,
            GetRequest { id: id.to_owned() },
            call,
        )
        .await
    }

    /// Creates or replaces a route.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn set(&self, mut message: SetRequest) -> Result<WriteResponse, Error> {
        let id = identified(&mut message.request_id);
        let call = async |mut service: Service, request| service.set(request).await;
        self.ask(&self.service, "Set", PATIENCE, id, message, call).await
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn remove(&self, mut message: RemoveRequest) -> Result<WriteResponse, Error> {
        let id = identified(&mut message.request_id);
        let call = async |mut service: Service, request| service.remove(request).await;
        self.ask(&self.service, "Remove", PATIENCE, id, message, call).await
    }

    /// Applies a set of routes, or tells what that would do.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn apply(&self, mut message: ApplyRequest) -> Result<ApplyResponse, Error> {
        let id = if message.dry_run { Repeat::Freely } else { identified(&mut message.request_id) };
        let call = async |mut service: Service, request| service.apply(request).await;
        self.ask(&self.service, "Apply", LONG_PATIENCE, id, message, call).await
    }

    /// What would happen to a client that asks for a name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn explain(&self, message: ExplainRequest) -> Result<ExplainResponse, Error> {
        let call = async |mut service: Service, request| service.explain(request).await;
        self.ask(&self.service, "Explain", PATIENCE, Repeat::Freely, message, call).await
    }

    /// One page of the history.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn history(&self, message: HistoryRequest) -> Result<HistoryResponse, Error> {
        let call = async |mut service: Service, request| service.history(request).await;
        self.ask(&self.service, "History", PATIENCE, Repeat::Freely, message, call).await
    }

    /// Begins to follow the changes. Tried once: whoever watches knows better when to try again.
    ///
    /// # Errors
    /// [`Refusal::TooOld`] if they are no longer known from there on.
    pub async fn watch(&self, after: Option<u64>) -> Result<Events, Error> {
        let mut service = self.service.clone();
        debug!(?after, "Watch");
        self.dialer.take_failure();
        let opened = timeout(PATIENCE, service.watch(WatchRequest { after })).await;
        match opened {
            Err(_) => Err(Error::Silent(PATIENCE)),
            Ok(Err(status)) => Err(self.judge(&status, PATIENCE)),
            Ok(Ok(response)) => Ok(Events { stream: response.into_inner(), client: self.clone() }),
        }
    }

    /// The way to the proxy, for its other services.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) async fn ask<S: Clone, Q: Clone, A>(
        &self,
        service: &S,
        name: &str,
        patience: Duration,
        repeat: Repeat,
        message: Q,
        call: impl AsyncFn(S, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let request_id = repeat.write();
        let mut pause = PAUSE;
        let (mut was_there, mut may_be_done) = (false, false);
        for attempt in 1.. {
            let mut request = Request::new(message.clone());
            request.set_timeout(patience);
            debug!(attempt, request_id, "{name}");
            self.dialer.take_failure();
            let answer = timeout(patience, call(service.clone(), request)).await;
            let error = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => self.judge(&status, patience),
                Err(_) => Error::Silent(patience),
            };
            debug!(attempt, "{name}: {error}");
            was_there |= !matches!(error, Error::Unreachable(_));
            may_be_done |= error.leaves_open();
            // Nobody there at all is no proxy that restarts; and who only looks has waited enough.
            let is_silent = matches!(error, Error::Silent(_)) && request_id.is_none();
            let is_once = matches!(repeat, Repeat::Never);
            let is_over = attempt == ATTEMPTS || !was_there || is_silent || is_once;
            match request_id {
                Some(request_id) if error.is_open() && is_over && may_be_done => {
                    return Err(Error::Unsure { request_id, cause: Box::new(error) });
                }
                _ if !error.is_open() || is_over => return Err(error),
                _ => {}
            }
            sleep(pause).await;
            pause *= 2;
        }
        Err(Error::Silent(patience))
    }

    /// What a status means. One that the proxy sent has no source; those that are made here have.
    fn judge(&self, status: &Status, patience: Duration) -> Error {
        let is_ours = std::error::Error::source(status).is_some();
        match (self.dialer.take_failure(), status.code()) {
            // A certificate that is refused shows only when something is read.
            (Some(Failure::Opening(error) | Failure::Carrying(error @ dial::Error::Tls(_))), _) => {
                Error::Unreachable(error)
            }
            (Some(Failure::Carrying(error)), _) => Error::Lost(error.to_string()),
            (None, Code::DeadlineExceeded) => Error::Silent(patience),
            (None, _) if ran_out(status) => Error::Silent(patience),
            (None, _) if is_ours => Error::Lost(status.message().to_owned()),
            (None, code) => {
                Error::Refused { refusal: Refusal::of(code), message: status.message().to_owned() }
            }
        }
    }
}

/// Whether a status was made here because the deadline has passed.
fn ran_out(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

type Service = RouteServiceClient<Channel>;

/// Gives a write an id, unless it has one.
fn identified(request_id: &mut String) -> Repeat {
    if request_id.is_empty() {
        *request_id = self::request_id();
    }
    if request_id.is_empty() { Repeat::Never } else { Repeat::Under(request_id.clone()) }
}

/// Changes as they come.
#[derive(Debug)]
pub struct Events {
    stream: Streaming<WatchResponse>,
    client: Client,
}

impl Events {
    /// The next transaction; none when the proxy ends the stream, as it does when it stops.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn next(&mut self) -> Result<Option<WatchResponse>, Error> {
        self.stream.message().await.map_err(|status| self.client.judge(&status, PATIENCE))
    }
}
