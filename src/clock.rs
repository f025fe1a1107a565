//! Wall time that a caller can hold, and the detection of its steps.
//!
//! Expiry is a promise about the calendar, so it is judged by the wall clock (`CLOCK_REALTIME`)
//! at the moment of a decision. Everything that must know the time is handed a [`Clock`] or an
//! instant; only [`SystemClock`] asks the kernel. Timeouts of one connection are not this file's
//! concern: they run on the monotonic clock of the runtime.

use std::time::Duration;

use jiff::SignedDuration;
pub use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Where the time of day comes from.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The wall time now.
    fn now(&self) -> Timestamp;

    /// The time since the machine started, suspended time included.
    fn since_boot(&self) -> Duration;
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}

/// The smallest difference between the two clocks that counts as a step. NTP slews by at most
/// 500 ppm, which is 30 ms in a minute; a real step is 128 ms or more (ntpd's threshold).
pub const STEP: SignedDuration = SignedDuration::from_millis(100);

/// Sees when the wall clock was set, by comparing it with the time since boot.
#[derive(Debug)]
pub struct StepWatch {
    wall: Timestamp,
    boot: Duration,
}

impl StepWatch {
    /// Starts watching from these two readings, taken together.
    #[must_use]
    pub fn new(wall: Timestamp, boot: Duration) -> Self {
        Self { wall, boot }
    }

    /// How far the wall clock was set since the last call (forward is positive), if it was.
    pub fn observe(&mut self, wall: Timestamp, boot: Duration) -> Option<SignedDuration> {
        let wall_passed = wall.duration_since(self.wall);
        let boot_passed =
            SignedDuration::try_from(boot.saturating_sub(self.boot)).unwrap_or(SignedDuration::MAX);
        (self.wall, self.boot) = (wall, boot);
        let step = wall_passed.checked_sub(boot_passed)?;
        (step.abs() >= STEP).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn only_a_clock_that_was_set_is_a_step() {
        let mut watch = StepWatch::new(at(0), Duration::from_secs(10));
        assert_eq!(watch.observe(at(60_030), Duration::from_secs(70)), None);
        let forward = watch.observe(at(3_661_030), Duration::from_secs(71));
        assert_eq!(forward, Some(SignedDuration::from_secs(3_600)));
        let back = watch.observe(at(61_030), Duration::from_secs(71));
        assert_eq!(back, Some(SignedDuration::from_secs(-3_600)));
        // A suspended machine: both clocks moved together, which is no step but simply later.
        assert_eq!(watch.observe(at(61_030 + 7_200_000), Duration::from_secs(7_271)), None);
    }

    #[test]
    fn the_system_clocks_move_together() {
        let clock = SystemClock;
        let mut watch = StepWatch::new(clock.now(), clock.since_boot());
        assert_eq!(watch.observe(clock.now(), clock.since_boot()), None);
    }
}
