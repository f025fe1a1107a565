//! Routes from a file or a folder that is watched while the proxy runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::source::fault::Fault;
use crate::source::shelf::Shelf;
use crate::source::watch::Watch;
use crate::source::{RouteSet, Source};

/// The name of this source.
pub const NAME: &str = "file";

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
    /// How often it was asked for.
    asked: Arc<watch::Sender<u64>>,
    told: Arc<watch::Sender<Told>>,
}

/// The last set that answers somebody who asked.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// Who asked by then is answered.
    asked: u64,
    /// Its number among the sets of the source, from 1.
    number: u64,
}

impl Reload {
    /// Reads everything again, whether it seems changed or not.
    pub fn now(&self) {
        self.ask();
    }

    /// The same, and waits until what was found is sent on: gives the number of that set among
    /// all that the source has told. `None` if no source listens.
    pub async fn read_again(&self) -> Option<u64> {
        let mut told = self.told.subscribe();
        let asked = self.ask();
        tokio::select! {
            told = told.wait_for(|told| told.asked >= asked) => Some(told.ok()?.number),
            () = self.asked.closed() => None,
        }
    }

    fn ask(&self) -> u64 {
        let mut asked = 0;
        self.asked.send_modify(|count| {
            *count += 1;
            asked = *count;
        });
        asked
    }
}

/// A file or folder that is watched.
#[derive(Debug)]
pub struct Watched {
    shelf: Shelf,
    watch: Watch,
    asked: watch::Receiver<u64>,
    reload: Reload,
}

/// Reads a file or folder once. A fault is told for everything that could not be used.
#[must_use]
pub fn read_once(path: &Path) -> RouteSet {
    let (claims, faults) = Shelf::new(path.to_owned(), false).look(true);
    RouteSet { source: NAME.into(), claims, faults }
}

impl Watched {
    /// Watches what the settings name, if they name anything.
    #[must_use]
    pub fn new(settings: &Settings, reload: Reload) -> Option<Self> {
        let path = settings.path.as_ref()?;
        let shelf = Shelf::new(path.clone(), settings.strict);
        let asked = reload.asked.subscribe();
        Some(Self { shelf, watch: Watch::new(path), asked, reload })
    }
}

impl Source for Watched {
    async fn run(self, sets: mpsc::Sender<RouteSet>) {
        let Self { mut shelf, mut watch, mut asked, reload } = self;
        let (mut number, mut answered) = (0, None);
        let mut told: Option<RouteSet> = None;
        loop {
            let asks = *asked.borrow_and_update();
            let again = answered != Some(asks);
            // Files may lie on a slow disk or a network: not on a thread that others wait for.
            let looked = tokio::task::spawn_blocking(move || {
                watch.arm();
                let (claims, faults) = shelf.look(again);
                (shelf, watch, RouteSet { source: NAME.into(), claims, faults })
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
                number += 1;
                answered = Some(asks);
                reload.told.send_replace(Told { asked: asks, number });
            }
            tokio::select! {
                () = watch.stirred() => {}
                // Never an error: the other end is in our own `reload`.
                _ = asked.changed() => info!("asked to read the routes again"),
                () = sets.closed() => return,
            }
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
