//! The log: what happens to the proxy itself, on standard error.
//!
//! Text for a person at a terminal, JSON for everything else. What happens to connections is the
//! access log's to tell. Lines go through a queue to a thread that writes them: a reader of the log
//! that stands still must not hold up whoever has something to say, and that is also the loop that
//! ends sessions at the end of their route.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::scribe::{Pen, Scribe, Unwritten};
use crate::telemetry::stream::Stream;

/// How many lines may wait. A line has some 200 bytes.
const QUEUE: usize = 4096;
/// How long a process that ends waits for its last lines to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where journald listens.
const JOURNALD: &str = "/run/systemd/journal/socket";
/// Before the path of another place where journald listens.
const JOURNALD_AT: &str = "journald:";

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

/// Where the access log goes: `stdout`, `journald`, `off`, or the absolute path of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Access {
    /// Standard output.
    Stdout,
    /// The journal, by this socket: `journald` is the usual one, `journald:/path` another, as one
    /// of a journal namespace or of the host of a container.
    Journald(PathBuf),
    /// A file, appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let journald = text.strip_prefix(JOURNALD_AT).filter(|path| path.starts_with('/'));
        match (text.as_str(), journald) {
            ("stdout", _) => Ok(Self::Stdout),
            ("off", _) => Ok(Self::Off),
            ("journald", _) => Ok(Self::Journald(PathBuf::from(JOURNALD))),
            (_, Some(path)) => Ok(Self::Journald(PathBuf::from(path))),
            (path, None) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            (other, None) => Err(format!(
                "`{other}` is no place for the access log; write \"stdout\", \"journald\", \"off\" or an absolute path"
            )),
        }
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        match access {
            Access::Stdout => "stdout".into(),
            Access::Off => "off".into(),
            Access::Journald(path) if path == Path::new(JOURNALD) => "journald".into(),
            Access::Journald(path) => format!("{JOURNALD_AT}{}", path.display()),
            Access::File(path) => path.display().to_string(),
        }
    }
}

/// The log of this process, until it is dropped: what was said by then is written out, for as long
/// as a reader that stands still is worth waiting for.
#[derive(Debug)]
pub struct Log {
    lines: Arc<Scribe<Vec<u8>>>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.close(PATIENCE);
    }
}

/// Starts the log of this process, and has panics told in it. There is one: a second is not heard.
///
/// # Errors
/// Standard error, or a thread to write to it, is not to be had.
pub fn start(settings: &Settings) -> io::Result<Log> {
    let level = match settings.level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let stream = io::stderr();
    let file = File::from(stream.as_fd().try_clone_to_owned()?);
    let pen = Stderr { stream: Stream::new(file), bytes: Vec::new() };
    let lines = Arc::new(Scribe::start("log", QUEUE, pen)?);
    let builder = fmt().with_max_level(level).with_target(false).log_internal_errors(false);
    let builder = builder.with_writer(Queue(Arc::clone(&lines)));
    let _ = if settings.format.is_text(&stream) {
        builder.compact().with_ansi(stream.is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let why = panic.payload_as_str().unwrap_or("it does not say why");
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(place, why, trace, "a fault of the proxy");
    }));
    Ok(Log { lines })
}

/// Writes lines to standard error.
struct Stderr {
    stream: Stream,
    bytes: Vec<u8>,
}

impl Pen for Stderr {
    type Item = Vec<u8>;

    fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), Unwritten> {
        self.bytes.clear();
        self.bytes.extend(lines.iter().flatten());
        self.stream.write(&self.bytes)
    }
}

/// Where each event of the log is written to, as a whole.
struct Queue(Arc<Scribe<Vec<u8>>>);

impl MakeWriter<'_> for Queue {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Arc::clone(&self.0))
    }
}

struct Line(Arc<Scribe<Vec<u8>>>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is dropped is counted, and told when there is a reader again.
        let _ = self.0.hand_over(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_access_log_is_written_as_it_was_read() {
        for (text, place) in [
            ("stdout", Access::Stdout),
            ("off", Access::Off),
            ("journald", Access::Journald("/run/systemd/journal/socket".into())),
            ("journald:/run/j", Access::Journald("/run/j".into())),
            ("/var/log/x", Access::File("/var/log/x".into())),
        ] {
            assert_eq!(Access::try_from(text.to_owned()).as_ref(), Ok(&place));
            assert_eq!(String::from(place), text);
        }
        for text in ["", "journal", "journald:", "journald:run/j", "var/log", "stderr"] {
            assert!(Access::try_from(text.to_owned()).unwrap_err().contains("\"journald\""));
        }
    }
}
