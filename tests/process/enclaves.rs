//! Apps as enclaves serve them, certificates for them, and clients that meet them through a proxy.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::apps::manifest;
use crate::route_support::Controlled;
use crate::support::{PATIENCE, lines};

pub(crate) const KIND: &str = "8g-eu-001";

/// An app as enclaves serve it: one thread, TLS on the listening socket itself.
pub(crate) struct Enclave {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it tells, if it is told to tell anything.
    pub(crate) told: Receiver<String>,
}

impl Enclave {
    /// Serves with these on a port that is free.
    pub(crate) fn serve(certificate: &str, key: &str) -> Self {
        Self::start(&[certificate, key])
    }

    /// The same with further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/probe/enclave.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = lines(child.stdout.take().unwrap(), Some);
        let port: u16 = told.recv_timeout(PATIENCE).unwrap().trim().parse().unwrap();
        Self { child, address: ([127, 0, 0, 1], port).into(), told }
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate of it for each name.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Test Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Writes `NAME.pem` and `NAME.key`, and gives their paths.
    pub(crate) fn issue(&self, folder: &Path, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("pem").display().to_string(), path("key").display().to_string())
    }

    /// Writes its own certificate, and gives the path.
    pub(crate) fn write_root(&self, folder: &Path) -> String {
        let path = folder.join("root.pem");
        fs::write(&path, self.issuer.pem()).unwrap();
        path.display().to_string()
    }

    fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A client that trusts it alone.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        Arc::new(client.with_root_certificates(roots).with_no_client_auth())
    }
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands with whoever serves this name behind the proxy; `as_name` is whom it must be.
pub(crate) fn shake(
    config: &Arc<ClientConfig>,
    proxy: SocketAddr,
    name: &str,
) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// The first line of the answer to a question.
pub(crate) fn get(mut tls: Tls, name: &str, path: &str) -> std::io::Result<String> {
    write!(tls, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    BufReader::new(tls).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// A folder with a manifest for an app on booked hardware, with further lines.
pub(crate) fn wish(folder: &Path, name: &str, path: &str, more: &str) -> String {
    let name = format!("name = \"{name}\"");
    let check = format!("healthcheck_endpoint = \"{path}\"");
    let changes = [
        ("name = \"my-app\"", &*name),
        ("4g-eu-001", KIND),
        ("healthcheck_endpoint = \"/\"", &*check),
    ];
    let path = manifest(folder, &changes);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + more).unwrap();
    path
}

pub(crate) fn host(app: &serde_json::Value, role: &str) -> String {
    let hosts = app["hosts"].as_array().unwrap();
    let found = hosts.iter().find(|host| host["role"] == role);
    found.unwrap_or_else(|| panic!("{app}"))["host"].as_str().unwrap().to_owned()
}

pub(crate) fn outcome(proxy: &Controlled, host: &str) -> String {
    let output = proxy.run(&["--format", "json", "explain", host]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    told["outcome"].as_str().unwrap_or("allowed").to_owned()
}
