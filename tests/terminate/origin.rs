//! A backend that speaks HTTP: it says what it was asked, sends back what it gets, and more.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

/// A backend that runs until the test ends.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    /// One that speaks these protocols; none is HTTP/1.1.
    pub(crate) fn start(mut tls: ServerConfig, protocols: &[&str]) -> Self {
        tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let requests = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&requests);
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    let (count, asked) = (Arc::clone(&count), Arc::clone(&asked));
                    tokio::spawn(async move {
                        let Ok(tls) = acceptor.accept(stream).await else { return };
                        count.fetch_add(1, Ordering::SeqCst);
                        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                        let service = service_fn(|request| {
                            asked.fetch_add(1, Ordering::SeqCst);
                            answer(request)
                        });
                        let io = TokioIo::new(tls);
                        // Clients that leave are no matter.
                        if is_h2 {
                            let mut server = http2::Builder::new(TokioExecutor::new());
                            server.enable_connect_protocol();
                            let _ = server.serve_connection(io, service).await;
                        } else {
                            let _ = http1::Builder::new().serve_connection(io, service).await;
                        }
                    });
                }
            });
        });
        Self { address, connections, requests }
    }

    /// How many requests it has heard.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// So many requests for `/together` are answered at once.
pub(crate) const CHORUS: usize = 12;
static TOGETHER: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(CHORUS));

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(mut request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    if request.extensions().get::<hyper::ext::Protocol>().is_some() {
        // Extended CONNECT: bytes go back as they come.
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        });
        return Ok(Response::builder()
            .header("x-path", request.uri().path())
            .body(full(Bytes::new()))
            .unwrap());
    }
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match words.as_slice() {
        ["echo"] => {
            // Counted and let go: it may be larger than memory.
            let (mut body, mut size) = (request.into_body(), 0_usize);
            while let Some(frame) = body.frame().await {
                size += frame?.data_ref().map_or(0, Bytes::len);
            }
            page(Bytes::from(size.to_string()))
        }
        ["back"] => {
            // As it comes, trailers included.
            let (sender, receiver) = tokio::sync::mpsc::channel::<Frame<Bytes>>(1);
            let mut body = request.into_body();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            });
            let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let frames = tokio_stream::StreamExt::map(frames, Ok);
            Response::builder()
                .header("trailer", "x-sum")
                .body(BodyExt::boxed(StreamBody::new(frames)))
                .unwrap()
        }
        ["bytes", size] => {
            let block = Bytes::from(vec![b'x'; 1 << 16]);
            let mut left = size.parse::<usize>().unwrap();
            let frames = std::iter::from_fn(move || {
                let now = left.min(block.len());
                left -= now;
                (now > 0).then(|| Ok(Frame::data(block.slice(..now))))
            });
            Response::new(BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames))))
        }
        ["together"] => {
            TOGETHER.wait().await;
            page(Bytes::from(vec![b'x'; 1 << 10]))
        }
        // Until whoever asks has gone.
        ["wait"] => std::future::pending().await,
        ["status", status] => Response::builder().status(*status).body(full(Bytes::new())).unwrap(),
        _ => {
            let version = format!("{:?}", request.version());
            let mut told = format!("{version} {} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                let _ = writeln!(told, "{name}: {}", value.to_str().unwrap());
            }
            let mut response = page(told.into());
            let headers = response.headers_mut();
            headers.insert("connection", "x-hop".parse().unwrap());
            headers.insert("x-hop", "1".parse().unwrap());
            headers.insert("alt-svc", "h3=\":443\"".parse().unwrap());
            headers.insert("x-end", "1".parse().unwrap());
            response
        }
    })
}

fn full(bytes: Bytes) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes).boxed()
}

fn page(bytes: Bytes) -> Answer {
    Response::new(full(bytes))
}
