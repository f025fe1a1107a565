//! Starting the binary, and talking with it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// What the log says of the admin port.
const ADMIN: &str = "status page, metrics and probes";

/// The binary, in an environment without our variables.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mse-proxy"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MSE_PROXY_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The binary as it serves a routes file on free ports of loopback.
pub(crate) fn serving(routes: &Path) -> Command {
    let mut command = command();
    serve(&mut command, routes);
    command
}

/// The words and variables for that, whoever starts the binary.
pub(crate) fn serve(command: &mut Command, routes: &Path) {
    command
        .arg("serve")
        .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
        .env("MSE_PROXY_ADMIN_GRPC", "")
        .env("MSE_PROXY_ROUTES_PATH", routes)
        .env("MSE_PROXY_LOG_FORMAT", "json");
}

/// The same command run by another program, which becomes it in the end, or runs it.
pub(crate) fn under(program: &[impl AsRef<OsStr>], command: &Command) -> Command {
    let [first, arguments @ ..] = program else { panic!("no program") };
    let mut outer = Command::new(first);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A proxy that is held up when it opens this path, for as long as the delay lives.
pub(crate) fn held_up(serving: &Command, path: &Path) -> (Daemon, Delay) {
    let inject = "inject=openat:delay_enter=3600s";
    let path = path.to_str().unwrap();
    let strace = ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-P", path];
    let strace = [&strace[..], &["-e", "trace=openat", "-e", inject]].concat();
    let daemon = Daemon::spawn(under(&strace, serving));
    let delay = Delay(tracer(daemon.id()));
    (daemon, delay)
}

/// A tracer that holds a process up, which goes on once this is dropped.
pub(crate) struct Delay(Pid);

impl Drop for Delay {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Who traces a process.
fn tracer(process: u32) -> Pid {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
        if let Some(tracer) = Pid::from_raw(line.trim().parse().unwrap()) {
            return tracer;
        }
        assert!(Instant::now() < deadline, "nobody traces it");
        std::thread::yield_now();
    }
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A proxy that serves, killed when the test ends in whichever way.
pub(crate) struct Daemon {
    child: Child,
    log: Receiver<String>,
    pub(crate) records: Receiver<Value>,
    pub(crate) address: SocketAddr,
    seen: Vec<String>,
}

impl Daemon {
    /// Serves a routes file on a free port of loopback.
    pub(crate) fn serve(routes: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = serving(routes);
        command.envs(variables.iter().copied());
        Self::start(command)
    }

    pub(crate) fn start(command: Command) -> Self {
        let mut daemon = Self::spawn(command);
        daemon.wait_listening();
        daemon
    }

    /// Starts a program that becomes the proxy, or runs it.
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_to(command, Stdio::piped())
    }

    /// The same with a standard output of the test's own.
    pub(crate) fn spawn_to(mut command: Command, stdout: impl Into<Stdio>) -> Self {
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap(), Some);
        let records = child.stdout.take().map_or_else(
            || channel().1,
            |stdout| lines(stdout, |line| serde_json::from_str(&line).ok()),
        );
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, log, records, address: unknown, seen: Vec::new() }
    }

    /// Waits until the proxy serves, and learns where.
    pub(crate) fn wait_listening(&mut self) {
        let line = self.wait_log("\"listening\"");
        let line: Value = serde_json::from_str(&line).unwrap();
        self.address = line["address"].as_str().unwrap().parse().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The other end of its standard input, where the command asked for a pipe.
    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Waits for a line of the log that contains `words`.
    pub(crate) fn wait_log(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no line with `{words}` ({error}); log: {:#?}", self.seen),
            }
        }
    }

    /// The same for a line that may have come before it listened.
    pub(crate) fn wait_seen(&mut self, words: &str) -> String {
        let seen = self.seen.iter().find(|line| line.contains(words)).cloned();
        seen.unwrap_or_else(|| self.wait_log(words))
    }

    /// Waits until it shows metrics, probes and the status page, and learns where.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        let line = self.wait_seen(ADMIN);
        self.seen.push(line);
        self.told_admin()
    }

    /// The same once the log has told it.
    fn told_admin(&self) -> SocketAddr {
        let line = self.seen.iter().find(|line| line.contains(ADMIN)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        let url = line["url"].as_str().unwrap();
        url.strip_prefix("http://").unwrap().strip_suffix('/').unwrap().parse().unwrap()
    }

    /// All that the log told so far, beside what was waited for.
    pub(crate) fn seen(&mut self) -> &[String] {
        self.seen.extend(self.log.try_iter());
        &self.seen
    }

    /// What a path of the admin port answers: its head, and its body.
    pub(crate) fn ask_admin(&self, path: &str) -> std::io::Result<(String, String)> {
        let host = self.told_admin();
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok((head.to_owned(), body.to_owned()))
    }

    /// A sample of the metrics that is a whole number, by its name and labels.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let (_, text) = self.ask_admin("/metrics").unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample}: {text}")).parse().unwrap()
    }

    /// Asks the metrics again and again.
    pub(crate) fn wait_metric(&self, sample: &str, is_so: impl Fn(u64) -> bool) {
        until(sample, || is_so(self.metric(sample)));
    }

    pub(crate) fn record(&self) -> Value {
        self.records.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; log: {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The most memory that was ever resident, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// Asks again and again until the answer is yes.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "this did not happen in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A routes file in a folder that lives as long as it is held.
pub(crate) fn routes_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Asks for a name and gives what comes until the end, however that comes.
pub(crate) fn ask(address: SocketAddr, host: &str) -> std::io::Result<Vec<u8>> {
    let mut client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(&hello(host))?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Asks for a name so many times, from four sides at once; every answer must be as expected.
pub(crate) fn ask_often(address: SocketAddr, host: &str, times: usize, answer: &[u8]) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..times / 4 {
                    assert_eq!(ask(address, host).unwrap(), answer);
                }
            });
        }
    });
}

/// Tests with thousands of connections take turns: they share descriptors and two cores.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of their own, so that the binary never waits for the test.
pub(crate) fn lines<T: Send + 'static>(
    stream: impl Read + Send + 'static,
    convert: impl Fn(String) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(value) = convert(line)
                && sender.send(value).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// A listening backend.
pub(crate) fn backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A backend that sends the hello back and closes, for as long as the test runs.
pub(crate) fn echo(hello_size: usize) -> SocketAddr {
    let (listener, address) = backend();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut hello = vec![0; hello_size];
            if stream.read_exact(&mut hello).is_ok() {
                let _ = stream.write_all(&hello);
            }
        }
    });
    address
}

pub(crate) fn route(host: &str, backend: impl std::fmt::Display, more: &str) -> String {
    format!("[[route]]\nhosts = [\"{host}\"]\nbackends = [\"{backend}\"]\n{more}\n")
}

/// A small ClientHello that asks for `host`.
pub(crate) fn hello(host: &str) -> Vec<u8> {
    let size = u16::try_from(host.len()).unwrap();
    let mut sni = vec![0, 0];
    sni.extend_from_slice(&(size + 5).to_be_bytes());
    sni.extend_from_slice(&(size + 3).to_be_bytes());
    sni.push(0);
    sni.extend_from_slice(&size.to_be_bytes());
    sni.extend_from_slice(host.as_bytes());
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&u16::try_from(sni.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&sni);
    let body_size = u16::try_from(body.len()).unwrap();
    let mut bytes = vec![0x16, 3, 1];
    bytes.extend_from_slice(&(body_size + 4).to_be_bytes());
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&body_size.to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The Python that has what comes from `PyPI`; `tests/run` makes it.
pub(crate) fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python-venv/bin/python");
    assert!(python.exists(), "{} is missing: run tests/run once", python.display());
    python
}
