//! The answers of our own: a status, why (RFC 9209 `Proxy-Status`), and a short page.

use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode, Version};

use crate::outcome::Outcome;
use crate::proxy::terminate::http::body::Reply;
use crate::proxy::terminate::http::fault::Fault;
use crate::proxy::terminate::http::headers::PSEUDONYM;

/// Why a request is not passed on, or not answered by its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It could be read in two ways, or not at all.
    Faulty(Fault),
    /// It is no request that could be passed on.
    BadRequest(&'static str),
    /// It is for another name than that of its connection.
    Misdirected,
    /// It asks for something that a reverse proxy does not do.
    NotImplemented,
    /// Its body did not come in time.
    Slow,
    /// The route is over, or leads elsewhere now.
    Over(Outcome),
    /// The backend could not be reached.
    Unreached(Outcome),
    /// What the backend answered is no HTTP, or it left before it had answered.
    BadAnswer(Outcome),
    /// The backend speaks HTTP/2 alone, and takes no WebSocket over it.
    NoTunnel,
}

impl Refusal {
    /// How the exchange ends by it.
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Faulty(_)
            | Self::BadRequest(_)
            | Self::Misdirected
            | Self::NotImplemented
            | Self::Slow => Outcome::RequestRefused,
            Self::Over(outcome) | Self::Unreached(outcome) | Self::BadAnswer(outcome) => outcome,
            Self::NoTunnel => Outcome::BackendProtocol,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Faulty(fault) => fault.status(),
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Over(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreached(Outcome::BackendTimeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreached(_) | Self::BadAnswer(_) | Self::NoTunnel => StatusCode::BAD_GATEWAY,
        }
    }

    /// The error types of RFC 9209 §2.3.
    const fn error(self) -> &'static str {
        match self {
            Self::Faulty(_)
            | Self::BadRequest(_)
            | Self::Misdirected
            | Self::NotImplemented
            | Self::Slow => "http_request_error",
            Self::Over(_) => "destination_unavailable",
            Self::Unreached(Outcome::BackendRefused) => "connection_refused",
            Self::Unreached(Outcome::BackendTimeout) => "connection_timeout",
            Self::Unreached(Outcome::BackendUnreachable) => "destination_ip_unroutable",
            Self::Unreached(Outcome::BackendTls) => "tls_certificate_error",
            Self::Unreached(_) => "proxy_internal_error",
            Self::BadAnswer(Outcome::BackendClosedEarly | Outcome::BackendReset) => {
                "connection_terminated"
            }
            Self::BadAnswer(_) => "http_protocol_error",
            Self::NoTunnel => "http_upgrade_failed",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Faulty(fault) => fault.words(),
            Self::BadRequest(why) => why,
            Self::Misdirected => "this connection is for another name",
            Self::NotImplemented => "this is not done here",
            Self::Slow => "the request took too long",
            Self::Over(_) => "this app is not served here any more",
            Self::Unreached(_) => "the app cannot be reached",
            Self::BadAnswer(_) => "the app gave no answer",
            Self::NoTunnel => "the app takes no WebSocket",
        }
    }

    /// What a record says of it beside the outcome.
    pub(crate) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Faulty(fault) => Some(fault.reason()),
            Self::BadRequest(_) => Some("bad_request"),
            Self::Misdirected => Some("other_name"),
            Self::NotImplemented => Some("not_implemented"),
            Self::Slow => Some("slow_body"),
            Self::NoTunnel => Some("no_websocket"),
            Self::Over(_) | Self::Unreached(_) | Self::BadAnswer(_) => None,
        }
    }

    /// Whether the connection can be of no more use.
    const fn is_last(self) -> bool {
        match self {
            Self::Faulty(_) | Self::BadRequest(_) | Self::Slow | Self::Over(_) => true,
            Self::Misdirected
            | Self::NotImplemented
            | Self::Unreached(_)
            | Self::BadAnswer(_)
            | Self::NoTunnel => false,
        }
    }

    /// The answer to a request of this version.
    pub(crate) fn answer(self, version: Version) -> Response<Reply> {
        let (status, words) = (self.status(), self.words());
        let page = format!("{} {words}\n", status.as_u16());
        let mut response = Response::new(Reply::Page(Some(Bytes::from(page))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let told = format!("{PSEUDONYM}; error={}; details=\"{words}\"", self.error());
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(HeaderName::from_static("proxy-status"), told);
        }
        if self.is_last() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
