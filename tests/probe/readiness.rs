//! Whether an app runs, asked at real servers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mse_proxy::admission::readiness::shows;
use mse_proxy::admission::sight::Sight;
use mse_proxy::endpoint::Endpoint;
use mse_proxy::hostname::Hostname;
use mse_proxy::probe::certificate::{Onlooker, Unseen};
use mse_proxy::probe::readiness::{Question, Reply, ask};
use mse_proxy::registry::app::Phase;
use mse_proxy::resolve::SystemResolver;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate and its key, in PEM.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The single-threaded server of Python's standard library.
struct Enclave {
    child: Child,
    backend: Endpoint,
    _folder: tempfile::TempDir,
}

impl Enclave {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = made();
        let files = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        std::fs::write(&files[0], certificate).unwrap();
        std::fs::write(&files[1], key).unwrap();
        let mut child = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe/enclave.py"))
            .args(&files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let backend = format!("127.0.0.1:{}", port.trim()).parse().unwrap();
        Self { child, backend, _folder: folder }
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name() -> Hostname {
    "app.test".parse().unwrap()
}

async fn look(backend: &Endpoint) -> Sight {
    let chain = Onlooker::new().unwrap().look(backend, &name(), &SystemResolver).await.unwrap();
    Sight::from(&chain)
}

async fn asked(backend: &Endpoint, path: &str, trusted: &Sight) -> Result<Reply, Unseen> {
    let (onlooker, name) = (Onlooker::new().unwrap(), name());
    let question = Question { backend, name: &name, path, trusted };
    ask(&onlooker, question, &SystemResolver).await
}

#[tokio::test]
async fn an_app_is_told_from_its_configuration_server() {
    let enclave = Enclave::start();
    let trusted = look(&enclave.backend).await;
    // One after the other: a connection that stayed would keep all others out.
    for (path, status, is_marked, phase) in [
        ("/marked/503", 503, true, None),
        ("/marked/200", 200, true, None),
        ("/503", 503, false, None),
        ("/marked/500", 500, true, Some(Phase::OnError)),
        ("/200", 200, false, Some(Phase::Running)),
        ("/404", 404, false, Some(Phase::Running)),
        ("/500", 500, false, Some(Phase::Running)),
    ] {
        let reply = asked(&enclave.backend, path, &trusted).await.unwrap();
        assert_eq!(reply, Reply { status, is_marked }, "{path}");
        assert_eq!(shows(reply.status, reply.is_marked), phase, "{path}");
    }
}

#[tokio::test]
async fn an_answer_under_another_certificate_does_not_count() {
    let (one, other) = (Enclave::start(), Enclave::start());
    let (trusted, actual) = (look(&one.backend).await, look(&other.backend).await);
    match asked(&other.backend, "/200", &trusted).await {
        Err(Unseen::Another { key }) => assert_eq!(key, actual.key),
        seen => panic!("{seen:?}"),
    }
    assert!(asked(&other.backend, "/200", &actual).await.is_ok());
}

#[tokio::test]
async fn an_app_that_speaks_http_2_alone_is_asked_as_well() {
    let (certificate, key) = made();
    let chain =
        vec![rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Endpoint::Ip(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let is_asked_well =
                    request.uri().host() == Some("app.test") && request.uri().path() == "/health";
                let status = if is_asked_well { 204 } else { 400 };
                Response::builder().status(status).body(Empty::<Bytes>::new())
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // Whoever has its answer may leave at once.
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        }
    });
    let trusted = look(&backend).await;
    let reply = asked(&backend, "/health", &trusted).await.unwrap();
    assert_eq!(reply, Reply { status: 204, is_marked: false });
}

#[tokio::test]
async fn who_does_not_speak_http_is_told_as_such() {
    let (certificate, key) = made();
    let folder = tempfile::tempdir().unwrap();
    let files = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&files[0], certificate).unwrap();
    std::fs::write(&files[1], key).unwrap();
    // It sends back what it reads, letter for letter.
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert"])
        .arg(&files[0])
        .arg("-key")
        .arg(&files[1])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("ACCEPT ")).unwrap();
    let backend: Endpoint = line.trim_start_matches("ACCEPT ").trim().parse().unwrap();
    let trusted = look(&backend).await;
    let seen = asked(&backend, "/", &trusted).await;
    assert!(matches!(seen, Err(Unseen::NoHttp(_))), "{seen:?}");
    let seen = asked(&backend, "no path", &trusted).await;
    assert!(matches!(seen, Err(Unseen::NoPath)), "{seen:?}");
    server.kill().unwrap();
    server.wait().unwrap();
}
