//! The manifest of an app (`mse.toml`): from text to a value that cannot be wrong, or to
//! everything that is wrong with the text.
//!
//! Only what stands in the text is judged here, and whether its end date is still to come. Whether
//! files exist, certificates fit and the platform agrees are other rooms' questions; the places of
//! the keys are kept for their answers. Pure: the time is an argument.

mod date;
mod fault;
mod image;
mod keys;
mod reading;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::source::place::Place;

pub use date::DateError;
pub use fault::{Fault, FaultKind, Warning, WarningKind};
pub use image::{Image, ImageError};
pub use keys::Key;
pub use reading::{MAX_TEXT, Reading, read};

/// What an app owner asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What the app is called within its project.
    pub name: AppName,
    /// The module and the variable that serve it.
    pub python_application: String,
    /// The path that answers once the app is ready.
    pub healthcheck_endpoint: String,
    /// What runs its tests.
    pub tests_cmd: String,
    /// What its tests need.
    pub tests_requirements: Vec<String>,
    /// Where and with what it runs.
    pub cloud: Cloud,
}

/// Where and with what an app runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The folder of its code.
    pub code: PathBuf,
    /// The folder of its tests.
    pub tests: PathBuf,
    /// The image that it runs in.
    pub docker: Image,
    /// Whose app it is.
    pub project: ProjectName,
    /// On what it runs.
    pub hardware: HardwareName,
    /// The end that its owner asks for; after the instant at which the manifest was read.
    pub expiration_date: Option<Timestamp>,
    /// A file of secrets.
    pub secrets: Option<PathBuf>,
    /// The owner's own domain and certificate.
    pub ssl: Option<Ssl>,
}

/// An owner's own domain and certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// The domain: a name, or a wildcard of one label.
    pub domain_name: Pattern,
    /// The file of the private key.
    pub private_key: PathBuf,
    /// The file of the certificate with its chain.
    pub certificate: PathBuf,
}

/// Where the keys of a manifest stand.
pub type Places = BTreeMap<&'static str, Place>;
