//! A real etcd for a test: on free ports, in a folder of its own, gone with the test.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use mse_proxy::store::etcd::{Etcd, Settings};
use mse_proxy::store::{Revision, Shared};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Far longer than etcd takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A port of loopback that nobody else is given while this lives. It is bound and never listens,
/// which leaves it to whoever names it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _held: Socket,
}

impl Port {
    pub(crate) fn free() -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let number = held.local_addr().unwrap().as_socket().unwrap().port();
        Self { number, _held: held }
    }
}

/// One member of a cluster, which may be running or not.
pub(crate) struct Server {
    name: String,
    child: Option<Child>,
    folder: TempDir,
    clients: Port,
    peers: Port,
    metrics: Port,
    /// `name=url` of all members.
    cluster: String,
    scheme: &'static str,
    options: Vec<String>,
}

impl Server {
    /// A cluster of one, started, with these flags.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut server = Self::new("one", options);
        server.cluster = server.as_member();
        // Alone it elects itself at once.
        server.options.extend(["--heartbeat-interval=20".into(), "--election-timeout=200".into()]);
        server.run();
        server
    }

    /// A cluster of three, started.
    pub(crate) fn three() -> Vec<Self> {
        let mut servers: Vec<_> =
            ["one", "two", "three"].into_iter().map(|name| Self::new(name, &[])).collect();
        let cluster: Vec<_> = servers.iter().map(Self::as_member).collect();
        for server in &mut servers {
            server.cluster = cluster.join(",");
            server.spawn();
        }
        servers.iter_mut().for_each(Self::wait);
        servers
    }

    /// A cluster of one that speaks TLS with those whom this authority vouches for.
    pub(crate) fn with_tls(authority: &Authority) -> Self {
        let mut server = Self::new("one", &[]);
        server.scheme = "https";
        server.cluster = server.as_member();
        let (certificate, key) = authority.issue(server.folder.path(), "server");
        server.options = vec![
            "--client-cert-auth".into(),
            format!("--trusted-ca-file={}", authority.path),
            format!("--cert-file={}", certificate),
            format!("--key-file={}", key),
        ];
        server.run();
        server
    }

    fn new(name: &str, options: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            child: None,
            folder: TempDir::new().unwrap(),
            clients: Port::free(),
            peers: Port::free(),
            metrics: Port::free(),
            cluster: String::new(),
            scheme: "http",
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    fn as_member(&self) -> String {
        format!("{}=http://127.0.0.1:{}", self.name, self.peers.number)
    }

    /// Where its clients go.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.clients.number)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.clients.number))
    }

    /// Settings of a client for it alone.
    pub(crate) fn settings(&self) -> String {
        settings(&[self.url()])
    }

    pub(crate) fn open(&self) -> Shared {
        open(&self.settings())
    }

    fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let peers = format!("http://127.0.0.1:{}", self.peers.number);
        let child = Command::new("etcd")
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data().display()))
            .arg(format!("--listen-client-urls={}", self.url()))
            .arg(format!("--advertise-client-urls={}", self.url()))
            .arg(format!("--listen-peer-urls={peers}"))
            .arg(format!("--initial-advertise-peer-urls={peers}"))
            .arg(format!("--initial-cluster={}", self.cluster))
            .arg(format!("--listen-metrics-urls=http://127.0.0.1:{}", self.metrics.number))
            .args(["--logger=zap", "--log-level=warn"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: tests/run does that");
        self.child = Some(child);
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Waits until it answers with the agreement of its cluster.
    fn wait(&mut self) {
        let begun = Instant::now();
        while !self.http("/health").is_some_and(|body| body.contains("\"health\":\"true\"")) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
                panic!("etcd does not start ({ended:?}):\n{log}");
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Starts it, also again, with what it had on its disk, on the ports that it had.
    pub(crate) fn run(&mut self) {
        self.spawn();
        self.wait();
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Loses its disk.
    pub(crate) fn wipe(&mut self) {
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// Makes it stand still, as a machine that hangs: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// One of its counters, summed over the labels that hold these words.
    pub(crate) fn counter(&self, words: &[&str]) -> u64 {
        let text = self.http("/metrics").unwrap();
        let lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn http(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics.number)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Makes it forget what came before a revision.
    pub(crate) fn compact(&self, revision: Revision) {
        self.etcdctl(&["compaction", "--physical", &revision.to_string()]);
    }

    /// Asks it with etcd's own client, and gives what that printed.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout=30s", "--endpoints", &self.url()])
            .args(arguments)
            .output()
            .expect("etcdctl is installed: tests/run does that");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {text}{complaint}");
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // What has ended by itself cannot be killed, and is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Settings of a client for some members.
pub(crate) fn settings(urls: &[String]) -> String {
    format!("endpoints = {urls:?}\n")
}

pub(crate) fn open(settings: &str) -> Shared {
    let settings: Settings = toml::from_str(settings).unwrap();
    Arc::new(Etcd::open(&settings).unwrap())
}

/// Who vouches for a server and its clients.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Where its own certificate is.
    pub(crate) path: String,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let path = write(folder.path(), "ca.pem", &issuer.pem());
        Self { issuer, path, folder }
    }

    /// A certificate for loopback with its key, as files.
    pub(crate) fn issue(&self, folder: &Path, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            write(folder, &format!("{name}.pem"), &certificate.pem()),
            write(folder, &format!("{name}.key"), &key.serialize_pem()),
        )
    }

    /// A client's certificate and key.
    pub(crate) fn client(&self, name: &str) -> (String, String) {
        self.issue(self.folder.path(), name)
    }
}

/// Writes a file, and gives its path as text.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A way to a server that can be made to lose what comes back, or to swallow everything.
pub(crate) struct Road {
    pub(crate) address: SocketAddr,
    switches: Arc<Switches>,
}

#[derive(Default)]
struct Switches {
    /// Requests go there; the first answer ends the connection instead of arriving.
    loses_answers: AtomicBool,
    /// Connections are accepted and stay open, and nothing goes through any of them.
    swallows: AtomicBool,
}

impl Road {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let switches = Arc::new(Switches::default());
        let road = Self { address, switches: Arc::clone(&switches) };
        // Ends with the process: there is one for each test that needs it.
        thread::spawn(move || {
            let mut swallowed = Vec::new();
            for client in listener.incoming() {
                let client = client.unwrap();
                if switches.swallows.load(Ordering::SeqCst) {
                    swallowed.push(client);
                } else if let Ok(server) = TcpStream::connect(server) {
                    pass(&client, &server, &switches, false);
                    pass(&server, &client, &switches, true);
                }
            }
        });
        road
    }

    pub(crate) fn lose_answers(&self, is_lossy: bool) {
        self.switches.loses_answers.store(is_lossy, Ordering::SeqCst);
    }

    pub(crate) fn swallow(&self) {
        self.switches.swallows.store(true, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Carries bytes one way until there are no more.
fn pass(from: &TcpStream, to: &TcpStream, switches: &Arc<Switches>, are_answers: bool) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let switches = Arc::clone(switches);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while switches.swallows.load(Ordering::SeqCst) {
                thread::park();
            }
            let is_lost = are_answers && switches.loses_answers.load(Ordering::SeqCst);
            if is_lost || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
