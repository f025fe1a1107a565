//! What is odd about an app that is admitted all the same.

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::source::fault::Shown;

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// An end that free hardware does not have.
    #[error("free hardware runs for 4 hours whatever is asked: the end is {ends_at}, not {asked}")]
    FreeEnd {
        /// What was asked.
        asked: Timestamp,
        /// What is given.
        ends_at: Timestamp,
    },
    /// A common name that is not the domain.
    #[error(
        "the certificate's common name is {}, not {domain}; old clients look only there",
        common_name.as_ref().map_or_else(
            || "absent".to_owned(),
            |name| format!("`{}`", Shown(name)),
        )
    )]
    CommonName {
        /// What it is.
        common_name: Option<String>,
        /// What it should be.
        domain: Pattern,
    },
    /// A certificate that ends soon.
    #[error("the certificate ends at {not_after}, in less than 7 days; the app ends with it")]
    EndsSoon {
        /// When.
        not_after: Timestamp,
    },
    /// A certificate that nobody else issued.
    #[error("the certificate is its own issuer; clients do not trust it unless they are told to")]
    SelfSigned,
    /// A chain whose root is not known here.
    #[error(
        "`{}`, which issued the last certificate of the chain, is no root that is known here; \
         clients must know it, or another certificate is missing",
        Shown(issuer)
    )]
    UnknownRoot {
        /// Who issued the last one.
        issuer: String,
    },
    /// A key where only certificates belong.
    #[error("the certificate's file holds a private key too; take it out, the file is sent")]
    KeyBeside,
    /// A domain of which DNS said nothing.
    #[error("DNS does not answer for {domain}: {why}; nothing is forwarded until it leads here")]
    Unanswered {
        /// Which.
        domain: Pattern,
        /// What DNS said.
        why: String,
    },
}

impl Warning {
    /// The key of the manifest that it concerns.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::FreeEnd { .. } => "expiration_date",
            Self::CommonName { .. }
            | Self::EndsSoon { .. }
            | Self::SelfSigned
            | Self::UnknownRoot { .. }
            | Self::KeyBeside => "certificate",
            Self::Unanswered { .. } => "domain_name",
        }
    }
}
