//! A new set that takes too much away is held back until somebody confirms it.
//!
//! A file that was cut by half, or a folder of which half was lost, may be no fault by itself. So a
//! set that removes more than a share of the routes in force waits. It is confirmed by asking twice
//! within a minute for the same set to be read (SIGHUP, `systemctl reload`): once is what a log
//! rotation does every night.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::routing::claims::Claims;
use crate::routing::removal::Removal;
use crate::source::fault::FaultKind;
use crate::units::Percent;

/// How soon the second request must follow the first.
const CONFIRMED_WITHIN: Duration = Duration::from_mins(1);

/// What holds sets back.
#[derive(Debug)]
pub(super) struct Guard {
    most: Percent,
    clock: Arc<dyn Clock>,
    /// What somebody asked for once, and when by the time since boot.
    asked: Option<(Claims, Duration)>,
}

impl Guard {
    pub(super) fn new(most: Percent, clock: Arc<dyn Clock>) -> Self {
        Self { most, clock, asked: None }
    }

    /// Why a set must not take the place of another yet. `is_asked`: somebody wants it read just now.
    pub(super) fn judge(
        &mut self,
        old: &Claims,
        new: &Claims,
        is_asked: bool,
    ) -> Option<FaultKind> {
        if self.most == Percent::ALL {
            return None;
        }
        let removal = Removal::between(old, new, self.clock.now());
        if !removal.exceeds(self.most) {
            self.asked = None;
            return None;
        }
        if is_asked {
            let now = self.clock.since_boot();
            let before = self.asked.replace((new.clone(), now));
            let is_again = |(claims, at): &(Claims, Duration)| {
                now.saturating_sub(*at) <= CONFIRMED_WITHIN && claims == new
            };
            if before.as_ref().is_some_and(is_again) {
                self.asked = None;
                return None;
            }
        }
        let Removal { removed, of } = removal;
        Some(FaultKind::TooMuchRemoved { removed, of, most: self.most, kept: old.len() })
    }
}
