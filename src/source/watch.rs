//! Noticing that a path may have changed.
//!
//! Directories are watched, never files: a file's own watch dies with the first atomic rename or
//! symlink swap. Every directory that takes part in resolving the path is watched, the target's as
//! well as those of the links on the way, and armed again whenever another one takes its place.
//! Where inotify cannot be had, looking at the path every second has to do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// A burst of changes is over when nothing came for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst is not waited for any longer than this.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Network file systems tell nothing: look now and then in any case.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Without inotify.
const LOOK_OFTEN: Duration = Duration::from_secs(1);
/// The kernel follows at most 40 links (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Notices changes of one path.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    watcher: Option<INotifyWatcher>,
    stirred: Arc<Notify>,
    /// What is watched, and which directory stood there when it was armed.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    told: bool,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        let stirred = Arc::new(Notify::new());
        let wake = Arc::clone(&stirred);
        let notice = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                wake.notify_one();
            }
        };
        let mut watch = Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            watcher: None,
            stirred,
            armed: BTreeMap::new(),
            told: false,
        };
        match INotifyWatcher::new(notice, notify::Config::default()) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.tell(&error),
        }
        watch
    }

    /// Watches the directories that the path leads through now. To be called before each look at
    /// the files, so that no change falls between the two.
    pub(super) fn arm(&mut self) {
        let wanted = directories(&self.path);
        let Some(watcher) = &mut self.watcher else { return };
        self.armed.retain(|path, identity| {
            let stays = wanted.get(path) == Some(identity);
            if !stays {
                // One that was removed has taken its watch along.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        let mut failed = None;
        for (path, identity) in wanted {
            if self.armed.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.armed.insert(path, identity)),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            self.tell(&error);
        }
    }

    fn tell(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.told, true) {
            let path = self.path.display();
            warn!(%path, %error, "cannot be watched: it is looked at every second instead");
        }
    }

    /// Waits until the path should be looked at, and until a burst of changes is over.
    pub(super) async fn stirred(&self) {
        let blind = self.watcher.is_none() || self.told;
        tokio::select! {
            () = self.stirred.notified() => {}
            () = sleep(if blind { LOOK_OFTEN } else { LOOK_EVERY }) => return,
        }
        let longest = Instant::now() + LONGEST_BURST;
        loop {
            let quiet = sleep_until(longest.min(Instant::now() + QUIET));
            tokio::select! {
                () = self.stirred.notified() => {}
                () = quiet => return,
            }
            if Instant::now() >= longest {
                return;
            }
        }
    }
}

/// Whether an event can mean other content. Reading the files must not wake the reader.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The directories in which a change can change what the path leads to.
fn directories(path: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut found = BTreeMap::new();
    let mut add = |directory: &Path| {
        // One that does not exist yet will appear in the nearest one that does.
        for candidate in directory.ancestors() {
            if let Ok(metadata) = fs::metadata(candidate)
                && metadata.is_dir()
            {
                found.insert(candidate.to_owned(), (metadata.dev(), metadata.ino()));
                return;
            }
        }
    };
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some((link, target)) = first_link(&path) else { break };
        let parent = link.parent().unwrap_or(Path::new("/"));
        add(parent);
        let rest = path.strip_prefix(&link).unwrap_or(Path::new(""));
        let resolved = parent.join(target);
        // Joining an empty rest would add a slash and make a file's path that of a directory.
        path = if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
    }
    add(path.parent().unwrap_or(Path::new("/")));
    if path.is_dir() {
        add(&path);
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && let Ok(target) = fs::canonicalize(entry.path()) {
                add(target.parent().unwrap_or(Path::new("/")));
            }
        }
    }
    found
}

/// The first component of a path that is a symbolic link, and what it says.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut prefixes: Vec<&Path> = path.ancestors().collect();
    prefixes.reverse();
    prefixes.into_iter().find_map(|prefix| Some((prefix.to_owned(), fs::read_link(prefix).ok()?)))
}
