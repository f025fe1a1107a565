//! How long a relay may stand still.
//!
//! Activity only notes an instant; the one timer of a relay is moved when it fires and finds that
//! something happened meanwhile, so that busy connections never touch the timer wheel.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep};

use crate::units::Period;

/// The section `relay` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// No byte either way for this long ends a session. Long polls and silent web sockets are
    /// common; the shortest allowed is the 60 s that posting secrets to an enclave may take.
    pub idle_timeout: IdleTimeout,
    /// The same, once one side has finished: half-open pairs would otherwise pile up.
    pub half_close_timeout: Period,
}

/// A period of at least [`IdleTimeout::LEAST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Period")]
pub struct IdleTimeout(Period);

impl IdleTimeout {
    /// A secrets upload may be silent for 60 s.
    pub const LEAST: Duration = Duration::from_mins(1);
}

impl TryFrom<Period> for IdleTimeout {
    type Error = String;

    fn try_from(period: Period) -> Result<Self, String> {
        if period.0 < Self::LEAST {
            return Err(format!(
                "must be at least 60s, the time that posting secrets may take (it is {period})"
            ));
        }
        Ok(Self(period))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_timeout: IdleTimeout(Period(Duration::from_mins(10))),
            half_close_timeout: Period(Duration::from_mins(5)),
        }
    }
}

/// The two limits, as the relay uses them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// With both directions open.
    pub idle: Duration,
    /// With one direction finished.
    pub half_close: Duration,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        let idle = settings.idle_timeout.0.0;
        Self { idle, half_close: settings.half_close_timeout.0.min(idle) }
    }
}

/// Watches one relay.
#[derive(Debug)]
pub struct Idle {
    limits: Limits,
    last: Instant,
    half_closed: bool,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    /// Starts counting now.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let last = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(last + limits.idle));
        Self { limits, last, half_closed: false, timer }
    }

    /// Bytes moved just now.
    pub fn touch(&mut self) {
        self.last = Instant::now();
    }

    /// One direction has just finished: the shorter limit holds from here.
    pub fn half_close(&mut self) {
        if !self.half_closed {
            self.half_closed = true;
            self.touch();
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
    }

    fn deadline(&self) -> Instant {
        self.last + if self.half_closed { self.limits.half_close } else { self.limits.idle }
    }

    /// Ready when the limit that holds has passed without activity.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let deadline = self.deadline();
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Whether one direction had finished.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.half_closed
    }
}
