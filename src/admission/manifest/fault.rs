//! What can be wrong with a manifest as it is written, and what is only odd.
//!
//! Values, whose words come from `Display`: what is wrong, what is allowed, the nearest valid key,
//! what to write instead. What was written is shown without control characters and cut.

use std::fmt::{self, Display};

use crate::admission::manifest::date::DateError;
use crate::admission::manifest::image::ImageError;
use crate::admission::manifest::keys::Key;
use crate::hostname::HostnameError;
use crate::registry::names::NameError;
use crate::source::fault::{Meant, Shown};
use crate::source::place::Place;

/// One thing that is wrong: there is no manifest until it is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FaultKind,
}

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: WarningKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The text is no TOML.
    #[error("this is no TOML: {}", Shown(_0))]
    NotToml(String),
    /// A value that is no TOML value. The text around it is sound.
    #[error("the value of `{}` is no TOML: {}", Shown(key), Shown(why))]
    NotAValue {
        /// The key.
        key: String,
        /// What the TOML parser says.
        why: String,
    },
    /// More text than any manifest has.
    #[error("the text has more than {most} bytes, which no manifest has")]
    TooLong {
        /// The limit.
        most: usize,
    },
    /// A value of another type.
    #[error("`{word}` must be {expected}, not {found}; write {word} = {}", .key.example, word = .key.word)]
    Type {
        /// The key.
        key: &'static Key,
        /// What it takes.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// A required key that is not there.
    #[error("`{word}` is missing; write {word} = {}{}", .0.example, Under(.0.section), word = .0.word)]
    Missing(&'static Key),
    /// The section that every manifest has.
    #[error("the section [cloud] is missing; it holds code, tests, docker, project and hardware")]
    NoCloud,
    /// A section that is something else.
    #[error("`{0}` is a section; write its keys under [{0}]")]
    NotASection(&'static str),
    /// A key where older manifests had it.
    #[error(
        "`{}` stands where older manifests had it; write {} = {}{}",
        Shown(written), .key.word, Shown(value), Under(.key.section)
    )]
    Moved {
        /// The key as it was written, with its section.
        written: String,
        /// What it is now.
        key: &'static Key,
        /// Its value.
        value: String,
    },
    /// Both places of the certificate.
    #[error("[ssl] and [cloud.ssl] are both there, and mean the same; keep [cloud.ssl] alone")]
    BothSsl,
    /// A name that is none.
    #[error("`{key}`: {why}; write 1 to {most} printable characters")]
    Name {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: NameError,
        /// The limit.
        most: usize,
    },
    /// No text in a key that needs one.
    #[error("`{word}` is empty; write {word} = {}", .0.example, word = .0.word)]
    Empty(&'static Key),
    /// Something that names no Python variable.
    #[error("`{}` is not module:variable; write \"app:app\" for `app` in app.py", Shown(_0))]
    PythonApplication(String),
    /// A path that cannot be asked for.
    #[error("`{}` {why}; write the path of a GET without parameters, as \"/health\"", Shown(path))]
    Healthcheck {
        /// What was written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An image that is none.
    #[error("`{}` is not an image: {why}; write \"registry.example/image:20230710\"", Shown(image))]
    Image {
        /// What was written.
        image: String,
        /// What is wrong with it.
        why: ImageError,
    },
    /// An end date that is none.
    #[error("`expiration_date`: {0}")]
    Date(DateError),
    /// A domain that is none.
    #[error("`{}` is not a domain: {why}; write a name, as \"app.example.com\"", Shown(domain))]
    Domain {
        /// What was written.
        domain: String,
        /// What is wrong with it.
        why: HostnameError,
    },
    /// A wildcard that no certificate can cover.
    #[error("a certificate covers one label at most: write \"*.{0}\", or one name")]
    AnyDepth(crate::hostname::Hostname),
}

/// What is odd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarningKind {
    /// A key that is not known here.
    #[error(
        "`{}` is not known and does nothing{}",
        Shown(key),
        Meant { nearest: *nearest, else_one_of: allowed }
    )]
    UnknownKey {
        /// What was written.
        key: String,
        /// The nearest key.
        nearest: Option<&'static str>,
        /// All keys that may stand there.
        allowed: Vec<&'static str>,
    },
    /// A key in the wrong place that stands in the right one as well.
    #[error("`{}` does nothing here: it is given{}", Shown(key), Under(section))]
    Repeated {
        /// What was written.
        key: String,
        /// The section in which it counts.
        section: &'static str,
    },
    /// The certificate where older manifests had it.
    #[error("[ssl] is taken for [cloud.ssl]; write [cloud.ssl], which every tool understands")]
    TopLevelSsl,
    /// A date without an offset.
    #[error(
        "`expiration_date` has no offset and is taken for UTC: {0}; write the offset to be sure"
    )]
    NoOffset(crate::clock::Timestamp),
    /// A path that holds on one machine only.
    #[error("`{0}` is an absolute path; one relative to this file works on other machines too")]
    AbsolutePath(&'static str),
}

/// Where a key belongs.
struct Under<'a>(&'a str);

impl Display for Under<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str(" above the first section"),
            section => write!(f, " under [{section}]"),
        }
    }
}
