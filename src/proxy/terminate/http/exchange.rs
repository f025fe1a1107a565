//! One request and its response: judged, passed on, and answered in any case.

use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response};

use crate::clock::Timestamp;
use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::terminate::http::body::{Reply, Upload};
use crate::proxy::terminate::http::desk::Desk;
use crate::proxy::terminate::http::headers::{self, Misaddressed};
use crate::proxy::terminate::http::line::Line;
use crate::proxy::terminate::http::page::Refusal;
use crate::proxy::terminate::http::pool::{Unanswered, Wanted};
use crate::proxy::terminate::http::respond::{answer, unanswered};
use crate::proxy::terminate::http::tunnel;
use crate::routing::route::Route;
use crate::routing::termination::Termination;

/// Connections that are tried for one request, as long as none has taken any of it: two that waited
/// and had just been closed, then a fresh one.
const ATTEMPTS: usize = 3;

/// Answers a request.
pub(crate) async fn exchange<C: Connect>(
    desk: Rc<Desk<C>>,
    request: Request<Incoming>,
) -> Response<Reply> {
    let version = request.version();
    let now = desk.house.clock.now();
    let line = desk.line(&request, now);
    let answered = judge_and_pass(&desk, &line, request, now).await;
    desk.traffic.go_on();
    match answered {
        Ok(mut response) => {
            *response.version_mut() = version;
            response
        }
        Err(refusal) => {
            if let Refusal::Over(_) = refusal {
                desk.is_closing.set(true);
            }
            line.refused(refusal.outcome(), refusal.reason());
            let mut response = refusal.answer(version);
            *response.version_mut() = version;
            line.answered(response.status().as_u16());
            response
        }
    }
}

async fn judge_and_pass<C: Connect>(
    desk: &Rc<Desk<C>>,
    line: &Rc<Line>,
    request: Request<Incoming>,
    now: Timestamp,
) -> Result<Response<Reply>, Refusal> {
    let authority = headers::authority(&request, &desk.name).map_err(|why| match why {
        // It may stand in for one that was worse.
        Misaddressed::Malformed => desk
            .traffic
            .fault()
            .filter(|_| request.headers().is_empty())
            .map_or(Refusal::BadRequest("it must name one host"), Refusal::Faulty),
        Misaddressed::Elsewhere => Refusal::Misdirected,
    })?;
    let route = desk.route(now).map_err(Refusal::Over)?;
    let how = route.termination().map(Arc::clone);
    let how = how.ok_or(Refusal::Over(Outcome::RouteRemoved))?;
    if tunnel::is_wanted(&request) {
        return tunnel::open(desk, line, request, &authority, &route, &how).await;
    }
    if request.method() == Method::CONNECT {
        return Err(Refusal::NotImplemented);
    }
    pass(desk, line, request, &authority, &route, &how).await
}

async fn pass<C: Connect>(
    desk: &Rc<Desk<C>>,
    line: &Rc<Line>,
    request: Request<Incoming>,
    authority: &Authority,
    route: &Arc<Route>,
    how: &Termination,
) -> Result<Response<Reply>, Refusal> {
    let version = request.version();
    let (mut head, body) = request.into_parts();
    headers::to_backend(&mut head.headers, version, &desk.way(authority));
    // A stream of messages may pause for as long as it likes.
    let is_stream = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let pace = desk.house.terminal.pace.filter(|_| !is_stream);
    let pace = pace.map(|pace| (pace, &desk.house.deadlines));
    // What changes nothing, and has nothing to be sent twice, may be asked again.
    let is_repeatable = head.method.is_safe() && body.is_end_stream();
    let upload = |body| Upload::new(body, Rc::clone(line), pace);
    let mut request = Request::from_parts(head, upload(Some(body)));
    let wanted = Wanted { route, how, name: &desk.name };
    let pool = &desk.house.terminal.pool;
    for attempt in 1..=ATTEMPTS {
        let leased = pool.lease(&desk.house, wanted, attempt == ATTEMPTS).await;
        let mut lease = leased.map_err(|undialled| {
            line.reached(route.backends.first());
            Refusal::Unreached(undialled.outcome)
        })?;
        line.reached(route.backends.get(lease.endpoint));
        let again = (is_repeatable && !lease.is_fresh).then(|| repeat(&request, upload(None)));
        let answered = lease.send(request, authority).await;
        if lease.is_exclusive() && answered.is_ok() {
            pool.put(wanted, lease);
        }
        request = match (answered, again) {
            (Ok(response), _) => return answer(line, response, version),
            (Err(Unanswered::Unsent(again)), _) => *again,
            // It was closed while the request was on its way.
            (Err(Unanswered::Broken(error)), Some(again)) if !error.is_parse() => again,
            (Err(Unanswered::Broken(error)), _) => return Err(unanswered(line, &error)),
        }
    }
    Err(Refusal::BadAnswer(Outcome::BackendClosedEarly))
}

/// The same request, with another body.
fn repeat(request: &Request<Upload>, body: Upload) -> Request<Upload> {
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    again
}
