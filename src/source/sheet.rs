//! One route file: when it is read, and what it last said.
//!
//! Its routes change only when the whole text was read and is TOML. Until then the last good ones
//! stay, with a fault that says why. Only regular files are opened, and never in a way that could
//! wait for somebody.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use tracing::{debug, info};

use crate::routing::route::Claim;
use crate::source::document;
use crate::source::fault::{Fault, FaultKind};
use crate::source::place::{Place, Text};

/// A million routes are about 150 MB of text.
const MAX_SIZE: u64 = 1 << 30;
/// A file that changed this recently is read again in any case: the next change may fall into the
/// same tick of the file system's clock, which is 4 ms on most and 2 s on FAT.
const FRESH: Duration = Duration::from_secs(2);

/// One route file.
#[derive(Debug)]
pub(super) struct Sheet {
    source: Arc<str>,
    /// How it looked when it was read, if it will look different after the next change.
    seen: Option<Fingerprint>,
    /// Device and inode of what was read last.
    identity: Option<(u64, u64)>,
    /// Of the bytes that `claims` and `faults` come from.
    digest: Option<(usize, u64)>,
    claims: Vec<Claim>,
    faults: Vec<Fault>,
    left_out: usize,
    /// Why the file as a whole could not be read at the last look.
    trouble: Option<Fault>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Sheet {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            source: path.display().to_string().into(),
            seen: None,
            identity: None,
            digest: None,
            claims: Vec::new(),
            faults: Vec::new(),
            left_out: 0,
            trouble: None,
        }
    }

    /// Its last good routes.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// How many routes of the text that was parsed last are not among those.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// What is wrong with it now: of a file that cannot be read nothing else is known.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.trouble.as_ref().map_or_else(|| self.faults.clone(), |fault| vec![fault.clone()])
    }

    /// Reads the file if it may have changed, or in any case if `again`.
    pub(super) fn look(&mut self, path: &Path, again: bool) {
        let before = if again { None } else { self.seen };
        match open(path, before) {
            Ok(None) => {}
            Ok(Some(opened)) => self.take(opened),
            Err(trouble) => {
                // It may come back and look as it did.
                self.seen = None;
                self.fail(None, trouble);
            }
        }
    }

    fn take(&mut self, opened: Opened) {
        let Opened { fingerprint, identity, bytes } = opened;
        let why = match self.identity.replace(identity) {
            None => "it is new",
            Some(known) if known != identity => "it was replaced",
            Some(_) => "it was written to",
        };
        self.seen = fingerprint;
        if bytes.is_empty() && !self.claims.is_empty() {
            return self.fail(None, Trouble::Hollow);
        }
        let digest = Some(digest(&bytes));
        if digest == self.digest {
            debug!(file = %self.source, "read again: nothing new");
            self.trouble = None;
            return;
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.parse(text, why),
            Err(error) => {
                let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
                self.fail(Some(good), Trouble::NotUtf8);
                return;
            }
        }
        self.digest = digest;
    }

    fn parse(&mut self, text: &str, why: &str) {
        let read = document::read(&self.source, text);
        if read.parsed {
            self.claims = read.claims;
            self.left_out = read.left_out;
        }
        self.faults = read.faults;
        self.trouble = None;
        let (routes, faults) = (self.claims.len(), self.faults.len());
        info!(file = %self.source, routes, faults, parsed = read.parsed, why, "read");
    }

    /// Keeps what was good. `before` is the text before the place of the trouble.
    fn fail(&mut self, before: Option<&[u8]>, trouble: Trouble) {
        let kept = self.claims.len();
        let before = before.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let place = before.map_or_else(
            || Place::of_source(&self.source),
            |text| Text::new(&self.source, text).place(text.len()..text.len()),
        );
        let kind = match trouble {
            Trouble::Unreadable(error) => FaultKind::unreadable(&error, kept),
            Trouble::NotAFile(found) => FaultKind::NotAFile { found, kept },
            Trouble::TooLarge => FaultKind::TooLarge { most: MAX_SIZE, kept },
            Trouble::Hollow => FaultKind::Hollow { kept },
            Trouble::NotUtf8 => FaultKind::NotUtf8 { offset: before.map_or(0, str::len), kept },
        };
        self.trouble = Some(Fault { place, kind });
    }
}

/// Why a file as a whole cannot be read.
enum Trouble {
    Unreadable(io::Error),
    NotAFile(&'static str),
    TooLarge,
    Hollow,
    NotUtf8,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// A file that was read.
struct Opened {
    /// None, if it may change without looking different: then it must be read again.
    fingerprint: Option<Fingerprint>,
    identity: (u64, u64),
    bytes: Vec<u8>,
}

/// Reads a file, unless it looks as it did `before`.
fn open(path: &Path, before: Option<Fingerprint>) -> Result<Option<Opened>, Trouble> {
    let metadata = fs::metadata(path)?;
    if before.is_some_and(|before| before == Fingerprint::from(&metadata)) {
        return Ok(None);
    }
    // Opening a pipe would wait for its writer, opening a device may do anything.
    must_be_file(&metadata)?;
    // A pipe may take the file's place just now: never wait, and look again at what was opened.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    must_be_file(&metadata)?;
    if metadata.len() > MAX_SIZE {
        return Err(Trouble::TooLarge);
    }
    let mut bytes = Vec::new();
    // The size is only a hint: the file may grow while it is read.
    bytes.reserve_exact(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    (&mut file).take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_SIZE {
        return Err(Trouble::TooLarge);
    }
    let after = Fingerprint::from(&file.metadata()?);
    let is_settled = after == Fingerprint::from(&metadata) && !is_fresh(&metadata);
    let identity = (after.device, after.inode);
    Ok(Some(Opened { fingerprint: is_settled.then_some(after), identity, bytes }))
}

fn must_be_file(metadata: &Metadata) -> Result<(), Trouble> {
    let kind: FileType = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Trouble::NotAFile(found))
}

fn is_fresh(metadata: &Metadata) -> bool {
    // Unlike the time of modification, the time of change cannot be set by a program.
    let changed =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    // A time in the future (the clock was set back) is fresh as well.
    SystemTime::now().duration_since(changed).map_or(true, |age| age < FRESH)
}

fn digest(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
