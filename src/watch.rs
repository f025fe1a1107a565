//! Noticing that a path may have changed.
//!
//! Directories are watched, never files: a file's own watch dies with the first atomic rename or
//! symlink swap. Every directory that takes part in resolving the path is watched, the target's as
//! well as those of the links on the way, and armed again whenever another one takes its place.
//! What inotify does not tell (network file systems, a limit of the system) is found by looking:
//! now and then in any case, every second where something cannot be watched.
//!
//! A change is looked at when the burst of changes in which it came is over. A file that is written
//! in place may be cut between two routes until then, and in a folder a route may be on its way from
//! one file to another: whoever looked too early would drop routes. Only where the path is one file
//! and another file or link takes its place by a rename, what is there is whole from the first
//! moment on, and is looked at at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

/// A burst of changes is over when nothing came for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst is not waited for any longer than this.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Network file systems tell nothing: look now and then in any case.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Where something cannot be watched.
const LOOK_OFTEN: Duration = Duration::from_secs(1);
/// The kernel follows at most 40 links (`path_resolution(7)`).
const MAX_LINKS: usize = 40;
/// Directories that are watched for one path. Only a folder full of links into other folders has
/// more; they count against the user's `fs.inotify.max_user_watches`.
const MAX_WATCHED: usize = 256;
/// So many changes are kept apart. Whoever makes more at a time has everything looked at.
const MAX_TOUCHED: usize = 4096;
/// How often arming starts anew because the path led elsewhere meanwhile. Who moves it faster than
/// that is looked at every second.
const MAX_ATTEMPTS: usize = 4;

/// Which inode a directory was: device and number.
type Identity = (u64, u64);

/// Watches the directories of some paths. Blocking.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    watcher: Option<INotifyWatcher>,
    stir: Stir,
    /// What is watched, and which directory stood there when it was armed.
    armed: BTreeMap<PathBuf, Identity>,
    is_blind: bool,
}

/// Tells when the path should be looked at.
#[derive(Debug, Clone, Default)]
pub struct Stir(Arc<State>);

#[derive(Debug, Default)]
struct State {
    changed: Notify,
    /// Whether a whole new file is there.
    is_whole: AtomicBool,
    /// By whose renaming that happens.
    turns: Mutex<BTreeSet<PathBuf>>,
    /// What changed, where somebody wants to know.
    touched: Option<Mutex<Touched>>,
}

/// Paths that changed, or more than anybody wants to look at one by one.
#[derive(Debug, Default)]
struct Touched {
    paths: BTreeSet<PathBuf>,
    is_anything: bool,
}

impl Touched {
    fn add(&mut self, paths: Vec<PathBuf>) {
        self.paths.extend(paths);
        if self.paths.len() > MAX_TOUCHED {
            self.add_anything();
        }
    }

    fn add_anything(&mut self) {
        (self.is_anything, self.paths) = (true, BTreeSet::new());
    }
}

impl Watch {
    /// Watches these paths, once it is armed.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>, stir: &Stir) -> Self {
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self {
            paths: paths.into_iter().map(whole).collect(),
            watcher: None,
            stir: stir.clone(),
            armed: BTreeMap::new(),
            is_blind: false,
        }
    }

    /// Watches the directories that the path leads through now, and tells after how long it should
    /// be looked at in any case. To be called before each look at the files, so that no change
    /// falls between the two.
    pub fn arm(&mut self) -> Duration {
        let outcome = self.try_arm();
        let was_blind = std::mem::replace(&mut self.is_blind, outcome.is_err());
        match outcome {
            Ok(()) if was_blind => info!(path = %Shown(&self.paths), "can be watched again"),
            Err(error) if !was_blind => {
                let path = Shown(&self.paths);
                warn!(%path, %error, "cannot be watched: it is looked at every second instead");
            }
            Ok(()) | Err(_) => {}
        }
        if self.is_blind { LOOK_OFTEN } else { LOOK_EVERY }
    }

    fn try_arm(&mut self) -> notify::Result<()> {
        let mut wanted = Way::of_all(&self.paths);
        for _ in 0..MAX_ATTEMPTS {
            self.arm_these(&wanted.directories)?;
            // A link may have been turned before its directory was watched.
            let now = Way::of_all(&self.paths);
            if now == wanted {
                let is_all = now.directories.len() < MAX_WATCHED;
                *self.stir.0.turns.lock().unwrap_or_else(PoisonError::into_inner) = now.turns;
                return if is_all {
                    Ok(())
                } else {
                    Err(notify::Error::new(ErrorKind::MaxFilesWatch))
                };
            }
            wanted = now;
        }
        Err(notify::Error::generic("it leads elsewhere every time"))
    }

    fn arm_these(&mut self, wanted: &BTreeMap<PathBuf, Identity>) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => none.insert(watcher(&self.stir)?),
        };
        self.armed.retain(|path, identity| {
            let stays = wanted.get(path) == Some(identity);
            if !stays {
                // One that was removed has taken its watch along.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        for (path, identity) in wanted {
            // Also those that are armed: `notify` drops the watch of a directory that is moved
            // away, even if it comes back. Watching one twice is one watch.
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.armed.insert(path.clone(), *identity)),
                // It vanished just now, which the next attempt will see.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Paths, in a line.
struct Shown<'a>(&'a [PathBuf]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if place > 0 { ", " } else { "" }, path.display())?;
        }
        Ok(())
    }
}

fn watcher(stir: &Stir) -> notify::Result<INotifyWatcher> {
    let stir = stir.clone();
    let notice = move |event: notify::Result<Event>| stir.notice(event);
    INotifyWatcher::new(notice, notify::Config::default())
}

/// Whether an event can mean other content. Reading the files must not wake the reader.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

impl Stir {
    /// One that also notes what changed.
    #[must_use]
    pub fn noting() -> Self {
        Self(Arc::new(State { touched: Some(Mutex::default()), ..State::default() }))
    }

    fn notice(&self, event: notify::Result<Event>) {
        let state = &self.0;
        let is_lost = event.as_ref().map_or(true, Event::need_rescan);
        match &event {
            Ok(event) if !is_change(event.kind) => return,
            Ok(Event {
                kind: EventKind::Modify(ModifyKind::Name(RenameMode::To)), paths, ..
            }) => {
                let turns = state.turns.lock().unwrap_or_else(PoisonError::into_inner);
                if paths.last().is_some_and(|path| turns.contains(path)) {
                    state.is_whole.store(true, Ordering::Release);
                }
            }
            Ok(_) | Err(_) => {}
        }
        if let Some(touched) = &state.touched {
            let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(event) if !is_lost && !event.paths.is_empty() => touched.add(event.paths),
                Ok(_) | Err(_) => touched.add_anything(),
            }
        }
        state.changed.notify_one();
    }

    /// What changed since this was asked last; nothing, if that may be anything.
    pub fn touched(&self) -> BTreeSet<PathBuf> {
        let Some(touched) = &self.0.touched else { return BTreeSet::new() };
        let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
        let Touched { paths, is_anything } = std::mem::take(&mut *touched);
        if is_anything { BTreeSet::new() } else { paths }
    }

    /// Waits until something changed and is whole, or the burst of changes is over, or for so long.
    pub async fn wait(&self, longest: Duration) {
        tokio::select! {
            () = self.0.changed.notified() => {}
            () = sleep(longest) => return,
        }
        let end = Instant::now() + LONGEST_BURST;
        while !self.0.is_whole.swap(false, Ordering::AcqRel) {
            tokio::select! {
                biased;
                () = sleep_until(end) => return,
                () = self.0.changed.notified() => {}
                () = sleep(QUIET) => return,
            }
        }
    }
}

/// How a path leads to what is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    /// The directories in which a change can change that.
    directories: BTreeMap<PathBuf, Identity>,
    /// If it is one file: that, and the links on the way.
    turns: BTreeSet<PathBuf>,
}

impl Way {
    /// The ways of all paths. What several files say together is never whole by one of them.
    fn of_all(paths: &[PathBuf]) -> Self {
        if let [path] = paths {
            return Self::of(path);
        }
        let mut all = Self::default();
        for (directory, identity) in paths.iter().flat_map(|path| Self::of(path).directories) {
            if all.directories.len() < MAX_WATCHED {
                all.directories.insert(directory, identity);
            }
        }
        all
    }

    fn of(path: &Path) -> Self {
        let mut way = Self::default();
        let end = way.follow(path);
        if let Some(folder) = end.filter(|end| end.is_dir()) {
            way.add(&folder);
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                    way.follow(&entry.path());
                }
            }
            way.turns.clear();
        }
        way
    }

    /// Walks a path as the kernel does, and adds the directory of each link on the way and that of
    /// the end; where something is missing, the directory in which it would appear. Gives the end.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut rest: Vec<OsString> = steps(path);
        let mut links = 0;
        while let Some(step) = rest.pop() {
            if step == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&step);
            let Ok(metadata) = fs::symlink_metadata(&next) else {
                self.add(&at);
                return None;
            };
            if metadata.is_symlink() {
                self.add(&at);
                self.turns.insert(next.clone());
                links += 1;
                let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
                if target.has_root() {
                    at = PathBuf::from("/");
                }
                rest.extend(steps(&target));
                continue;
            }
            if rest.is_empty() {
                self.add(&at);
                self.turns.insert(next.clone());
            }
            at = next;
        }
        Some(at)
    }

    fn add(&mut self, directory: &Path) {
        if self.directories.len() < MAX_WATCHED
            && let Ok(metadata) = fs::metadata(directory)
        {
            self.directories.insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }
}

/// What a path says, last word first.
fn steps(path: &Path) -> Vec<OsString> {
    let words = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    words.map(OsStr::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn watched(path: &Path) -> Vec<PathBuf> {
        Way::of(path).directories.into_keys().collect()
    }

    #[test]
    fn every_directory_that_can_turn_the_path_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("mount/..v1")).unwrap();
        fs::write(root.join("mount/..v1/routes.toml"), "").unwrap();
        symlink("..v1", root.join("mount/..data")).unwrap();
        symlink("..data/routes.toml", root.join("mount/routes.toml")).unwrap();
        symlink("mount", root.join("link")).unwrap();
        let mount = [root.join("mount"), root.join("mount/..v1")];
        assert_eq!(watched(&root.join("mount/routes.toml")), mount);
        // A folder: itself, where it lies, and where its links lead.
        assert_eq!(watched(&root.join("mount")), [&[root.clone()][..], &mount].concat());
        let through_link = root.join("link/../link/routes.toml");
        assert_eq!(watched(&through_link), [&[root.clone()][..], &mount].concat());
    }

    #[test]
    fn what_is_missing_is_awaited_where_it_would_appear() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let alone = std::slice::from_ref(&root);
        assert_eq!(watched(&root.join("a/b/routes.toml")), alone);
        symlink("elsewhere/routes.toml", root.join("dangling.toml")).unwrap();
        assert_eq!(watched(&root.join("dangling.toml")), alone);
        symlink("loop.toml", root.join("loop.toml")).unwrap();
        assert_eq!(watched(&root.join("loop.toml")), alone);
    }

    /// Whether a stir that was told these events lets its listener look at once.
    async fn is_at_once(path: &Path, events: &[(EventKind, &Path)]) -> bool {
        let stir = Stir::default();
        let mut watch = Watch::new([path.to_owned()], &stir);
        watch.arm();
        // Only what is told below counts.
        watch.watcher = None;
        for (kind, path) in events {
            stir.notice(Ok(Event::new(*kind).add_path(path.to_path_buf())));
        }
        let began = Instant::now();
        stir.wait(Duration::from_secs(9)).await;
        began.elapsed().is_zero()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_took_the_place_of_the_other_is_looked_at_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("..v1")).unwrap();
        fs::write(root.join("..v1/r.toml"), "").unwrap();
        fs::write(root.join("r.toml"), "").unwrap();
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/r.toml", root.join("link.toml")).unwrap();
        let (file, link) = (root.join("r.toml"), root.join("link.toml"));
        let to = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let from = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(is_at_once(&file, &[(to, &file)]).await);
        assert!(is_at_once(&file, &[(written, &root.join("r.new")), (to, &file)]).await);
        // As Kubernetes does it.
        assert!(is_at_once(&link, &[(to, &root.join("..data"))]).await);
        // A backup of the file, a file that is written in place, one that goes.
        assert!(!is_at_once(&file, &[(to, &root.join("r.toml~"))]).await);
        assert!(!is_at_once(&file, &[(written, &file)]).await);
        assert!(!is_at_once(&file, &[(from, &file)]).await);
        // A route may be moving from one file of a folder to another.
        assert!(!is_at_once(&root, &[(to, &file)]).await);
    }

    #[test]
    fn what_changed_is_noted_until_it_is_asked_for_or_may_be_anything() {
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let change = |path: &str| Ok(Event::new(written).add_path(path.into()));
        let stir = Stir::noting();
        stir.notice(change("/a/x"));
        stir.notice(Ok(Event::new(EventKind::Access(AccessKind::Read)).add_path("/a/r".into())));
        stir.notice(change("/a/y"));
        stir.notice(change("/a/x"));
        assert_eq!(stir.touched(), ["/a/x", "/a/y"].map(PathBuf::from).into());
        assert!(stir.touched().is_empty());
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        for anything in [Ok(lost), Err(notify::Error::generic("")), Ok(Event::new(written))] {
            stir.notice(change("/a/x"));
            stir.notice(anything);
            stir.notice(change("/a/y"));
            assert!(stir.touched().is_empty());
        }
        (0..=MAX_TOUCHED).for_each(|number| stir.notice(change(&format!("/a/{number}"))));
        assert!(stir.touched().is_empty());
        // Who does not want to know pays nothing for it.
        let stir = Stir::default();
        stir.notice(change("/a/x"));
        assert!(stir.touched().is_empty());
    }

    #[test]
    fn several_paths_are_watched_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("folder")).unwrap();
        fs::create_dir_all(root.join("other")).unwrap();
        fs::write(root.join("other/file.pem"), "").unwrap();
        let way = Way::of_all(&[root.join("folder"), root.join("other/file.pem")]);
        let all = [root.clone(), root.join("folder"), root.join("other")];
        assert_eq!(way.directories.into_keys().collect::<Vec<_>>(), all);
        assert!(way.turns.is_empty());
    }

    #[test]
    fn a_folder_with_very_many_links_is_looked_at_instead() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_WATCHED {
            let target = dir.path().join(format!("{number}.d"));
            fs::create_dir(&target).unwrap();
            fs::write(target.join("x.toml"), "").unwrap();
            symlink(target.join("x.toml"), dir.path().join(format!("{number}.toml"))).unwrap();
        }
        let mut watch = Watch::new([dir.path().to_owned()], &Stir::default());
        assert_eq!(watch.arm(), LOOK_OFTEN);
        fs::remove_file(dir.path().join("0.toml")).unwrap();
        fs::remove_file(dir.path().join("1.toml")).unwrap();
        fs::remove_file(dir.path().join("2.toml")).unwrap();
        assert_eq!(watch.arm(), LOOK_EVERY);
    }
}
