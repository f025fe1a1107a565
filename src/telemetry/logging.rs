//! The log: what happens to the proxy itself, on standard error.
//!
//! Text for a person at a terminal, JSON for everything else. What happens to connections is the
//! access log's to tell.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// The section `log` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is told: everything at least this important.
    pub level: Level,
    /// In which form.
    pub format: Format,
    /// Where the access log goes.
    pub access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Auto, access: Access::Stdout }
    }
}

/// The least important thing that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    Off,
    /// Faults of the proxy.
    Error,
    /// What somebody should look at.
    Warn,
    /// What changed.
    Info,
    /// Every session.
    Debug,
    /// Everything.
    Trace,
}

/// The form of log and access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Format {
    /// Whether output to a stream should be text.
    #[must_use]
    pub fn is_text(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Auto => stream.is_terminal(),
            Self::Text => true,
            Self::Json => false,
        }
    }
}

/// Where the access log goes: `stdout`, `off`, or the absolute path of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Access {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            path if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            other => Err(format!(
                "`{other}` is no place for the access log; write \"stdout\", \"off\" or an absolute path"
            )),
        }
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        match access {
            Access::Stdout => "stdout".into(),
            Access::Off => "off".into(),
            Access::File(path) => path.display().to_string(),
        }
    }
}

/// Starts the log of this process. Does nothing if there is one already.
pub fn start(settings: &Settings) {
    let level = match settings.level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let stream = std::io::stderr();
    let builder = fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let _ = if settings.format.is_text(&stream) {
        builder.compact().with_ansi(stream.is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

/// How many ids one line of the log names.
const NAMED: usize = 20;

/// The first few of a list of ids, and how many more there are.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a>(pub &'a [Arc<str>]);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.len())?;
        for (index, id) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{id}", if index == 0 { ": " } else { ", " })?;
        }
        if self.0.len() > NAMED { write!(f, " …") } else { Ok(()) }
    }
}
