//! Why an app is not admitted, each reason with its remedy, and what is only odd.
//!
//! Values, whose words come from `Display`. The key of the manifest that a reason concerns is told
//! with it, so that whoever has the manifest can show the place.

mod words;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::admission::certificate::ChainError;
use crate::admission::dns::{Astray, token_name};
use crate::clock::Timestamp;
use crate::hostname::{Hostname, Pattern};
use crate::registry::app::Phase;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::source::fault::Shown;
use words::{Found, Listed, Other, Proof, Record, Wait};

/// One reason against an app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing where the manifest says.
    #[error("`{key}`: {} does not exist", Shown(&path.display()))]
    NoFile {
        /// The key.
        key: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something that cannot be read.
    #[error("`{key}`: {} cannot be read; look at its permissions", Shown(&path.display()))]
    UnreadableFile {
        /// The key.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// A file for a folder, or the other way round.
    #[error("`{key}`: {} is a {found}; a {wanted} is needed", Shown(&path.display()))]
    OtherKind {
        /// The key.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// An image that nobody else can reach.
    #[error(
        "the image `{0}` is local; push it to a registry and write that registry's name before \
         it, as \"registry.example/{0}\""
    )]
    LocalImage(String),
    /// An image that may be another one tomorrow.
    #[error("the image `{0}` may change at any time; write a tag other than `latest`, or a digest")]
    LatestImage(String),
    /// An image that the platform does not take.
    #[error("the image `{image}` is not approved here; approved: {}", approved.join(", "))]
    OtherImage {
        /// The image.
        image: String,
        /// What the platform takes.
        approved: Vec<String>,
    },
    /// Two certificates for one app.
    #[error(
        "an app with its own certificate ([cloud.ssl]) cannot have the operator's as well; leave out one of them"
    )]
    TwoCertificates,
    /// A name for which this proxy never ends TLS.
    #[error(
        "this proxy may not end TLS for {host}: ask its operator to list \"*.{zone}\" in \
         terminate.zones, or deploy without --operator-tls"
    )]
    NotTerminated {
        /// The name that the app would have.
        host: Pattern,
        /// The zone that it is generated in.
        zone: Hostname,
    },
    /// A certificate that cannot be read.
    #[error("the certificate: {0}")]
    NoChain(ChainError),
    /// Only for addresses, or for nothing.
    #[error(
        "the certificate is for no DNS name{}; have one issued with {domain} as subjectAltName",
        if *has_addresses { " (its IP addresses do not count)" } else { "" }
    )]
    NoNames {
        /// What it should be for.
        domain: Pattern,
        /// Whether it is for addresses.
        has_addresses: bool,
    },
    /// For others.
    #[error(
        "the certificate does not cover {domain}, only {}; have one issued for it",
        Shown(&names.join(", "))
    )]
    OtherNames {
        /// What it should be for.
        domain: Pattern,
        /// What it is for.
        names: Vec<String>,
    },
    /// The leaf stands further below.
    #[error(
        "certificate {position} of the file is the one for {domain}; write it first, then its issuer, and so on"
    )]
    LeafNotFirst {
        /// Which it is, from 1.
        position: usize,
        /// What it is for.
        domain: Pattern,
    },
    /// Of tomorrow.
    #[error("the certificate is not valid before {not_before}; wait until then, or use another")]
    NotYetValid {
        /// From when on it is.
        not_before: Timestamp,
    },
    /// Of yesterday.
    #[error("certificate {position} of the file ended at {not_after}; have it renewed")]
    Over {
        /// Which, from 1.
        position: usize,
        /// When.
        not_after: Timestamp,
    },
    /// A chain in disorder.
    #[error(
        "certificate {position} was issued by `{}`, but `{}` follows it; write each \
         certificate's issuer right behind it",
        Shown(issuer),
        Shown(found)
    )]
    Disorder {
        /// Which, from 1.
        position: usize,
        /// Who issued it.
        issuer: String,
        /// Who follows.
        found: String,
    },
    /// An issuer that is another of the same name.
    #[error(
        "certificate {position} was not signed by the one behind it, though that has its \
         issuer's name; get the chain anew from whoever issued it"
    )]
    NotSigned {
        /// Which, from 1.
        position: usize,
    },
    /// A chain that stops too early.
    #[error(
        "the chain is incomplete: append the certificate of `{}`, which issued the last one",
        Shown(issuer)
    )]
    Incomplete {
        /// Who is missing.
        issuer: String,
    },
    /// The key of another certificate.
    #[error("the private key is not that of the certificate; use the one it was requested with")]
    OtherKey,
    /// A key that is locked.
    #[error(
        "the private key is locked by a passphrase; unlock it: openssl pkey -in KEY -out UNLOCKED"
    )]
    LockedKey,
    /// No key.
    #[error("there is no private key in the file; it must be PEM, -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// A key that TLS cannot use.
    #[error("the private key cannot be used for TLS; use an RSA, ECDSA or Ed25519 key")]
    UnusableKey,
    /// An end after that of the certificate.
    #[error(
        "`expiration_date` is {asked}, but the certificate ends at {not_after}; give that or an \
         earlier end, or leave it out"
    )]
    BeyondCertificate {
        /// What was asked.
        asked: Timestamp,
        /// When the certificate ends.
        not_after: Timestamp,
    },
    /// A domain that is not the owner's.
    #[error("{domain} belongs to the platform; use a domain of your own")]
    PlatformDomain {
        /// The domain.
        domain: Pattern,
    },
    /// A wildcard where the platform takes none.
    #[error("{0} is a wildcard, which this platform does not allow; give one name")]
    Wildcard(Pattern),
    /// The project is not there.
    #[error("there is no project `{0}`; create it: mse-proxy project create {0}")]
    NoProject(ProjectName),
    /// The project may not deploy.
    #[error("the project `{project}` is suspended since {since}; the operator can resume it")]
    Suspended {
        /// Which.
        project: ProjectName,
        /// Since when.
        since: Timestamp,
    },
    /// Another app has the name.
    #[error(
        "`{project}/{name}` is {phase} already{}; stop it (mse-proxy app stop), or choose another name",
        host.as_ref().map_or_else(String::new, |host| format!(" at {host}"))
    )]
    NameTaken {
        /// Whose the other is.
        project: ProjectName,
        /// Its name.
        name: AppName,
        /// Where it is in its life.
        phase: Phase,
        /// Where it is found.
        host: Option<Pattern>,
    },
    /// Hardware that the project does not have.
    #[error(
        "`{kind}` is not booked; booked: {}; book it: mse-proxy hardware book {kind}",
        Listed(booked)
    )]
    NotBooked {
        /// What was asked for.
        kind: HardwareName,
        /// What there is.
        booked: Vec<HardwareName>,
    },
    /// Hardware that is in use.
    #[error(
        "all {booked} of `{kind}` are in use, by {}; stop one of these, or book more",
        Listed(by)
    )]
    InUse {
        /// What was asked for.
        kind: HardwareName,
        /// How many there are.
        booked: u32,
        /// By whom.
        by: Vec<AppName>,
    },
    /// The domain is in use.
    #[error("{domain} is used by {}; stop it, or use another domain", Other(app.as_ref()))]
    DomainTaken {
        /// Which domain.
        domain: Pattern,
        /// The app, if it is of the same project.
        app: Option<AppName>,
    },
    /// The domain does not lead here.
    #[error("{domain} {}; create {}", Found(found), Record { domain, proxy_name, own })]
    Astray {
        /// Which domain.
        domain: Pattern,
        /// Where it leads.
        found: Astray,
        /// Where it should lead.
        proxy_name: Hostname,
        /// The addresses of that.
        own: Vec<IpAddr>,
    },
    /// The domain does not show the project's token.
    #[error(
        "{domain} {}; create {}. TXT \"{token}\"{}",
        Proof(why, found.as_slice()), token_name(domain), Wait(why)
    )]
    NotProven {
        /// Which domain.
        domain: Pattern,
        /// Why it must.
        why: WhyProof,
        /// What it shows.
        found: Vec<String>,
        /// What it should show.
        token: String,
    },
    /// Nobody knows whether the domain shows the token.
    #[error("DNS does not answer for {}: {why}; try again", token_name(domain))]
    ProofUnanswered {
        /// Which domain.
        domain: Pattern,
        /// What DNS said.
        why: String,
    },
}

/// Why a domain must show its project's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyProof {
    /// Every one must.
    Demanded,
    /// It was another project's until not long ago, and stays reserved until then.
    Reserved(Timestamp),
    /// It overlaps with a domain of another project.
    Overlaps(Pattern),
}

impl Refusal {
    /// The key of the manifest that it concerns.
    #[must_use]
    pub const fn key(&self) -> Option<&'static str> {
        Some(match self {
            // A wish beside the manifest.
            Self::NotTerminated { .. } => return None,
            Self::NoFile { key, .. }
            | Self::UnreadableFile { key, .. }
            | Self::OtherKind { key, .. } => key,
            Self::LocalImage(_) | Self::LatestImage(_) | Self::OtherImage { .. } => "docker",
            Self::NoChain(_)
            | Self::NoNames { .. }
            | Self::OtherNames { .. }
            | Self::LeafNotFirst { .. }
            | Self::NotYetValid { .. }
            | Self::Over { .. }
            | Self::Disorder { .. }
            | Self::NotSigned { .. }
            | Self::Incomplete { .. } => "certificate",
            Self::OtherKey | Self::LockedKey | Self::NoKey | Self::UnusableKey => "private_key",
            Self::BeyondCertificate { .. } => "expiration_date",
            Self::TwoCertificates
            | Self::PlatformDomain { .. }
            | Self::Wildcard(_)
            | Self::DomainTaken { .. }
            | Self::Astray { .. }
            | Self::NotProven { .. }
            | Self::ProofUnanswered { .. } => "domain_name",
            Self::NoProject(_) | Self::Suspended { .. } => "project",
            Self::NameTaken { .. } => "name",
            Self::NotBooked { .. } | Self::InUse { .. } => "hardware",
        })
    }
}
