//! Wall time that a caller can hold, and the detection of its steps.
//!
//! Expiry is a promise about the calendar, so it is judged by the wall clock (`CLOCK_REALTIME`)
//! at the moment of a decision, and [`Forward`] keeps that from going back. Everything that must know the time is handed a [`Clock`] or an
//! instant; only [`SystemClock`] asks the kernel. Timeouts of one connection are not this file's
//! concern: they run on the monotonic clock of the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// The time of day that never goes back: at least as much passes as has passed since boot.
///
/// A wall clock that is set back would bring ended routes to life again. Nobody here can know
/// which of the two times was wrong, so the later one stands until the wall clock has caught up or
/// the process is started anew: expiry fails closed.
#[derive(Debug)]
pub struct Forward {
    clock: Arc<dyn Clock>,
    /// The most by which wall time was ever seen to be ahead of the time since boot, in
    /// nanoseconds.
    ahead: AtomicI64,
}

/// Readings jitter by less than this: no reason to write to a line that all cores read.
const JITTER: i64 = 1_000_000;

impl Forward {
    /// Believes what this clock says now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let ahead = AtomicI64::new(ahead(&*clock));
        Self { clock, ahead }
    }

    /// What the wall clock itself says.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far [`Clock::now`] is ahead of the wall clock, because that was set back.
    #[must_use]
    pub fn lead(&self) -> SignedDuration {
        let lead = self.ahead.load(Ordering::Relaxed).saturating_sub(ahead(&*self.clock));
        SignedDuration::from_nanos(if lead > JITTER { lead } else { 0 })
    }
}

impl Clock for Forward {
    fn now(&self) -> Timestamp {
        let (wall, seen) = (self.clock.now(), self.ahead.load(Ordering::Relaxed));
        let now = ahead_of(wall, self.clock.since_boot());
        if now > seen.saturating_add(JITTER) {
            self.ahead.fetch_max(now, Ordering::Relaxed);
        }
        let lead = SignedDuration::from_nanos(seen.saturating_sub(now).max(0));
        wall.saturating_add(lead).unwrap_or(Timestamp::MAX)
    }

    fn since_boot(&self) -> Duration {
        self.clock.since_boot()
    }
}

/// How far wall time is ahead of the time since boot. Wall time is read first: an interruption
/// between the two makes the answer too small, which is forgotten, and never too large.
fn ahead(clock: &dyn Clock) -> i64 {
    let wall = clock.now();
    ahead_of(wall, clock.since_boot())
}

/// In nanoseconds; 292 years fit.
fn ahead_of(wall: Timestamp, boot: Duration) -> i64 {
    let ahead = wall.as_nanosecond() - i128::try_from(boot.as_nanos()).unwrap_or(i128::MAX);
    i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN })
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

    /// Wall time and time since boot, in milliseconds.
    #[derive(Debug, Default)]
    struct Held(AtomicI64, AtomicI64);

    impl Clock for Held {
        fn now(&self) -> Timestamp {
            at(self.0.load(Ordering::Relaxed))
        }

        fn since_boot(&self) -> Duration {
            Duration::from_millis(self.1.load(Ordering::Relaxed).unsigned_abs())
        }
    }

    #[test]
    fn time_goes_on_when_the_wall_clock_goes_back_and_follows_it_forward() {
        let held = Arc::new(Held::default());
        let forward = Forward::new(Arc::clone(&held) as _);
        let see = |wall, boot| {
            held.0.store(wall, Ordering::Relaxed);
            held.1.store(boot, Ordering::Relaxed);
            (forward.now().duration_since(at(0)).as_millis(), forward.lead().as_millis())
        };
        assert_eq!(see(0, 0), (0, 0));
        assert_eq!(see(1000, 1000), (1000, 0));
        // Set back by an hour: a second later it is a second later.
        assert_eq!(see(-3_598_000, 2000), (2000, 3_600_000));
        // Set forward again, by less and by more.
        assert_eq!(see(1000, 3000), (3000, 2000));
        assert_eq!(see(60_000, 4000), (60_000, 0));
        assert_eq!(see(61_000, 5000), (61_000, 0));
        // Suspended: both clocks have moved, only timers have not.
        assert_eq!(see(7_261_000, 7_205_000), (7_261_000, 0));
    }

    #[test]
    fn the_system_clocks_move_together() {
        let clock = SystemClock;
        let mut watch = StepWatch::new(clock.now(), clock.since_boot());
        assert_eq!(watch.observe(clock.now(), clock.since_boot()), None);
    }
}
