//! Connections to apps that are being configured: few at a time, and none that is silent.
//!
//! Such an app is a server of one thread that shakes hands within accept: whoever connects and says
//! no more keeps all others out. So only some connections may be new to it, which means that they
//! have not yet exchanged bytes both ways; the others wait their turn. One whose client is silent
//! before its handshake can have ended is dropped.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::relay::idle::Limits;
use crate::routing::route::Route;
use crate::telemetry::metrics::Moved;

/// How long a newcomer may be silent: a handshake takes two round trips, and clients far away or on
/// bad lines have a second for one.
const SILENCE: Duration = Duration::from_secs(5);

/// The section `admission` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many connections may be new to one app that is being configured; 0 is no limit.
    pub fresh_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        // It serves one at a time.
        Self { fresh_connections: 1 }
    }
}

/// Who is new to which app, for all workers.
#[derive(Debug)]
pub struct Newcomers {
    most: usize,
    /// How long one waits: the budget of connecting.
    budget: Duration,
    /// By the ids of routes.
    rooms: DashMap<Arc<str>, Arc<Semaphore>>,
}

/// A place among the newcomers, given back by dropping it.
#[derive(Debug)]
pub struct Place {
    newcomers: Arc<Newcomers>,
    route: Arc<str>,
    permit: Option<OwnedSemaphorePermit>,
}

/// A connection that is new to its app.
#[derive(Debug)]
pub struct Newcomer {
    _place: Place,
    /// How much its client had said before it was connected.
    said: u64,
    /// How long it may be idle afterwards.
    limits: Rc<Limits>,
}

impl Newcomers {
    /// None yet.
    #[must_use]
    pub fn new(settings: &Settings, budget: Duration) -> Self {
        let most = match settings.fresh_connections {
            0 => Semaphore::MAX_PERMITS,
            most => usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS),
        };
        Self { most: most.min(Semaphore::MAX_PERMITS), budget, rooms: DashMap::new() }
    }

    /// How long one waits at the most: the budget of connecting.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Waits for a place at a route's app.
    ///
    /// # Errors
    /// There was none within the budget.
    pub async fn wait(
        self: &Arc<Self>,
        route: &Route,
        timer: &mut Deadline,
    ) -> Result<Place, Outcome> {
        let room = self.rooms.entry(Arc::clone(&route.id));
        let room = Arc::clone(&room.or_insert_with(|| Arc::new(Semaphore::new(self.most))));
        let route = Arc::clone(&route.id);
        // From here on whoever is dropped tidies up.
        let mut place = Place { newcomers: Arc::clone(self), route, permit: None };
        timer.set(Instant::now() + self.budget);
        let permit = timer.bound(std::pin::pin!(room.acquire_owned())).await;
        // Nobody ever closes a room.
        place.permit = permit.ok().and_then(Result::ok);
        if place.permit.is_none() { Err(Outcome::BackendTimeout) } else { Ok(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit = None;
        self.newcomers.rooms.remove_if(&self.route, |_, room| Arc::strong_count(room) == 1);
    }
}

impl Newcomer {
    /// One that has said so much, and may be idle for so long later.
    #[must_use]
    pub fn new(place: Place, said: usize, limits: &Rc<Limits>) -> Self {
        let said = u64::try_from(said).unwrap_or(u64::MAX);
        Self { _place: place, said, limits: Rc::clone(limits) }
    }

    /// How long it may be idle meanwhile.
    #[must_use]
    pub fn silence() -> Rc<Limits> {
        Rc::new(Limits { idle: SILENCE, half_close: SILENCE })
    }

    /// Whether its app has answered and its client has answered that: from there on the handshake
    /// can have ended. Gives the limits that hold then.
    #[must_use]
    pub fn settled(&self, moved: Moved) -> Option<&Rc<Limits>> {
        (moved.to_client > 0 && moved.to_backend > self.said).then_some(&self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::engine::deadlines::{Deadlines, TICK};
    use crate::routing::few::Few;
    use crate::routing::route::Terms;
    use futures_util::FutureExt;

    fn route(id: &str) -> Route {
        Route::new(id.into(), Few::default(), Few::default(), Terms::default())
    }

    #[test]
    fn the_others_wait_their_turn_within_the_budget_and_leave_nothing_behind() {
        let deadlines = Deadlines::new(Instant::now());
        let (mut one, mut other) = (deadlines.unset(), deadlines.unset());
        let budget = Duration::from_secs(5);
        let newcomers = Arc::new(Newcomers::new(&Settings::default(), budget));
        let (a, b) = (route("a"), route("b"));
        let first = newcomers.wait(&a, &mut one).now_or_never().unwrap().unwrap();
        let elsewhere = newcomers.wait(&b, &mut one).now_or_never().unwrap().unwrap();
        {
            let mut second = std::pin::pin!(newcomers.wait(&a, &mut other));
            assert!(second.as_mut().now_or_never().is_none());
            drop(first);
            let second = second.as_mut().now_or_never().unwrap().unwrap();
            let mut third = std::pin::pin!(newcomers.wait(&a, &mut one));
            assert!(third.as_mut().now_or_never().is_none());
            deadlines.turn(Instant::now() + budget + TICK);
            assert_eq!(
                third.as_mut().now_or_never().unwrap().unwrap_err(),
                Outcome::BackendTimeout
            );
            drop(second);
        }
        assert_eq!(newcomers.rooms.len(), 1);
        drop(elsewhere);
        assert!(newcomers.rooms.is_empty());
    }

    #[test]
    fn a_handshake_can_have_ended_once_both_have_answered() {
        let newcomers = Arc::new(Newcomers::new(&Settings::default(), SILENCE));
        let deadlines = Deadlines::new(Instant::now());
        let waiting = newcomers.wait(&route("a"), &mut deadlines.unset()).now_or_never();
        let limits = Newcomer::silence();
        let newcomer = Newcomer::new(waiting.unwrap().unwrap(), 517, &limits);
        let moved = |to_backend, to_client| Moved { to_backend, to_client, ..Moved::default() };
        for (to_backend, to_client, is_settled) in
            [(0, 0, false), (517, 0, false), (517, 1200, false), (600, 0, false), (581, 1200, true)]
        {
            let settled = newcomer.settled(moved(to_backend, to_client)).is_some();
            assert_eq!(settled, is_settled, "{to_backend} {to_client}");
        }
    }
}
