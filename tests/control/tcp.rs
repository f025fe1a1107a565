//! Over TCP: mutual TLS or nothing, with certificates that are renewed while the proxy runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::control::address::Address;
use mse_proxy::control::dial::{Admin, Dialer, credentials};
use mse_proxy::control::proto::ListRequest;
use mse_proxy::control::proto::route_service_client::RouteServiceClient;
use mse_proxy::control::tls;
use mse_proxy::server::{self, StartError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Endpoint;

use crate::journey::{Proxy, soon};
use crate::support::Client;

/// An authority, and a folder for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = Self { issuer, folder };
        std::fs::write(made.path("ca.pem"), made.issuer.pem()).unwrap();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs for whoever has this name, and gives certificate and key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (pem, key_pem) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&pem, certificate.pem()).unwrap();
        std::fs::write(&key_pem, key.serialize_pem()).unwrap();
        (pem, key_pem)
    }
}

/// Where a proxy finds its files, whoever made them.
fn settings(folder: &Path) -> tls::Settings {
    tls::Settings {
        certificate: Some(folder.join("proxy.pem")),
        key: Some(folder.join("proxy.key")),
        client_ca: Some(folder.join("clients.pem")),
    }
}

/// Puts what an authority has made where a proxy looks, each file by a rename.
fn install(folder: &Path, authority: &Authority) {
    let (pem, key) = authority.sign("proxy");
    for (from, to) in
        [(pem, "proxy.pem"), (key, "proxy.key"), (authority.path("ca.pem"), "clients.pem")]
    {
        let fresh = folder.join("fresh");
        std::fs::copy(from, &fresh).unwrap();
        std::fs::rename(&fresh, folder.join(to)).unwrap();
    }
}

async fn start(folder: &Path) -> (Proxy, u16) {
    let proxy = Proxy::with("", Arc::new(SystemClock), |config| {
        config.admin.grpc = "tcp:127.0.0.1:0".to_owned().try_into().unwrap();
        config.admin.tls = settings(folder);
    })
    .await;
    let Some(Address::Tcp(address)) = proxy.running.as_ref().unwrap().grpc() else { panic!() };
    let port = address.port();
    (proxy, port)
}

/// A client that trusts one authority and shows what another, perhaps, has signed.
fn client(port: u16, trusts: &Authority, shows: &(PathBuf, PathBuf)) -> Client {
    let config = credentials(Some(&trusts.path("ca.pem")), &shows.0, &shows.1).unwrap();
    let admin = Admin::Https { host: "127.0.0.1".into(), port };
    let dialer = Dialer::new(admin, Some(config));
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(dialer);
    RouteServiceClient::new(channel)
}

async fn is_served(client: &mut Client) -> bool {
    soon("an answer", client.list(ListRequest::default())).await.is_ok()
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_right_authority_comes_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &ours);
    let (_proxy, port) = start(folder.path()).await;
    assert!(is_served(&mut client(port, &ours, &ours.sign("deployer"))).await);
    assert!(!is_served(&mut client(port, &ours, &theirs.sign("stranger"))).await);
    assert!(!is_served(&mut client(port, &theirs, &ours.sign("deceived"))).await);
    // Without a certificate, and without TLS.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ours.issuer.der().clone()).unwrap();
    let mut bare =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    bare.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(bare));
    let name = "127.0.0.1".try_into().unwrap();
    let refused = async {
        let mut tls = connector.connect(name, stream).await?;
        // TLS 1.3 tells a client only when it reads.
        tls.read_u8().await
    };
    let refused = soon("a refusal", refused).await.unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", plain.read_to_end(&mut answer)).await;
    assert!(
        !answer.windows(4).any(|bytes| bytes == [0, 0, 4, 0]),
        "no HTTP/2 settings: {answer:?}"
    );
}

#[tokio::test]
async fn strangers_who_stand_about_keep_nobody_out() {
    let ours = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &ours);
    let (_proxy, port) = start(folder.path()).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // The oldest of them have made room by now, long before their time was over.
    for stranger in &mut strangers[..100] {
        assert_eq!(soon("the end", stranger.read(&mut [0; 1])).await.unwrap_or(0), 0);
    }
    assert!(is_served(&mut client(port, &ours, &ours.sign("deployer"))).await);
}

#[tokio::test]
async fn renewed_certificates_are_in_use_from_the_next_connection_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &old);
    let (_proxy, port) = start(folder.path()).await;
    let before = old.sign("deployer");
    let mut staying = client(port, &old, &before);
    assert!(is_served(&mut staying).await);
    install(folder.path(), &new);
    assert!(is_served(&mut client(port, &new, &new.sign("deployer"))).await);
    assert!(!is_served(&mut client(port, &old, &before)).await);
    assert!(is_served(&mut staying).await, "who is in stays in");
    // What cannot be used harms nobody.
    std::fs::write(folder.path().join("proxy.key"), "no key").unwrap();
    assert!(is_served(&mut client(port, &new, &new.sign("deployer"))).await);
    std::fs::remove_file(folder.path().join("clients.pem")).unwrap();
    assert!(is_served(&mut client(port, &new, &new.sign("deployer"))).await);
    install(folder.path(), &old);
    assert!(is_served(&mut client(port, &old, &before)).await);
}

#[tokio::test]
async fn without_tls_or_with_files_that_cannot_be_used_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |tls: tls::Settings| {
        let mut config = mse_proxy::config::Config::default();
        config.listen.addresses = vec!["127.0.0.1:0".parse().unwrap()];
        config.admin.http = String::new().try_into().unwrap();
        config.admin.grpc = "tcp:127.0.0.1:0".to_owned().try_into().unwrap();
        config.admin.tls = tls;
        let started = server::start(&config, Arc::new(SystemClock), Vec::new()).await;
        match started {
            Err(StartError::Control { error, .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(start(tls::Settings::default()).await.contains("admin.tls.certificate is not set"));
    let missing = start(settings(folder.path())).await;
    assert!(missing.contains("clients.pem: no such file"), "{missing}");
    install(folder.path(), &Authority::new());
    let other = Authority::new();
    std::fs::copy(other.sign("other").1, folder.path().join("proxy.key")).unwrap();
    let unfit = start(settings(folder.path())).await;
    assert!(unfit.contains("key"), "{unfit}");
}
