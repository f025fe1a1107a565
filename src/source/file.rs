//! Routes from a file or a folder that is watched while the proxy runs.
//!
//! Each look arms the watches, then reads what changed, then tells the whole set if it differs
//! from the one before. Looking happens on a thread that may block: files may lie on a slow disk
//! or a network. A look that fails loses nothing and is repeated; the source ends only when nobody
//! listens any more.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::routing::zones::Zones;
use crate::source::fault::Fault;
use crate::source::shelf::Shelf;
use crate::source::{RouteSet, Source};
use crate::watch::{Stir, Watch};

/// The name of this source.
pub const NAME: &str = "file";
/// After a look that failed by a fault of ours.
const RECOVERY: Duration = Duration::from_secs(1);
/// How many faults one look writes to the log; `check` shows all.
const MAX_LOGGED: usize = 50;

/// Which routes are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    set_of(&mut Shelf::new(path.to_owned(), None), true)
}

fn set_of(shelf: &mut Shelf, again: bool) -> RouteSet {
    let (claims, faults) = shelf.look(again);
    RouteSet { source: NAME.into(), claims, faults, left_out: shelf.left_out() }
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
    pub fn new(settings: &Settings, reload: Reload) -> Option<Self> {
        let path = settings.path.as_ref()?;
        let stir = Stir::default();
        let strict = settings.strict.then(|| settings.zones.clone());
        let shelf = Shelf::new(path.clone(), strict);
        let eye = Eye { watch: Watch::new(path, &stir), shelf };
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
                tell_faults(told.as_ref().map_or(&[], |told| &told.faults), &set.faults);
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

/// Logs what was not known before, and how much is mended.
fn tell_faults(before: &[Fault], now: &[Fault]) {
    // A fault that only moved to another line is not new.
    let key = |fault: &Fault| {
        let Fault { place, kind } = fault;
        (Arc::clone(&place.origin.source), place.line_text.clone(), kind.to_string())
    };
    let known: HashSet<_> = before.iter().map(key).collect();
    let current: HashSet<_> = now.iter().map(key).collect();
    let mut fresh = now.iter().filter(|fault| !known.contains(&key(fault)));
    for fault in fresh.by_ref().take(MAX_LOGGED) {
        warn!(at = %fault.place.origin, "{}", fault.kind);
    }
    let more = fresh.count();
    if more > 0 {
        warn!(more, "faults are not shown here; `mse-proxy check` shows all");
    }
    let mended = known.difference(&current).count();
    if mended > 0 {
        info!(mended, left = current.len(), "faults of the routes were mended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document;
    use std::io;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(before: &[Fault], now: &[Fault]) -> Vec<String> {
        let log = Log::default();
        let writer = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        let writer = writer.without_time().with_target(false).finish();
        tracing::subscriber::with_default(writer, || tell_faults(before, now));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn faults(text: &str) -> Vec<Fault> {
        document::read(&"r.toml".into(), text).faults
    }

    #[test]
    fn a_fault_is_logged_once_and_its_mending_too() {
        let one = faults("colour = 1");
        let moved = faults("# a comment\ncolour = 1");
        let two = faults("colour = 1\nsize = 2");
        let known = "is not known here; a routes file has nothing but [[route]] tables";
        assert_eq!(logged(&[], &one), [format!("WARN `colour` {known} at=r.toml:1:1")]);
        assert_eq!(logged(&one, &one), Vec::<String>::new());
        assert_eq!(logged(&one, &moved), Vec::<String>::new());
        assert_eq!(logged(&one, &two), [format!("WARN `size` {known} at=r.toml:2:1")]);
        assert_eq!(logged(&two, &moved), ["INFO faults of the routes were mended mended=1 left=1"]);
    }

    #[test]
    fn very_many_faults_do_not_fill_the_log() {
        let text = (0..200).fold(String::new(), |text, key| text + &format!("k{key} = 1\n"));
        let lines = logged(&[], &faults(&text));
        assert_eq!(lines.len(), MAX_LOGGED + 1);
        assert!(lines[MAX_LOGGED].ends_with("more=150"), "{}", lines[MAX_LOGGED]);
    }

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
