//! What can be wrong with routes as they are written down.

use crate::endpoint::EndpointError;
use crate::hostname::HostnameError;
use crate::routing::snapshot::Conflict;
use crate::source::place::Place;
use crate::units::UnitError;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FaultKind,
}

/// What is wrong, what is allowed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The text is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// No such key.
    #[error("`{key}` is not a key{where_}{}", Meant(*nearest))]
    UnknownKey {
        /// What was written.
        key: String,
        /// Of what it is no key, as " of a route".
        where_: &'static str,
        /// The nearest key.
        nearest: Option<&'static str>,
    },
    /// A key or word that a later version knows.
    #[error("`{0}` is not supported by this version of mse-proxy; the route is left out")]
    NotSupported(String),
    /// A value of another type.
    #[error("`{key}` must be {expected}, not {found}")]
    Type {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// A key that every route needs.
    #[error("`{key}` is missing; write {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// How it looks.
        example: &'static str,
    },
    /// An empty list or text.
    #[error("`{0}` is empty; give at least one")]
    Empty(&'static str),
    /// A host that is none.
    #[error("`{host}` is not a host: {why}")]
    Host {
        /// What was written.
        host: String,
        /// What is wrong with it.
        why: HostnameError,
    },
    /// The same host twice in one route.
    #[error("`{0}` is listed twice")]
    RepeatedHost(String),
    /// A backend that is none.
    #[error("`{backend}` is not a backend: {why}")]
    Backend {
        /// What was written.
        backend: String,
        /// What is wrong with it.
        why: EndpointError,
    },
    /// A time without meaning.
    #[error(
        "`{key}` must be an instant with its offset, as 2026-12-24T18:00:00Z or 2026-12-24T19:00:00+01:00"
    )]
    Time {
        /// The key.
        key: &'static str,
    },
    /// A route that could never be live.
    #[error("the route ends at {end}, not after it begins at {start}: it would never be live")]
    NeverLive {
        /// Its `not_before`.
        start: String,
        /// Its `expires_at`.
        end: String,
    },
    /// A length of time that is none.
    #[error("`{key}`: {why}")]
    Period {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: UnitError,
    },
    /// A word that the key does not take.
    #[error("`{word}` is not a {key}; allowed: {}{}", allowed.join(", "), Meant(*nearest))]
    Word {
        /// The key.
        key: &'static str,
        /// What was written.
        word: String,
        /// What it takes.
        allowed: &'static [&'static str],
        /// The nearest of these.
        nearest: Option<&'static str>,
    },
    /// A number out of bounds.
    #[error("`{key}` must be a whole number from {least} to {most}")]
    Number {
        /// The key.
        key: &'static str,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A label that cannot be printed on one line.
    #[error("`{key}` must be 1 to 255 printable characters")]
    Label {
        /// The key.
        key: &'static str,
    },
    /// A protocol name that cannot stand in ALPN.
    #[error("a protocol name has 1 to 255 bytes (RFC 7301), as \"acme-tls/1\"")]
    Protocol,
    /// A route that cannot stand beside another one.
    #[error(transparent)]
    Conflict(Conflict),
    /// A file that cannot be read.
    #[error("cannot be read: {0} (a running proxy keeps its last good routes)")]
    Unreadable(String),
    /// A file that is not text.
    #[error("is not UTF-8 from byte {0} on; its last good routes stay")]
    NotUtf8(usize),
    /// A file that has no bytes and had some before.
    #[error(
        "is empty, which looks half-written: its last good routes stay; to remove every route, leave a comment in the file"
    )]
    Hollow,
    /// A folder without files that had some before.
    #[error(
        "has no *.toml any more, which looks like a missing mount: its last good routes stay; to remove every route, leave one file with a comment"
    )]
    NoFiles,
    /// A file over the limit.
    #[error("has {size} bytes, {most} are allowed; its last good routes stay")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        most: u64,
    },
}

struct Meant(Option<&'static str>);

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |word| write!(f, "; did you mean `{word}`?"))
    }
}
