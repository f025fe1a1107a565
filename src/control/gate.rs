//! What stands before every call: how many there may be, how large they may be, how long they may
//! take.
//!
//! A call takes its place before its message is read, and keeps it until its answer has been read
//! or given up, so what all clients together can make this process hold is bounded. A deadline that
//! the client sent (`grpc-timeout`) counts from here, the waiting for a place included. Streams
//! have places of their own, so that watchers never keep an operator out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

/// The largest message that tells a whole set of routes.
pub(super) const MAX_SET: usize = 64 << 20;
/// The largest other message. A route with a thousand hosts has 30 KB.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Calls at once, of all clients. Each may hold a message of 1 MiB.
const CALLS: usize = 64;
/// Whole sets at once. A second one waits: it would wait for the store anyway.
const SETS: usize = 1;
/// Streams at once.
pub(super) const STREAMS: usize = 64;
/// No call takes longer, whatever its client allows.
const LONGEST: Duration = Duration::from_mins(2);

/// Until when a call may take, for whoever answers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// The call itself; a stream may go on.
    pub(super) call: Instant,
    /// What the client asked for, if it did: that counts for a stream too.
    pub(super) asked: Option<Instant>,
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// Takes messages of [`MAX_MESSAGE`].
    calls: Routes,
    /// Takes messages of [`MAX_SET`].
    sets: Routes,
    places: Places,
}

#[derive(Debug, Clone)]
struct Places {
    calls: Arc<Semaphore>,
    sets: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// Which bounds a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Call,
    Set,
    Stream,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("Apply") => Self::Set,
            // That of routes, and that of health; and reflection, which is one as well.
            Some("Watch" | "ServerReflectionInfo") => Self::Stream,
            _ => Self::Call,
        }
    }
}

impl Gate {
    pub(super) fn new(calls: Routes, sets: Routes) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let places = Places { calls: places(CALLS), sets: places(SETS), streams: places(STREAMS) };
        Self { calls: calls.prepare(), sets: sets.prepare(), places }
    }
}

impl Places {
    async fn take(&self, kind: Kind) -> Result<OwnedSemaphorePermit, Status> {
        let gone = |_| Status::unavailable("the proxy stops");
        match kind {
            Kind::Call => Arc::clone(&self.calls).acquire_owned().await.map_err(gone),
            Kind::Set => Arc::clone(&self.sets).acquire_owned().await.map_err(gone),
            // They end when they please: nothing to wait for.
            Kind::Stream => Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
                Status::resource_exhausted(format!("{STREAMS} streams are open; no more are"))
            }),
        }
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let kind = Kind::of(request.uri().path());
        let mut routes = if kind == Kind::Set { self.sets.clone() } else { self.calls.clone() };
        let places = self.places.clone();
        let now = Instant::now();
        let allowed = allowed(request.headers());
        let until = now + allowed.unwrap_or(LONGEST).min(LONGEST);
        let asked = allowed.and_then(|allowed| now.checked_add(allowed));
        request.extensions_mut().insert(Deadline { call: until, asked });
        Box::pin(async move {
            let answered = timeout_at(until, async {
                let place = places.take(kind).await?;
                let answer = match routes.call(request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                };
                Ok(holding(told_by_the_book(answer), place))
            });
            let answer = match answered.await {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded("not done within the deadline")),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

/// tonic calls a message that is too large "out of range", which means something else here and in
/// the rest of the world.
fn told_by_the_book(answer: Response<Body>) -> Response<Body> {
    let too_large = |status: &Status| {
        status.code() == Code::OutOfRange && status.message().contains("message length too large")
    };
    match Status::from_header_map(answer.headers()).filter(too_large) {
        Some(status) => Status::resource_exhausted(status.message()).into_http(),
        None => answer,
    }
}

/// The same answer, with a place that is given back once it has been read or given up.
fn holding(answer: Response<Body>, place: OwnedSemaphorePermit) -> Response<Body> {
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &place;
            frame
        }))
    })
}

/// How long a client waits, if it says so: at most eight digits, and a unit.
fn allowed(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(count)),
        "M" => Some(Duration::from_mins(count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_the_protocol_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            allowed(&headers)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(read("5n"), Some(Duration::from_nanos(5)));
        for wrong in ["", "5", "m", "123456789m", "-1S", "+1S", "1x", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(allowed(&HeaderMap::new()), None);
    }

    #[test]
    fn each_call_has_its_bounds() {
        assert_eq!(Kind::of("/mse.proxy.v1.RouteService/Apply"), Kind::Set);
        assert_eq!(Kind::of("/mse.proxy.v1.RouteService/Watch"), Kind::Stream);
        assert_eq!(Kind::of("/grpc.health.v1.Health/Watch"), Kind::Stream);
        assert_eq!(Kind::of("/mse.proxy.v1.RouteService/Set"), Kind::Call);
        assert_eq!(Kind::of(""), Kind::Call);
    }
}
