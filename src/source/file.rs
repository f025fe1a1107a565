//! Routes from a file or a folder that is watched while the proxy runs.
//!
//! Each look arms the watches, then reads what changed, then tells the whole set if it differs
//! from the one before. Looking happens on a thread that may block: files may lie on a slow disk
//! or a network. A look that fails loses nothing and is repeated; the source ends only when nobody
//! listens any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::clock::Clock;
use crate::routing::zones::Zones;
use crate::source::guard::Guard;
use crate::source::shelf::{Judgement, Shelf};
use crate::source::tell;
use crate::source::{RouteSet, Source};
use crate::units::Percent;
use crate::watch::{Stir, Watch};

/// The name of this source.
pub const NAME: &str = "file";
/// After a look that failed by a fault of ours.
const RECOVERY: Duration = Duration::from_secs(1);

/// Which routes are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file, or a folder of `*.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether one fault keeps a whole new set out.
    pub strict: bool,
    /// Where TLS may be ended: a route that would do so elsewhere is a fault that `strict` minds.
    #[serde(skip)]
    pub zones: Zones,
    /// How much of what is in force a new set may take away without being confirmed.
    pub max_removed_percent: Percent,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: None,
            strict: false,
            zones: Zones::default(),
            max_removed_percent: Percent::ALL,
        }
    }
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
    /// Reads everything again, whether it seems changed or not, and tells the set in any case.
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

/// Reads a file or folder once. A fault is told for everything that could not be used.
#[must_use]
pub fn read_once(path: &Path) -> RouteSet {
    set_of(&mut Shelf::new(path.to_owned(), Judgement::default()), true)
}

fn set_of(shelf: &mut Shelf, again: bool) -> RouteSet {
    let (claims, faults) = shelf.look(again);
    RouteSet { source: NAME.into(), claims, faults, left_out: shelf.left_out(), revision: None }
}

/// A file or folder that is watched.
#[derive(Debug)]
pub struct Watched {
    eye: Arc<Mutex<Eye>>,
    stir: Stir,
    asked: watch::Receiver<u64>,
    reload: Reload,
}

/// All that looking needs.
#[derive(Debug)]
struct Eye {
    watch: Watch,
    shelf: Shelf,
}

impl Watched {
    /// Watches what the settings name, if they name anything.
    #[must_use]
    pub fn new(settings: &Settings, reload: Reload, clock: Arc<dyn Clock>) -> Option<Self> {
        let path = settings.path.as_ref()?;
        let stir = Stir::default();
        let Settings { strict, max_removed_percent, .. } = *settings;
        let guard = Some(Guard::new(max_removed_percent, clock));
        let strict = strict.then(|| settings.zones.clone());
        let shelf = Shelf::new(path.clone(), Judgement { strict, guard });
        let eye = Eye { watch: Watch::new([path.to_owned()], &stir), shelf };
        let asked = reload.asked.subscribe();
        Some(Self { eye: Arc::new(Mutex::new(eye)), stir, asked, reload })
    }

    /// Looks once. None, if the look itself failed.
    async fn look(&self, again: bool) -> Option<(RouteSet, Duration)> {
        let eye = Arc::clone(&self.eye);
        let looked = tokio::task::spawn_blocking(move || {
            let mut eye = eye.lock().unwrap_or_else(PoisonError::into_inner);
            let patience = eye.watch.arm();
            (set_of(&mut eye.shelf, again), patience)
        });
        looked.await.inspect_err(|error| error!(%error, "the routes could not be looked at")).ok()
    }
}

impl Source for Watched {
    async fn run(mut self, sets: mpsc::Sender<RouteSet>) {
        let mut told: Option<RouteSet> = None;
        let (mut number, mut answered) = (0, None);
        loop {
            let asks = *self.asked.borrow_and_update();
            let again = answered != Some(asks);
            let mut patience = RECOVERY;
            if let Some((set, next)) = self.look(again).await {
                patience = next;
                tell::faults(told.as_ref().map_or(&[], |told| &told.faults), &set.faults);
                if again || told.as_ref() != Some(&set) {
                    told = Some(set.clone());
                    if sets.send(set).await.is_err() {
                        return;
                    }
                    number += 1;
                    answered = Some(asks);
                    self.reload.told.send_replace(Told { asked: asks, number });
                }
            }
            tokio::select! {
                () = self.stir.wait(patience) => {}
                // Never an error: the other end is in our own `reload`.
                _ = self.asked.changed() => info!("asked to read the routes again"),
                () = sets.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_know_their_keys() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        let settings: Settings = toml::from_str("path = 'a'\nstrict = true").unwrap();
        assert_eq!(
            settings,
            Settings { path: Some("a".into()), strict: true, ..Settings::default() }
        );
        assert_eq!(
            toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(),
            settings
        );
        assert!(toml::from_str::<Settings>("paths = 'a'").is_err());
    }
}
