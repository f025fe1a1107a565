//! Feeding the parser in every way, and making hellos.

use std::sync::Arc;

use mse_proxy::wire::client_hello::{ClientHello, Parser, Progress};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

pub(crate) const MAX_SIZE: u32 = 64 * 1024;

/// Everything at once.
pub(crate) fn parse(bytes: &[u8]) -> Progress {
    Parser::new(MAX_SIZE).feed(bytes)
}

/// In pieces of these sizes, over and over; what is behind an answer is not fed.
pub(crate) fn parse_in(bytes: &[u8], sizes: &[usize]) -> Progress {
    let mut parser = Parser::new(MAX_SIZE);
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            return Progress::Incomplete;
        }
        let (piece, tail) = rest.split_at((*size).max(1).min(rest.len()));
        rest = tail;
        match parser.feed(piece) {
            Progress::Incomplete => {}
            answer => return answer,
        }
    }
    Progress::Incomplete
}

pub(crate) fn hello_of(progress: Progress) -> ClientHello {
    match progress {
        Progress::Hello(hello) => *hello,
        other => panic!("{other:?}"),
    }
}

/// The payloads of the records, joined: the handshake message and whatever follows it.
pub(crate) fn payload(records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = records;
    while rest.len() >= 5 {
        let size = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        message.extend_from_slice(&rest[5..5 + size]);
        rest = &rest[5 + size..];
    }
    message
}

/// A message in records of these payload sizes, over and over.
pub(crate) fn in_records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = message;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*size).clamp(1, 1 << 14).min(rest.len()));
        rest = tail;
        records.extend_from_slice(&[0x16, 3, 1]);
        records.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        records.extend_from_slice(piece);
    }
    records
}

/// A hello as rustls makes it.
pub(crate) fn rustls_hello(name: Option<&str>, alpn: &[&[u8]], tls12: bool) -> Vec<u8> {
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls12 { &[&rustls::version::TLS12] } else { rustls::DEFAULT_VERSIONS };
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("unused.test").to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// A small generator for choices that must be the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }
}
