//! WebSocket: an exchange that becomes a stream of bytes both ways.
//!
//! Either side may speak HTTP/1.1 (`Upgrade`, RFC 6455) or HTTP/2 (extended CONNECT, RFC 8441), and
//! what one says is put into the words of the other. A backend is asked by HTTP/1.1, on a connection
//! of its own; one that speaks HTTP/2 alone, by a stream. No other upgrade is passed on: `h2c` would
//! lead past whatever judges requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use futures_util::FutureExt;
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::terminate::dial::{Dialled, Undialled, dial};
use crate::proxy::terminate::http::body::Reply;
use crate::proxy::terminate::http::desk::Desk;
use crate::proxy::terminate::http::framing::MAX_HEAD;
use crate::proxy::terminate::http::headers;
use crate::proxy::terminate::http::line::Line;
use crate::proxy::terminate::http::page::Refusal;
use crate::proxy::terminate::http::respond::{answer, unanswered};
use crate::proxy::terminate::stream::{Both, Opened, Rewind, Tunnel};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::termination::{BackendTls, Termination};

/// The one protocol that is upgraded to.
const WEBSOCKET: &str = "websocket";
/// What RFC 6455 §1.3 joins to a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// More streams than a backend can allow: so many, as long as it has not said how many it does.
const UNTOLD: usize = usize::MAX - 1;

/// How often it is looked at whether it has.
const GLANCE: Duration = Duration::from_millis(5);

/// What a backend says to a request for an upgrade.
enum Said {
    /// It is a stream of bytes from here on.
    Yes(HeaderMap, Tunnel),
    /// It answers in the ordinary way.
    No(Response<Incoming>),
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>();
        return request.method() == Method::CONNECT
            && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET);
    }
    request.method() == Method::GET
        && headers::upgrade(request.headers())
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Asks the backend, and ties both ends together if it agrees.
pub(crate) async fn open<C: Connect>(
    desk: &Rc<Desk<C>>,
    line: &Rc<Line>,
    mut request: Request<Incoming>,
    authority: &Authority,
    route: &Arc<Route>,
    how: &Termination,
) -> Result<Response<Reply>, Refusal> {
    let version = request.version();
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let own = version == Version::HTTP_2;
    if !own && !request.body().is_end_stream() {
        // What comes then is the body to some, and the stream to others.
        return Err(Refusal::BadRequest("it asks for an upgrade and has a body"));
    }
    let key = if own { Some(fresh_key()) } else { key };
    let key = key.ok_or(Refusal::BadRequest("it has no Sec-WebSocket-Key"))?;
    let mut headers = request.headers().clone();
    headers::to_backend(&mut headers, version, &desk.way(authority));
    let ask = Ask { uri: request.uri().clone(), headers, key: key.clone(), authority };
    let said = ask.of_backend(desk, line, route, how).await?;
    let (mut headers, tunnel) = match said {
        Said::No(response) => return answer(line, response, version),
        Said::Yes(headers, tunnel) => (headers, tunnel),
    };
    headers::to_client(&mut headers, Version::HTTP_11);
    let mut response = Response::new(Reply::Nothing);
    if version == Version::HTTP_2 {
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        let upgrade = hyper::upgrade::on(&mut request);
        line.answered(StatusCode::OK.as_u16());
        let line = Rc::clone(line);
        desk.hiring.hire(async move {
            let Ok(client) = upgrade.await else { return };
            carry(TokioIo::new(client), tunnel, &line).await;
        });
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept(&key));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        // What comes now is no HTTP any more.
        desk.traffic.look_away();
        *desk.tunnel.borrow_mut() = Some((tunnel, Rc::clone(line)));
        line.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    }
    *response.headers_mut() = headers;
    Ok(response)
}

/// Passes bytes both ways until both ends have finished, or one broke off.
pub(crate) async fn carry(client: impl Both, backend: Tunnel, line: &Line) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_backend, mut to_backend) = split(backend);
    let passed = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let is_half = Cell::new(false);
    // Its session may end before the last shutdown is through.
    let ended = || {
        if is_half.replace(true) {
            line.finished();
        }
    };
    let there = async {
        line.sent(passed(copy(&mut from_client, &mut to_backend).await?));
        ended();
        to_backend.shutdown().await
    };
    let back = async {
        line.received(passed(copy(&mut from_backend, &mut to_client).await?));
        ended();
        to_client.shutdown().await
    };
    if tokio::try_join!(there, back).is_err() {
        line.broke(Outcome::ClientReset);
    }
}

/// What is asked of a backend.
struct Ask<'a> {
    uri: Uri,
    headers: HeaderMap,
    key: HeaderValue,
    authority: &'a Authority,
}

impl Ask<'_> {
    async fn of_backend<C: Connect>(
        &self,
        desk: &Desk<C>,
        line: &Line,
        route: &Arc<Route>,
        how: &Termination,
    ) -> Result<Said, Refusal> {
        let reach = async |protocol: &[u8]| {
            let protocols = vec![protocol.to_vec()];
            dial(&desk.house, route, how, &desk.name, protocols).await
        };
        let mut reached = reach(b"http/1.1").await;
        // It may speak HTTP/2 alone.
        let is_other = |undialled: &Undialled| {
            matches!(undialled.reason, Some("no_shared_protocol" | "no_application_protocol"))
        };
        if reached.as_ref().err().is_some_and(is_other) {
            reached = reach(b"h2").await;
        }
        let Dialled { stream, endpoint } =
            reached.map_err(|undialled| Refusal::Unreached(undialled.outcome))?;
        line.reached(route.backends.get(endpoint));
        stream.keep_alive();
        if stream.protocol() == Some(b"h2") {
            return self.by_stream(desk, line, stream).await;
        }
        // Some servers take an offer that they cannot keep, and say nothing of it.
        let is_agreed = stream.protocol().is_some() || how.backend == BackendTls::Off;
        let asked = self.by_upgrade(desk, line, stream).await;
        if asked.is_ok() || is_agreed {
            return asked;
        }
        match reach(b"h2").await {
            Ok(Dialled { stream, .. }) if stream.protocol() == Some(b"h2") => {
                stream.keep_alive();
                self.by_stream(desk, line, stream).await
            }
            _ => asked,
        }
    }

    /// By HTTP/1.1, on a connection that becomes the tunnel.
    async fn by_upgrade<C: Connect>(
        &self,
        desk: &Desk<C>,
        line: &Line,
        stream: Opened<C::Stream>,
    ) -> Result<Said, Refusal> {
        let mut request = Request::new(Empty::<Bytes>::new());
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| Refusal::BadRequest("its path"))?;
        let mut headers = self.headers.clone();
        let host = self.authority.as_str().parse();
        headers.insert(HOST, host.map_err(|_| Refusal::BadRequest("its host"))?);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        *request.headers_mut() = headers;

        let shaken = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream));
        let (mut sender, mut connection) =
            shaken.await.map_err(|error| unanswered(line, &error))?;
        let mut answering = Box::pin(sender.send_request(request));
        let mut is_over = false;
        let response = poll_fn(|cx| {
            if !is_over {
                is_over = connection.poll_without_shutdown(cx).is_ready();
            }
            answering.as_mut().poll(cx)
        });
        let response = response.await.map_err(|error| unanswered(line, &error))?;
        drop(answering);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            desk.house.terminal.pool.errands().0.spawn(connection.map(drop));
            return Ok(Said::No(response));
        }
        if response.headers().get(SEC_WEBSOCKET_ACCEPT) != Some(&accept(&self.key)) {
            return Err(Refusal::BadAnswer(Outcome::BackendProtocol));
        }
        if !is_over {
            let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
            ended.map_err(|error| unanswered(line, &error))?;
        }
        let parts = connection.into_parts();
        let stream = Rewind::new(parts.read_buf.to_vec(), parts.io.into_inner());
        Ok(Said::Yes(response.headers().clone(), Box::new(stream)))
    }

    /// By HTTP/2, on a stream that becomes the tunnel.
    async fn by_stream<C: Connect>(
        &self,
        desk: &Desk<C>,
        line: &Line,
        stream: Opened<C::Stream>,
    ) -> Result<Said, Refusal> {
        let errands = desk.house.terminal.pool.errands();
        let mut builder = http2::Builder::new(errands.clone());
        builder.initial_max_send_streams(UNTOLD);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| unanswered(line, &error))?;
        let mut connection = Box::pin(connection);
        // The backend must have said that it can (RFC 8441 §3), which its first frame does.
        let deadlines = &desk.house.deadlines;
        let told = async {
            loop {
                let is_over = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_ready()));
                if is_over.await {
                    return Err(Refusal::BadAnswer(Outcome::BackendClosedEarly));
                }
                if connection.is_extended_connect_protocol_enabled() {
                    return Ok(());
                }
                if connection.current_max_send_streams() != UNTOLD {
                    return Err(Refusal::NoTunnel);
                }
                // The frame comes in elsewhere, and nobody tells.
                deadlines.sleep(GLANCE).await;
            }
        };
        let mut timer = deadlines.unset();
        timer.set(tokio::time::Instant::now() + desk.house.terminal.handshake_timeout);
        let told = timer.bound(pin!(told)).await;
        told.unwrap_or(Err(Refusal::BadAnswer(Outcome::BackendProtocol)))?;
        errands.0.spawn(connection.map(drop));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        let mut uri = self.uri.clone().into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Refusal::BadRequest("its path"))?;
        let mut headers = self.headers.clone();
        headers.remove(HOST);
        headers.remove(SEC_WEBSOCKET_KEY);
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
        let response = sender.send_request(request).await;
        let mut response = response.map_err(|error| unanswered(line, &error))?;
        if response.status() != StatusCode::OK {
            return Ok(Said::No(response));
        }
        let upgraded = hyper::upgrade::on(&mut response).await;
        let upgraded = upgraded.map_err(|error| unanswered(line, &error))?;
        Ok(Said::Yes(response.headers().clone(), Box::new(TokioIo::new(upgraded))))
    }
}

/// What a server says to a key (RFC 6455 §4.2.2).
fn accept(key: &HeaderValue) -> HeaderValue {
    let joined = [key.as_bytes(), GUID].concat();
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined);
    HeaderValue::from_str(&base64(sum.as_ref())).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A key that nobody has used. It proves nothing but that the other side speaks WebSocket.
fn fresh_key() -> HeaderValue {
    let mut bytes = [0; 16];
    // Without randomness a key is as good as any other.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    HeaderValue::from_str(&base64(&bytes)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = LETTERS.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_the_rfc_does() {
        // RFC 6455 §1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (text, written) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(text.as_bytes()), written);
        }
        assert_ne!(fresh_key(), fresh_key());
        assert_eq!(fresh_key().len(), 24);
    }
}
