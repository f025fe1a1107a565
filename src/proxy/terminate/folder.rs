//! The certificates of a path: read, judged, and kept while they are good.
//!
//! `NAME.pem` holds a chain and its key, or `NAME.key` beside it holds the key. What is looked at
//! again is read only where the files look different, or something was wrong. A bad pair never takes
//! the place of a good one: that one stays, with a fault that says why, until it is mended. Only a
//! pair that is gone from a folder that still has others goes. Blocking: looking is done beside the
//! path of a connection.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustls::crypto::CryptoProvider;
use tracing::{error, info, warn};

use crate::clock::{Clock, Timestamp};
use crate::proxy::terminate::certificates::{Certificates, Trouble};
use crate::proxy::terminate::pair::{Pair, PairFault};
use crate::watch::{Stir, Watch};

/// A chain and a key have some kilobytes.
const MAX_SIZE: u64 = 1 << 20;
/// When the log reminds of an end, in days before it. Programs that renew do so 30 days before.
const REMINDERS: [i64; 4] = [14, 7, 3, 1];
/// How many faults, or reminders, one look writes to the log.
const MAX_LOGGED: usize = 50;

/// What is wrong with the certificates of one file, or with the path as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which file.
    pub file: Arc<str>,
    /// What.
    pub kind: FaultKind,
    /// Whether the last good one stays.
    pub is_kept: bool,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The file or folder cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(Errno),
    /// A file that is too large for a chain and a key.
    #[error("it has more than 1 MiB")]
    TooLarge,
    /// No certificates any more where there were some.
    #[error("it has no *.pem any more, which looks like a missing mount")]
    Hollow,
    /// A pair that cannot answer.
    #[error(transparent)]
    Pair(#[from] PairFault),
}

impl From<io::Error> for FaultKind {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl From<Fault> for Trouble {
    fn from(Fault { file, kind, is_kept }: Fault) -> Self {
        Self { file, why: kind.to_string(), is_kept }
    }
}

/// What changes when a file does.
type Fingerprint = [Option<(u64, u64, i64, i64)>; 2];

/// What is known of one pair.
#[derive(Debug, Default)]
struct Leaf {
    seen: Option<Fingerprint>,
    good: Option<Arc<Pair>>,
    fault: Option<FaultKind>,
}

/// The certificates of a path.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
    leaves: BTreeMap<PathBuf, Leaf>,
    trouble: Option<FaultKind>,
}

impl Folder {
    /// Certificates that nobody has looked at yet.
    #[must_use]
    pub fn new(path: &Path, provider: Arc<CryptoProvider>) -> Self {
        Self { path: path.to_owned(), provider, leaves: BTreeMap::new(), trouble: None }
    }

    /// Looks at every file. Tells whether other certificates are good than before.
    pub fn look(&mut self, now: Timestamp) -> bool {
        let files = list(&self.path);
        let is_hollow = matches!(&files, Ok(files) if files.is_empty());
        self.trouble = match files {
            Err(error) => Some(error.into()),
            Ok(_) if is_hollow && self.leaves.values().any(|leaf| leaf.good.is_some()) => {
                Some(FaultKind::Hollow)
            }
            Ok(files) => {
                let before = self.leaves.len();
                self.leaves.retain(|path, _| files.contains(path));
                let is_less = self.leaves.len() < before;
                let mut is_other = false;
                for file in files {
                    let leaf = self.leaves.entry(file.clone()).or_default();
                    is_other |= leaf.look(&file, &self.provider, now);
                }
                self.trouble = None;
                return is_less || is_other;
            }
        };
        false
    }

    /// Those that are good.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        self.leaves.values().filter_map(|leaf| leaf.good.clone()).collect()
    }

    /// All that is wrong.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let name = |path: &Path| path.display().to_string().into();
        let whole = self.trouble.clone().map(|kind| Fault {
            file: name(&self.path),
            kind,
            is_kept: self.leaves.values().any(|leaf| leaf.good.is_some()),
        });
        let leaves = self.leaves.iter().filter_map(|(path, leaf)| {
            let kind = leaf.fault.clone()?;
            Some(Fault { file: name(path), kind, is_kept: leaf.good.is_some() })
        });
        whole.into_iter().chain(leaves).collect()
    }
}

impl Leaf {
    /// Reads the pair if it may be another one. Tells whether it is.
    fn look(&mut self, path: &Path, provider: &CryptoProvider, now: Timestamp) -> bool {
        let seen = Some([path, &path.with_extension("key")].map(fingerprint));
        if self.seen == seen && self.fault.is_none() {
            return false;
        }
        self.seen = seen;
        match read(path, provider, now) {
            Ok(pair) => {
                self.fault = None;
                let is_other = self.good.as_deref() != Some(&pair);
                if is_other {
                    self.good = Some(Arc::new(pair));
                }
                is_other
            }
            Err(kind) => {
                self.fault = Some(kind);
                false
            }
        }
    }
}

/// The files with certificates: the path itself, or the `*.pem` of a folder.
fn list(path: &Path) -> io::Result<HashSet<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(HashSet::from([path.to_owned()]));
    }
    let mut files = HashSet::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".pem") && !bytes.starts_with(b".") {
            files.insert(path.join(name));
        }
    }
    Ok(files)
}

fn fingerprint(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let of = fs::metadata(path).ok()?;
    Some((of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
}

fn read(path: &Path, provider: &CryptoProvider, now: Timestamp) -> Result<Pair, FaultKind> {
    let chain = read_file(path)?;
    let key = match read_file(&path.with_extension("key")) {
        Err(FaultKind::Unreadable(Errno::NOENT)) => chain.clone(),
        key => key?,
    };
    Ok(Pair::read(&path.display().to_string().into(), &chain, &key, provider, now)?)
}

fn read_file(path: &Path) -> Result<Vec<u8>, FaultKind> {
    let of = fs::metadata(path)?;
    if !of.is_file() {
        return Err(FaultKind::Unreadable(Errno::INVAL));
    }
    if of.len() > MAX_SIZE {
        return Err(FaultKind::TooLarge);
    }
    Ok(fs::read(path)?)
}

/// Looks again whenever the path may have changed, for ever, and says through `is_in` when the
/// first look is over.
pub async fn keep(
    folder: Folder,
    certificates: Certificates,
    clock: Arc<dyn Clock>,
    is_in: tokio::sync::oneshot::Sender<()>,
) {
    let stir = Stir::default();
    let mut is_in = Some(is_in);
    let (mut known, mut reminded) = (HashSet::new(), HashSet::new());
    let (mut watch, mut folder) = (Watch::new(&folder.path, &stir), folder);
    loop {
        let (publishing, now) = (certificates.clone(), clock.now());
        let looked = tokio::task::spawn_blocking(move || {
            let patience = watch.arm();
            if folder.look(now) {
                let pairs = folder.pairs();
                info!(certificates = pairs.len(), "certificates were read");
                publishing.publish(pairs);
            }
            (watch, folder, patience)
        });
        let patience;
        (watch, folder, patience) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                return error!(%error, "certificates cannot be looked at any more; those that are in stay");
            }
        };
        let troubles: Vec<Trouble> = folder.faults().into_iter().map(Trouble::from).collect();
        tell(&mut known, &troubles);
        certificates.tell(troubles);
        remind(&mut reminded, &certificates.pairs(), clock.now());
        if let Some(is_in) = is_in.take() {
            // Whoever waits may have given up.
            let _ = is_in.send(());
        }
        stir.wait(patience).await;
    }
}

/// Logs what was not known before.
fn tell(known: &mut HashSet<String>, troubles: &[Trouble]) {
    let mut now = HashSet::new();
    for Trouble { file, why, is_kept } in troubles {
        let line = format!("{file}: {why}");
        if !known.contains(&line) && now.len() < MAX_LOGGED {
            warn!(%file, is_kept, "a certificate cannot answer: {why}");
        }
        now.insert(line);
    }
    let mended = known.difference(&now).count();
    if mended > 0 {
        info!(mended, left = now.len(), "faults of certificates were mended");
    }
    *known = now;
}

/// Logs, once at each stage, that the end of a certificate comes near.
fn remind(reminded: &mut HashSet<(Arc<str>, Timestamp, i64)>, pairs: &[Arc<Pair>], now: Timestamp) {
    let mut near = HashSet::new();
    // The nearest ends come last.
    for pair in pairs.iter().rev() {
        let left = pair.not_after.duration_since(now).as_hours().div_euclid(24);
        let Some(stage) = REMINDERS.into_iter().rev().find(|days| left < *days) else { break };
        let key = (Arc::clone(&pair.file), pair.not_after, stage);
        if !reminded.contains(&key) && near.len() < MAX_LOGGED {
            warn!(file = %pair.file, not_after = %pair.not_after, days = left, "a certificate ends soon");
        }
        near.insert(key);
    }
    *reminded = near;
}
