//! Reaching the backend of a route whose TLS ends here: over TLS of our own, unless the route says
//! otherwise in so many words.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::house::House;
use crate::proxy::terminate::policies::PolicyError;
use crate::proxy::terminate::stream::Opened;
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::termination::{BackendTls, Termination};

/// How long the authorities of a route that has just come may take to be read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// A backend that was reached.
pub(super) struct Dialled<B> {
    /// The way to it.
    pub(super) stream: Opened<B>,
    /// Its place among those of the route.
    pub(super) endpoint: usize,
}

/// Why none was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Undialled {
    /// How that is called.
    pub(crate) outcome: Outcome,
    /// And what exactly it was.
    pub(crate) reason: Option<&'static str>,
}

/// Reaches a backend of a route for a client that asked for `name`, and offers it these protocols.
pub(super) async fn dial<C: Connect>(
    house: &House<C>,
    route: &Route,
    how: &Termination,
    name: &Hostname,
    protocols: Vec<Vec<u8>>,
) -> Result<Dialled<C::Stream>, Undialled> {
    let policies = &house.terminal.policies;
    let config = patiently(house, || policies.dialling(how, protocols.clone())).await;
    let config = config.map_err(|error| {
        tracing::warn!(route = %route.id, %error, "a backend cannot be verified");
        Undialled { outcome: Outcome::BackendTls, reason: Some("backend_ca") }
    })?;
    let mut timer = house.deadlines.unset();
    let connected = house.dialer.connect(route, &mut timer).await;
    let (stream, endpoint) = connected.map_err(|error| {
        tracing::debug!(route = %route.id, %error, "no backend could be reached");
        Undialled { outcome: Outcome::from(&error), reason: None }
    })?;
    let Some(config) = config else {
        return Ok(Dialled { stream: Opened::Plain(stream), endpoint });
    };
    match greet(stream, config, how, name, house.terminal.handshake_timeout, &mut timer).await {
        Ok(stream) => Ok(Dialled { stream: Opened::Tls(Box::new(stream)), endpoint }),
        Err(error) => {
            tracing::debug!(route = %route.id, %error, "a backend failed its handshake");
            Err(Undialled { outcome: Outcome::BackendTls, reason: Some(word(&error)) })
        }
    }
}

async fn greet<B: Transport>(
    stream: B,
    config: Arc<ClientConfig>,
    how: &Termination,
    asked: &Hostname,
    longest: Duration,
    timer: &mut Deadline,
) -> io::Result<TlsStream<B>> {
    let own = match &how.backend {
        BackendTls::Verified { name, .. } => name.as_ref(),
        BackendTls::Off => None,
    };
    let name = own.unwrap_or(asked).as_str().to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    timer.set(Instant::now() + longest);
    let greeted = timer.bound(TlsConnector::from(config).connect(name, stream)).await;
    greeted.unwrap_or_else(|Passed| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks again for a moment while authorities are not known yet; after a start, while those of all
/// routes are being read, for as long as a handshake may take.
pub(super) async fn patiently<R, C>(
    house: &House<C>,
    ask: impl Fn() -> Result<R, PolicyError>,
) -> Result<R, PolicyError> {
    let began = Instant::now();
    let are_read = || house.terminal.policies.trusts().are_read();
    let longest = || if are_read() { PATIENCE } else { house.terminal.handshake_timeout };
    loop {
        match ask() {
            Err(PolicyError::Unknown(_)) if began.elapsed() < longest() => {
                house.deadlines.sleep(GLANCE).await;
            }
            told => return told,
        }
    }
}

/// Why a handshake failed, in one word.
pub(super) fn word(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "eof",
            io::ErrorKind::TimedOut => "timeout",
            _ => "io",
        };
    };
    match error {
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => "no_client_certificate",
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::NoApplicationProtocol => "no_shared_protocol",
        Error::PeerIncompatible(_) => "incompatible",
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => "misbehaved",
        Error::InvalidMessage(_) | Error::DecryptError => "malformed",
        _ => "failed",
    }
}

fn of_certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate_expired"
        }
        CertificateError::UnknownIssuer => "certificate_of_unknown_issuer",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate_for_other_name"
        }
        CertificateError::ApplicationVerificationFailure => "other_key",
        _ => "certificate_invalid",
    }
}

/// The names of RFC 8446 §6, for those that clients send.
fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::CertificateExpired => "certificate_expired_alert",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        _ => "other_alert",
    }
}
