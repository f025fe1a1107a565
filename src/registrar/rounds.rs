//! The rounds that every proxy makes for its registry: upkeep, and looks at domains.
//!
//! Each round is bounded and beside the path of connections. What fails is done the next time.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::upkeep::Round;
use super::{Error, Event, Registrar, TRIES};
use crate::clock::{Clock, Timestamp};
use crate::registry::record::{Held, check, write};
use crate::registry::turn::{Turn, turn_key};
use crate::resolve::records::Records;
use crate::store::{Committed, Transaction};

/// How often steps of unpaid projects and ends are looked for. Nothing waits for it: what is
/// suspended or over is refused at once.
const UPKEEP: Duration = Duration::from_secs(5);
/// How many times what a round of that took is rested after it: it looks at all apps.
const REST: u32 = 20;
/// How often the fleet looks where domains lead.
const DOMAINS: SignedDuration = SignedDuration::from_mins(1);
/// How often a proxy asks whether that is due.
const LOOK: Duration = Duration::from_secs(10);

impl<D: Records> Registrar<D> {
    /// Takes a turn at what the fleet does every so often, if it is due and nobody else was faster.
    ///
    /// # Errors
    /// The store.
    pub async fn take_turn(
        &self,
        what: &str,
        every: SignedDuration,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let held: Option<Held<Turn>> = self.read(&turn_key(what)).await?;
        if held.as_ref().is_some_and(|held| !held.record.is_due(every, now)) {
            return Ok(false);
        }
        let turn = Turn { what: what.to_owned(), at: now };
        let check = check(held.as_ref(), || turn_key(what));
        let taken = Transaction { checks: vec![check], changes: vec![write(&turn)] };
        Ok(matches!(self.store.commit(taken).await?, Committed::Done(_)))
    }

    /// Keeps up with time for as long as this is polled, and tells what this proxy did.
    pub async fn keep_up_always(&self, clock: Arc<dyn Clock>, tell: impl Fn(&Event)) {
        let mut complaint = Complaint::default();
        loop {
            let began = Instant::now();
            complaint.tell_all("upkeep", self.keep_up(clock.now()).await, &tell);
            sleep(UPKEEP.max(began.elapsed() * REST)).await;
        }
    }

    /// Looks at domains for as long as this is polled, whenever it is this proxy's turn.
    pub async fn check_domains_always(&self, clock: Arc<dyn Clock>, tell: impl Fn(&Event)) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = Complaint::default();
        loop {
            ticks.tick().await;
            let round = match self.take_turn("domains", DOMAINS, clock.now()).await {
                Ok(true) => self.check_domains(clock.now()).await,
                Ok(false) => Round::default(),
                Err(error) => Round { failed: Some(error), ..Round::default() },
            };
            complaint.tell_all("domains", round, &tell);
        }
    }
}

/// What goes wrong again and again is told at first and now and then.
#[derive(Debug, Default)]
struct Complaint(usize);

impl Complaint {
    /// Tells what a round has done, and what has failed.
    fn tell_all(&mut self, what: &str, round: Round, tell: &impl Fn(&Event)) {
        round.events.iter().for_each(tell);
        if let Some(error) = round.failed {
            self.tell(what, &error);
        }
    }

    fn tell(&mut self, round: &str, error: &Error) {
        if self.0.is_multiple_of(TRIES) {
            warn!(%error, round, "a round could not be made; it is made again");
        }
        self.0 += 1;
    }
}
