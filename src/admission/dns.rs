//! Whether a domain leads to the proxy, and whether it shows a project's token.

use std::net::IpAddr;

use crate::admission::evidence::{DomainEvidence, Lookup, LookupEnd, Tokens};
use crate::hostname::{Hostname, HostnameError, Pattern};
use crate::registry::domain::Seen;

/// The most aliases in a row that are followed: clients' resolvers follow 8 to 16.
pub const MAX_ALIASES: usize = 8;

/// What is asked for below a wildcard: a name that nobody will have created by itself.
const BELOW_WILDCARD: &str = "mse-proxy-check";

/// The name that is asked for where a pattern is meant.
///
/// # Errors
/// A wildcard that leaves no room for one.
pub fn name_within(pattern: &Pattern) -> Result<Hostname, HostnameError> {
    match pattern {
        Pattern::Exact(name) => Ok(name.clone()),
        Pattern::OneLabel(zone) | Pattern::AnyDepth(zone) => {
            format!("{BELOW_WILDCARD}.{zone}").parse()
        }
    }
}

/// Where a domain leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// To the proxy.
    Here,
    /// Elsewhere, or nowhere.
    Elsewhere(Astray),
    /// Nobody knows: DNS did not answer.
    Unknown(String),
}

/// Where a domain leads that does not lead to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Astray {
    /// It does not exist.
    NoSuchName,
    /// It exists without an alias or an address.
    NoRecord,
    /// It is an alias of what does not exist or has no address.
    DeadAlias(Hostname),
    /// It is an alias of something with other addresses.
    Alias {
        /// The last alias.
        of: Hostname,
        /// Its addresses.
        found: Vec<IpAddr>,
    },
    /// It has other addresses.
    Addresses {
        /// Its addresses.
        found: Vec<IpAddr>,
        /// The proxy's.
        own: Vec<IpAddr>,
    },
    /// Its aliases lead in a circle.
    Loop(Vec<Hostname>),
    /// It has too many of them.
    TooMany(Vec<Hostname>),
}

/// Where a domain leads.
#[must_use]
pub fn leads(evidence: &DomainEvidence) -> Leads {
    let Lookup { aliases, end } = &evidence.lookup;
    let last = aliases.last().cloned();
    Leads::Elsewhere(match (end, last) {
        (LookupEnd::Proxy, _) => return Leads::Here,
        (LookupEnd::Unanswered(why), _) => return Leads::Unknown(why.clone()),
        (LookupEnd::Addresses(found), last) => {
            let own = &evidence.proxy_addresses;
            if !found.is_empty() && found.iter().all(|address| own.contains(address)) {
                return Leads::Here;
            }
            match last {
                Some(of) => Astray::Alias { of, found: found.clone() },
                None => Astray::Addresses { found: found.clone(), own: own.clone() },
            }
        }
        (LookupEnd::NoSuchName | LookupEnd::NoAddress, Some(last)) => Astray::DeadAlias(last),
        (LookupEnd::NoSuchName, None) => Astray::NoSuchName,
        (LookupEnd::NoAddress, None) => Astray::NoRecord,
        (LookupEnd::Loop, _) => Astray::Loop(aliases.clone()),
        (LookupEnd::TooMany, _) => Astray::TooMany(aliases.clone()),
    })
}

/// Where a domain's project proves that it is its own.
#[must_use]
pub fn token_name(domain: &Pattern) -> String {
    format!("_mse-proxy.{}", domain.name())
}

/// What a check of a deployed app's domain has seen; `token` is what must be shown, if anything.
#[must_use]
pub fn seen(evidence: &DomainEvidence, token: Option<&str>) -> Seen {
    let shown = match (token, &evidence.tokens) {
        (None, _) => Seen::Here,
        (Some(_), Tokens::Unanswered(_)) => Seen::Nothing,
        (Some(token), Tokens::Found(texts)) if texts.iter().any(|text| text == token) => Seen::Here,
        (Some(_), Tokens::Found(_)) => Seen::Elsewhere,
    };
    match (leads(evidence), shown) {
        (Leads::Elsewhere(_), _) | (_, Seen::Elsewhere) => Seen::Elsewhere,
        (Leads::Unknown(_), _) | (_, Seen::Nothing) => Seen::Nothing,
        (Leads::Here, Seen::Here) => Seen::Here,
    }
}
