//! The one line that a session leaves behind. It is filled in as the session goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::outcome::request::Asked;
use crate::wire::client_hello::Alpn;

/// The one line that every accepted connection leaves behind. Times count from accept.
#[derive(Debug, Clone)]
pub struct Record {
    /// When the connection was accepted.
    pub time: Timestamp,
    /// The number of the session, unique for this process.
    pub session: u64,
    /// Who connected.
    pub client: SocketAddr,
    /// Where they connected to.
    pub listener: SocketAddr,
    /// The name asked for.
    pub sni: Option<Hostname>,
    /// The protocols offered.
    pub alpn: Alpn,
    /// Whether the hello carried `encrypted_client_hello`.
    pub ech: bool,
    /// The id of the route.
    pub route: Option<Arc<str>>,
    /// For whom the route is.
    pub app: Option<Arc<str>>,
    /// The revision of the table that judged the name.
    pub revision: Option<u64>,
    /// The newest transaction of the store that was in that table, if there is a store.
    pub store_revision: Option<u64>,
    /// The address that was connected to.
    pub endpoint: Option<Endpoint>,
    /// How it ended.
    pub outcome: Outcome,
    /// What exactly was wrong with a hello, in one word.
    pub reason: Option<&'static str>,
    /// Size of the handshake message.
    pub hello_bytes: Option<u32>,
    /// When the hello was whole.
    pub hello: Option<Duration>,
    /// How long the backend took to connect, retries included.
    pub connect: Option<Duration>,
    /// When the backend's first byte came.
    pub first_byte: Option<Duration>,
    /// When it ended.
    pub duration: Duration,
    /// Bytes written to the backend.
    pub to_backend_bytes: u64,
    /// Bytes written to the client.
    pub to_client_bytes: u64,
    /// What was asked for, if this is the record of a request.
    pub asked: Option<Box<Asked>>,
}

impl Record {
    /// The record of a connection that was just accepted.
    #[must_use]
    pub fn new(time: Timestamp, session: u64, client: SocketAddr, listener: SocketAddr) -> Self {
        Self {
            time,
            session,
            client,
            listener,
            sni: None,
            alpn: Alpn::default(),
            ech: false,
            route: None,
            app: None,
            revision: None,
            store_revision: None,
            endpoint: None,
            outcome: Outcome::Internal,
            reason: None,
            hello_bytes: None,
            hello: None,
            connect: None,
            first_byte: None,
            duration: Duration::ZERO,
            to_backend_bytes: 0,
            to_client_bytes: 0,
            asked: None,
        }
    }
}
