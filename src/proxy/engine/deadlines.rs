//! All the deadlines of one worker, in one hashed wheel.
//!
//! A session has one [`Deadline`] for its whole life and moves it from step to step. Setting one
//! costs a few stores; moving it later costs one, because an entry that comes up too early is only
//! put back. Whoever turns the wheel says what time it is. Deadlines come up at most [`TICK`] late,
//! and never early.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

/// How fine the wheel is.
pub const TICK: Duration = Duration::from_millis(10);
const TICKS_PER_SECOND: u64 = 100;
const TICK_NANOS: u32 = 10_000_000;
/// How many ticks lie on the wheel: 41 s. What is due later comes up then and is put back.
const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;

/// The deadlines of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deadlines {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wheel: RefCell<Wheel>,
    start: Instant,
}

/// One deadline, which may be moved. Forgotten when it is dropped.
#[derive(Debug)]
pub struct Deadline {
    shared: Rc<Shared>,
    key: u32,
}

/// What was waited for did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed;

impl Deadlines {
    /// A wheel that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let shared = Shared { wheel: RefCell::default(), start: now };
        Self { shared: Rc::new(shared) }
    }

    /// A deadline that has not been set.
    #[must_use]
    pub fn unset(&self) -> Deadline {
        let key = self.shared.wheel.borrow_mut().enter();
        Deadline { shared: Rc::clone(&self.shared), key }
    }

    /// A deadline at an instant.
    #[must_use]
    pub fn at(&self, at: Instant) -> Deadline {
        let mut deadline = self.unset();
        deadline.set(at);
        deadline
    }

    /// Waits for so long.
    pub async fn sleep(&self, time: Duration) {
        self.at(Instant::now() + time).passed().await;
    }

    /// Turns the wheel to this instant and wakes those whose deadline has come.
    pub fn turn(&self, now: Instant) {
        let tick = self.shared.tick_before(now);
        let mut due = Vec::new();
        self.shared.wheel.borrow_mut().turn(tick, &mut due);
        // With the wheel free: who is woken may set another deadline.
        due.into_iter().for_each(Waker::wake);
    }

    /// How long after `now` the wheel must be turned again, if anybody waits.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let tick = self.shared.wheel.borrow().next()?;
        Some(self.shared.instant_of(tick).saturating_duration_since(now))
    }
}

impl Shared {
    /// The last tick that has passed at an instant.
    fn tick_before(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        since.as_secs() * TICKS_PER_SECOND + u64::from(since.subsec_nanos() / TICK_NANOS)
    }

    /// The first tick that is not before an instant.
    fn tick_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        since.as_secs() * TICKS_PER_SECOND + u64::from(since.subsec_nanos().div_ceil(TICK_NANOS))
    }

    fn instant_of(&self, tick: u64) -> Instant {
        let rest = u32::try_from(tick % TICKS_PER_SECOND).unwrap_or(0);
        self.start + Duration::new(tick / TICKS_PER_SECOND, rest * TICK_NANOS)
    }
}

impl Deadline {
    /// Moves it.
    pub fn set(&mut self, at: Instant) {
        let tick = self.shared.tick_after(at);
        self.shared.wheel.borrow_mut().set(self.key, tick);
    }

    /// Ready once it has come. One task may wait at a time.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.wheel.borrow_mut().poll_passed(self.key, cx)
    }

    /// Waits until it has come.
    pub async fn passed(&mut self) {
        std::future::poll_fn(|cx| self.poll_passed(cx)).await;
    }

    /// Waits for something, but not beyond the deadline.
    ///
    /// # Errors
    /// [`Passed`].
    pub async fn bound<T>(&mut self, happens: impl Future<Output = T>) -> Result<T, Passed> {
        let mut happens = pin!(happens);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(happened) = happens.as_mut().poll(cx) {
                return Poll::Ready(Ok(happened));
            }
            self.poll_passed(cx).map(|()| Err(Passed))
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.shared.wheel.borrow_mut().leave(self.key);
    }
}

/// The end of a list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Wheel {
    /// The last tick that was turned to.
    now: u64,
    /// The first entry of each slot.
    heads: Box<[u32]>,
    /// Which slots have entries, a bit each.
    taken: [u64; WORDS],
    entries: Slab<Entry>,
}

/// A deadline on the wheel, in a list with those of the same slot.
#[derive(Debug)]
struct Entry {
    at: u64,
    before: u32,
    after: u32,
    /// Where it is listed; [`SLOTS`] is nowhere.
    slot: u16,
    has_passed: bool,
    waker: Option<Waker>,
}

const NOWHERE: u16 = 4096;

impl Default for Wheel {
    fn default() -> Self {
        Self {
            now: 0,
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            taken: [0; WORDS],
            entries: Slab::new(),
        }
    }
}

impl Wheel {
    fn enter(&mut self) -> u32 {
        let entry = Entry {
            at: 0,
            before: NONE,
            after: NONE,
            slot: NOWHERE,
            has_passed: false,
            waker: None,
        };
        // A worker's memory ends long before 2^32 entries do.
        u32::try_from(self.entries.insert(entry)).unwrap_or(NONE)
    }

    fn leave(&mut self, key: u32) {
        self.unlink(key);
        self.entries.try_remove(key as usize);
    }

    fn set(&mut self, key: u32, at: u64) {
        let (now, Some(entry)) = (self.now, self.entries.get_mut(key as usize)) else { return };
        let at = at.max(now + 1);
        let is_later = entry.slot != NOWHERE && entry.at <= at;
        entry.at = at;
        entry.has_passed = false;
        if !is_later {
            self.unlink(key);
            self.link(key);
        }
    }

    fn poll_passed(&mut self, key: u32, cx: &mut Context<'_>) -> Poll<()> {
        let Some(entry) = self.entries.get_mut(key as usize) else { return Poll::Pending };
        if entry.has_passed {
            return Poll::Ready(());
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Lists an entry under its tick, or under the last one on the wheel.
    fn link(&mut self, key: u32) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        let slot = slot_of(entry.at.min(self.now + SLOTS as u64 - 1));
        let Some(head) = self.heads.get_mut(slot) else { return };
        let first = std::mem::replace(head, key);
        (entry.before, entry.after) = (NONE, first);
        entry.slot = u16::try_from(slot).unwrap_or(NOWHERE);
        if let Some(first) = self.entries.get_mut(first as usize) {
            first.before = key;
        }
        self.mark(slot, true);
    }

    fn unlink(&mut self, key: u32) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        let slot = usize::from(std::mem::replace(&mut entry.slot, NOWHERE));
        let (before, after) = (entry.before, entry.after);
        if slot == usize::from(NOWHERE) {
            return;
        }
        if let Some(after) = self.entries.get_mut(after as usize) {
            after.before = before;
        }
        if let Some(before) = self.entries.get_mut(before as usize) {
            before.after = after;
        } else if let Some(head) = self.heads.get_mut(slot) {
            *head = after;
            self.mark(slot, after != NONE);
        }
    }

    fn mark(&mut self, slot: usize, is_taken: bool) {
        let bit = 1 << (slot % 64);
        if let Some(word) = self.taken.get_mut(slot / 64) {
            *word = if is_taken { *word | bit } else { *word & !bit };
        }
    }

    /// The next tick at which something is listed.
    fn next(&self) -> Option<u64> {
        let first = slot_of(self.now + 1);
        // Word by word from the slot that comes next; its own word is looked at twice, first
        // without what lies behind it, then (a full turn later) with that alone.
        for step in 0..=WORDS {
            let word = (first / 64 + step) % WORDS;
            let mut bits = self.taken.get(word).copied().unwrap_or(0);
            if step == 0 {
                bits &= u64::MAX << (first % 64);
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - first) % SLOTS;
                return Some(self.now + 1 + ahead as u64);
            }
        }
        None
    }

    fn turn(&mut self, tick: u64, due: &mut Vec<Waker>) {
        while let Some(next) = self.next().filter(|next| *next <= tick) {
            self.now = next;
            let slot = slot_of(next);
            let mut key =
                self.heads.get_mut(slot).map_or(NONE, |head| std::mem::replace(head, NONE));
            self.mark(slot, false);
            while let Some(entry) = self.entries.get_mut(key as usize) {
                let (this, after) = (key, entry.after);
                entry.slot = NOWHERE;
                if entry.at <= next {
                    entry.has_passed = true;
                    due.extend(entry.waker.take());
                } else {
                    self.link(this);
                }
                key = after;
            }
        }
        self.now = self.now.max(tick);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is cut off is a multiple of SLOTS")]
fn slot_of(tick: u64) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
impl Deadlines {
    /// Turns by tokio's clock, which a test may have paused; the last seconds of a long wait come
    /// up at most one second late.
    pub(crate) async fn turn_for_ever(self) {
        loop {
            let wait = self.next(Instant::now()).unwrap_or(Duration::MAX);
            tokio::time::sleep(wait.clamp(TICK, Duration::from_secs(1))).await;
            self.turn(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has_passed(deadline: &mut Deadline) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        deadline.poll_passed(&mut cx).is_ready()
    }

    #[test]
    fn it_comes_up_at_most_a_tick_late_and_never_early() {
        let start = Instant::now();
        let deadlines = Deadlines::new(start);
        let mut now = start;
        for millis in [1, 9, 10, 11, 995, 40_950, 40_970, 600_000] {
            let at = now + Duration::from_millis(millis);
            let mut deadline = deadlines.at(at);
            let mut turns = 0;
            loop {
                assert!(!has_passed(&mut deadline) || now >= at, "{millis}");
                let Some(next) = deadlines.next(now) else { break };
                now += next;
                deadlines.turn(now);
                turns += 1;
            }
            assert!(has_passed(&mut deadline));
            assert!(now < at + TICK, "{millis}: {:?}", now - at);
            assert!(turns <= 16, "{millis}: {turns} turns");
        }
    }

    #[test]
    fn what_is_moved_later_comes_up_later_and_what_is_dropped_never() {
        let start = Instant::now();
        let deadlines = Deadlines::new(start);
        let second = Duration::from_secs(1);
        let (mut moved, dropped) = (deadlines.at(start + second), deadlines.at(start + second));
        moved.set(start + 3 * second);
        drop(dropped);
        deadlines.turn(start + 2 * second);
        assert!(!has_passed(&mut moved));
        moved.set(start + 3 * second / 2);
        assert_eq!(deadlines.next(start + 2 * second), Some(TICK), "what is past comes up next");
        deadlines.turn(start + 2 * second + TICK);
        assert!(has_passed(&mut moved));
        moved.set(start + 4 * second);
        assert!(!has_passed(&mut moved));
        drop(moved);
        assert_eq!(deadlines.next(start), None);
        assert!(deadlines.shared.wheel.borrow().entries.is_empty());
    }

    #[test]
    fn a_worker_that_stood_still_for_hours_misses_nothing() {
        let start = Instant::now();
        let deadlines = Deadlines::new(start);
        let mut all: Vec<_> =
            (0..1000).map(|n| deadlines.at(start + Duration::from_secs(n * 7))).collect();
        deadlines.turn(start + Duration::from_hours(3));
        assert!(all.iter_mut().all(has_passed));
        assert_eq!(deadlines.next(start), None);
    }

    proptest! {
        /// The wheel against the plain definition: a deadline has passed iff its tick has.
        #[test]
        fn it_agrees_with_a_plain_model(
            steps in prop::collection::vec((0..8_usize, 0..100_000_u64, 0..3_u8), 1..200)
        ) {
            let start = Instant::now();
            let deadlines = Deadlines::new(start);
            let mut now = start;
            let mut all: Vec<(Deadline, Option<Instant>)> =
                (0..8).map(|_| (deadlines.unset(), None)).collect();
            for (which, millis, what) in steps {
                let time = Duration::from_millis(millis);
                let (deadline, at) = &mut all[which];
                match what {
                    0 => {
                        deadline.set(now + time);
                        *at = Some(now + time);
                    }
                    1 => *deadline = { *at = None; deadlines.unset() },
                    _ => {
                        now += time;
                        deadlines.turn(now);
                    }
                }
                for (deadline, at) in &mut all {
                    let passed = has_passed(deadline);
                    match *at {
                        None => prop_assert!(!passed),
                        Some(at) if passed => prop_assert!(now >= at),
                        Some(at) => prop_assert!(now < at + TICK),
                    }
                }
            }
        }
    }
}
