//! One pair of files: when they are read, and what they last said.
//!
//! They are read only where they look different (device, inode, size, times), or what was wrong may
//! have gone by itself. A bad pair never takes the place of a good one: that one stays, with a fault
//! that says why, until it is mended. Blocking.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use rustls::crypto::CryptoProvider;

use crate::clock::Timestamp;
use crate::proxy::terminate::chain::Chains;
use crate::proxy::terminate::fault::{FaultKind, PairFault};
use crate::proxy::terminate::pair::{File, Pair, Proof};

/// A chain and a key have some kilobytes.
const MAX_SIZE: usize = 1 << 20;
/// A file that changed this recently is read again in any case: the next change may fall into the
/// same tick of the file system's clock.
const FRESH: Duration = Duration::from_secs(2);
/// The usual names of a chain and its key that certbot gives them, in a folder for each.
const CERTBOT: [&str; 2] = ["fullchain.pem", "privkey.pem"];

/// What is known of one pair.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// How the files looked when they were read, if they will look different after a change.
    seen: Option<u64>,
    good: Option<Arc<Pair>>,
    is_proven: bool,
    fault: Option<Box<FaultKind>>,
    /// The number of the last look that found it in its folder.
    pub(super) met: u32,
}

/// What a look at a pair takes.
#[derive(Debug)]
pub(super) struct Glance<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) provider: &'a CryptoProvider,
    pub(super) chains: &'a mut Chains,
    /// Whether keys are believed that say that they belong to their certificate, where there is no
    /// good pair whose place they would take.
    pub(super) believes: bool,
    pub(super) now: Timestamp,
}

impl Leaf {
    pub(super) fn good(&self) -> Option<&Arc<Pair>> {
        self.good.as_ref()
    }

    pub(super) fn fault(&self) -> Option<&FaultKind> {
        self.fault.as_deref()
    }

    /// Whether its good pair was believed and is not proven yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.good.is_some() && !self.is_proven
    }

    /// Reads the pair if it may be another one. Tells whether it is.
    pub(super) fn look(&mut self, file: &File, glance: &mut Glance<'_>) -> bool {
        let (folder, name) = (glance.folder, &*file.name);
        let seen = fingerprint(folder, name);
        if seen.is_some() && seen == self.seen && !self.may_have_gone(glance.now) {
            return false;
        }
        let read = self.read(file, glance);
        // Whatever changed meanwhile is read again.
        self.seen = seen.filter(|_| fingerprint(folder, name) == seen);
        match read {
            Ok(fresh) => {
                self.fault = None;
                let is_other = fresh.is_some();
                self.good = fresh.or(self.good.take());
                is_other
            }
            Err(kind) => {
                self.fault = Some(Box::new(kind));
                false
            }
        }
    }

    /// Another pair than the good one, if that is what it is.
    fn read(
        &mut self,
        file: &File,
        glance: &mut Glance<'_>,
    ) -> Result<Option<Arc<Pair>>, FaultKind> {
        let (folder, name) = (glance.folder, &*file.name);
        let chain = read_file(folder, name)?;
        let key = match read_key(folder, name) {
            Err(FaultKind::Unreadable(Errno::NOENT)) => None,
            key => Some(key?),
        };
        let key = key.as_ref().unwrap_or(&chain);
        let (pair, proof) = Pair::read(file, &chain, key, glance.chains, glance.now)?;
        if self.good.as_deref() == Some(&pair) {
            return Ok(None);
        }
        let is_believed = glance.believes && self.good.is_none() && proof == Proof::Claimed;
        if !is_believed {
            pair.certified(glance.provider)?;
        }
        self.is_proven = !is_believed;
        Ok(Some(Arc::new(pair)))
    }

    /// Proves that a key that was believed belongs to its certificate. Tells whether the pair is
    /// no good after all.
    pub(super) fn prove(&mut self, provider: &CryptoProvider) -> bool {
        let Some(pair) = self.good.as_ref().filter(|_| !self.is_proven) else { return false };
        match pair.certified(provider) {
            Ok(_) => {
                self.is_proven = true;
                false
            }
            Err(kind) => {
                (self.good, self.fault) = (None, Some(Box::new(kind.into())));
                true
            }
        }
    }

    /// Whether its fault may be gone though the files look the same.
    fn may_have_gone(&self, now: Timestamp) -> bool {
        match self.fault() {
            Some(FaultKind::Unreadable(_)) => true,
            // The clock may have been set.
            Some(FaultKind::Pair(PairFault::Expired(end))) => now <= *end,
            Some(FaultKind::Pair(PairFault::NotYet(begin))) => now >= *begin,
            _ => false,
        }
    }
}

/// Where the key may stand if not beside the certificate in its own file; the first that is there.
fn key_names(chain: &OsStr) -> impl Iterator<Item = OsString> {
    let beside = Path::new(chain).with_extension("key").into_os_string();
    let [known, its_key] = CERTBOT;
    let by_certbot = (chain == known).then(|| its_key.into());
    std::iter::once(beside).chain(by_certbot)
}

/// Which chains have their key in a file of this name, if they are there.
pub(super) fn keyed_by(key: &OsStr) -> impl Iterator<Item = OsString> {
    let path = Path::new(key);
    let ends = if path.extension() == Some(OsStr::new("key")) { &["pem", "crt"][..] } else { &[] };
    let [chain, its_key] = CERTBOT;
    let by_certbot = (key == its_key).then(|| chain.into());
    ends.iter().map(move |end| path.with_extension(end).into_os_string()).chain(by_certbot)
}

/// What changes when the files of a pair do. None if they may change without that.
fn fingerprint(folder: BorrowedFd<'_>, chain: &OsStr) -> Option<u64> {
    let look = |name: &OsStr| statat(folder, name, AtFlags::empty()).ok();
    let of_chain = look(chain)?;
    let of_key = key_names(chain).find_map(|name| look(&name));
    let mut hasher = DefaultHasher::new();
    for stat in std::iter::once(&of_chain).chain(&of_key) {
        if is_fresh(stat) {
            return None;
        }
        (stat.st_dev, stat.st_ino, stat.st_size).hash(&mut hasher);
        (stat.st_mtime, stat.st_mtime_nsec).hash(&mut hasher);
        // Whoever may read it now may not have been allowed to before.
        (stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
    }
    Some(hasher.finish())
}

fn is_fresh(stat: &Stat) -> bool {
    let changed =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
    SystemTime::now().duration_since(changed).map_or(true, |age| age < FRESH)
}

fn read_key(folder: BorrowedFd<'_>, chain: &OsStr) -> Result<Vec<u8>, FaultKind> {
    let mut names = key_names(chain);
    loop {
        let name = names.next().ok_or(FaultKind::Unreadable(Errno::NOENT))?;
        match read_file(folder, &name) {
            Err(FaultKind::Unreadable(Errno::NOENT)) => {}
            read => return read,
        }
    }
}

fn read_file(folder: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>, FaultKind> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(folder, name, flags, Mode::empty())?;
    let stat = fstat(file.as_fd())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FaultKind::Unreadable(Errno::INVAL));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > MAX_SIZE {
        return Err(FaultKind::TooLarge);
    }
    // The end is met by the same call that reads the rest.
    let mut text = Vec::with_capacity(size + 1);
    let limit = u64::try_from(MAX_SIZE).unwrap_or(u64::MAX);
    fs::File::from(file).take(limit).read_to_end(&mut text)?;
    Ok(text)
}
