//! The clients of a name whose TLS the proxy ends. They offer TLS 1.3, `TLS_AES_128_GCM_SHA256`
//! and X25519 alone, which all peers know: each proxy does the same cryptography.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ending;
use crate::hello::name;
use crate::load::{Field, nanoseconds};
use crate::origin::CHUNK;
use crate::web::{ANSWER, ENDLESS, SMALL};

/// Requests at once on one connection of HTTP/2.
const STREAMS: usize = 32;
/// The most that a head and a small answer take together.
const MOST_ANSWER: usize = 4 << 10;

/// How a short connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
}

/// What a client goes on with on a connection whose TLS the proxy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Small requests over HTTP/1.1, one after the other.
    Http1,
    /// Small requests over HTTP/2, some at once.
    Http2,
    /// One download without end, over HTTP/1.1.
    Down,
}

/// Makes short connections, each with one small request.
#[derive(Debug)]
pub(crate) struct Client {
    handshake: Handshake,
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client of a proxy. One that resumes goes on with the tickets that the client with this
    /// number got in an earlier run; its very first connection fails for want of a ticket.
    pub(crate) fn new(handshake: Handshake, to: SocketAddr, number: usize) -> io::Result<Self> {
        let config = match handshake {
            Handshake::Full => Arc::new(config(b"http/1.1", Resumption::disabled())?),
            Handshake::Resumed => remembering(to, number)?,
        };
        Ok(Self { handshake, config })
    }

    /// One connection: how long it took until the answer was there.
    pub(crate) async fn visit(&self, address: SocketAddr) -> io::Result<Duration> {
        let started = Instant::now();
        let mut stream = connect(address, Arc::clone(&self.config)).await?;
        let mut space = [0; MOST_ANSWER];
        exchange(&mut stream, &request(SMALL), &mut space).await?;
        let latency = started.elapsed();
        let expected = match self.handshake {
            Handshake::Full => HandshakeKind::Full,
            Handshake::Resumed => HandshakeKind::Resumed,
        };
        let is_as_expected = stream.get_ref().1.handshake_kind() == Some(expected);
        stream.shutdown().await?;
        if is_as_expected { Ok(latency) } else { Err(io::Error::other("another handshake")) }
    }
}

/// What one client of a steady load does until it is dropped.
pub(crate) async fn labour(
    task: Task,
    address: SocketAddr,
    field: &Field,
    latencies: &RefCell<Vec<u64>>,
) -> io::Result<()> {
    let protocol: &[u8] = if task == Task::Http2 { b"h2" } else { b"http/1.1" };
    let config = Arc::new(config(protocol, Resumption::disabled())?);
    let mut stream = connect(address, config).await?;
    if stream.get_ref().1.alpn_protocol() != Some(protocol) {
        return Err(io::Error::other("another protocol"));
    }
    let done = |started: Instant| {
        if field.is_measured.load(Ordering::Relaxed) {
            latencies.borrow_mut().push(nanoseconds(started.elapsed()));
        }
        field.units.fetch_add(1, Ordering::Relaxed);
    };
    match task {
        Task::Http1 => {
            field.ready.fetch_add(1, Ordering::Relaxed);
            let (request, mut space) = (request(SMALL), [0; MOST_ANSWER]);
            loop {
                let started = Instant::now();
                exchange(&mut stream, &request, &mut space).await?;
                done(started);
            }
        }
        Task::Http2 => {
            let greeting = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = greeting.await.map_err(io::Error::other)?;
            field.ready.fetch_add(1, Ordering::Relaxed);
            let streams = (0..STREAMS).map(|_| repeat(sender.clone(), &done));
            tokio::select! {
                end = connection => end.map_err(io::Error::other),
                end = try_join_all(streams) => end.map(|_| ()),
            }
        }
        Task::Down => {
            stream.write_all(&request(ENDLESS)).await?;
            field.ready.fetch_add(1, Ordering::Relaxed);
            let mut space = vec![0; CHUNK];
            loop {
                match stream.read(&mut space).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => field.units.fetch_add(count as u64, Ordering::Relaxed),
                };
            }
        }
    }
}

/// One request after the other on one place of a connection of HTTP/2.
async fn repeat(mut sender: SendRequest<Empty<Bytes>>, done: &impl Fn(Instant)) -> io::Result<()> {
    let target = format!("https://{}{SMALL}", name(0));
    loop {
        let request = hyper::Request::get(&target).body(Empty::new()).map_err(io::Error::other)?;
        let started = Instant::now();
        sender.ready().await.map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let is_good = answer.status() == 200;
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        if !is_good || body.len() != ANSWER {
            return Err(io::Error::other("another answer"));
        }
        done(started);
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", name(0)).into_bytes()
}

/// One small request over HTTP/1.1 and its whole answer.
async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    request: &[u8],
    space: &mut [u8],
) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut have = 0;
    loop {
        let count = stream.read(space.get_mut(have..).unwrap_or_default()).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += count;
        let seen = space.get(..have).unwrap_or_default();
        let head = memchr::memmem::find(seen, b"\r\n\r\n").map(|at| at + 4);
        match head.map(|head| have.cmp(&(head + ANSWER))) {
            Some(std::cmp::Ordering::Equal) if seen.starts_with(b"HTTP/1.1 200 ") => return Ok(()),
            Some(std::cmp::Ordering::Less) | None => {}
            Some(_) => return Err(io::Error::other("another answer")),
        }
    }
}

async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name(0)).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// What a client that resumes knows of a proxy.
fn remembering(to: SocketAddr, number: usize) -> io::Result<Arc<ClientConfig>> {
    type Known = HashMap<(SocketAddr, usize), Arc<ClientConfig>>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(config) = known.get(&(to, number)) {
        return Ok(Arc::clone(config));
    }
    let config = Arc::new(config(b"http/1.1", Resumption::in_memory_sessions(8))?);
    known.insert((to, number), Arc::clone(&config));
    Ok(config)
}

fn config(protocol: &[u8], resumption: Resumption) -> io::Result<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    let leaf = CertificateDer::from_pem_slice(ending::pair()?.chain.as_bytes());
    roots.add(leaf.map_err(io::Error::other)?).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = resumption;
    Ok(config)
}
