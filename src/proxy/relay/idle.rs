//! How long a relay may stand still.
//!
//! Activity only notes an instant; the one timer of a session is moved when it fires and finds that
//! something happened meanwhile, so that busy connections never touch the timer wheel.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::proxy::engine::deadlines::Deadline;
use crate::units::Period;

/// From this age on a relay is one of those who stay, and the kernel asks its silent peers whether
/// they are still there. The three system calls for that are spared to those who come and go.
const OLD: Duration = Duration::from_secs(30);

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

/// Watches one relay, by the session's own timer.
#[derive(Debug)]
pub struct Idle {
    limits: Rc<Limits>,
    last: Instant,
    half_closed: bool,
    /// Whether the kernel has been asked to look after the backend.
    is_old: bool,
}

/// Why a relay is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It has become one of those who stay.
    Old,
    /// The limit that holds has passed without activity.
    Expired,
}

impl Idle {
    /// Starts counting now.
    #[must_use]
    pub fn new(limits: Rc<Limits>, timer: &mut Deadline) -> Self {
        let last = Instant::now();
        timer.set(last + OLD.min(limits.idle));
        Self { limits, last, half_closed: false, is_old: false }
    }

    /// Other limits hold from here on.
    pub fn relax(&mut self, limits: &Rc<Limits>, timer: &mut Deadline) {
        self.limits = Rc::clone(limits);
        timer.set(self.deadline().min(self.last + OLD));
    }

    /// Bytes moved just now.
    pub fn touch(&mut self) {
        self.last = Instant::now();
    }

    /// One direction has just finished: the shorter limit holds from here.
    pub fn half_close(&mut self, timer: &mut Deadline) {
        if !self.half_closed {
            self.half_closed = true;
            self.touch();
            timer.set(self.deadline().min(self.last + OLD));
        }
    }

    fn deadline(&self) -> Instant {
        self.last + if self.half_closed { self.limits.half_close } else { self.limits.idle }
    }

    /// Ready when there is something to be done.
    pub fn poll_due(&mut self, timer: &mut Deadline, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            ready!(timer.poll_passed(cx));
            let deadline = self.deadline();
            if Instant::now() >= deadline {
                return Poll::Ready(Due::Expired);
            }
            timer.set(deadline);
            if !std::mem::replace(&mut self.is_old, true) {
                return Poll::Ready(Due::Old);
            }
        }
    }

    /// Whether one direction had finished.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.half_closed
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::proxy::engine::deadlines::{Deadlines, TICK};

    #[test]
    fn a_relay_grows_old_once_and_is_over_when_its_limit_has_passed() {
        let deadlines = Deadlines::new(Instant::now());
        let limits = Limits { idle: 2 * OLD, half_close: OLD };
        let mut timer = deadlines.unset();
        let mut idle = Idle::new(Rc::new(limits), &mut timer);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(idle.poll_due(&mut timer, &mut cx).is_pending());
        deadlines.turn(Instant::now() + OLD + TICK);
        assert_eq!(idle.poll_due(&mut timer, &mut cx), Poll::Ready(Due::Old));
        assert!(idle.poll_due(&mut timer, &mut cx).is_pending(), "it is told once");
        // Not by the turn's clock but by the real one: nothing has stood still for so long.
        deadlines.turn(Instant::now() + 2 * OLD + TICK);
        assert!(idle.poll_due(&mut timer, &mut cx).is_pending());
    }

    #[test]
    fn whoever_stays_is_kept_alive_by_the_kernel() {
        use crate::proxy::engine::Engine;
        use crate::proxy::engine::socket::Socket;
        use crate::proxy::transport::Transport;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let engine = Engine::new().unwrap();
        let reactor = engine.reactor.clone();
        let connect = async move { Socket::connect(&reactor, address, |_| Ok(())).await };
        let socket = engine.run(connect).unwrap().unwrap();
        let is_kept = || socket2::SockRef::from(&socket).keepalive().unwrap();
        assert!(!is_kept());
        socket.keep_alive();
        assert!(is_kept());
        // In memory there is no kernel to ask.
        duplex(1).0.keep_alive();
    }
}
