//! Proof that the data path turns: every loop beats, and one observer sees which do not.
//!
//! A loop beats only at the waits that it names with [`Pulse::during`]: before and after each, and
//! at a steady rate within it, so that a wait is as good as work. A loop that spins, blocks or
//! hangs anywhere else falls silent, as does one whose thread is gone. Who legitimately ends says
//! so with [`Pulse::rest`]. What a silence leads to is not decided here.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::engine::deadlines::{Deadline, Deadlines};

/// How often a waiting loop beats, unless its observer looks more often than fits that.
const BEAT: Duration = Duration::from_secs(1);
/// Beats between two looks of an observer. One would do on an idle machine.
const BEATS_PER_LOOK: u32 = 4;
/// Instead of a count: this loop has ended as it should.
const AT_REST: u64 = u64::MAX;

/// All the loops that have to turn. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulses {
    every: Duration,
    beats: Arc<Mutex<Vec<Arc<Beats>>>>,
}

#[derive(Debug)]
struct Beats {
    name: String,
    count: AtomicU64,
}

impl Pulses {
    /// Loops whose observer looks as often as told, if there is one.
    #[must_use]
    pub fn new(look_every: Option<Duration>) -> Self {
        let every = look_every.map_or(BEAT, |look| (look / BEATS_PER_LOOK).min(BEAT));
        // An interval of nothing is none.
        Self { every: every.max(Duration::from_millis(1)), beats: Arc::default() }
    }

    /// A loop that has to turn from now on, on the worker with these deadlines.
    #[must_use]
    pub fn join(&self, name: String, deadlines: &Deadlines) -> Pulse {
        let beats = Arc::new(Beats { name, count: AtomicU64::new(0) });
        self.lock().push(Arc::clone(&beats));
        Pulse { beats, every: self.every, next: deadlines.unset() }
    }

    /// An observer of all of them.
    #[must_use]
    pub fn observe(&self) -> Observer {
        Observer { pulses: self.clone(), seen: Vec::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Beats>>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One loop's proof that it turns.
#[derive(Debug)]
pub struct Pulse {
    beats: Arc<Beats>,
    every: Duration,
    next: Deadline,
}

impl Pulse {
    /// Waits for something, for as long as it takes, and beats meanwhile.
    pub async fn during<T>(&mut self, happens: impl Future<Output = T>) -> T {
        self.beat();
        let mut happens = pin!(happens);
        loop {
            self.next.set(Instant::now() + self.every);
            let happened = self.next.bound(&mut happens).await;
            self.beat();
            if let Ok(happened) = happened {
                return happened;
            }
        }
    }

    /// The loop has ended as it should, and need not turn any more. Merely dropping the pulse, as
    /// a panic does, leaves the loop to be missed.
    pub fn rest(self) {
        self.beats.count.store(AT_REST, Ordering::Relaxed);
    }

    fn beat(&self) {
        // Only this loop writes.
        let count = self.beats.count.load(Ordering::Relaxed);
        self.beats.count.store(count + 1, Ordering::Relaxed);
    }
}

/// Sees who turns.
#[derive(Debug)]
pub struct Observer {
    pulses: Pulses,
    /// The counts at the last look at which nobody was silent.
    seen: Vec<u64>,
}

impl Observer {
    /// The names of the loops that have not beaten since the last look at which all of them had;
    /// none is the good answer. A loop that has just joined has beaten by that.
    pub fn silent(&mut self) -> Vec<String> {
        let beats = self.pulses.lock();
        let counts: Vec<u64> =
            beats.iter().map(|beats| beats.count.load(Ordering::Relaxed)).collect();
        let seen = |index| self.seen.get(index).copied();
        let silent: Vec<String> = counts
            .iter()
            .zip(beats.iter())
            .enumerate()
            .filter(|(index, (count, _))| **count != AT_REST && seen(*index) == Some(**count))
            .map(|(_, (_, beats))| beats.name.clone())
            .collect();
        if silent.is_empty() {
            self.seen = counts;
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::proxy::engine::Engine;

    const LOOK: Duration = Duration::from_secs(10);

    /// Deadlines that come up by the test's clock.
    fn turning() -> Deadlines {
        let deadlines = Deadlines::new(Instant::now());
        spawn_local(deadlines.clone().turn_for_ever());
        deadlines
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_for_ever_is_alive() {
        let test = async {
            let deadlines = turning();
            let pulses = Pulses::new(Some(LOOK));
            let mut pulse = pulses.join("door".into(), &deadlines);
            spawn_local(async move { pulse.during(pending::<()>()).await });
            let mut observer = pulses.observe();
            for _ in 0..100 {
                sleep(LOOK).await;
                assert_eq!(observer.silent(), [""; 0]);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_for_something_unnamed_falls_silent_though_its_runtime_turns() {
        let test = async {
            let deadlines = turning();
            let pulses = Pulses::new(Some(LOOK));
            let (mut door, mut other) =
                (pulses.join("door".into(), &deadlines), pulses.join("other".into(), &deadlines));
            spawn_local(async move {
                door.during(sleep(LOOK)).await;
                pending::<()>().await;
            });
            spawn_local(async move { other.during(pending::<()>()).await });
            let mut observer = pulses.observe();
            sleep(LOOK / 2).await;
            assert_eq!(observer.silent(), [""; 0]);
            sleep(LOOK).await;
            assert_eq!(observer.silent(), [""; 0], "it still turned since the last look");
            for _ in 0..3 {
                sleep(LOOK).await;
                assert_eq!(observer.silent(), ["door"]);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rest_is_no_silence_and_a_panic_is_no_rest() {
        let test = async {
            let deadlines = turning();
            let pulses = Pulses::new(Some(LOOK));
            let (mut done, mut dead) =
                (pulses.join("done".into(), &deadlines), pulses.join("dead".into(), &deadlines));
            let mut observer = pulses.observe();
            spawn_local(async move {
                done.during(sleep(LOOK / 2)).await;
                done.rest();
            });
            let fate = spawn_local(async move {
                dead.during(sleep(LOOK / 2)).await;
                panic!("the fate of this loop");
            });
            assert!(fate.await.is_err());
            assert_eq!(observer.silent(), [""; 0]);
            advance(LOOK).await;
            assert_eq!(observer.silent(), ["dead"]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_that_ends_is_forgiven() {
        let test = async {
            let deadlines = turning();
            let pulses = Pulses::new(Some(LOOK));
            let mut pulse = pulses.join("door".into(), &deadlines);
            let mut observer = pulses.observe();
            assert_eq!(observer.silent(), [""; 0]);
            assert_eq!(observer.silent(), ["door"]);
            pulse.during(sleep(LOOK)).await;
            assert_eq!(observer.silent(), [""; 0]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[test]
    fn a_worker_that_blocks_falls_silent_and_its_neighbour_does_not() {
        let pulses = Pulses::new(Some(Duration::from_millis(40)));
        let (block, blocked) = std::sync::mpsc::channel::<()>();
        let (joined, both) = std::sync::mpsc::channel();
        let worker = |name: &'static str, task: Box<dyn FnOnce() + Send>| {
            let (pulses, joined) = (pulses.clone(), joined.clone());
            std::thread::spawn(move || {
                let engine = Engine::new().unwrap();
                let mut pulse = pulses.join(name.into(), &engine.deadlines);
                joined.send(()).unwrap();
                // What a session must never do: hold its worker.
                engine.spawner.spawn(async move { task() });
                engine.run(async move { pulse.during(pending::<()>()).await }).unwrap();
            })
        };
        // Not joined: they wait for ever, and end with the test.
        worker("held", Box::new(move || assert!(blocked.recv().is_err(), "let go")));
        worker("free", Box::new(|| {}));
        both.recv().unwrap();
        both.recv().unwrap();
        let mut observer = pulses.observe();
        let until = |observer: &mut Observer, wanted: &[&str]| {
            for _ in 0..5_000 {
                if observer.silent() == wanted {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("{wanted:?} was never what is silent");
        };
        until(&mut observer, &["held"]);
        drop(block);
        until(&mut observer, &[]);
    }
}
