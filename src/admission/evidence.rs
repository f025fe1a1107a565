//! The facts that a verdict rests on, as others found them. What nobody has asked is absent, and
//! is then not judged.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::admission::certificate::{Chain, ChainError, KeyFinding, Roots};
use crate::hostname::Hostname;
use crate::registry::app::App;
use crate::registry::domain::Domain;
use crate::registry::hardware::Seats;
use crate::registry::project::Project;
use crate::routing::zones::Zones;

/// What was found outside of the store.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What is where the manifest says.
    pub files: Option<Vec<FileFact>>,
    /// The owner's certificate.
    pub certificate: Option<Result<Chain, ChainError>>,
    /// Whether the owner's key is that of the certificate.
    pub key: Option<KeyFinding>,
    /// The roots that clients know.
    pub roots: Roots,
    /// What DNS says of the owner's domain.
    pub domain: Option<DomainEvidence>,
    /// Where this proxy may end TLS.
    pub zones: Zones,
}

/// What is at a path of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// The key that names it.
    pub key: &'static str,
    /// Where it was looked for.
    pub path: PathBuf,
    /// What is there.
    pub found: Found,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A file that can be read.
    File,
    /// A folder.
    Folder,
    /// Nothing.
    Nothing,
    /// Something that cannot be read.
    Unreadable,
}

/// What DNS says of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvidence {
    /// Where it leads.
    pub lookup: Lookup,
    /// The addresses of the proxy itself; none if nobody knows them.
    pub proxy_addresses: Vec<IpAddr>,
    /// The texts under `_mse-proxy.<domain>`.
    pub tokens: Tokens,
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The names that it is an alias of, one after the other.
    pub aliases: Vec<Hostname>,
    /// What is at the end of them.
    pub end: LookupEnd,
}

/// What is at the end of aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupEnd {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// The name of the proxy, beyond which nobody looked.
    Proxy,
    /// A name that does not exist.
    NoSuchName,
    /// A name without addresses.
    NoAddress,
    /// A name that was there before.
    Loop,
    /// More aliases than anybody follows.
    TooMany,
    /// Nothing that says anything: DNS did not answer.
    Unanswered(String),
}

/// The texts that prove whose a domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tokens {
    /// These, perhaps none.
    Found(Vec<String>),
    /// DNS did not answer.
    Unanswered(String),
}

/// What the store holds that concerns a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    /// The project, if there is one of that name.
    pub project: Option<Project>,
    /// All of its seats that are booked or taken.
    pub seats: Vec<Seats>,
    /// Its last deployment of that name.
    pub app: Option<App>,
    /// The domains, of whatever project, that overlap with the one asked for.
    pub domains: Vec<Domain>,
}
