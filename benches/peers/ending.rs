//! How each proxy is told to end TLS itself: with the same certificate for all, HTTP/1.1 and
//! HTTP/2 towards clients, and kept connections to an origin in the clear.
//!
//! Alike for all: TLS 1.3 only in effect (the clients offer nothing else), tickets, the client's
//! address told in `X-Forwarded-For`, no access log, no bound on the requests of a connection.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::crew::cores;
use crate::hello::name;
use crate::programs::Duty;

/// The certificate of the only host, which vouches for itself, and its key.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    key: String,
}

/// The same in all runs: ECDSA on P-256.
pub(crate) fn pair() -> io::Result<&'static Pair> {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    if let Some(pair) = PAIR.get() {
        return Ok(pair);
    }
    let made = rcgen::generate_simple_self_signed([name(0)]).map_err(io::Error::other)?;
    let pair = Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() };
    Ok(PAIR.get_or_init(|| pair))
}

/// Writes the certificate with its key into one file of a folder of its own: that folder.
pub(crate) fn write_pair(folder: &Path) -> io::Result<PathBuf> {
    let certificates = folder.join("certificates");
    fs::create_dir_all(&certificates)?;
    let Pair { chain, key } = pair()?;
    fs::write(certificates.join("bench.pem"), format!("{chain}{key}"))?;
    Ok(certificates)
}

pub(crate) fn mse_routes(duty: &Duty) -> String {
    format!(
        "[[route]]\nhosts = [\"{}\"]\nbackends = [\"{}\"]\nmode = \"terminate\"\n\
         backend_tls = \"off\"\n",
        name(0),
        duty.origin
    )
}

pub(crate) fn haproxy_config(folder: &Path, duty: &Duty) -> String {
    format!(
        "global\n  nbthread {threads}\n  maxconn 8500\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n  \
         option forwardfor\n  http-reuse always\n\
         frontend tls\n  bind {listen} backlog 4096 ssl crt {folder}/certificates/bench.pem alpn h2,http/1.1\n  \
         default_backend origin\n\
         backend origin\n  server one {origin}\n",
        threads = cores(),
        folder = folder.display(),
        listen = duty.listen,
        origin = duty.origin,
    )
}

pub(crate) fn nginx_config(folder: &Path, duty: &Duty) -> String {
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {}/{what};\n", folder.display()))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\nevents {{ worker_connections 17000; }}\n\
         http {{\n{folders}  access_log off;\n  keepalive_requests 1000000000;\n  \
         keepalive_timeout 10m;\n  \
         upstream origin {{ server {origin}; keepalive 512; keepalive_requests 1000000000; }}\n  \
         server {{\n    listen {listen} ssl http2 reuseport backlog=4096;\n    \
         ssl_protocols TLSv1.2 TLSv1.3;\n    \
         ssl_certificate {folder}/certificates/bench.pem;\n    \
         ssl_certificate_key {folder}/certificates/bench.pem;\n    \
         location / {{\n      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      \
         proxy_max_temp_file_size 0;\n    }}\n  }}\n}}\n",
        workers = cores(),
        folder = folder.display(),
        listen = duty.listen,
        origin = duty.origin,
    )
}

pub(crate) fn envoy_listener(folder: &Path, duty: &Duty) -> String {
    let api = "type.googleapis.com/envoy.extensions";
    format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n  name: tls\n  \
         address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}\n  tcp_backlog_size: 4096\n  \
         filter_chains:\n  - transport_socket:\n      name: tls\n      typed_config:\n        \
         \"@type\": {api}.transport_sockets.tls.v3.DownstreamTlsContext\n        \
         common_tls_context:\n          alpn_protocols: [h2, http/1.1]\n          tls_certificates:\n          \
         - certificate_chain: {{ filename: {pem} }}\n            private_key: {{ filename: {pem} }}\n    \
         filters:\n    - name: http\n      typed_config:\n        \
         \"@type\": {api}.filters.network.http_connection_manager.v3.HttpConnectionManager\n        \
         stat_prefix: http\n        use_remote_address: true\n        generate_request_id: false\n        \
         http_filters:\n        - name: router\n          \
         typed_config: {{ \"@type\": {api}.filters.http.router.v3.Router }}\n        \
         route_config:\n          virtual_hosts:\n          - name: all\n            domains: [\"*\"]\n            \
         routes: [{{ match: {{ prefix: / }}, route: {{ cluster: origin, timeout: 0s }} }}]\n",
        ip = duty.listen.ip(),
        port = duty.listen.port(),
        pem = folder.join("certificates/bench.pem").display(),
    )
}
