//! What is written together over HTTP/2 leaves together: fewer TLS records than answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::daemon::route;
use crate::origin::{CHORUS, Origin};
use crate::support::Scene;

/// Counts the TLS records that come in.
struct Records {
    stream: TcpStream,
    count: Arc<AtomicUsize>,
    header: Vec<u8>,
    /// What is still to come of the record that was begun.
    rest: usize,
}

impl Records {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let now = self.rest.min(bytes.len());
                self.rest -= now;
                bytes = &bytes[now..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let [_, _, _, high, low] = self.header[..] {
                self.rest = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
                self.count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.see(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[test]
fn answers_that_come_together_leave_in_fewer_records_than_they_are() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    let count = Arc::new(AtomicUsize::new(0));
    let mut config = scene.operator.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(scene.address()).await.unwrap();
        let seen = Arc::clone(&count);
        let stream = Records { stream, count: seen, header: Vec::new(), rest: 0 };
        let name = "a.apps.test".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        let io = TokioIo::new(tls.await.unwrap());
        let greeting = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = greeting.await.unwrap();
        tokio::spawn(connection);
        let mut ask = |path: &str| {
            let request = hyper::Request::get(format!("https://a.apps.test/{path}"));
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())
        };
        // Both connections are there, and greetings are over.
        assert_eq!(ask("status/204").await.unwrap().status(), 204);
        let before = count.load(Ordering::SeqCst);
        let answers = join_all((0..CHORUS).map(|_| ask("together"))).await;
        for answer in answers {
            let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 1 << 10);
        }
        let records = count.load(Ordering::SeqCst) - before;
        assert!(records < CHORUS, "{records} records for {CHORUS} answers");
    });
}
