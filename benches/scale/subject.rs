//! The proxy as a process: starting it, and reading what the kernel says about it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::Setup;

/// What `systemd/mse-proxy.service` tells the allocator of glibc.
const MALLOC: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "8388608")];

/// A proxy that runs, killed when it is dropped.
pub(crate) struct Subject {
    child: Child,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    tables: Arc<AtomicU64>,
}

impl Subject {
    /// Starts it with these settings in its environment, and waits until it says where it listens.
    pub(crate) fn start(setup: &Setup, settings: &[(&str, &OsStr)]) -> Self {
        let mut command = Command::new(&setup.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MSE_PROXY_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .env("MSE_PROXY_LISTEN_ADDRESSES", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_HTTP", "127.0.0.1:0")
            .env("MSE_PROXY_ADMIN_GRPC", "")
            .envs(settings.iter().copied())
            .env("MSE_PROXY_LOG_FORMAT", "json")
            .env("MSE_PROXY_LOG_ACCESS", "off")
            .envs(MALLOC.into_iter().filter(|_| !setup.plain_malloc))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = lines.map_while(Result::ok);
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let says = |line: &Value| {
            let message = line["message"].as_str().or(line["fields"]["message"].as_str());
            message.unwrap_or_default().to_owned()
        };
        let mut admin = None;
        let address = lines.by_ref().find_map(|line| {
            let url = line["url"].as_str().and_then(|url| url.strip_prefix("http://"));
            admin = admin.or(url.and_then(|url| url.trim_end_matches('/').parse().ok()));
            let says_where = line["address"].as_str().or(line["fields"]["address"].as_str());
            says_where.filter(|_| says(&line) == "listening")?.parse().ok()
        });
        let tables = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tables);
        // Somebody must read on, or its log would be lost.
        std::thread::spawn(move || {
            for _ in lines.filter(|line| says(line) == "routes") {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let address = address.expect("the proxy listens");
        Self { child, address, admin: admin.expect("it can be watched"), tables }
    }

    /// Whether it says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    }

    /// How many tables it has said that it made since it listens.
    pub(crate) fn tables(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// A line of `/proc/PID/status`, in MB (10^6 bytes).
    fn memory(&self, what: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024.0 / 1e6
    }

    pub(crate) fn resident(&self) -> f64 {
        self.memory("VmRSS:")
    }

    pub(crate) fn peak(&self) -> f64 {
        self.memory("VmHWM:")
    }

    /// Forgets the peak so far.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// User and system time of all threads so far, in steps of 10 ms.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
