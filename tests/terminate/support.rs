//! Authorities and certificates of one run, and a proxy that ends TLS with them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use mse_proxy::routing::termination::KeyDigest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use serde_json::Value;

use crate::daemon::{Daemon, Delay, PATIENCE, held_up, route, serving, under};

pub(crate) const TCP: &str = "protocol = \"tcp\"";

/// Somebody who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        change(&mut params);
        self.sign(&params, &KeyPair::generate().unwrap())
    }

    /// A certificate for a key that somebody else made.
    pub(crate) fn issue_for(&self, names: &[&str], key: &KeyPair) -> Leaf {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(&CertificateParams::new(names).unwrap(), key)
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Leaf {
        let chain = params.signed_by(key, &self.issuer).unwrap().pem();
        Leaf { chain, key: key.serialize_pem() }
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }
}

impl Leaf {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], self.private())
            .unwrap()
    }

    /// The digest of its key.
    fn key_digest(&self) -> KeyDigest {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let der = self.der();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let key = certificate.tbs_certificate.subject_pki.raw;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
        KeyDigest(digest.as_ref().try_into().unwrap())
    }

    /// The same as a route pins it.
    pub(crate) fn pin(&self) -> String {
        self.key_digest().to_string()
    }

    /// The same as browsers are told it.
    pub(crate) fn pin_base64(&self) -> String {
        let output = run("openssl", &["base64", "-A"], &self.key_digest().0);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A proxy that ends TLS for `**.apps.test`, with certificates of its own folder.
pub(crate) struct Scene {
    /// Who issued the proxy's certificates.
    pub(crate) operator: Authority,
    /// Who issued those of the backends.
    pub(crate) platform: Authority,
    pub(crate) folder: tempfile::TempDir,
    daemon: Option<Daemon>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("certificates")).unwrap();
        let scene = Self {
            operator: Authority::new("operator"),
            platform: Authority::new("platform"),
            folder,
            daemon: None,
        };
        std::fs::write(scene.path("platform.pem"), &scene.platform.pem).unwrap();
        std::fs::write(scene.path("operator.pem"), &scene.operator.pem).unwrap();
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a pair into the folder, key first, as careful programs do.
    pub(crate) fn install(&self, name: &str, leaf: &Leaf) {
        self.put(&format!("{name}.key"), &leaf.key);
        self.put(&format!("{name}.pem"), &leaf.chain);
    }

    /// Puts a file into the folder of certificates, by a rename.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let (new, path) = (self.path("new"), self.path("certificates").join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// The keys of a route to a backend that the platform vouches for.
    pub(crate) fn terminating(&self, more: &str) -> String {
        let ca = self.path("platform.pem");
        format!("mode = \"terminate\"\nbackend_ca = \"{}\"\n{more}", ca.display())
    }

    /// One route for all names below `apps.test`, on which bytes are passed.
    pub(crate) fn all_apps(&self) -> String {
        let back = echo(self.platform.issue(&["backend.test"]).server());
        let terms = self.terminating(&format!("{TCP}\nbackend_name = \"backend.test\""));
        route("**.apps.test", back, &terms)
    }

    pub(crate) fn serve(&mut self, routes: &str) {
        self.serve_with(routes, &[]);
    }

    pub(crate) fn serve_with(&mut self, routes: &str, variables: &[(&str, &str)]) {
        self.daemon = Some(Daemon::start(self.serving(routes, variables)));
    }

    /// The same with a disk that takes very long to open the folder of certificates.
    pub(crate) fn serve_held_up(&mut self, routes: &str, variables: &[(&str, &str)]) -> Delay {
        let serving = self.serving(routes, variables);
        let (mut daemon, delay) = held_up(&serving, &self.path("certificates"));
        daemon.wait_listening();
        self.daemon = Some(daemon);
        delay
    }

    /// The same run by another program.
    pub(crate) fn serve_under(&mut self, program: &[&str], routes: &str) {
        self.daemon = Some(Daemon::start(under(program, &self.serving(routes, &[]))));
    }

    fn serving(&self, routes: &str, variables: &[(&str, &str)]) -> Command {
        let path = self.path("routes.toml");
        std::fs::write(&path, routes).unwrap();
        let mut command = serving(&path);
        command
            .env("MSE_PROXY_TERMINATE_ZONES", "**.apps.test")
            .env("MSE_PROXY_TERMINATE_CERTIFICATES", self.path("certificates"))
            .env("MSE_PROXY_LOG_LEVEL", "debug")
            .envs(variables.iter().copied());
        command
    }

    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.daemon.as_ref().unwrap().address
    }

    /// The next record, of a request or of a connection.
    pub(crate) fn record(&self) -> Value {
        self.daemon.as_ref().unwrap().record()
    }

    /// The outcome of the next record, and its reason.
    pub(crate) fn ended(&self) -> (String, Option<String>) {
        let record = self.record();
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        (text("outcome").unwrap(), text("reason"))
    }

    /// Connects as a client that trusts the operator's authority.
    pub(crate) fn connect(&self, host: &str) -> std::io::Result<Tls> {
        connect(self.address(), host, self.operator.client())
    }
}

/// Whether that is the certificate that a client is shown.
pub(crate) fn is_shown(scene: &Scene, host: &str, leaf: &Leaf) -> bool {
    scene.connect(host).is_ok_and(|tls| shown(&tls) == leaf.der())
}

/// A client's TLS connection.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A handshake with whoever answers.
pub(crate) fn connect(
    address: SocketAddr,
    host: &str,
    config: ClientConfig,
) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// The certificate that was shown.
pub(crate) fn shown(tls: &Tls) -> CertificateDer<'static> {
    tls.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// A backend that speaks TLS and sends back what it gets, to the end, for as long as the test runs.
pub(crate) fn echo(config: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || echo_one(StreamOwned::new(connection, stream)));
        }
    });
    address
}

fn echo_one(mut tls: StreamOwned<ServerConnection, TcpStream>) {
    let mut buffer = vec![0; 64 << 10];
    // A client that breaks off ends its own echo.
    while let Ok(count @ 1..) = tls.read(&mut buffer) {
        if tls.write_all(&buffer[..count]).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

/// Says something through TLS, then nothing more, and gives what comes back until its clean end.
pub(crate) fn say(mut tls: Tls, text: &[u8]) -> Vec<u8> {
    tls.write_all(text).unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).unwrap();
    answer
}

/// Runs a program with this input.
pub(crate) fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The term of a route that ends soon.
pub(crate) fn in_seconds(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    format!("expires_at = \"{at}\"")
}
