//! What a backend was seen to show, and what is to be said of it.
//!
//! An app's certificate is the word of its enclave, so whatever is odd about it is told: another
//! leaf than before, a name that it does not cover, an end before the app's, one leaf for two apps
//! (browsers then use one connection for both names). No route outlives the certificate that its
//! backend shows.

use serde::{Deserialize, Serialize};

use crate::admission::certificate::{Chain, Quote};
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::digest::pin;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::written;

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

/// Something to be said of what a backend shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// It shows another leaf than before.
    #[error("the certificate is another one than before: its key is {now}, it was {before}")]
    Changed {
        /// The key's digest.
        now: String,
        /// That of the one before.
        before: String,
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
    #[error(
        "`{project}/{app}` shows the same certificate; browsers will use one connection for both"
    )]
    Shared {
        /// Whose the other app is.
        project: ProjectName,
        /// The other app.
        app: AppName,
    },
    /// It carries what is no quote, or that of another enclave.
    #[error("{}", match .0 {
        Quote::OtherKey => "the certificate carries the quote of an enclave that has another key",
        _ => "the certificate carries what is too short to be the quote of an enclave",
    })]
    Quote(Quote),
}

/// What is to be said of a chain that was seen for these hosts, whose route ends then.
#[must_use]
pub fn notices(
    hosts: &[Pattern],
    ends_at: Option<Timestamp>,
    chain: &Chain,
    before: Option<&Sight>,
    now: Timestamp,
) -> Vec<Notice> {
    let (leaf, seen) = (&chain.leaf, Sight::from(chain));
    let mut notices = Vec::new();
    if let Some(before) = before.filter(|before| before.leaf != seen.leaf) {
        notices.push(Notice::Changed { now: seen.key, before: before.key.clone() });
    }
    let uncovered = hosts.iter().filter(|host| !leaf.covers(host));
    notices.extend(uncovered.cloned().map(Notice::NotCovered));
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

/// The other apps that show the same leaf.
#[must_use]
pub fn shared<'a>(
    seen: &Sight,
    others: impl IntoIterator<Item = (&'a ProjectName, &'a AppName, &'a Sight)>,
) -> Vec<Notice> {
    let same = others.into_iter().filter(|(_, _, other)| other.leaf == seen.leaf);
    same.map(|(project, app, _)| Notice::Shared { project: project.clone(), app: app.clone() })
        .collect()
}

/// The end of a route whose backend shows this.
#[must_use]
pub fn cap(ends_at: Option<Timestamp>, seen: &Sight) -> Timestamp {
    ends_at.map_or(seen.not_after, |ends_at| ends_at.min(seen.not_after))
}
