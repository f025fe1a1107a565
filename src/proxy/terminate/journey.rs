//! The rest of the journey of a client whose TLS ends here: the handshake, then what the route says.
//!
//! The hello has been read and its route found, like anybody's. What was read is handed to rustls,
//! which answers with the certificate for the name. Then either requests are passed on, or the
//! backend is dialled, over TLS unless the route says otherwise, and bytes are.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::proxy::backend::connect::Connect;
use crate::proxy::connections::Entry;
use crate::proxy::draft::{Draft, Took};
use crate::proxy::engine::deadlines::{Deadline, Passed};
use crate::proxy::house::House;
use crate::proxy::limits::Permit;
use crate::proxy::passage::Passage;
use crate::proxy::relay::pump::Relay;
use crate::proxy::terminate::dial::{Dialled, Undialled, dial, patiently, word};
use crate::proxy::terminate::http::serve::{Host, serve};
use crate::proxy::terminate::stream::{Ended, Opened, Rewind};
use crate::proxy::transport::Transport;
use crate::routing::route::Route;
use crate::routing::termination::{Protocol, Termination};
use crate::telemetry::metrics::Moved;

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

/// What a client leaves behind on this side, apart from its stream.
struct Left {
    route: Arc<Route>,
    permit: Permit,
    entry: Entry,
    draft: Draft,
    timer: Deadline,
}

/// Sees such a client through.
pub(in crate::proxy) async fn receive<T: Transport, C: Connect>(
    guest: Guest<T>,
    house: Rc<House<C>>,
) {
    let Guest { client, prefix, route, permit, entry, draft, timer } = guest;
    let mut left = Left { route, permit, entry, draft, timer };
    let Some(how) = left.route.termination().map(Arc::clone) else { return };
    // A hello without a name finds no route.
    let Some(name) = left.draft.name().cloned() else { return };
    let client = match left.shake_hands(client, prefix, &how, &name, &house).await {
        Ok(client) => client,
        Err(Unwelcome::Sealed(client, outcome)) => {
            return left.draft.refuse(client, outcome, &mut left.timer).await;
        }
        Err(Unwelcome::Alerted(client, outcome)) => {
            return left.draft.see_off(client, outcome, &mut left.timer).await;
        }
        Err(Unwelcome::Gone(outcome)) => {
            left.draft.outcome = outcome;
            return;
        }
    };
    match how.protocol {
        Protocol::Tcp => left.pass_bytes(client, &how, &name, &house).await,
        Protocol::Http => {
            let Left { route, permit, entry, draft, timer } = left;
            serve(client, Host { route, name, permit, entry, draft, timer }, house).await;
        }
    }
}

/// A client whose handshake did not succeed.
enum Unwelcome<T> {
    /// It got no answer yet.
    Sealed(T, Outcome),
    /// It was told why, in an alert.
    Alerted(Rewind<T>, Outcome),
    /// Nothing is left of it.
    Gone(Outcome),
}

impl Left {
    async fn shake_hands<T: Transport, C: Connect>(
        &mut self,
        client: T,
        prefix: Vec<u8>,
        how: &Termination,
        name: &Hostname,
        house: &House<C>,
    ) -> Result<Ended<T>, Unwelcome<T>> {
        let policies = &house.terminal.policies;
        self.timer.set(Instant::now() + house.terminal.handshake_timeout);
        // After a start, certificates may still be read: that is a part of the handshake's time.
        let has = tokio::select! {
            has = self.timer.bound(policies.resolver().will_have(name)) => has,
            outcome = self.entry.handle().wait() => return Err(Unwelcome::Gone(outcome)),
        };
        if !has.unwrap_or(false) {
            return Err(Unwelcome::Sealed(client, Outcome::NoCertificate));
        }
        let config = match patiently(house, || policies.receiving(&self.route, how)).await {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(route = %self.route.id, %error, "clients cannot be judged");
                self.draft.reason = Some("client_ca");
                return Err(Unwelcome::Sealed(client, Outcome::Internal));
            }
        };
        let accept = TlsAcceptor::from(config).accept(Rewind::new(prefix, client)).into_fallible();
        let accepted = tokio::select! {
            accepted = self.timer.bound(accept) => accepted,
            outcome = self.entry.handle().wait() => return Err(Unwelcome::Gone(outcome)),
        };
        match accepted {
            Ok(Ok(client)) => Ok(client),
            Ok(Err((error, client))) => {
                self.draft.reason = Some(word(&error));
                Err(Unwelcome::Alerted(client, Outcome::HandshakeFailed))
            }
            Err(Passed) => Err(Unwelcome::Gone(Outcome::HandshakeTimeout)),
        }
    }

    async fn pass_bytes<T: Transport, C: Connect>(
        mut self,
        client: Ended<T>,
        how: &Termination,
        name: &Hostname,
        house: &House<C>,
    ) {
        // What was agreed upon with the client is all that the backend is offered.
        let protocols = client.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        match self.dial(how, name, protocols.into_iter().collect(), house).await {
            Ok(backend) => {
                let Self { permit, entry, draft, mut timer, .. } = self;
                let idle = Rc::clone(&house.idle);
                let relay = Relay::new(client, backend, Vec::new(), idle, &mut timer);
                let told = Moved::default();
                let mut passage =
                    Passage { relay, told, timer, entry, permit, newcomer: None, draft };
                let end = std::future::poll_fn(|cx| passage.poll(cx)).await;
                passage.end(end);
            }
            Err(outcome) => self.draft.see_off(client, outcome, &mut self.timer).await,
        }
    }

    async fn dial<C: Connect>(
        &mut self,
        how: &Termination,
        name: &Hostname,
        protocols: Vec<Vec<u8>>,
        house: &House<C>,
    ) -> Result<Opened<C::Stream>, Outcome> {
        let began = Instant::now();
        let dialled = tokio::select! {
            dialled = dial(house, &self.route, how, name, protocols) => dialled,
            outcome = self.entry.handle().wait() => return Err(outcome),
        };
        self.draft.connect_took = Some(Took::since(began));
        match dialled {
            Ok(Dialled { stream, endpoint }) => {
                self.draft.endpoint = u16::try_from(endpoint).ok();
                Ok(stream)
            }
            Err(Undialled { outcome, reason }) => {
                self.draft.endpoint = Some(0);
                self.draft.reason = reason;
                Err(outcome)
            }
        }
    }
}
