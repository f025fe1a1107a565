//! What a backend answered, on its way to the client; and whose doing it is when it did not.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Response, StatusCode, Version};

use crate::outcome::Outcome;
use crate::proxy::terminate::http::body::{Download, Reply};
use crate::proxy::terminate::http::headers;
use crate::proxy::terminate::http::line::Line;
use crate::proxy::terminate::http::page::Refusal;

/// Passes a response on.
pub(crate) fn answer(
    line: &Rc<Line>,
    response: Response<Incoming>,
    version: Version,
) -> Result<Response<Reply>, Refusal> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for that.
        return Err(Refusal::BadAnswer(Outcome::BackendProtocol));
    }
    let received = response.version();
    let (mut head, body) = response.into_parts();
    headers::to_client(&mut head.headers, received);
    head.version = version;
    line.answered(head.status.as_u16());
    Ok(Response::from_parts(head, Reply::Passed(Download::new(body, Rc::clone(line)))))
}

/// Whose fault it is that there is no response.
pub(crate) fn unanswered(line: &Line, error: &hyper::Error) -> Refusal {
    if line.was_slow() {
        return Refusal::Slow;
    }
    if line.outcome() == Some(Outcome::ClientReset) {
        return Refusal::BadRequest("its body is broken");
    }
    tracing::debug!(%error, "a backend gave no answer");
    if error.is_parse() {
        Refusal::BadAnswer(Outcome::BackendProtocol)
    } else if error.is_incomplete_message() || error.is_closed() {
        Refusal::BadAnswer(Outcome::BackendClosedEarly)
    } else {
        Refusal::BadAnswer(Outcome::BackendReset)
    }
}
