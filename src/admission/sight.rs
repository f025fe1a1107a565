//! What a backend was seen to show, and what is to be said of it.
//!
//! An app's certificate is the word of its enclave, so whatever is odd about it is told: another
//! leaf than before, a name that it does not cover, an end before the app's, one leaf for two apps
//! (browsers then use one connection for both names).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::admission::certificate::{Chain, Quote};
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::digest::pin;
use crate::registry::written;
use crate::routing::termination::KeyDigest;

/// What is kept of a certificate that a backend showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The digest of the leaf.
    pub leaf: String,
    /// The digest of its key (`SubjectPublicKeyInfo`), as `pin` takes it.
    pub key: String,
    /// The first instant at which it is valid.
    #[serde(with = "written")]
    pub not_before: Timestamp,
    /// The last one.
    #[serde(with = "written")]
    pub not_after: Timestamp,
    /// The quote of an enclave.
    pub quote: Quote,
}

impl From<&Chain> for Sight {
    fn from(chain: &Chain) -> Self {
        let leaf = &chain.leaf;
        Self {
            leaf: pin(&leaf.der),
            key: pin(&leaf.key),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            quote: leaf.quote,
        }
    }
}

/// The digest of the key that a backend showed.
#[must_use]
pub fn key_of(chain: &Chain) -> KeyDigest {
    let digest = digest(&SHA256, &chain.leaf.key);
    let mut key = [0; 32];
    key.iter_mut().zip(digest.as_ref()).for_each(|(own, byte)| *own = *byte);
    KeyDigest(key)
}

/// Something to be said of what a backend shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// It shows another leaf than before.
    #[error("the certificate is another one than before: its key is {now}, it was {before}")]
    Changed {
        /// The key's digest.
        now: KeyDigest,
        /// That of the one before.
        before: KeyDigest,
    },
    /// It shows a leaf for other names.
    #[error("the certificate does not cover {0}")]
    NotCovered(Pattern),
    /// It shows a leaf that is not valid yet.
    #[error("the certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    /// It shows a leaf that ends before the route does.
    #[error("the certificate ends at {not_after}, before the route ({ends_at})")]
    EndsBefore {
        /// When it ends.
        not_after: Timestamp,
        /// When the route ends.
        ends_at: Timestamp,
    },
    /// It shows a leaf that ended.
    #[error("the certificate ended at {0}")]
    Over(Timestamp),
    /// It shows the leaf of another app.
    #[error("`{with}` shows the same certificate; browsers will use one connection for both")]
    Shared {
        /// The other app, or the id of the other route.
        with: Arc<str>,
    },
    /// Its key is not the one that its route is pinned to.
    #[error("the key is {now}, and the route is pinned to {pin}: nobody is led there")]
    OtherKey {
        /// The key's digest.
        now: KeyDigest,
        /// The pin.
        pin: KeyDigest,
    },
    /// It carries what is no quote, or that of another enclave.
    #[error("{}", match .0 {
        Quote::OtherKey => "the certificate carries the quote of an enclave that has another key",
        _ => "the certificate carries what is too short to be the quote of an enclave",
    })]
    Quote(Quote),
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another leaf than before. It tells of a moment; the others stand until they are mended.
    Changed,
    /// A name that is not covered.
    NotCovered,
    /// A leaf that is not valid yet.
    NotYetValid,
    /// An end before the route's.
    EndsBefore,
    /// A leaf that ended.
    Over,
    /// One leaf for two apps.
    Shared,
    /// What is no quote, or another enclave's.
    Quote,
    /// A key that is not the pinned one.
    OtherKey,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Changed,
        Self::NotCovered,
        Self::NotYetValid,
        Self::EndsBefore,
        Self::Over,
        Self::Shared,
        Self::Quote,
        Self::OtherKey,
    ];

    /// Its place among all.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether it stands until it is mended, and does not tell of a moment alone.
    #[must_use]
    pub const fn stands(self) -> bool {
        !matches!(self, Self::Changed)
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::NotCovered => "not_covered",
            Self::NotYetValid => "not_yet_valid",
            Self::EndsBefore => "ends_before",
            Self::Over => "over",
            Self::Shared => "shared",
            Self::Quote => "quote",
            Self::OtherKey => "other_key",
        }
    }
}

impl Notice {
    /// What it is about.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Changed { .. } => Kind::Changed,
            Self::NotCovered(_) => Kind::NotCovered,
            Self::NotYetValid(_) => Kind::NotYetValid,
            Self::EndsBefore { .. } => Kind::EndsBefore,
            Self::Over(_) => Kind::Over,
            Self::Shared { .. } => Kind::Shared,
            Self::Quote(_) => Kind::Quote,
            Self::OtherKey { .. } => Kind::OtherKey,
        }
    }
}

/// What is to be said of a chain that was seen for these hosts, whose route ends then.
#[must_use]
pub fn notices(
    hosts: &[Pattern],
    ends_at: Option<Timestamp>,
    chain: &Chain,
    now: Timestamp,
) -> Vec<Notice> {
    let leaf = &chain.leaf;
    let uncovered = hosts.iter().filter(|host| !leaf.covers(host));
    let mut notices: Vec<_> = uncovered.cloned().map(Notice::NotCovered).collect();
    if leaf.not_before > now {
        notices.push(Notice::NotYetValid(leaf.not_before));
    }
    let not_after = leaf.not_after;
    if not_after <= now {
        notices.push(Notice::Over(not_after));
    } else if let Some(ends_at) = ends_at.filter(|ends_at| not_after < *ends_at) {
        notices.push(Notice::EndsBefore { not_after, ends_at });
    }
    match leaf.quote {
        Quote::Absent | Quote::ThisKey => {}
        odd @ (Quote::Malformed | Quote::OtherKey) => notices.push(Notice::Quote(odd)),
    }
    notices
}
