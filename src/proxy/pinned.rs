//! Waiting until a backend of a pinned route was seen to have its key.
//!
//! Such a route lets nobody through before that. Somebody looks as soon as it appears and tells the
//! table; whoever comes meanwhile waits for that, within the budget of connecting. Who looks is not
//! known here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::house::House;
use crate::routing::route::Route;
use crate::routing::seen::Fit;

/// How long one waits before the table is asked again: a look takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// The newest version of a pinned route, once a backend of it is let through.
///
/// # Errors
/// All of them have other keys, or none was seen to have the right one within the budget.
pub(super) async fn proven<C>(
    route: &Arc<Route>,
    house: &House<C>,
    timer: &mut Deadline,
) -> Result<Arc<Route>, Outcome> {
    let deadline = Instant::now() + house.newcomers.budget();
    let mut route = Arc::clone(route);
    loop {
        let has = |fit: Fit| (0..route.backends.len()).any(|place| route.fit(place) == fit);
        if has(Fit::Matches) {
            return Ok(route);
        }
        if !has(Fit::Unseen) || Instant::now() + PAUSE >= deadline {
            return Err(Outcome::BackendTls);
        }
        timer.set(Instant::now() + PAUSE);
        timer.passed().await;
        let newest = {
            let table = house.table.current();
            table.snapshot.by_id(&route.id).map(|written| Arc::clone(&written.route))
        };
        if let Some(newest) = newest.filter(|newest| newest.leads_like(&route)) {
            route = newest;
        }
    }
}
