//! The string by which a session can be ended from outside, from whichever thread.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::outcome::Outcome;

/// The string by which a session can be ended from outside.
#[derive(Debug, Default)]
pub struct Handle {
    /// 0, or one more than the index in [`RETIREMENTS`].
    retired: AtomicU8,
    /// Whether it should come to an end by itself, soon.
    is_asked: AtomicBool,
    waker: AtomicWaker,
}

/// The endings that come from outside.
const RETIREMENTS: [Outcome; 4] =
    [Outcome::RouteExpired, Outcome::RouteRemoved, Outcome::Drained, Outcome::LimitConnections];

impl Handle {
    /// Ends the session; the first reason given is the one that counts.
    pub fn retire(&self, outcome: Outcome) {
        let index = RETIREMENTS.iter().position(|known| *known == outcome).unwrap_or(0);
        let code = u8::try_from(index + 1).unwrap_or(u8::MAX);
        if self.retired.compare_exchange(0, code, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn retired(&self) -> Option<Outcome> {
        let code = usize::from(self.retired.load(Ordering::Acquire));
        RETIREMENTS.get(code.checked_sub(1)?).copied()
    }

    /// Ready once the session has been told to end. One task may wait at a time.
    pub fn poll_retired(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.retired() {
            return Poll::Ready(outcome);
        }
        self.waker.register(cx.waker());
        self.retired().map_or(Poll::Pending, Poll::Ready)
    }

    /// Asks the session to come to an end by itself. Sealed ones cannot.
    pub fn ask_to_leave(&self) {
        if !self.is_asked.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Whether the session was asked to come to an end. Whoever waits in [`Handle::poll_retired`]
    /// is woken for this as well.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Waits until the session is told to end.
    pub async fn wait(&self) -> Outcome {
        std::future::poll_fn(|cx| self.poll_retired(cx)).await
    }
}
