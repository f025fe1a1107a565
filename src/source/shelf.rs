//! The route files of one path, and what was last good in each.
//!
//! Reading is idempotent: a [`Shelf`] is asked to look again as often as somebody suspects a
//! change, and opens only files whose fingerprint moved. Nothing here empties the table by
//! accident: a file that vanished, is unreadable, half-written or no TOML keeps its last good
//! routes and says so; only a file that is gone from a folder that still has others takes its
//! routes with it. Blocking: to be called where that is allowed.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::routing::route::Claim;
use crate::routing::snapshot::Snapshot;
use crate::source::document;
use crate::source::fault::{Fault, FaultKind};
use crate::source::place::Place;

/// A million routes are about 150 MB of text.
const MAX_SIZE: u64 = 1 << 30;
/// A file that changed this recently is read again in any case: the next change may fall into the
/// same tick of the file system's clock.
const FRESH: Duration = Duration::from_secs(2);

/// The route files of one path.
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    strict: bool,
    files: BTreeMap<PathBuf, Sheet>,
    /// What is wrong with the path itself.
    faults: Vec<Fault>,
    /// With `strict`: the last set without a fault.
    last_good: Vec<Claim>,
}

/// One file.
#[derive(Debug, Default)]
struct Sheet {
    fingerprint: Option<Fingerprint>,
    claims: Vec<Claim>,
    faults: Vec<Fault>,
    left_out: usize,
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

impl Shelf {
    pub(super) fn new(path: PathBuf, strict: bool) -> Self {
        Self { path, strict, files: BTreeMap::new(), faults: Vec::new(), last_good: Vec::new() }
    }

    /// Looks at every file, opens those that changed (all of them, if `again`), and tells what is
    /// wanted now.
    pub(super) fn look(&mut self, again: bool) -> (Vec<Claim>, Vec<Fault>) {
        self.faults.clear();
        match list(&self.path) {
            Ok(files)
                if files.is_empty()
                    && self.files.values().any(|sheet| !sheet.claims.is_empty()) =>
            {
                self.complain(FaultKind::NoFiles);
            }
            Ok(files) => {
                self.files.retain(|path, _| files.contains(path));
                for path in files {
                    self.files.entry(path.clone()).or_default().look(&path, again);
                }
            }
            Err(error) => self.complain(FaultKind::Unreadable(error.to_string())),
        }
        self.gather()
    }

    /// How many routes are left out because something is wrong with them.
    pub(super) fn left_out(&self) -> usize {
        self.files.values().map(|sheet| sheet.left_out).sum()
    }

    fn complain(&mut self, kind: FaultKind) {
        let place = Place::of_source(&self.path.display().to_string().into());
        self.faults.push(Fault { place, kind });
    }

    fn gather(&mut self) -> (Vec<Claim>, Vec<Fault>) {
        let sheets = self.files.values();
        let claims: Vec<_> = sheets.clone().flat_map(|sheet| &sheet.claims).cloned().collect();
        let faults = self.faults.iter().chain(sheets.flat_map(|sheet| &sheet.faults));
        let mut faults: Vec<_> = faults.cloned().collect();
        if !self.strict {
            return (claims, faults);
        }
        let (_, conflicts) = Snapshot::build(claims.iter().cloned());
        faults.extend(conflicts.into_iter().map(|(claim, conflict)| Fault {
            place: Place::of_origin(&claim.origin),
            kind: FaultKind::Conflict(conflict),
        }));
        if faults.is_empty() {
            self.last_good.clone_from(&claims);
        }
        (self.last_good.clone(), faults)
    }
}

/// The files of a path: itself, or the `*.toml` of a folder by name.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "toml") && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Sheet {
    fn look(&mut self, path: &Path, again: bool) {
        let source: Arc<str> = path.display().to_string().into();
        if let Err(kind) = self.try_look(path, &source, again) {
            // The next look tries again, whatever the fingerprint says then.
            self.fingerprint = None;
            self.faults = vec![Fault { place: Place::of_source(&source), kind }];
        }
    }

    fn try_look(&mut self, path: &Path, source: &Arc<str>, again: bool) -> Result<(), FaultKind> {
        let unreadable = |error: io::Error| FaultKind::Unreadable(error.to_string());
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            // Opening a pipe would wait for its writer.
            return Err(FaultKind::Unreadable("it is no regular file".to_owned()));
        }
        let fingerprint = Fingerprint::from(&metadata);
        if !again && self.fingerprint == Some(fingerprint) && !is_fresh(&metadata) {
            return Ok(());
        }
        if metadata.len() > MAX_SIZE {
            return Err(FaultKind::TooLarge { size: metadata.len(), most: MAX_SIZE });
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        if bytes.is_empty() && !self.claims.is_empty() {
            return Err(FaultKind::Hollow);
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| FaultKind::NotUtf8(error.utf8_error().valid_up_to()))?;
        let read = document::read(source, &text);
        self.fingerprint = Some(fingerprint);
        if read.parsed {
            self.claims = read.claims;
            self.left_out = read.left_out;
        }
        self.faults = read.faults;
        Ok(())
    }
}

fn is_fresh(metadata: &Metadata) -> bool {
    let changed =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    // A time in the future (the clock was set back) is fresh as well.
    SystemTime::now().duration_since(changed).map_or(true, |age| age < FRESH)
}
