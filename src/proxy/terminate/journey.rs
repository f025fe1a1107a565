//! The rest of the journey of a client whose TLS ends here: the handshake, then the backend.
//!
//! The hello has been read and its route found, like anybody's. What was read is handed to rustls,
//! which answers with the certificate for the name; then the backend is dialled, over TLS unless
//! the route says otherwise, and what the client sends inside of its TLS is passed on.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::Entry;
use crate::proxy::draft::{Draft, Took};
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::house::House;
use crate::proxy::limits::Permit;
use crate::proxy::passage::Passage;
use crate::proxy::relay::copy::Relay;
use crate::proxy::terminate::policies::PolicyError;
use crate::proxy::terminate::stream::{Ended, Opened, Rewind};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::termination::{BackendTls, Protocol, Termination};
use crate::telemetry::metrics::Moved;

/// How long the authorities of a route that has just come may take to be read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// A client whose TLS ends here.
pub(in crate::proxy) struct Guest<T> {
    pub(in crate::proxy) client: T,
    pub(in crate::proxy) prefix: Vec<u8>,
    pub(in crate::proxy) route: Arc<Route>,
    pub(in crate::proxy) permit: Permit,
    pub(in crate::proxy) entry: Entry,
    pub(in crate::proxy) draft: Draft,
    pub(in crate::proxy) timer: Deadline,
}

/// Sees such a client through.
pub(in crate::proxy) async fn receive<T: Transport, C: Connect>(
    guest: Guest<T>,
    house: Rc<House<C>>,
) {
    let Guest { client, prefix, route, permit, entry, mut draft, mut timer } = guest;
    let Some(how) = route.termination() else { return };
    let shaken = shake_hands(client, prefix, &route, how, &entry, &mut draft, &house, &mut timer);
    let client = match shaken.await {
        Ok(client) => client,
        Err(Unwelcome { client, outcome }) => {
            return match client {
                Left::Sealed(client) => draft.refuse(client, outcome, &mut timer).await,
                Left::Alerted(client) => draft.see_off(client, outcome, &mut timer).await,
                Left::Gone => draft.outcome = outcome,
            };
        }
    };
    match how.protocol {
        Protocol::Tcp | Protocol::Http => {
            let protocols = client.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            let protocols = protocols.into_iter().collect();
            let opened = open(&route, how, protocols, &mut draft, &house, &mut timer);
            let opened = or_retired(&entry, opened).await;
            match opened {
                Ok(backend) => {
                    let idle = Rc::clone(&house.idle);
                    let relay = Relay::new(client, backend, Vec::new(), idle, &mut timer);
                    let told = Moved::default();
                    let mut passage = Passage { relay, told, timer, entry, _held: permit, draft };
                    let end = std::future::poll_fn(|cx| passage.poll(cx)).await;
                    passage.end(end);
                }
                Err(outcome) => draft.see_off(client, outcome, &mut timer).await,
            }
        }
    }
}

/// Waits for something, or until the session is told to end.
async fn or_retired<R>(
    entry: &Entry,
    happens: impl Future<Output = Result<R, Outcome>>,
) -> Result<R, Outcome> {
    tokio::select! {
        happened = happens => happened,
        outcome = entry.handle().wait() => Err(outcome),
    }
}

/// What is left of a client whose handshake did not succeed.
enum Left<T> {
    /// It got no answer yet.
    Sealed(T),
    /// It was told why, in an alert.
    Alerted(Rewind<T>),
    /// Nothing.
    Gone,
}

/// A client whose handshake did not succeed.
struct Unwelcome<T> {
    client: Left<T>,
    outcome: Outcome,
}

#[expect(clippy::too_many_arguments, reason = "the parts of one session, taken apart")]
async fn shake_hands<T: Transport, C: Connect>(
    client: T,
    prefix: Vec<u8>,
    route: &Route,
    how: &Termination,
    entry: &Entry,
    draft: &mut Draft,
    house: &House<C>,
    timer: &mut Deadline,
) -> Result<Ended<T>, Unwelcome<T>> {
    let policies = &house.terminal.policies;
    let has_certificate = draft.name().is_some_and(|name| policies.resolver().has(name));
    if !has_certificate {
        return Err(Unwelcome { client: Left::Sealed(client), outcome: Outcome::NoCertificate });
    }
    let config = patiently(house, || policies.receiving(route, how)).await;
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(route = %route.id, %error, "a route cannot be terminated");
            draft.reason = Some("client_ca");
            return Err(Unwelcome { client: Left::Sealed(client), outcome: Outcome::Internal });
        }
    };
    timer.set(Instant::now() + house.terminal.handshake_timeout);
    let accept = TlsAcceptor::from(config).accept(Rewind::new(prefix, client)).into_fallible();
    let accepted = tokio::select! {
        accepted = timer.bound(accept) => accepted,
        outcome = entry.handle().wait() => {
            return Err(Unwelcome { client: Left::Gone, outcome });
        }
    };
    match accepted {
        Ok(Ok(client)) => Ok(client),
        Ok(Err((error, client))) => {
            draft.reason = Some(word(&error));
            Err(Unwelcome { client: Left::Alerted(client), outcome: Outcome::HandshakeFailed })
        }
        Err(Passed) => Err(Unwelcome { client: Left::Gone, outcome: Outcome::HandshakeTimeout }),
    }
}

/// Asks again for a moment while authorities are not known yet.
async fn patiently<R, C>(
    house: &House<C>,
    ask: impl Fn() -> Result<R, PolicyError>,
) -> Result<R, PolicyError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(PolicyError::Unknown(_)) if Instant::now() < end => {
                house.deadlines.sleep(GLANCE).await;
            }
            told => return told,
        }
    }
}

/// A connection to the backend of a route, of TLS where the route wants it.
async fn open<C: Connect>(
    route: &Route,
    how: &Termination,
    protocols: Vec<Vec<u8>>,
    draft: &mut Draft,
    house: &House<C>,
    timer: &mut Deadline,
) -> Result<Opened<C::Stream>, Outcome> {
    let began = Instant::now();
    let policies = &house.terminal.policies;
    let config = patiently(house, || policies.dialling(how, protocols.clone())).await;
    let config = config.map_err(|error| {
        tracing::warn!(route = %route.id, %error, "a backend cannot be verified");
        draft.reason = Some("backend_ca");
        Outcome::BackendTls
    })?;
    let connected = house.dialer.connect(route, timer).await;
    draft.connect_took = Some(Took::since(began));
    let (stream, endpoint) = connected.map_err(|error| {
        tracing::debug!(route = %route.id, %error, "no backend could be reached");
        draft.endpoint = Some(0);
        Outcome::from(&error)
    })?;
    draft.endpoint = u16::try_from(endpoint).ok();
    let Some(config) = config else { return Ok(Opened::Plain(stream)) };
    timer.set(Instant::now() + house.terminal.handshake_timeout);
    let greeted = timer.bound(greet(stream, config, how, draft)).await;
    draft.connect_took = Some(Took::since(began));
    match greeted {
        Ok(Ok(stream)) => Ok(Opened::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            let reason = word(&error);
            tracing::debug!(route = %route.id, %error, "a backend failed its handshake");
            draft.reason = Some(reason);
            Err(Outcome::BackendTls)
        }
        Err(Passed) => {
            draft.reason = Some("timeout");
            Err(Outcome::BackendTls)
        }
    }
}

async fn greet<B: Transport>(
    stream: B,
    config: Arc<ClientConfig>,
    how: &Termination,
    draft: &Draft,
) -> io::Result<tokio_rustls::client::TlsStream<B>> {
    let own = match &how.backend {
        BackendTls::Verified { name, .. } => name.as_ref(),
        BackendTls::Off => None,
    };
    let name = own.or(draft.name()).ok_or(io::ErrorKind::InvalidInput)?;
    let name = ServerName::try_from(name.as_str().to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Why a handshake failed, in one word.
fn word(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return if error.kind() == io::ErrorKind::UnexpectedEof { "eof" } else { "io" };
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
        _ => "other_alert",
    }
}
