//! Asking an app for its health check: one short connection, one question, the head of the answer.
//!
//! Whose answer it is matters more than what it says, so it counts only from whoever shows the
//! certificate that was seen before.

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::admission::readiness::MARK;
use crate::admission::sight::Sight;
use crate::endpoint::Endpoint;
use crate::hostname::Hostname;
use crate::probe::certificate::{BUDGET, Onlooker, Unseen, shown};
use crate::resolve::Resolve;

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 64 * 1024;

/// What is asked of an app.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where it is.
    pub backend: &'a Endpoint,
    /// Its name.
    pub name: &'a Hostname,
    /// The path of its health check.
    pub path: &'a str,
    /// The certificate that it showed before; no other one counts.
    pub trusted: &'a Sight,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Whether it is the configuration server's.
    pub is_marked: bool,
}

/// Asks once.
///
/// # Errors
/// Why there was no answer that counts.
pub async fn ask(
    onlooker: &Onlooker,
    question: Question<'_>,
    resolver: &impl Resolve,
) -> Result<Reply, Unseen> {
    let asking = async {
        let tls = onlooker.shake(question.backend, question.name, resolver).await?;
        let seen = Sight::from(&shown(&tls)?);
        if seen.leaf != question.trusted.leaf {
            return Err(Unseen::Another { key: seen.key });
        }
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let response = if is_h2 {
            let (mut client, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                    .handshake(TokioIo::new(tls))
                    .await?;
            let uri = format!("https://{}{}", question.name, question.path);
            let request = Request::get(uri).body(Empty::<Bytes>::new());
            let request = request.map_err(|_| Unseen::NoPath)?;
            answer(client.send_request(request), connection).await?
        } else {
            let (mut client, connection) = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .handshake(TokioIo::new(tls))
                .await?;
            let request = Request::get(question.path).header(HOST, question.name.as_str());
            let request = request.header("connection", "close").body(Empty::<Bytes>::new());
            let request = request.map_err(|_| Unseen::NoPath)?;
            answer(client.send_request(request), connection).await?
        };
        let is_marked = response.headers().contains_key(MARK);
        Ok(Reply { status: response.status().as_u16(), is_marked })
    };
    timeout(BUDGET, asking).await.unwrap_or(Err(Unseen::Silent))
}

/// Waits for the head of an answer while the connection turns; with that it is dropped.
async fn answer(
    asked: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut asked, mut connection) = (std::pin::pin!(asked), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // A connection that is over has said all that it had to say.
        ended = &mut connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(error),
        },
    }
}
