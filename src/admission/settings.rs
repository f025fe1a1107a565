//! What the operator of a platform decides.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::hostname::{Hostname, MAX_NAME};
use crate::registry::app::GENERATED;
use crate::registry::written;
use crate::units::Period;

/// The section `platform`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where customers' own domains must lead.
    #[serde(with = "written")]
    pub proxy_name: Hostname,
    /// Under what generated names stand.
    #[serde(serialize_with = "written::serialize", deserialize_with = "zone")]
    pub zone: Hostname,
    /// Under what generated names stand whose TLS ends in the proxy.
    #[serde(serialize_with = "written::serialize", deserialize_with = "zone")]
    pub terminated_zone: Hostname,
    /// Patterns of the images that may run, in which `*` stands for any letters; none: any that
    /// others can reach.
    pub images: Vec<String>,
    /// Whether a custom domain must show its project's token.
    pub require_ownership: bool,
    /// How long the domain of an ended app stays reserved for its project.
    pub quarantine: Period,
    /// How long an app that has ended is kept, to be looked at.
    pub keep_ended: Period,
    /// Whether a custom domain may be a wildcard.
    pub allow_wildcard_domains: bool,
    /// The DNS servers that custom domains are looked up at; none: those of the system.
    pub resolvers: Vec<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_name: Hostname::from_static("proxy.mse.cosmian.com"),
            zone: Hostname::from_static("cosmian.io"),
            terminated_zone: Hostname::from_static("cosmian.dev"),
            images: Vec::new(),
            require_ownership: false,
            // Long enough for an owner to notice and to mend DNS.
            quarantine: Period(Duration::from_hours(7 * 24)),
            // An owner who looks once a month still sees what has become of it.
            keep_ended: Period(Duration::from_hours(30 * 24)),
            allow_wildcard_domains: false,
            resolvers: Vec::new(),
        }
    }
}

/// A name that leaves room for a generated label before it.
fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hostname, D::Error> {
    let zone: Hostname = written::deserialize(deserializer)?;
    let most = MAX_NAME - GENERATED - ".".len();
    if zone.as_str().len() > most {
        return Err(de::Error::custom(format!("a zone has at most {most} letters")));
    }
    Ok(zone)
}
