//! What the registry does by itself, and telling of it: one line of the log and one count for each
//! event.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::registrar::{Event, Registrar};
use crate::registry::app::App;
use crate::registry::domain::Gate;
use crate::resolve::dns::Dns;
use crate::telemetry::chronicle::{Chronicle, Happening};
use crate::telemetry::metrics::Metrics;

/// Where it is counted and kept, beside the log.
#[derive(Debug, Clone)]
pub(super) struct Telling {
    pub(super) metrics: Arc<Metrics>,
    pub(super) chronicle: Arc<Chronicle>,
}

/// Makes the rounds, for as long as the tasks live. Gives back who makes them.
pub(super) fn begin(
    (registrar, initializing): (Arc<Registrar<Dns>>, watch::Receiver<Arc<[App]>>),
    clock: &Arc<dyn Clock>,
    telling: &Telling,
    control: &mut JoinSet<()>,
) -> Arc<Registrar<Dns>> {
    telling.metrics.expect(&Event::WORDS);
    let telling = || {
        let Telling { metrics, chronicle } = telling.clone();
        let clock = Arc::clone(clock);
        move |event: &Event| {
            metrics.note(event.word());
            chronicle.note(Happening {
                at: clock.now(),
                event: event.word(),
                whom: event.whom(),
                message: event.to_string(),
            });
            tell(event);
        }
    };
    let (keeper, now, say) = (Arc::clone(&registrar), Arc::clone(clock), telling());
    control.spawn(async move { keeper.keep_up_always(now, say).await });
    let (keeper, now, say) = (Arc::clone(&registrar), Arc::clone(clock), telling());
    control.spawn(async move { keeper.check_domains_always(now, say).await });
    control.spawn(Arc::clone(&registrar).find_ready(Arc::clone(clock), initializing, telling()));
    registrar
}

fn tell(event: &Event) {
    match event {
        Event::Reminded { project, number, suspended_at } => {
            warn!(%project, number, %suspended_at, "an invoice is unpaid: the project is reminded");
        }
        Event::Suspended { project } => {
            warn!(%project, "the project is suspended: its invoice was not paid in time");
        }
        Event::Expired { project, app } => info!(%project, %app, "app expired"),
        Event::Gate { domain, gate } => match gate {
            Gate::Open => info!(%domain, "the domain leads here: its gate is open"),
            Gate::Pending => info!(%domain, "the domain's gate is pending"),
            Gate::Suspended => warn!(%domain, "the domain leads elsewhere: its gate is closed"),
        },
        Event::Found { project, app, phase } => info!(%project, %app, %phase, "app found"),
    }
}
