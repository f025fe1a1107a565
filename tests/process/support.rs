//! Starting the binary, and talking with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

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
        let mut command = command();
        command
            .arg("serve")
            .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
            .env("MSE_PROXY_ROUTES_PATH", routes)
            .env("MSE_PROXY_LOG_FORMAT", "json")
            .envs(variables.iter().copied());
        Self::start(command)
    }

    pub(crate) fn start(command: Command) -> Self {
        let mut daemon = Self::spawn(command);
        daemon.wait_listening();
        daemon
    }

    /// Starts a program that becomes the proxy, or runs it.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap(), Some);
        let records = lines(child.stdout.take().unwrap(), |line| serde_json::from_str(&line).ok());
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

    /// Where it shows metrics, probes and the status page.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        let line = self.wait_seen("status page, metrics and probes");
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = line["url"].as_str().unwrap();
        url.strip_prefix("http://").unwrap().strip_suffix('/').unwrap().parse().unwrap()
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

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of their own, so that the binary never waits for the test.
fn lines<T: Send + 'static>(
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
