//! How long something is tried, with growing pauses, and what came of it meanwhile.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::Error;

/// Enough for an endpoint that refuses while its process starts again.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest: a fleet that lost its etcd asks it at this pace.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A bound for trying.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    deadline: Instant,
    pause: Duration,
    /// The last complaint about each endpoint.
    complaints: Vec<(String, String)>,
}

impl Patience {
    /// That lasts so long.
    pub(super) fn new(bound: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, deadline: begun + bound, pause: FIRST_PAUSE, complaints: Vec::new() }
    }

    /// When it ends.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Notes what went wrong at an endpoint.
    pub(super) fn complain(&mut self, endpoint: String, why: String) {
        self.complaints.retain(|(known, _)| *known != endpoint);
        self.complaints.push((endpoint, why));
    }

    /// Notes that an endpoint did not answer to the end, unless it said something before.
    pub(super) fn note_silence(&mut self, endpoint: String) {
        if !self.complaints.iter().any(|(known, _)| *known == endpoint) {
            self.complaints.push((endpoint, "no answer in time".to_owned()));
        }
    }

    /// Waits before the next attempt, or says that there is no time for one.
    pub(super) async fn rest(&mut self) -> Result<(), Error> {
        let pause = jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if pause >= self.left() {
            return Err(self.exhausted());
        }
        sleep(pause).await;
        Ok(())
    }

    /// What to say when it is at its end.
    pub(super) fn exhausted(&self) -> Error {
        let mut why = String::from("etcd: ");
        for (at, (endpoint, complaint)) in self.complaints.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            // Writing to a string does not fail.
            let _ = write!(why, "{separator}{endpoint}: {complaint}");
        }
        if self.complaints.is_empty() {
            why.push_str("no answer in time");
        }
        Error::Unavailable { why, tried: self.begun.elapsed() }
    }
}

/// Between half of it and all of it: a fleet that lost its etcd in one instant shall not come back
/// in one.
fn jittered(pause: Duration) -> Duration {
    // Its keys are random for each process, and differ with each call.
    let random = RandomState::new().hash_one(0u8);
    let half = pause / 2;
    let part = u32::try_from(random >> 40).unwrap_or(0);
    half + half.mul_f64(f64::from(part) / f64::from(1u32 << 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let mut patience = Patience::new(Duration::from_secs(10));
        patience.complain("http://a:1".into(), "refused".into());
        patience.complain("http://b:1".into(), "silent".into());
        patience.complain("http://a:1".into(), "reset".into());
        patience.note_silence("http://a:1".into());
        let mut rests = 0;
        let error = loop {
            match patience.rest().await {
                Ok(()) => rests += 1,
                Err(error) => break error,
            }
        };
        // 25 ms doubled to a second in six steps, then a second each, or half of it.
        assert!((14..=27).contains(&rests), "{rests}");
        let Error::Unavailable { why, tried } = error else { panic!("{error}") };
        assert_eq!(why, "etcd: http://b:1: silent; http://a:1: reset");
        assert!(tried >= Duration::from_secs(9) && tried <= Duration::from_secs(10), "{tried:?}");
    }

    #[test]
    fn jitter_stays_within_the_pause() {
        let pause = Duration::from_secs(1);
        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|jittered| *jittered >= pause / 2 && *jittered <= pause));
        assert!(pauses.iter().any(|jittered| *jittered != pauses[0]));
    }
}
