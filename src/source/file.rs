//! Routes from a file or a folder that is watched while the proxy runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use crate::source::fault::Fault;
use crate::source::shelf::Shelf;
use crate::source::watch::Watch;
use crate::source::{RouteSet, Source};

/// The name of this source.
const NAME: &str = "file";

/// Which routes are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file, or a folder of `*.toml`.
    pub path: Option<PathBuf>,
    /// Whether one fault keeps a whole new set out.
    pub strict: bool,
}

/// Makes a [`Watched`] read everything again. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Reload {
    asked: Arc<Notify>,
}

impl Reload {
    /// Reads everything again, whether it seems changed or not.
    pub fn now(&self) {
        self.asked.notify_one();
    }
}

/// A file or folder that is watched.
#[derive(Debug)]
pub struct Watched {
    shelf: Shelf,
    watch: Watch,
    reload: Reload,
}

/// Reads a file or folder once. A fault is told for everything that could not be used.
#[must_use]
pub fn read_once(path: &Path) -> RouteSet {
    set_of(&mut Shelf::new(path.to_owned(), false), true)
}

fn set_of(shelf: &mut Shelf, again: bool) -> RouteSet {
    let (claims, faults) = shelf.look(again);
    RouteSet { source: NAME.into(), claims, faults, left_out: shelf.left_out() }
}

impl Watched {
    /// Watches what the settings name, if they name anything.
    #[must_use]
    pub fn new(settings: &Settings, reload: Reload) -> Option<Self> {
        let path = settings.path.as_ref()?;
        let shelf = Shelf::new(path.clone(), settings.strict);
        Some(Self { shelf, watch: Watch::new(path), reload })
    }
}

impl Source for Watched {
    async fn run(self, sets: mpsc::Sender<RouteSet>) {
        let Self { mut shelf, mut watch, reload } = self;
        let mut told: Option<RouteSet> = None;
        let mut again = true;
        loop {
            // Files may lie on a slow disk or a network: not on a thread that others wait for.
            let looked = tokio::task::spawn_blocking(move || {
                watch.arm();
                let set = set_of(&mut shelf, again);
                (shelf, watch, set)
            });
            let Ok((same_shelf, same_watch, set)) = looked.await else { return };
            (shelf, watch) = (same_shelf, same_watch);
            let known = told.as_ref().map_or(&[][..], |told| &told.faults);
            tell_faults(known, &set.faults);
            if again || told.as_ref() != Some(&set) {
                told = Some(set.clone());
                if sets.send(set).await.is_err() {
                    return;
                }
            }
            again = tokio::select! {
                () = watch.stirred() => false,
                () = reload.asked.notified() => {
                    info!("asked to read the routes again");
                    true
                }
                () = sets.closed() => return,
            };
        }
    }
}

/// Logs what was not known before, and what is mended.
fn tell_faults(before: &[Fault], now: &[Fault]) {
    for fault in now.iter().filter(|fault| !before.contains(fault)) {
        warn!(at = %fault.place.origin, "{}", fault.kind);
    }
    if now.is_empty() && !before.is_empty() {
        info!(mended = before.len(), "the routes have no faults any more");
    }
}
