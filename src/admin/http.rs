//! Which question gets which answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::admin::clients::Clients;
use crate::admin::eyes::Eyes;
use crate::admin::page::Page;
use crate::admin::query::Query;
use crate::admin::spares::{Lent, Rescue, Spares};
use crate::admin::status::Status;
use crate::telemetry::metrics::CONTENT_TYPE;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what it says may be; the least that hyper takes.
const MAX_HEADERS: usize = 8 * 1024;
/// How long those who have the spare descriptors get to give one back.
const PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// What anything but the page may do in a browser: nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

/// Serves until `stop` says true, or its sender is gone.
pub(super) async fn serve(
    listener: TcpListener,
    spares: Spares,
    eyes: Arc<Eyes>,
    mut stop: watch::Receiver<bool>,
) {
    let (page, spares) = (Arc::new(Page::new()), Arc::new(spares));
    let mut clients = Clients::default();
    loop {
        tokio::select! {
            () = clients.room() => {}
            _ = stop.changed() => return,
        }
        spares.refill();
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => match spares.accept(&listener).await {
                Rescue::Accepted(stream) => stream,
                Rescue::NobodyWaits => continue,
                Rescue::Exhausted => {
                    clients.end_oldest();
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let stream = Lent::new(stream, &spares);
        clients.serve(answer_one(stream, Arc::clone(&eyes), Arc::clone(&page)));
    }
}

async fn answer_one(stream: Lent, eyes: Arc<Eyes>, page: Arc<Page>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (eyes, page) = (Arc::clone(&eyes), Arc::clone(&page));
        async move { Ok::<_, Infallible>(answer(&request, eyes, &page).await) }
    });
    // A client that breaks off has nobody to be told.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<B>(request: &Request<B>, eyes: Arc<Eyes>, page: &Page) -> Answer {
    let path = request.uri().path();
    if !matches!(path, "/" | "/live" | "/ready" | "/metrics" | "/status.json") {
        let words = "not found; there are /, /status.json, /metrics, /live and /ready\n";
        return plain(StatusCode::NOT_FOUND, words);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD: nothing can be changed here\n",
        );
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/live" => plain(StatusCode::OK, "alive\n"),
        "/ready" => match eyes.why_not_ready() {
            None => plain(StatusCode::OK, "ready\n"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => heavy(CONTENT_TYPE, move || eyes.metrics.text(&eyes.facts())).await,
        "/status.json" => {
            let query = Query::read(request.uri().query().unwrap_or_default());
            heavy(JSON, move || Status::of(&eyes, &query).to_json()).await
        }
        _ => with(StatusCode::OK, HTML, page.policy(), page.html()),
    }
}

/// An answer that may take long.
async fn heavy(kind: &'static str, make: impl FnOnce() -> String + Send + 'static) -> Answer {
    match tokio::task::spawn_blocking(make).await {
        Ok(text) => with(StatusCode::OK, kind, HeaderValue::from_static(NOTHING), text),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this answer could not be made\n"),
    }
}

fn plain(status: StatusCode, words: impl Into<Bytes>) -> Answer {
    with(status, TEXT, HeaderValue::from_static(NOTHING), words)
}

fn with(
    status: StatusCode,
    kind: &'static str,
    policy: HeaderValue,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
