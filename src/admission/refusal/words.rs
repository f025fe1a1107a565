//! What the reasons are made of, in words.

use std::fmt::{self, Display};
use std::net::IpAddr;

use super::WhyProof;
use crate::admission::dns::{Astray, MAX_ALIASES};
use crate::hostname::{Hostname, Pattern};
use crate::registry::names::AppName;
use crate::source::fault::Shown;

/// Several of a kind, or the word for none.
pub(super) struct Listed<'a, T>(pub(super) &'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for item in self.0 {
            write!(f, "{separator}{item}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Who uses a domain. Other projects' apps are nobody's business.
pub(super) struct Other<'a>(pub(super) Option<&'a AppName>);

impl Display for Other<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(app) => write!(f, "`{app}` of this project"),
            None => f.write_str("another project"),
        }
    }
}

/// What was found where a domain should lead to the proxy.
pub(super) struct Found<'a>(pub(super) &'a Astray);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Astray::NoSuchName => f.write_str("does not exist in DNS"),
            Astray::NoRecord => f.write_str("has neither a CNAME nor an address in DNS"),
            Astray::DeadAlias(of) => write!(f, "is a CNAME of {of}, which leads nowhere"),
            Astray::Alias { of, found } => {
                write!(f, "is a CNAME of {of} ({}), which is not this proxy", Listed(found))
            }
            Astray::Addresses { found, own } if own.is_empty() => {
                write!(f, "has the address {}, and nobody knows the proxy's own", Listed(found))
            }
            Astray::Addresses { found, own } => {
                write!(f, "has the address {}, the proxy has {}", Listed(found), Listed(own))
            }
            Astray::Loop(aliases) => write!(f, "leads in a circle: {}", Listed(aliases)),
            Astray::TooMany(_) => write!(f, "has more than {MAX_ALIASES} CNAMEs in a row"),
        }
    }
}

/// The record to create.
pub(super) struct Record<'a> {
    pub(super) domain: &'a Pattern,
    pub(super) proxy_name: &'a Hostname,
    pub(super) own: &'a [IpAddr],
}

impl Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. CNAME {}.", self.domain, self.proxy_name)?;
        if self.own.is_empty() {
            return Ok(());
        }
        f.write_str(" (or, for an apex")?;
        for address in self.own {
            write!(f, ", {} {address}", if address.is_ipv4() { "A" } else { "AAAA" })?;
        }
        f.write_str(")")
    }
}

/// What must be proven, and what was shown.
pub(super) struct Proof<'a>(pub(super) &'a WhyProof, pub(super) &'a [String]);

impl Display for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            WhyProof::Demanded => f.write_str("must show whose it is")?,
            WhyProof::Reserved(_) => f.write_str("was another project's until not long ago")?,
            WhyProof::Overlaps(other) => write!(f, "overlaps with {other} of another project")?,
        }
        match self.1.first() {
            None => f.write_str(", and shows nothing"),
            Some(text) => write!(f, ", and shows \"{}\"", Shown(text)),
        }
    }
}

/// What else helps.
pub(super) struct Wait<'a>(pub(super) &'a WhyProof);

impl Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            WhyProof::Reserved(until) => write!(f, ", or wait until {until}"),
            WhyProof::Demanded | WhyProof::Overlaps(_) => Ok(()),
        }
    }
}
