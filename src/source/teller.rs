//! Handing sets on: each as soon as somebody can take it, and the newest rather than all.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::source::RouteSet;
use crate::source::tell;

/// Hands sets on.
#[derive(Debug)]
pub(super) struct Teller {
    sets: mpsc::Sender<RouteSet>,
    told: Option<RouteSet>,
    /// Whether there is something new to tell.
    pub(super) is_due: bool,
}

/// Nobody listens any more.
pub(super) struct Closed;

impl Teller {
    pub(super) fn new(sets: mpsc::Sender<RouteSet>) -> Self {
        Self { sets, told: None, is_due: false }
    }

    /// Waits until there is something to tell and somebody can take it.
    pub(super) async fn turn(&self) -> Result<(), Closed> {
        if !self.is_due {
            self.sets.closed().await;
            return Err(Closed);
        }
        self.sets.reserve().await.map(drop).map_err(|_| Closed)
    }

    /// Waits for so long, and goes on telling meanwhile.
    pub(super) async fn rest(
        &mut self,
        time: Duration,
        mut set: impl FnMut() -> RouteSet,
    ) -> Result<(), Closed> {
        let mut rested = pin!(sleep(time));
        loop {
            tokio::select! {
                () = &mut rested => return Ok(()),
                turn = self.turn() => {
                    turn?;
                    self.tell(set());
                }
            }
        }
    }

    pub(super) fn tell(&mut self, set: RouteSet) {
        let before = self.told.as_ref();
        let is_new = before != Some(&set);
        // There was room just now; were there none any more, it would stay due.
        self.is_due = is_new && self.sets.try_send(set.clone()).is_err();
        if is_new && !self.is_due {
            tell::faults(before.map_or(&[], |told| &told.faults), &set.faults);
            self.told = Some(set);
        }
    }
}
