//! The certificates of some paths: read, judged, and kept while they are good.
//!
//! A path is one file, or a folder with very many. Only a pair that is gone from a folder that still
//! has others goes; a folder that has none any more looks like a missing mount. Blocking: looking is
//! done beside the path of a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, statat};
use rustls::crypto::CryptoProvider;

use crate::clock::Timestamp;
use crate::proxy::terminate::certificates::Trouble;
use crate::proxy::terminate::chain::Chains;
use crate::proxy::terminate::fault::FaultKind;
use crate::proxy::terminate::leaf::{self, Glance, Leaf};
use crate::proxy::terminate::pair::{File, Pair};

/// How often a long first look tells what it has found so far, at most.
const TELL: Duration = Duration::from_millis(100);
/// Telling takes at most a fifth of its time.
const REST: u32 = 4;
/// What stands in a folder beside a chain that its makers always call so, and is none.
const BESIDE: [(&str, &[&str]); 2] = [
    // certbot
    ("fullchain.pem", &["cert.pem", "chain.pem", "privkey.pem"]),
    // Kubernetes
    ("tls.crt", &["ca.crt"]),
];

/// What is wrong with the certificates of one file, or with a path as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which file.
    pub file: File,
    /// What.
    pub kind: FaultKind,
    /// Whether the last good one stays.
    pub is_kept: bool,
}

impl From<Fault> for Trouble {
    fn from(Fault { file, kind, is_kept }: Fault) -> Self {
        Self { file, why: kind.to_string(), is_kept }
    }
}

/// The certificates of some paths.
#[derive(Debug)]
pub struct Folders {
    roots: Vec<Root>,
    provider: Arc<CryptoProvider>,
    chains: Chains,
    /// How many looks there were.
    looks: u32,
    /// Pairs that are believed, by the place of their path and their name in it.
    unproven: Vec<(usize, Arc<OsStr>)>,
}

/// One path.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    is_folder: bool,
    /// The path itself, or where its file lies.
    folder: Arc<Path>,
    /// The same without links, as it was at the last look; unknown, if that failed.
    real: Option<PathBuf>,
    leaves: BTreeMap<Arc<OsStr>, Leaf>,
    trouble: Option<FaultKind>,
}

/// One look, and whom it tells on the way what it has found so far.
struct Look<'a> {
    number: u32,
    now: Timestamp,
    is_first: bool,
    found: Vec<Arc<Pair>>,
    telling: &'a mut dyn FnMut(Vec<Arc<Pair>>),
    /// When that is done again.
    due: Instant,
}

impl Folders {
    /// Certificates that nobody has looked at yet.
    #[must_use]
    pub fn new(paths: &[PathBuf], provider: Arc<CryptoProvider>) -> Self {
        let roots = paths.iter().map(|path| Root::new(path)).collect();
        Self { roots, provider, chains: Chains::default(), looks: 0, unproven: Vec::new() }
    }

    /// Looks for the first time: keys that say that they belong to their certificates are believed
    /// until they are proven. Tells now and then what it has found so far.
    pub fn look_first(&mut self, now: Timestamp, telling: &mut dyn FnMut(Vec<Arc<Pair>>)) -> bool {
        let is_other = self.look_at_all(now, true, telling);
        for (place, root) in self.roots.iter().enumerate() {
            let unproven = root.leaves.iter().filter(|(_, leaf)| leaf.is_unproven());
            self.unproven.extend(unproven.map(|(name, _)| (place, Arc::clone(name))));
        }
        is_other
    }

    /// Looks at every file. Tells whether other certificates are good than before.
    pub fn look(&mut self, now: Timestamp) -> bool {
        self.look_at_all(now, false, &mut |_| {})
    }

    /// Looks only at the pairs that these files belong to. Tells nothing if that may not be all that
    /// changed: then everything must be looked at.
    pub fn look_at(&mut self, touched: &BTreeSet<PathBuf>, now: Timestamp) -> Option<bool> {
        let mut wanted = vec![BTreeSet::new(); self.roots.len()];
        for path in touched {
            let (folder, name) = (path.parent()?, path.file_name()?);
            let mut is_ours = false;
            for (root, wanted) in self.roots.iter().zip(&mut wanted) {
                if root.real.as_deref() == Some(folder) {
                    wanted.extend(root.pairs_of(name)?);
                    is_ours = true;
                }
            }
            if !is_ours {
                return None;
            }
        }
        if touched.is_empty() || self.roots.iter().any(|root| root.trouble.is_some()) {
            return None;
        }
        self.looks = self.looks.wrapping_add(1);
        let mut nobody = |_| {};
        let mut look = Look::new(self.looks, now, &mut nobody);
        let mut is_other = false;
        for (root, wanted) in self.roots.iter_mut().zip(wanted) {
            is_other |= root.look_at(&wanted, &mut look, &self.provider, &mut self.chains);
        }
        self.chains.tidy();
        Some(is_other)
    }

    fn look_at_all(
        &mut self,
        now: Timestamp,
        is_first: bool,
        telling: &mut dyn FnMut(Vec<Arc<Pair>>),
    ) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let mut look = Look { is_first, ..Look::new(self.looks, now, telling) };
        let mut is_other = false;
        for root in &mut self.roots {
            is_other |= root.look(&mut look, &self.provider, &mut self.chains);
        }
        self.chains.tidy();
        is_other
    }

    /// Whether keys are left that are only believed.
    #[must_use]
    pub fn has_unproven(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// Proves keys that are only believed, for so long. Tells whether any pair is no good after all.
    pub fn prove(&mut self, longest: Duration) -> bool {
        let began = Instant::now();
        let mut is_other = false;
        while began.elapsed() < longest
            && let Some((place, name)) = self.unproven.pop()
        {
            let leaf = self.roots.get_mut(place).and_then(|root| root.leaves.get_mut(&name));
            is_other |= leaf.is_some_and(|leaf| leaf.prove(&self.provider));
        }
        is_other
    }

    /// Those that are good.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        let leaves = self.roots.iter().flat_map(|root| root.leaves.values());
        leaves.filter_map(Leaf::good).cloned().collect()
    }

    /// All that is wrong.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.roots.iter().flat_map(Root::faults).collect()
    }
}

impl Root {
    fn new(path: &Path) -> Self {
        let (path, folder) = (path.to_owned(), path.into());
        Self { path, is_folder: false, folder, real: None, leaves: BTreeMap::new(), trouble: None }
    }

    /// Which pairs a file of the folder belongs to. Nothing, if others may as well be concerned.
    fn pairs_of(&self, name: &OsStr) -> Option<Vec<OsString>> {
        let found = fs::symlink_metadata(self.folder.join(name)).ok();
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            return None;
        }
        let is_known = |name: &OsStr| self.leaves.contains_key(name);
        let mut pairs: Vec<_> = leaf::keyed_by(name).filter(|name| is_known(name)).collect();
        let is_chain = self.is_folder && is_chain(name, |word| is_known(OsStr::new(word)));
        if is_known(name) {
            // One that is gone from a folder without others stays.
            found?;
            pairs.push(name.into());
        } else if is_chain && found.is_some() {
            // One that is new may say what others are.
            if BESIDE.iter().any(|(word, _)| name == *word) {
                return None;
            }
            pairs.push(name.into());
        }
        Some(pairs)
    }

    /// Looks at these pairs alone.
    fn look_at(
        &mut self,
        names: &BTreeSet<OsString>,
        look: &mut Look<'_>,
        provider: &CryptoProvider,
        chains: &mut Chains,
    ) -> bool {
        let opened = match fs::File::open(&self.folder) {
            Ok(opened) => opened,
            Err(error) => {
                // Everything is looked at next time.
                self.trouble = Some(error.into());
                return false;
            }
        };
        let mut glance =
            Glance { folder: opened.as_fd(), provider, chains, believes: false, now: look.now };
        let mut is_other = false;
        for name in names {
            is_other |= meet(&mut self.leaves, &self.folder, name, look, &mut glance);
        }
        is_other
    }

    fn look(
        &mut self,
        look: &mut Look<'_>,
        provider: &CryptoProvider,
        chains: &mut Chains,
    ) -> bool {
        let looked = self.try_look(look, provider, chains);
        self.trouble = looked.as_ref().err().cloned();
        looked.unwrap_or(false)
    }

    fn try_look(
        &mut self,
        look: &mut Look<'_>,
        provider: &CryptoProvider,
        chains: &mut Chains,
    ) -> Result<bool, FaultKind> {
        self.real = None;
        self.is_folder = fs::metadata(&self.path)?.is_dir();
        let parent = self.path.parent().filter(|parent| *parent != Path::new(""));
        let folder = if self.is_folder { &*self.path } else { parent.unwrap_or(Path::new(".")) };
        if *self.folder != *folder {
            self.folder = folder.into();
        }
        let opened = fs::File::open(folder)?;
        let real = fs::canonicalize(folder)?;
        let believes = look.is_first;
        let mut glance =
            Glance { folder: opened.as_fd(), provider, chains, believes, now: look.now };
        let mut is_other = false;
        let mut count = 0;
        let mut meet = |name: &OsStr| {
            count += 1;
            is_other |= meet(&mut self.leaves, &self.folder, name, look, &mut glance);
        };
        if self.is_folder {
            let has = |name: &str| statat(&opened, name, AtFlags::empty()).is_ok();
            let words = BESIDE.map(|(word, _)| has(word).then_some(word));
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if is_chain(name, |word| words.contains(&Some(word))) {
                    meet(name);
                }
            }
        } else {
            meet(self.path.file_name().unwrap_or_default());
        }
        if count == 0 && self.has_good() {
            return Err(FaultKind::Hollow);
        }
        let before = self.leaves.len();
        self.leaves.retain(|_, leaf| leaf.met == look.number);
        self.real = Some(real);
        Ok(is_other || self.leaves.len() < before)
    }

    fn has_good(&self) -> bool {
        self.leaves.values().any(|leaf| leaf.good().is_some())
    }

    fn faults(&self) -> impl Iterator<Item = Fault> {
        let whole = self.trouble.clone().map(|kind| Fault {
            file: File { folder: self.path.as_path().into(), name: OsStr::new("").into() },
            kind,
            is_kept: self.has_good(),
        });
        let leaves = self.leaves.iter().filter_map(|(name, leaf)| {
            let (folder, name) = (Arc::clone(&self.folder), Arc::clone(name));
            let kind = leaf.fault()?.clone();
            Some(Fault { file: File { folder, name }, kind, is_kept: leaf.good().is_some() })
        });
        whole.into_iter().chain(leaves)
    }
}

/// Whether a file of a folder that has these others is a chain, by its name.
fn is_chain(name: &OsStr, has: impl Fn(&str) -> bool) -> bool {
    let bytes = name.as_bytes();
    let is_none = |none: &[&str]| none.iter().any(|none| name == *none);
    (bytes.ends_with(b".pem") || bytes.ends_with(b".crt"))
        && !bytes.starts_with(b".")
        && !BESIDE.iter().any(|(word, none)| is_none(none) && has(word))
}

/// Looks at one pair of a folder. Tells whether it is another one.
fn meet(
    leaves: &mut BTreeMap<Arc<OsStr>, Leaf>,
    folder: &Arc<Path>,
    name: &OsStr,
    look: &mut Look<'_>,
    glance: &mut Glance<'_>,
) -> bool {
    let name = leaves.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
    let leaf = leaves.entry(Arc::clone(&name)).or_default();
    leaf.met = look.number;
    let is_other = leaf.look(&File { folder: Arc::clone(folder), name }, glance);
    if look.is_first {
        look.found.extend(leaf.good().cloned());
        look.tell();
    }
    is_other
}

impl<'a> Look<'a> {
    fn new(number: u32, now: Timestamp, telling: &'a mut dyn FnMut(Vec<Arc<Pair>>)) -> Self {
        let due = Instant::now() + TELL;
        Self { number, now, is_first: false, found: Vec::new(), telling, due }
    }

    /// Tells what was found so far, if that is due.
    fn tell(&mut self) {
        let now = Instant::now();
        if now >= self.due {
            (self.telling)(self.found.clone());
            self.due = Instant::now() + TELL.max(now.elapsed() * REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::terminate::policies::provider;
    use rcgen::{CertificateParams, Issuer, KeyPair};
    use std::os::unix::fs::symlink;

    /// A folder, and somebody who issues certificates into it.
    struct Desk {
        folder: tempfile::TempDir,
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Desk {
        fn new() -> Self {
            let (params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
            let pem = params.self_signed(&key).unwrap().pem();
            let folder = tempfile::tempdir().unwrap();
            Self { folder, issuer: Issuer::new(params, key), pem }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        fn issue(&self, name: &str, [chain, key]: [&str; 2]) {
            let (params, own) = (CertificateParams::new([name.to_owned()]), KeyPair::generate());
            let own = own.unwrap();
            let leaf = params.unwrap().signed_by(&own, &self.issuer).unwrap().pem();
            fs::write(self.path(key), own.serialize_pem()).unwrap();
            fs::write(self.path(chain), leaf + &self.pem).unwrap();
        }

        fn looked_at(&self) -> Folders {
            let mut folders = Folders::new(&[self.folder.path().to_owned()], provider());
            folders.look_first(Timestamp::now(), &mut |_| {});
            folders
        }
    }

    fn look_at(folders: &mut Folders, paths: &[PathBuf]) -> Option<bool> {
        folders.look_at(&paths.iter().cloned().collect(), Timestamp::now())
    }

    #[test]
    fn what_changed_alone_is_looked_at_where_that_is_all() {
        let desk = Desk::new();
        desk.issue("a.test", ["a.pem", "a.key"]);
        desk.issue("b.test", ["b.pem", "b.key"]);
        let mut folders = desk.looked_at();
        let of = |names: &[&str]| names.iter().map(|name| desk.path(name)).collect::<Vec<_>>();
        assert_eq!(look_at(&mut folders, &of(&["a.pem", "a.key"])), Some(false));
        // Nobody told of the other one.
        desk.issue("a.test", ["a.pem", "a.key"]);
        desk.issue("b.test", ["b.pem", "b.key"]);
        assert_eq!(look_at(&mut folders, &of(&["a.key", "new", "new.pem"])), Some(true));
        assert_eq!(look_at(&mut folders, &of(&["a.pem"])), Some(false));
        assert_eq!(look_at(&mut folders, &of(&["b.pem"])), Some(true));
        desk.issue("c.test", ["c.crt", "c.key"]);
        assert_eq!(look_at(&mut folders, &of(&["c.key"])), Some(false));
        assert_eq!(look_at(&mut folders, &of(&["c.crt"])), Some(true));
        assert_eq!(folders.pairs().len(), 3);
        // A fault of one is told, and what was good stays.
        fs::write(desk.path("a.pem"), "").unwrap();
        assert_eq!(look_at(&mut folders, &of(&["a.pem"])), Some(false));
        assert_eq!((folders.faults().len(), folders.pairs().len()), (1, 3));
    }

    #[test]
    fn everything_is_looked_at_where_more_may_have_changed() {
        let desk = Desk::new();
        desk.issue("a.test", ["a.pem", "a.key"]);
        desk.issue("b.test", ["b.pem", "b.key"]);
        let mut folders = desk.looked_at();
        assert_eq!(look_at(&mut folders, &[]), None);
        assert_eq!(look_at(&mut folders, &[desk.path("")]), None);
        assert_eq!(look_at(&mut folders, &["/elsewhere/a.pem".into()]), None);
        symlink("a.pem", desk.path("..data")).unwrap();
        assert_eq!(look_at(&mut folders, &[desk.path("..data")]), None);
        fs::remove_file(desk.path("a.pem")).unwrap();
        assert_eq!(look_at(&mut folders, &[desk.path("a.pem")]), None);
        assert!(folders.look(Timestamp::now()));
        assert_eq!(folders.pairs().len(), 1);
        // It makes others no pairs.
        desk.issue("c.test", ["fullchain.pem", "privkey.pem"]);
        assert_eq!(look_at(&mut folders, &[desk.path("fullchain.pem")]), None);
        assert!(folders.look(Timestamp::now()));
        assert_eq!((folders.faults().len(), folders.pairs().len()), (0, 2));
        desk.issue("c.test", ["fullchain.pem", "privkey.pem"]);
        assert_eq!(look_at(&mut folders, &[desk.path("privkey.pem")]), Some(true));
        // A folder that seems to be gone is not given up by halves.
        for name in ["b.pem", "fullchain.pem", "privkey.pem"] {
            fs::remove_file(desk.path(name)).unwrap();
        }
        assert!(!folders.look(Timestamp::now()));
        assert_eq!((folders.faults().len(), folders.pairs().len()), (1, 2));
        desk.issue("b.test", ["b.pem", "b.key"]);
        assert_eq!(look_at(&mut folders, &[desk.path("b.pem")]), None);
    }

    #[test]
    fn the_first_look_believes_and_proves_later_and_tells_on_its_way() {
        let desk = Desk::new();
        for number in 0..20 {
            let names = [format!("{number}.pem"), format!("{number}.key")];
            desk.issue("a.test", names.each_ref().map(String::as_str));
        }
        let mut folders = Folders::new(&[desk.folder.path().to_owned()], provider());
        let mut told = Vec::new();
        let mut telling = |found: Vec<Arc<Pair>>| told.push(found.len());
        let mut look = Look::new(1, Timestamp::now(), &mut telling);
        look.due = Instant::now();
        look.tell();
        look.tell();
        assert_eq!(told, [0], "no sooner than after a rest");
        assert!(folders.look_first(Timestamp::now(), &mut |_| {}));
        assert!(folders.has_unproven());
        // A pause may come at any key.
        while folders.has_unproven() {
            assert!(!folders.prove(Duration::from_micros(1)));
        }
        assert_eq!(folders.pairs().len(), 20);
    }
}
