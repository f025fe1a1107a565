//! The watch over certificates of backends, and telling of it: one line of the log and one place in
//! the chronicle for each thing that is new.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admission::sight::Notice;
use crate::clock::Clock;
use crate::config::Config;
use crate::probe::watch::{News, Sightings, Watch};
use crate::reconcile::Reconciler;
use crate::resolve::SystemResolver;
use crate::routing::table::Table;
use crate::routing::words::Words;
use crate::telemetry::chronicle::{Chronicle, Happening};

/// The way of what is seen to the table.
pub(super) fn heard_by(reconciler: Reconciler) -> (Reconciler, watch::Sender<Words>) {
    let (words, heard) = watch::channel(Words::default());
    (reconciler.seeing(heard), words)
}

/// Watches for as long as the task lives.
pub(super) fn begin(
    config: &Config,
    table: &Table,
    clock: &Arc<dyn Clock>,
    words: watch::Sender<Words>,
    chronicle: &Arc<Chronicle>,
    control: &mut JoinSet<()>,
) -> Sightings {
    let watch = Watch::new(&config.probe, table.clone(), Arc::clone(clock), SystemResolver, words);
    let sightings = watch.sightings();
    let (chronicle, clock) = (Arc::clone(chronicle), Arc::clone(clock));
    control.spawn(watch.run(move |news| {
        tell(news);
        let News { route, backend, notice } = news;
        chronicle.note(Happening {
            at: clock.now(),
            event: notice.kind().word(),
            whom: format!("route {}", route.id),
            message: format!("{backend}: {notice}"),
        });
    }));
    sightings
}

fn tell(News { route, backend, notice }: &News<'_>) {
    let (route, event) = (&route.id, notice.kind().word());
    match notice {
        // A renewal keeps the key as often as not.
        Notice::Changed { now, before } if now == before => {
            info!(%route, %backend, event, "a backend shows a renewed certificate: {notice}");
        }
        notice => warn!(%route, %backend, event, "certificate of a backend: {notice}"),
    }
}
