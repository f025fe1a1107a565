//! Every way in which a session ends, in one place; [`record`] is what it leaves behind, [`request`]
//! what is told of a request beside.
//!
//! Each [`Outcome`] has a word (metric label, log field, answer of `explain`), somebody to blame,
//! a level for the log, and the TLS alert that fits. There is no catch-all arm: a new ending does
//! not compile until all of this is said of it. Nothing here knows how an ending comes about.

pub mod record;
pub mod request;

use std::fmt;

use serde::Serialize;

use crate::wire::alert::Alert;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides finished.
    Closed,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// No byte either way for `relay.idle_timeout`.
    IdleTimeout,
    /// One side had finished, the other made no progress for `relay.half_close_timeout`.
    HalfCloseTimeout,
    /// The route's end, and its grace, came.
    RouteExpired,
    /// The route was removed, or led elsewhere.
    RouteRemoved,
    /// The proxy was told to stop and `drain.timeout` passed.
    Drained,
    /// The client left before its hello was whole.
    ClientLeft,
    /// The hello was not whole within `hello.timeout`.
    HelloTimeout,
    /// The first bytes were no TLS record.
    NotTls,
    /// An HTTP request came.
    PlainHttp,
    /// An SSLv2 hello came.
    Sslv2,
    /// The hello contradicts itself or the protocol.
    MalformedHello,
    /// The hello is larger than `hello.max_size`.
    HelloTooLarge,
    /// `limits.connections` was reached.
    LimitConnections,
    /// A limit for one source was reached.
    LimitSource,
    /// `limits.pending_hellos` was reached.
    LimitPending,
    /// The hello asks for no name.
    NoSni,
    /// The hello asks for something that is no name.
    InvalidSni,
    /// No route covers the name.
    UnknownName,
    /// The route that covers the name begins later.
    NotYetValid,
    /// The route that covers the name has ended.
    ExpiredName,
    /// The app's project is suspended.
    Suspended,
    /// The custom domain is not proven yet.
    DomainPending,
    /// The route's limit of connections was reached.
    LimitRoute,
    /// TLS should be ended here, and no certificate for the name is good.
    NoCertificate,
    /// The client and we did not agree in the TLS handshake.
    HandshakeFailed,
    /// The handshake was not over within `terminate.handshake_timeout`.
    HandshakeTimeout,
    /// The request was none that could be passed on.
    RequestRefused,
    /// The backend's port is closed.
    BackendRefused,
    /// The backend did not answer within `backend.connect_timeout`.
    BackendTimeout,
    /// No way leads to the backend.
    BackendUnreachable,
    /// The backend closed before it sent a byte.
    BackendClosedEarly,
    /// What the backend answered is no HTTP.
    BackendProtocol,
    /// The backend did not prove who it is, does not speak TLS as we do, or was not seen to have the
    /// key that its route is pinned to.
    BackendTls,
    /// The proxy itself failed.
    Internal,
}

/// How far a session that ended in a certain way had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It was refused before it had shown a name.
    Hello,
    /// It was refused for the name that it asked for.
    Name,
    /// Its backend could not be reached or gave no answer.
    Backend,
    /// It was served.
    Relay,
}

/// Whose doing an ending is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Nobody's: an ordinary end.
    Nobody,
    /// The client's.
    Client,
    /// The backend's.
    Backend,
    /// The operator's or the app owner's: a route, an end date, a limit, a stop.
    Operator,
    /// Ours.
    Proxy,
}

/// How loudly an ending is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everyday business.
    Debug,
    /// Worth a line.
    Info,
    /// Somebody should look.
    Warn,
    /// A fault of the proxy.
    Error,
}

impl Outcome {
    /// Every outcome, in the order of the journey's stages.
    pub const ALL: [Self; 37] = [
        Self::Closed,
        Self::ClientReset,
        Self::BackendReset,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::RouteExpired,
        Self::RouteRemoved,
        Self::Drained,
        Self::ClientLeft,
        Self::HelloTimeout,
        Self::NotTls,
        Self::PlainHttp,
        Self::Sslv2,
        Self::MalformedHello,
        Self::HelloTooLarge,
        Self::LimitConnections,
        Self::LimitSource,
        Self::LimitPending,
        Self::NoSni,
        Self::InvalidSni,
        Self::UnknownName,
        Self::NotYetValid,
        Self::ExpiredName,
        Self::Suspended,
        Self::DomainPending,
        Self::LimitRoute,
        Self::NoCertificate,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::RequestRefused,
        Self::BackendRefused,
        Self::BackendTimeout,
        Self::BackendUnreachable,
        Self::BackendClosedEarly,
        Self::BackendProtocol,
        Self::BackendTls,
        Self::Internal,
    ];

    /// Its place in [`Outcome::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word that stands for it everywhere.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::RouteExpired => "route_expired",
            Self::RouteRemoved => "route_removed",
            Self::Drained => "drained",
            Self::ClientLeft => "client_left",
            Self::HelloTimeout => "hello_timeout",
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::Sslv2 => "sslv2",
            Self::MalformedHello => "malformed_hello",
            Self::HelloTooLarge => "hello_too_large",
            Self::LimitConnections => "limit_connections",
            Self::LimitSource => "limit_source",
            Self::LimitPending => "limit_pending",
            Self::NoSni => "no_sni",
            Self::InvalidSni => "invalid_sni",
            Self::UnknownName => "unknown_name",
            Self::NotYetValid => "not_yet_valid",
            Self::ExpiredName => "expired_name",
            Self::Suspended => "suspended",
            Self::DomainPending => "domain_pending",
            Self::LimitRoute => "limit_route",
            Self::NoCertificate => "no_certificate",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::RequestRefused => "request_refused",
            Self::BackendRefused => "backend_refused",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendUnreachable => "backend_unreachable",
            Self::BackendClosedEarly => "backend_closed_early",
            Self::BackendProtocol => "backend_protocol",
            Self::BackendTls => "backend_tls",
            Self::Internal => "internal",
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Closed => Blame::Nobody,
            Self::ClientReset
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::ClientLeft
            | Self::HelloTimeout
            | Self::NotTls
            | Self::PlainHttp
            | Self::Sslv2
            | Self::MalformedHello
            | Self::HelloTooLarge
            | Self::LimitSource
            | Self::NoSni
            | Self::InvalidSni
            | Self::UnknownName
            | Self::HandshakeFailed
            | Self::HandshakeTimeout
            | Self::RequestRefused => Blame::Client,
            Self::RouteExpired
            | Self::RouteRemoved
            | Self::Drained
            | Self::LimitConnections
            | Self::LimitPending
            | Self::NotYetValid
            | Self::ExpiredName
            | Self::Suspended
            | Self::DomainPending
            | Self::LimitRoute
            | Self::NoCertificate => Blame::Operator,
            Self::BackendReset
            | Self::BackendRefused
            | Self::BackendTimeout
            | Self::BackendUnreachable
            | Self::BackendClosedEarly
            | Self::BackendProtocol
            | Self::BackendTls => Blame::Backend,
            Self::Internal => Blame::Proxy,
        }
    }

    /// How far the session had come.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self {
            Self::ClientLeft
            | Self::HelloTimeout
            | Self::NotTls
            | Self::PlainHttp
            | Self::Sslv2
            | Self::MalformedHello
            | Self::HelloTooLarge
            | Self::LimitConnections
            | Self::LimitSource
            | Self::LimitPending => Stage::Hello,
            Self::NoSni
            | Self::InvalidSni
            | Self::UnknownName
            | Self::NotYetValid
            | Self::ExpiredName
            | Self::Suspended
            | Self::DomainPending
            | Self::LimitRoute
            | Self::NoCertificate
            | Self::HandshakeFailed
            | Self::HandshakeTimeout => Stage::Name,
            Self::BackendRefused
            | Self::BackendTimeout
            | Self::BackendUnreachable
            | Self::BackendClosedEarly
            | Self::BackendProtocol
            | Self::BackendTls
            | Self::Internal => Stage::Backend,
            Self::Closed
            | Self::RequestRefused
            | Self::ClientReset
            | Self::BackendReset
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::RouteExpired
            | Self::RouteRemoved
            | Self::Drained => Stage::Relay,
        }
    }

    /// How loudly it is told.
    #[must_use]
    pub const fn level(self) -> Level {
        match self.blame() {
            Blame::Nobody | Blame::Client => Level::Debug,
            Blame::Operator => Level::Info,
            Blame::Backend => Level::Warn,
            Blame::Proxy => Level::Error,
        }
    }

    /// The fatal alert that tells a TLS client the truth, for endings that come before the first
    /// byte of a backend; none where the peer is not there to hear it or does not speak TLS.
    #[must_use]
    pub const fn alert(self) -> Option<Alert> {
        match self {
            Self::UnknownName
            | Self::NotYetValid
            | Self::ExpiredName
            | Self::Suspended
            | Self::DomainPending
            | Self::InvalidSni
            | Self::NoCertificate => Some(Alert::UnrecognizedName),
            Self::NoSni => Some(Alert::MissingExtension),
            Self::MalformedHello => Some(Alert::DecodeError),
            // Nothing failed to decode: a length is out of our bounds. OpenSSL and BoringSSL
            // answer an excessive message size with 47 as well.
            Self::HelloTooLarge => Some(Alert::IllegalParameter),
            Self::Sslv2 => Some(Alert::ProtocolVersion),
            Self::LimitConnections
            | Self::LimitSource
            | Self::LimitPending
            | Self::LimitRoute
            | Self::BackendRefused
            | Self::BackendTimeout
            | Self::BackendUnreachable
            | Self::BackendTls
            | Self::Drained
            | Self::RouteExpired
            | Self::RouteRemoved
            | Self::Internal => Some(Alert::InternalError),
            // After a handshake of ours, rustls has said what there was to say.
            Self::HandshakeFailed
            | Self::HandshakeTimeout
            | Self::RequestRefused
            | Self::BackendProtocol
            | Self::Closed
            | Self::ClientReset
            | Self::BackendReset
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::ClientLeft
            | Self::HelloTimeout
            | Self::NotTls
            | Self::PlainHttp
            | Self::BackendClosedEarly => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Blame {
    /// The word that stands for it in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Operator => "operator",
            Self::Proxy => "proxy",
        }
    }
}

/// Why a handshake of ours fails, in one word each: what the client said in an alert, and what we
/// found. `other` stands for all else.
pub const HANDSHAKE_REASONS: [&str; 24] = [
    "close_notify",
    "user_canceled",
    "unknown_ca",
    "bad_certificate",
    "certificate_unknown",
    "certificate_expired_alert",
    "handshake_failure",
    "protocol_version",
    "decrypt_error",
    "internal_error",
    "other_alert",
    "eof",
    "io",
    "no_client_certificate",
    "certificate_expired",
    "certificate_of_unknown_issuer",
    "certificate_for_other_name",
    "certificate_invalid",
    "no_shared_protocol",
    "incompatible",
    "misbehaved",
    "malformed",
    "failed",
    "other",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_and_the_same_in_json() {
        let words: HashSet<_> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.word());
            assert_eq!(serde_json::to_value(outcome.blame()).unwrap(), outcome.blame().word());
        }
    }

    #[test]
    fn each_knows_its_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place, "{outcome}");
        }
    }

    #[test]
    fn a_refused_name_is_unrecognized_and_our_own_faults_are_internal() {
        for outcome in [Outcome::UnknownName, Outcome::ExpiredName, Outcome::NotYetValid] {
            assert_eq!(outcome.alert(), Some(Alert::UnrecognizedName));
        }
        assert_eq!(Outcome::MalformedHello.alert(), Some(Alert::DecodeError));
        assert_eq!(Outcome::BackendTimeout.alert(), Some(Alert::InternalError));
        assert_eq!(Outcome::PlainHttp.alert(), None);
    }
}
