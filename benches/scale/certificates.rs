//! Very many certificates: how long sealed clients, clients of terminated names and monitoring wait
//! for them at the start, what they take, and what the change of one takes.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Setup;
use crate::bench::told;
use crate::subject::Subject;
use crate::world::{ask, backend, host};

/// How often the proxy is started, and how often a certificate is changed.
const ROUNDS: usize = 5;
/// What anything may take at most.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long it goes on working beside the data path once it is ready.
const SETTLING: Duration = Duration::from_secs(20);
/// Between two changes.
const PAUSE: Duration = Duration::from_secs(3);
/// How many names are asked for, to see what their keys take.
const ASKED: u64 = 1_000;
/// How long it is watched while nothing changes: it looks every 30 s in any case.
const QUIET: Duration = Duration::from_secs(61);
/// A name whose TLS stays sealed.
const SEALED: &str = "sealed.cosmian.io";

/// Who issues all of them, as an intermediate authority, whose certificate stands in each chain.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let (root, key) = (params("root"), KeyPair::generate().unwrap());
        let root_der = root.self_signed(&key).unwrap().der().clone();
        let root = Issuer::new(root, key);
        let (params, key) = (params("intermediate"), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &root).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, root: root_der }
    }

    /// The chain and the key for the host of this number.
    fn issue(&self, number: u64) -> (String, String) {
        let (name, key) = (host(number), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new([name.clone()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        (leaf + &self.pem, key.serialize_pem())
    }

    /// Puts a pair into the folder, key first, each by a rename.
    fn install(&self, folder: &Path, number: u64) -> CertificateDer<'static> {
        let (chain, key) = self.issue(number);
        for (end, text) in [("key", &key), ("pem", &chain)] {
            let beside = folder.join("new");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, folder.join(format!("{}.{end}", host(number)))).unwrap();
        }
        CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

pub(crate) fn run(setups: &[Setup], count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, routes) = (folder.path().join("certificates"), folder.path().join("routes.toml"));
    fs::create_dir(&pairs).unwrap();
    let authority = Authority::new();
    for number in 0..count {
        let (chain, key) = authority.issue(number);
        fs::write(pairs.join(format!("{}.pem", host(number))), chain).unwrap();
        fs::write(pairs.join(format!("{}.key", host(number))), key).unwrap();
    }
    let back = backend(b'b');
    fs::write(
        &routes,
        format!(
            "[[route]]\nhosts = [\"{SEALED}\"]\nbackends = [\"{back}\"]\n\
             [[route]]\nhosts = [\"*.cosmian.io\"]\nbackends = [\"{back}\"]\nmode = \"terminate\"\n\
             protocol = \"tcp\"\nbackend_tls = \"off\"\n"
        ),
    )
    .unwrap();
    println!("\n{count} certificates of a chain of two, each with its key in a file beside it");
    let place = Place { pairs, routes, client: authority.client(), authority, count };
    let mut starts: Vec<_> = setups.iter().map(|_| Starts::default()).collect();
    for _ in 0..ROUNDS {
        for (setup, starts) in setups.iter().zip(&mut starts) {
            starts.add(&place, setup);
        }
    }
    for (setup, starts) in setups.iter().zip(&mut starts) {
        println!("  {}", setup.binary.display());
        starts.tell();
        place.measure(setup);
    }
}

/// Where and of what it is measured.
struct Place {
    pairs: PathBuf,
    routes: PathBuf,
    authority: Authority,
    client: Arc<ClientConfig>,
    count: u64,
}

/// What starting took, each time.
#[derive(Default)]
struct Starts {
    sealed: Vec<Duration>,
    ended: Vec<Duration>,
    ready: Vec<Duration>,
    cpu: Vec<Duration>,
    peak: f64,
}

impl Starts {
    fn add(&mut self, place: &Place, setup: &Setup) {
        let began = Instant::now();
        let proxy = place.start(setup);
        ask(proxy.address, SEALED).expect("a sealed connection");
        self.sealed.push(began.elapsed());
        place.shown(&proxy, place.count / 2);
        self.ended.push(began.elapsed());
        await_ready(&proxy);
        self.ready.push(began.elapsed());
        self.cpu.push(proxy.cpu());
        self.peak = self.peak.max(proxy.peak());
    }

    fn tell(&mut self) {
        println!("    first sealed connection     {}", told(&mut self.sealed));
        println!("    first terminated connection {}", told(&mut self.ended));
        println!("    ready                       {}", told(&mut self.ready));
        println!("      CPU until then {}, most memory {:.1} MB", told(&mut self.cpu), self.peak);
    }
}

fn await_ready(proxy: &Subject) {
    let began = Instant::now();
    while !proxy.is_ready() {
        assert!(began.elapsed() < PATIENCE, "it does not become ready");
        sleep(Duration::from_millis(2));
    }
}

impl Place {
    fn start(&self, setup: &Setup) -> Subject {
        let settings = [
            ("MSE_PROXY_ROUTES_PATH", self.routes.as_os_str()),
            ("MSE_PROXY_TERMINATE_ZONES", "*.cosmian.io".as_ref()),
            ("MSE_PROXY_TERMINATE_CERTIFICATES", self.pairs.as_os_str()),
        ];
        Subject::start(setup, &settings)
    }

    /// The certificate that is shown for the host of this number.
    fn shown(&self, proxy: &Subject, number: u64) -> CertificateDer<'static> {
        handshake(proxy.address, &self.client, &host(number)).expect("a terminated connection")
    }

    fn measure(&self, setup: &Setup) {
        let proxy = self.start(setup);
        await_ready(&proxy);
        let before = proxy.cpu();
        sleep(SETTLING);
        let cpu = proxy.cpu().saturating_sub(before).as_millis();
        println!(
            "    at rest                   {:7.1} MB, after {cpu} ms of CPU more",
            proxy.resident()
        );
        let (before, began) = (proxy.cpu(), Instant::now());
        sleep(QUIET);
        let spent = proxy.cpu().saturating_sub(before).as_secs_f64();
        let share = spent / began.elapsed().as_secs_f64() * 100.0;
        println!("    while nothing changes       {share:.2} % of a core");
        let (mut times, before) = (Vec::new(), proxy.cpu());
        proxy.forget_peak();
        for number in (0..self.count).take(ROUNDS) {
            let fresh = self.authority.install(&self.pairs, number);
            let began = Instant::now();
            while self.shown(&proxy, number) != fresh {
                assert!(began.elapsed() < PATIENCE, "the certificate does not come into force");
                sleep(Duration::from_millis(2));
            }
            times.push(began.elapsed());
            // So that a round does not begin in the work of the one before.
            sleep(PAUSE);
        }
        let cpu = proxy.cpu().saturating_sub(before).as_secs_f64() * 1e3;
        let rounds = f64::from(u32::try_from(times.len()).unwrap());
        println!("    one changed: answers after  {}", told(&mut times));
        println!("      CPU {:.0} ms each, most memory {:.1} MB", cpu / rounds, proxy.peak());
        let before = proxy.resident();
        for number in 0..ASKED.min(self.count) {
            self.shown(&proxy, number * 7_919 % self.count);
        }
        println!("    {ASKED} names asked for     {:+7.1} MB", proxy.resident() - before);
    }
}

/// A whole handshake: the certificate that was shown.
fn handshake(
    proxy: SocketAddr,
    client: &Arc<ClientConfig>,
    host: &str,
) -> io::Result<CertificateDer<'static>> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    let shown = tls.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.expect("a server shows its certificate").clone().into_owned())
}
