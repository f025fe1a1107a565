//! Noticing that a path may have changed.
//!
//! Directories are watched, never files: a file's own watch dies with the first atomic rename or
//! symlink swap. Every directory that takes part in resolving the path is watched, the target's as
//! well as those of the links on the way, and armed again whenever another one takes its place.
//! What inotify does not tell (network file systems, a limit of the system) is found by looking:
//! now and then in any case, every second where something cannot be watched.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
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
/// How often arming starts anew because the path led elsewhere meanwhile. Who moves it faster than
/// that is looked at every second.
const MAX_ATTEMPTS: usize = 4;

/// Which inode a directory was: device and number.
type Identity = (u64, u64);

/// Watches the directories of one path. Blocking.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    watcher: Option<INotifyWatcher>,
    stir: Arc<Notify>,
    /// What is watched, and which directory stood there when it was armed.
    armed: BTreeMap<PathBuf, Identity>,
    is_blind: bool,
}

/// Tells when the path should be looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Stir(Arc<Notify>);

impl Watch {
    pub(super) fn new(path: &Path, stir: &Stir) -> Self {
        Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            watcher: None,
            stir: Arc::clone(&stir.0),
            armed: BTreeMap::new(),
            is_blind: false,
        }
    }

    /// Watches the directories that the path leads through now, and tells after how long it should
    /// be looked at in any case. To be called before each look at the files, so that no change
    /// falls between the two.
    pub(super) fn arm(&mut self) -> Duration {
        let outcome = self.try_arm();
        let was_blind = std::mem::replace(&mut self.is_blind, outcome.is_err());
        match outcome {
            Ok(()) if was_blind => info!(path = %self.path.display(), "can be watched again"),
            Err(error) if !was_blind => {
                let path = self.path.display();
                warn!(%path, %error, "cannot be watched: it is looked at every second instead");
            }
            Ok(()) | Err(_) => {}
        }
        if self.is_blind { LOOK_OFTEN } else { LOOK_EVERY }
    }

    fn try_arm(&mut self) -> notify::Result<()> {
        let mut wanted = directories(&self.path);
        for _ in 0..MAX_ATTEMPTS {
            self.arm_these(&wanted)?;
            // A link may have been turned before its directory was watched.
            let now = directories(&self.path);
            if now == wanted {
                let is_all = now.len() < MAX_WATCHED;
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

fn watcher(stir: &Arc<Notify>) -> notify::Result<INotifyWatcher> {
    let stir = Arc::clone(stir);
    let notice = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_change(event.kind)) {
            stir.notify_one();
        }
    };
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
    /// Waits until something changed and the burst of changes is over, or for so long.
    pub(super) async fn wait(&self, longest: Duration) {
        tokio::select! {
            () = self.0.notified() => {}
            () = sleep(longest) => return,
        }
        let end = Instant::now() + LONGEST_BURST;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => return,
                () = self.0.notified() => {}
                () = sleep(QUIET) => return,
            }
        }
    }
}

/// The directories in which a change can change what the path leads to.
fn directories(path: &Path) -> BTreeMap<PathBuf, Identity> {
    let mut found = BTreeMap::new();
    let end = follow(path, &mut found);
    if let Some(folder) = end.filter(|end| end.is_dir()) {
        add(&folder, &mut found);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                follow(&entry.path(), &mut found);
            }
        }
    }
    found
}

/// Walks a path as the kernel does, and adds the directory of each link on the way and that of the
/// end; where something is missing, the directory in which it would appear. Gives the end.
fn follow(path: &Path, found: &mut BTreeMap<PathBuf, Identity>) -> Option<PathBuf> {
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
            add(&at, found);
            return None;
        };
        if metadata.is_symlink() {
            add(&at, found);
            links += 1;
            let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
            if target.has_root() {
                at = PathBuf::from("/");
            }
            rest.extend(steps(&target));
            continue;
        }
        if rest.is_empty() {
            add(&at, found);
        }
        at = next;
    }
    Some(at)
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

fn add(directory: &Path, found: &mut BTreeMap<PathBuf, Identity>) {
    if found.len() < MAX_WATCHED
        && let Ok(metadata) = fs::metadata(directory)
    {
        found.insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn watched(path: &Path) -> Vec<PathBuf> {
        directories(path).into_keys().collect()
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

    #[test]
    fn a_folder_with_very_many_links_is_looked_at_instead() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_WATCHED {
            let target = dir.path().join(format!("{number}.d"));
            fs::create_dir(&target).unwrap();
            fs::write(target.join("x.toml"), "").unwrap();
            symlink(target.join("x.toml"), dir.path().join(format!("{number}.toml"))).unwrap();
        }
        let mut watch = Watch::new(dir.path(), &Stir::default());
        assert_eq!(watch.arm(), LOOK_OFTEN);
        fs::remove_file(dir.path().join("0.toml")).unwrap();
        fs::remove_file(dir.path().join("1.toml")).unwrap();
        fs::remove_file(dir.path().join("2.toml")).unwrap();
        assert_eq!(watch.arm(), LOOK_EVERY);
    }
}
