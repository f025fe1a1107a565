//! BIND's `named` as an authoritative server on a free port of loopback.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a server may take until it serves. Generous: the machine may be busy.
const START: Duration = Duration::from_mins(1);
/// Somebody else may take the port between finding and using it.
const TRIES: usize = 20;

/// A server that runs until it is dropped.
pub(crate) struct Named {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Named {
    /// Serves zones, each a name and its records. One without records has a file that is missing:
    /// the server fails whoever asks for it.
    pub(crate) fn serve(zones: &[(&str, &str)]) -> Self {
        for _ in 0..TRIES {
            if let Some(named) = Self::start(zones) {
                return named;
            }
        }
        panic!("no port was free for named in {TRIES} tries");
    }

    fn start(zones: &[(&str, &str)]) -> Option<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let address = free_port()?;
        write(folder.path(), address, zones);
        // Debian confines /usr/sbin/named (AppArmor) to its own folders; a copy is not meant.
        let program = folder.path().join("named");
        // By a process of its own: what a test that forks just now inherits open for writing cannot
        // be run.
        let copied = Command::new("cp").arg(installed()).arg(&program).status().unwrap();
        assert!(copied.success());
        let mut child = Command::new(&program)
            .args(["-g", "-n", "1", "-c", "named.conf"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines(child.stderr.take().unwrap());
        let named = Self { child, address, _folder: folder };
        let (start, mut seen) = (Instant::now(), Vec::new());
        while start.elapsed() < START {
            let Ok(line) = log.recv_timeout(START) else { break };
            if line.contains("address in use") {
                return None;
            }
            if line.ends_with(" running") {
                return Some(named);
            }
            seen.push(line);
        }
        panic!("named does not serve:\n{}", seen.join("\n"));
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program is; administrators' programs are not on every user's path.
fn installed() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut programs = folders.map(|folder| folder.join("named"));
    programs
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("named is not there (Debian package bind9); run tests/run"))
}

/// A port that is free for both protocols.
fn free_port() -> Option<SocketAddr> {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    TcpListener::bind(address).ok().map(|_| address)
}

fn write(folder: &Path, address: SocketAddr, zones: &[(&str, &str)]) {
    let folder_name = folder.display();
    let mut config = format!(
        "options {{ directory \"{folder_name}\"; pid-file none; session-keyfile none; lock-file none;\n\
         listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; notify no;\n\
         dnssec-validation no; }};\ncontrols {{ }};\n",
        address.port()
    );
    for (zone, records) in zones {
        let _ = writeln!(config, "zone \"{zone}\" {{ type primary; file \"{zone}.zone\"; }};");
        if !records.is_empty() {
            let head =
                "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A 127.0.0.1\n";
            std::fs::write(folder.join(format!("{zone}.zone")), format!("{head}{records}"))
                .unwrap();
        }
    }
    std::fs::write(folder.join("named.conf"), config).unwrap();
}

/// The lines of a log, read to its end so that its writer never stands still.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}
