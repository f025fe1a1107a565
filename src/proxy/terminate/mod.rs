//! Ending TLS here, for the names that an operator has opened for that.
//!
//! In reading order: [`pair`] judges one certificate with its key (`key` is what that says of itself,
//! [`chain`] what stands behind the leaf), [`certificates`] tells which of many answers for a name,
//! `leaf` and [`folder`] read those of a path, [`keep`] keeps them fresh,
//! [`bare`] for which of those that are routed here none does; [`trust`] knows the
//! authorities of files and of the machine; [`policies`] makes of all this what rustls wants to
//! know; [`stream`] are the byte streams that come of it, `dial` reaches
//! backends, [`http`] passes requests on; [`journey`] sees a client through. Only
//! routes in `terminate.zones` get here, and nothing of this is on the path of the others.

pub mod bare;
pub mod certificates;
pub mod chain;
mod dial;
pub mod fault;
pub mod folder;
pub mod http;
pub mod journey;
pub mod keep;
mod key;
mod leaf;
pub mod pair;
pub mod paths;
pub mod policies;
pub mod stream;
pub mod trust;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::proxy::engine::deadlines::Deadlines;
use crate::proxy::engine::tasks::Spawner;
use crate::proxy::terminate::certificates::{Certificates, Resolver};
use crate::proxy::terminate::http::body::Pace;
use crate::proxy::terminate::http::pool::Pool;
use crate::proxy::terminate::paths::Paths;
use crate::proxy::terminate::policies::{Policies, Tickets, provider};
use crate::proxy::terminate::trust::Trusts;
use crate::routing::zones::Zones;
use crate::units::{Period, Size};

/// The section `terminate` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The patterns under which names may be terminated.
    pub zones: Zones,
    /// Folders of certificates with their keys, or files; watched.
    pub certificates: Paths,
    /// From the hello's last byte to the end of the handshake.
    pub handshake_timeout: Period,
    /// From the first byte of a request's head to its last.
    pub request_timeout: Period,
    /// How long the body of a request may keep its backend waiting in all …
    pub body_timeout: Period,
    /// … a second more for each so many bytes of it; 0 is no limit.
    pub body_rate: Size,
    /// How long a client's connection may be without a request.
    pub keep_alive: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            zones: Zones::default(),
            certificates: Paths::default(),
            // Two round trips and a signature; a client on a bad line needs a second or two.
            handshake_timeout: Period(Duration::from_secs(10)),
            request_timeout: Period(Duration::from_secs(10)),
            // A train in a tunnel; and a quarter of what the slowest lines of phones carry.
            body_timeout: Period(Duration::from_secs(30)),
            body_rate: Size(1024),
            // Longer than the pauses of somebody who reads.
            keep_alive: Period(Duration::from_mins(1)),
        }
    }
}

/// All that a worker needs for ending TLS.
#[derive(Debug)]
pub struct Terminal {
    /// How clients are received and backends spoken to.
    pub policies: Policies,
    /// Connections to backends that wait for requests.
    pub pool: Pool,
    /// From the hello's last byte to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request's head to its last.
    pub request_timeout: Duration,
    /// How slowly a request's body may come, if that is limited.
    pub pace: Option<Pace>,
    /// How long a client's connection may be without a request.
    pub keep_alive: Duration,
}

/// What the workers share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The certificates that are good.
    pub certificates: Certificates,
    /// Whom routes trust.
    pub trusts: Trusts,
    /// The keys of tickets.
    pub tickets: Arc<Tickets>,
}

impl Terminal {
    /// What the worker of this engine needs.
    #[must_use]
    pub fn new(
        settings: &Settings,
        shared: Shared,
        clock: Arc<dyn Clock>,
        spawner: Spawner,
        deadlines: Deadlines,
    ) -> Self {
        let Shared { certificates, trusts, tickets } = shared;
        let resolver = Resolver::new(certificates, clock, provider());
        let pace = Pace { grace: settings.body_timeout.0, bytes_per_second: settings.body_rate.0 };
        Self {
            policies: Policies::new(resolver, trusts, tickets),
            pool: Pool::new(spawner, deadlines),
            handshake_timeout: settings.handshake_timeout.0,
            request_timeout: settings.request_timeout.0,
            pace: (settings.body_rate.0 > 0).then_some(pace),
            keep_alive: settings.keep_alive.0,
        }
    }
}
