//! How long a source that follows a store rests after it failed.

use std::time::Duration;

/// The first pause after a failure; each further one doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a store that is back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(3);
/// A watch that lasted this long was no failure.
const LASTING: Duration = Duration::from_secs(10);

/// The pauses between attempts.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// The pause after an attempt that lasted so long.
    pub(super) fn after(&mut self, lasted: Duration) -> Duration {
        let pause = if lasted > LASTING { FIRST } else { self.0 };
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}
