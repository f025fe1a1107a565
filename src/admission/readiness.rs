//! Whether an app runs, by its answer to its health check.
//!
//! While an app is being configured, the configuration server answers for it, and marks whatever it
//! says by a header of its own. An answer without that header is the app's; all but 503 mean that
//! it is ready, because an app may well have no page there.

use std::time::Duration;

use crate::registry::app::Phase;

/// The header of the configuration server.
pub const MARK: &str = "mse-status";
/// The first pause between two questions, and the longest; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The phase that an answer shows; none: it goes on as it is.
#[must_use]
pub const fn shows(status: u16, is_marked: bool) -> Option<Phase> {
    match (status, is_marked) {
        (500, true) => Some(Phase::OnError),
        (503, false) | (_, true) => None,
        (_, false) => Some(Phase::Running),
    }
}

/// How long to wait after so many questions without an answer that shows anything: whoever serves
/// one client at a time has others to serve.
#[must_use]
pub fn pause(asked: u32) -> Duration {
    let factor = 2_u32.saturating_pow(asked.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(factor).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_app_itself_shows_that_it_runs() {
        for status in [200, 204, 301, 401, 404, 418, 500, 502] {
            assert_eq!(shows(status, false), Some(Phase::Running), "{status}");
        }
        assert_eq!(shows(503, false), None);
        assert_eq!(shows(500, true), Some(Phase::OnError));
        for status in [200, 404, 503] {
            assert_eq!(shows(status, true), None, "{status}");
        }
    }

    #[test]
    fn pauses_grow_up_to_half_a_minute() {
        let seconds: Vec<_> = (1..8).map(|asked| pause(asked).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(u32::MAX), LAST_PAUSE);
        assert_eq!(pause(0), FIRST_PAUSE);
    }
}
