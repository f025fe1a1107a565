//! One route file: when it is read, and what it last said.
//!
//! Its routes change only when the whole text was read and is TOML. Until then the last good ones
//! stay, with a fault that says why. Only regular files are opened, and never in a way that could
//! wait for somebody.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::num::NonZero;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use tracing::{debug, info};

use crate::routing::claims::Passage;
use crate::routing::route::Route;
use crate::source::document;
use crate::source::fault::{Fault, FaultKind};
use crate::source::pages::{self, Key, Leaf, Unread};
use crate::source::place::Place;

/// A million routes are about 150 MB of text.
const MAX_SIZE: u64 = 1 << 30;
/// A file that changed this recently is read again in any case: the next change may fall into the
/// same tick of the file system's clock, which is 4 ms on most and 2 s on FAT.
const FRESH: Duration = Duration::from_secs(2);

/// How often a file that changes while it is read is read anew, before it is left alone until the
/// next event: a whole one is read in less than a second.
const ATTEMPTS: usize = 4;
/// A smaller file is parsed before threads for it have started.
const WORTH_THREADS: u64 = 512 << 10;
/// More threads would wait for the disk.
const MOST_THREADS: usize = 8;

/// One route file.
#[derive(Debug)]
pub(super) struct Sheet {
    source: Arc<str>,
    /// How it looked when it was read, if it will look different after the next change.
    seen: Option<Fingerprint>,
    /// Device and inode of what was read last.
    identity: Option<(u64, u64)>,
    key: Key,
    /// The last good text.
    good: Vec<Leaf>,
    /// The text that was parsed last, where that is not the last good one.
    bad: Option<Vec<Leaf>>,
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
            key: Key::default(),
            good: Vec::new(),
            bad: None,
            faults: Vec::new(),
            left_out: 0,
            trouble: None,
        }
    }

    /// Its last good routes.
    pub(super) fn passages(&self) -> impl Iterator<Item = &Passage> {
        self.good.iter().map(|leaf| &leaf.page.passage)
    }

    /// How many routes those are.
    pub(super) fn routes(&self) -> usize {
        self.passages().map(|passage| passage.written().len()).sum()
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
        let mut before = if again { None } else { self.seen };
        for attempt in 1..=ATTEMPTS {
            match self.read(path, before) {
                Ok(None) => return,
                Ok(Some(text)) if text.is_whole => return self.take(text),
                // It is being written: what was read may be a part of it, cut between two routes.
                Ok(Some(_)) if attempt < ATTEMPTS => before = None,
                Ok(Some(_)) => return self.fail(Trouble::Unsettled),
                Err(trouble) => return self.fail(trouble),
            }
        }
    }

    /// Reads the file, unless it looks as it did `before`.
    fn read(&self, path: &Path, before: Option<Fingerprint>) -> Result<Option<Reading>, Trouble> {
        let Some((file, metadata)) = open(path, before)? else { return Ok(None) };
        // At the start nobody else needs the cores; later the data path does.
        let threads = if self.identity.is_none() && metadata.len() > WORTH_THREADS {
            std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS)
        } else {
            1
        };
        let known = self.good.iter().chain(self.bad.iter().flatten());
        // The size is only a hint: the file may grow while it is read.
        let mut text = (&file).take(MAX_SIZE + 1);
        let leaves = pages::read(&mut text, &self.source, &self.key, known, threads)?;
        if text.limit() == 0 {
            return Err(Trouble::TooLarge);
        }
        let after = Fingerprint::from(&file.metadata()?);
        let is_whole = after == Fingerprint::from(&metadata);
        let is_settled = is_whole && !is_fresh(&metadata);
        Ok(Some(Reading {
            leaves,
            fingerprint: is_settled.then_some(after),
            identity: (after.device, after.inode),
            is_whole,
        }))
    }

    fn take(&mut self, text: Reading) {
        let Reading { leaves, fingerprint, identity, .. } = text;
        let before = self.identity.replace(identity);
        let why = match before {
            None => "it is new",
            Some(known) if known != identity => "it was replaced",
            Some(_) => "it was written to",
        };
        self.seen = fingerprint;
        if leaves.is_empty() && self.routes() > 0 {
            return self.fail(Trouble::Hollow);
        }
        let last = self.bad.as_ref().unwrap_or(&self.good);
        let is_same = leaves.len() == last.len()
            && leaves.iter().zip(last).all(|(leaf, known)| leaf.is_like(known));
        if is_same && before.is_some() {
            debug!(file = %self.source, "read again: nothing new");
            self.trouble = None;
            return;
        }
        let (pieces, parsed) = (leaves.len(), leaves.iter().filter(|leaf| leaf.is_fresh).count());
        let is_toml = self.parse(leaves);
        let (routes, faults) = (self.routes(), self.faults.len());
        info!(
            file = %self.source, routes, faults, parsed = is_toml, pieces, fresh = parsed, why,
            "read"
        );
    }

    /// Takes over what a text says, if it is TOML.
    fn parse(&mut self, mut leaves: Vec<Leaf>) -> bool {
        reuse(&self.good, &mut leaves);
        let read = document::bind(leaves.iter().map(|leaf| &leaf.page));
        self.faults = read.faults;
        self.trouble = None;
        self.bad = None;
        if read.parsed {
            self.good = leaves;
            self.left_out = read.left_out;
        } else {
            self.bad = Some(leaves);
        }
        read.parsed
    }

    /// Keeps what was good.
    fn fail(&mut self, trouble: Trouble) {
        // It may come back and look as it did.
        self.seen = None;
        let kept = self.routes();
        let place = Place::of_source(&self.source);
        let (place, kind) = match trouble {
            Trouble::Unread(Unread::Io(error)) => (place, FaultKind::unreadable(&error, kept)),
            Trouble::Unread(Unread::NotUtf8(found)) => {
                (found.place, FaultKind::NotUtf8 { offset: found.offset, kept })
            }
            Trouble::NotAFile(found) => (place, FaultKind::NotAFile { found, kept }),
            Trouble::TooLarge => (place, FaultKind::TooLarge { most: MAX_SIZE, kept }),
            Trouble::Unsettled => (place, FaultKind::Unsettled { kept }),
            Trouble::Hollow => (place, FaultKind::Hollow { kept }),
        };
        self.trouble = Some(Fault { place, kind });
    }
}

/// Puts the routes that are known in the place of equal ones in pieces that were parsed anew, so
/// that what did not change is one value.
fn reuse(known: &[Leaf], leaves: &mut [Leaf]) {
    if known.is_empty() {
        return;
    }
    let addresses = |leaves: &[Leaf]| -> HashSet<usize> {
        leaves.iter().map(|leaf| leaf.page.passage.address()).collect()
    };
    let stay = addresses(leaves);
    let gone = known.iter().filter(|leaf| !stay.contains(&leaf.page.passage.address()));
    let routes = gone.flat_map(|leaf| leaf.page.passage.written()).map(|written| &written.route);
    let routes: HashMap<&str, &Arc<Route>> = routes.map(|route| (&*route.id, route)).collect();
    for leaf in leaves.iter_mut().filter(|leaf| leaf.is_fresh) {
        if let Some(passage) = leaf.page.passage.reusing(|id| routes.get(id).copied()) {
            leaf.page.passage = passage;
        }
    }
}

/// Why a file as a whole cannot be read.
enum Trouble {
    Unread(Unread),
    NotAFile(&'static str),
    TooLarge,
    Unsettled,
    Hollow,
}

impl From<Unread> for Trouble {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unread(Unread::Io(error))
    }
}

/// A file that was read.
struct Reading {
    leaves: Vec<Leaf>,
    /// None, if it may change without looking different: then it must be read again.
    fingerprint: Option<Fingerprint>,
    identity: (u64, u64),
    /// Whether it stayed the same while it was read.
    is_whole: bool,
}

/// Opens a file, unless it looks as it did `before`.
fn open(path: &Path, before: Option<Fingerprint>) -> Result<Option<(File, Metadata)>, Trouble> {
    let metadata = fs::metadata(path)?;
    if before.is_some_and(|before| before == Fingerprint::from(&metadata)) {
        return Ok(None);
    }
    // Opening a pipe would wait for its writer, opening a device may do anything.
    must_be_file(&metadata)?;
    // A pipe may take the file's place just now: never wait, and look again at what was opened.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    must_be_file(&metadata)?;
    if metadata.len() > MAX_SIZE {
        return Err(Trouble::TooLarge);
    }
    Ok(Some((file, metadata)))
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
