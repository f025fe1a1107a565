//! `serve --demo`: two sample enclave apps in this process, and how to see that nobody on the way
//! ends their TLS.
//!
//! Each app makes its own key and self-signed certificate at start, as an enclave does, and serves
//! one page over TLS on a loopback port. The certificates (never the keys) are written to a
//! temporary folder for `curl --cacert`; it goes when the demo stops.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::SignedDuration;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::report::{Style, print};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::control::address::Address;
use crate::endpoint::Endpoint;
use crate::hostname::{HostnameError, Pattern};
use crate::routing::route::{Claim, Lifetime, Origin, Route, Terms};
use crate::server::Running;
use crate::source::RouteSet;

/// The two apps: one under the platform's zone, one under a customer's own domain.
const APPS: [(&str, &str); 2] =
    [("a1b2c3d4e5f60718.cosmian.io", "demo/hello"), ("shop.example.com", "demo/shop")];
/// How long the second app lives.
const SHORT_LIFE: SignedDuration = SignedDuration::from_mins(5);
/// How many clients each app serves at once, and how long one may take.
const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the demo cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// Loopback or the temporary folder.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Making a certificate.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// Using it.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A name of ours that is none.
    #[error(transparent)]
    Name(#[from] HostnameError),
}

/// The built-in defaults of `--demo`.
pub(super) fn defaults() -> Config {
    let mut config = Config::default();
    config.listen.addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))];
    config.admin.grpc = Address::Unix(folder().join("admin.sock"));
    config.store.path = Some(folder().join("routes.redb"));
    config
}

/// Where everything is that the demo puts on the disk.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("mse-proxy-demo-{}", std::process::id()))
}

/// Two apps that run.
#[derive(Debug)]
pub(super) struct Demo {
    apps: Vec<App>,
    folder: PathBuf,
    serving: JoinSet<()>,
}

#[derive(Debug)]
struct App {
    host: &'static str,
    route: Arc<Route>,
    fingerprint: String,
    certificate: PathBuf,
}

impl Demo {
    pub(super) async fn start() -> Result<Self, DemoError> {
        let folder = folder();
        std::fs::create_dir_all(&folder)?;
        let mut demo = Self { apps: Vec::new(), folder, serving: JoinSet::new() };
        let ends = [None, SystemClock.now().checked_add(SHORT_LIFE).ok()];
        for ((host, name), end) in APPS.into_iter().zip(ends) {
            let app = demo.start_app(host, name, end).await?;
            demo.apps.push(app);
        }
        Ok(demo)
    }

    async fn start_app(
        &mut self,
        host: &'static str,
        name: &'static str,
        expires_at: Option<Timestamp>,
    ) -> Result<App, DemoError> {
        let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
        let fingerprint = fingerprint(made.cert.der());
        let certificate = self.folder.join(format!("{host}.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let backend = Endpoint::Ip(listener.local_addr()?);
        let page = format!(
            "{name}: this page comes from an enclave app; my certificate is\nsha256 {fingerprint}\n"
        );
        self.serving.spawn(serve_app(listener, TlsAcceptor::from(Arc::new(tls)), page));
        let terms = Terms {
            lifetime: Lifetime { expires_at, ..Lifetime::default() },
            app: Some(name.into()),
            ..Terms::default()
        };
        let hosts = vec![host.parse::<Pattern>()?];
        let route = Arc::new(Route::new(host.into(), hosts, vec![backend], terms));
        Ok(App { host, route, fingerprint, certificate })
    }

    /// The routes to both apps.
    pub(super) fn routes(&self) -> RouteSet {
        let source: Arc<str> = "demo".into();
        let claims = self.apps.iter().map(|app| Claim {
            route: Arc::clone(&app.route),
            origin: Origin { source: Arc::clone(&source), line: 0, column: 0 },
        });
        RouteSet {
            claims: claims.collect(),
            faults: Vec::new(),
            left_out: 0,
            revision: None,
            source: Arc::clone(&source),
        }
    }

    /// Tells how to reach the apps through the proxy, and what that proves.
    pub(super) fn print(&self, running: &Running, style: Style) {
        let Some(proxy) = running.addresses().first().copied() else { return };
        let port = proxy.port();
        let mut text = format!(
            "\n{}\nTwo sample enclave apps run behind this proxy. Each made its own key and certificate;\n\
             the proxy holds neither. Reach them through the proxy, in another terminal:\n",
            style.strong(&format!("mse-proxy listens on {proxy}"))
        );
        for app in &self.apps {
            let life = match app.route.lifetime().expires_at {
                Some(end) => {
                    format!("this route ends at {end:.0}: from then on the name is refused")
                }
                None => "this route has no end date".to_owned(),
            };
            let _ = write!(
                text,
                "\n  {}  {}\n  curl --resolve {host}:{port}:{ip} --cacert {cert} https://{host}:{port}/\n  {} {}\n",
                style.strong(app.host),
                style.faint(&format!("({life})")),
                style.faint("its certificate: sha256"),
                app.fingerprint,
                host = app.host,
                ip = proxy.ip(),
                cert = app.certificate.display(),
            );
        }
        let host = APPS[0].0;
        if let Some(admin) = running.admin() {
            let _ = write!(text, "\nWhat the proxy sees, in a browser: http://{admin}/\n");
        }
        if let Some(grpc @ Address::Unix(_)) = running.grpc() {
            let _ = write!(
                text,
                "\nIts routes, and another one that leads to the first app, while it runs:\n\
                 \n  mse-proxy route list --admin {grpc}\n  mse-proxy route set other.example.com --backend {backend} --admin {grpc}\n",
                backend = joined(self.apps.first().map(|app| &app.route)),
            );
        }
        let _ = write!(
            text,
            "\ncurl trusts nothing but the app's own certificate, and the page tells its digest: that it\n\
             answers proves that nobody ends TLS on the way. Without curl:\n\
             \n  openssl s_client -connect {proxy} -servername {host} </dev/null 2>/dev/null \\\n    | openssl x509 -noout -fingerprint -sha256\n\
             \nCtrl-C stops the demo. Below: one line for each connection.\n\n"
        );
        print(&text);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Left-over certificates in a temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn joined(route: Option<&Arc<Route>>) -> String {
    let backends = route.map(|route| route.backends.iter().map(Endpoint::to_string));
    backends.into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(der: &[u8]) -> String {
    let bytes = digest(&SHA256, der);
    let hex: Vec<String> = bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    hex.join(":")
}

async fn serve_app(listener: TcpListener, tls: TlsAcceptor, page: String) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let page = Bytes::from(page);
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, page) = (tls.clone(), page.clone());
        tokio::spawn(async move {
            // A client that fails or dawdles costs the demo one of its places for a while.
            let _ = tokio::time::timeout(PATIENCE, serve_client(stream, tls, page)).await;
            drop(place);
        });
    }
}

async fn serve_client(stream: TcpStream, tls: TlsAcceptor, page: Bytes) -> io::Result<()> {
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(page))) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}
