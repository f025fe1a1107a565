//! What the pure benchmarks work on: real hellos, and tables of any size.

use std::sync::Arc;

use mse_proxy::clock::Timestamp;
use mse_proxy::hostname::Hostname;
use mse_proxy::routing::snapshot::Snapshot;
use mse_proxy::source::document;
use mse_proxy::wire::client_hello::{ClientHello, Parser, Progress};

/// Hellos as programs sent them: of OpenSSL's command, and of a browser with a post-quantum key
/// share.
pub(crate) const HELLOS: [(&str, &[u8]); 2] = [
    ("small", include_bytes!("../../tests/data/hellos/openssl-tls13.bin")),
    ("pq", include_bytes!("../../tests/data/hellos/chromium.bin")),
];

/// As `hello.max_size` by default.
const MAX_SIZE: u32 = 64 << 10;
/// Names that are asked for in turn: enough that a table's memory does not stay in a cache that
/// only a benchmark would keep warm.
const ASKED: usize = 4096;

/// How a table's routes claim their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claims {
    Exact,
    Wildcard,
}

/// A table, and names that it has.
#[derive(Debug)]
pub(crate) struct Subject {
    text: String,
    pub(crate) names: Vec<Hostname>,
}

impl Subject {
    /// Routes for so many hosts.
    pub(crate) fn new(claims: Claims, hosts: usize) -> Self {
        let star = if claims == Claims::Wildcard { "*." } else { "" };
        let route = |host: usize| {
            format!(
                "[[route]]\nhosts = [\"{star}{}\"]\nbackends = [\"127.0.0.1:1\"]\n\n",
                name(host)
            )
        };
        let text = (0..hosts).map(route).collect();
        let label = if claims == Claims::Wildcard { "www." } else { "" };
        let step = (hosts / ASKED).max(1);
        let ask = |host| Hostname::from_wire(format!("{label}{}", name(host)).as_bytes()).ok();
        let names = (0..hosts).step_by(step).filter_map(ask).collect();
        Self { text, names }
    }

    /// The table, built anew.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::build(document::read(&Arc::from("bench"), &self.text).claims.iter()).0
    }
}

/// Reads a hello that came in one piece or two.
pub(crate) fn parse(first: &[u8], second: &[u8]) -> Option<Box<ClientHello>> {
    let mut parser = Parser::new(MAX_SIZE);
    match (parser.feed(first), second) {
        (Progress::Hello(hello), _) => Some(hello),
        (Progress::Incomplete, [_, ..]) => match parser.feed(second) {
            Progress::Hello(hello) => Some(hello),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a table leads a name somewhere.
pub(crate) fn finds(snapshot: &Snapshot, hello: &ClientHello, name: &Hostname) -> bool {
    snapshot.lookup(name, &hello.alpn, Timestamp::UNIX_EPOCH).is_ok()
}

fn name(host: usize) -> String {
    format!("{:016x}.bench.test", (host as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
