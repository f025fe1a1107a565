//! Ending TLS here, for the names that an operator has opened for that.
//!
//! In reading order: [`pair`] judges one certificate with its key, [`folder`] reads and keeps those
//! of a path, [`certificates`] tells which of them answers for a name; [`trust`] knows the
//! authorities of files and of the machine; [`policies`] makes of all this what rustls wants to
//! know; [`stream`] are the byte streams that come of it; [`journey`] sees a client through. Only
//! routes in `terminate.zones` get here, and nothing of this is on the path of the others.

pub mod certificates;
pub mod folder;
pub mod journey;
pub mod pair;
pub mod policies;
pub mod stream;
pub mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::proxy::terminate::certificates::{Certificates, Resolver};
use crate::proxy::terminate::policies::{Policies, Tickets, provider};
use crate::proxy::terminate::trust::Trusts;
use crate::routing::zones::Zones;
use crate::units::Period;

/// The section `terminate` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The patterns under which names may be terminated.
    pub zones: Zones,
    /// A folder of certificates with their keys, or one file; watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
    /// From the hello's last byte to the end of the handshake.
    pub handshake_timeout: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            zones: Zones::default(),
            certificates: None,
            // Two round trips and a signature; a client on a bad line needs a second or two.
            handshake_timeout: Period(Duration::from_secs(10)),
        }
    }
}

/// All that a worker needs for ending TLS.
#[derive(Debug)]
pub struct Terminal {
    /// How clients are received and backends spoken to.
    pub policies: Policies,
    /// From the hello's last byte to the end of the handshake.
    pub handshake_timeout: Duration,
}

impl Terminal {
    /// What a worker needs, of these parts.
    #[must_use]
    pub fn new(
        settings: &Settings,
        certificates: Certificates,
        trusts: Trusts,
        tickets: Arc<Tickets>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let resolver = Resolver::new(certificates, clock, provider());
        let policies = Policies::new(resolver, trusts, tickets);
        Self { policies, handshake_timeout: settings.handshake_timeout.0 }
    }
}
