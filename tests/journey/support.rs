//! What every journey needs: a proxy on a free port, backends that a test can watch, and clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mse_proxy::clock::{Clock, SystemClock, Timestamp};
use mse_proxy::config::Config;
use mse_proxy::control::address::Address;
use mse_proxy::server::{self, Running};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Longer than anything here should take, shorter than a person's patience with a hung test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(PATIENCE, happens).await;
    happened.unwrap_or_else(|_| panic!("this did not happen in {PATIENCE:?}: {what}"))
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_told(what, async || is_so()).await;
}

/// The same where somebody else has to be asked.
pub(crate) async fn until_told(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A wall clock that only the test moves.
#[derive(Debug)]
pub(crate) struct HeldClock {
    millis: AtomicI64,
    since_boot: AtomicI64,
}

impl HeldClock {
    pub(crate) fn at(text: &str) -> Arc<Self> {
        let time: Timestamp = text.parse().unwrap();
        let millis = AtomicI64::new(time.as_millisecond());
        Arc::new(Self { millis, since_boot: AtomicI64::new(0) })
    }

    /// Time passes until then.
    pub(crate) fn pass(&self, text: &str) {
        let before = self.millis.load(Ordering::SeqCst);
        self.set(text);
        let passed = self.millis.load(Ordering::SeqCst) - before;
        self.since_boot.fetch_add(passed, Ordering::SeqCst);
    }

    /// The wall clock is set.
    pub(crate) fn set(&self, text: &str) {
        let time: Timestamp = text.parse().unwrap();
        self.millis.store(time.as_millisecond(), Ordering::SeqCst);
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.millis.load(Ordering::SeqCst)).unwrap()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.since_boot.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// A proxy in this process, with its routes and its access log in a folder of its own.
pub(crate) struct Proxy {
    pub(crate) running: Option<Running>,
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Proxy {
    pub(crate) async fn start(routes: &str) -> Self {
        Self::with(routes, Arc::new(SystemClock), |_| {}).await
    }

    pub(crate) async fn with(
        routes: &str,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let mut config = Config::default();
        config.listen.addresses = vec!["127.0.0.1:0".parse().unwrap()];
        config.routes.path = Some(folder.path().join("routes.toml"));
        config.admin.http = "127.0.0.1:0".to_owned().try_into().unwrap();
        config.admin.grpc = Address::Off;
        config.drain.timeout = "1s".parse().unwrap();
        config.log.access =
            folder.path().join("access.log").display().to_string().try_into().unwrap();
        change(&mut config);
        let running = server::start(&config, clock, Vec::new()).await.unwrap();
        let address = running.addresses()[0];
        Self { running: Some(running), address, folder }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn open_sessions(&self) -> usize {
        self.running().open_sessions()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.running().table().current().revision
    }

    pub(crate) fn routes_file(&self) -> PathBuf {
        self.folder.path().join("routes.toml")
    }

    /// Writes the routes anew and waits until they are in force.
    pub(crate) async fn rewrite(&self, routes: &str) {
        let before = self.revision();
        std::fs::write(self.routes_file(), routes).unwrap();
        until("the new routes are in force", || self.revision() > before).await;
    }

    /// Has the routes read again, and waits until what was found is in force.
    pub(crate) async fn reload(&self) {
        soon("the routes are read again", self.running().reload_now()).await;
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Waits until that many records are written, and gives all there are.
    pub(crate) async fn records(&self, count: usize) -> Vec<Value> {
        let path = self.folder.path().join("access.log");
        let read = || -> Vec<Value> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // The last line may be half-written.
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        until(&format!("{count} records"), || read().len() >= count).await;
        read()
    }

    /// Waits for the record of the one connection of a test.
    pub(crate) async fn record(&self) -> Value {
        self.records(1).await.remove(0)
    }

    pub(crate) async fn outcome(&self) -> String {
        self.record().await["outcome"].as_str().unwrap().to_owned()
    }

    /// One metric without labels, as it is scraped.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.running().admin().unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        soon("the metrics arrive", stream.read_to_string(&mut text)).await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        soon("the proxy stops", running.stop(std::future::pending())).await;
    }
}

/// Lines of routes.toml: one route, with more keys if wanted.
pub(crate) fn route(host: &str, backend: impl std::fmt::Display, more: &str) -> String {
    format!("[[route]]\nhosts = [\"{host}\"]\nbackends = [\"{backend}\"]\n{more}\n")
}

/// A certificate and its key, made for this run.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) tls: Arc<ServerConfig>,
}

impl Identity {
    pub(crate) fn of(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"acme-tls/1".to_vec()];
        Self { certificate, pem: made.cert.pem(), tls: Arc::new(tls) }
    }

    /// What a client needs to trust this certificate and nothing else.
    pub(crate) fn trusting(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }

    /// Starts a backend that answers every request with one HTTP page.
    pub(crate) async fn serve_page(&self, page: &'static str) -> SocketAddr {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(stream).await?;
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if tls.read_buf(&mut request).await? == 0 {
                            return Ok(());
                        }
                    }
                    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                    tls.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes())
                        .await?;
                    tls.shutdown().await
                });
            }
        });
        address
    }
}

/// A ClientHello as rustls sends it, in its bytes.
pub(crate) fn hello(host: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let mut config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// A TLS handshake through `stream`; gives the stream and the certificate that the server showed.
pub(crate) async fn handshake(
    stream: TcpStream,
    host: &str,
    config: ClientConfig,
) -> std::io::Result<(tokio_rustls::client::TlsStream<TcpStream>, CertificateDer<'static>)> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((tls, shown))
}

/// A backend without TLS that hands its connections to the test, so that the test can see and do
/// on a socket whatever it likes.
pub(crate) struct RawBackend {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl RawBackend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection, after `hello` was read from it.
    pub(crate) async fn accept(&self, hello: &[u8]) -> TcpStream {
        let (mut stream, _) = soon("the backend is dialled", self.listener.accept()).await.unwrap();
        let mut read = vec![0; hello.len()];
        soon("the hello arrives", stream.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, hello, "the backend gets the client's bytes unchanged");
        stream
    }
}

/// A client and its backend, connected through a proxy, past the hello.
pub(crate) struct Pair {
    pub(crate) proxy: Proxy,
    pub(crate) client: TcpStream,
    pub(crate) backend: TcpStream,
    pub(crate) hello_size: u64,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let backend = RawBackend::start().await;
        let routes = route("app.test", backend.address, "");
        let proxy = Proxy::with(&routes, Arc::new(SystemClock), change).await;
        let hello = hello("app.test", &[]);
        let mut client = proxy.dial().await;
        client.write_all(&hello).await.unwrap();
        let backend = backend.accept(&hello).await;
        Self { proxy, client, backend, hello_size: hello.len() as u64 }
    }
}

/// Bytes that differ at every offset in a way that shows shifts and swaps.
pub(crate) fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// What happened, counted by name, for tests that look at many connections.
pub(crate) fn tally(records: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for record in records {
        *counts.entry(record["outcome"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    counts
}

/// What is left of a stream until its end, and how it ended.
pub(crate) async fn rest(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let end = soon("the stream ends", stream.read_to_end(&mut bytes)).await;
    (bytes, end.map(drop))
}

/// Makes the close of a socket a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
