//! Readiness of the sockets of one worker, by an epoll instance of its own.
//!
//! A socket is registered once, edge-triggered, for everything, and leaves by being closed: two
//! system calls less for each connection than a general-purpose runtime needs, and 24 bytes in
//! place of 256. Each socket belongs to one task, which is woken whatever happens to it; what is
//! known to be ready is remembered here. A listening socket is level-triggered, so that one is
//! accepted at each turn without asking the kernel whether there is another.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;

/// How many events are taken at a time.
const EVENTS: usize = 256;
/// Stands for nobody's socket: the waker of the worker itself.
const NOBODY: u64 = u64::MAX;

/// What a socket is ready for, as far as is known. Never zero, which makes the table of sockets a
/// third smaller: the lowest bit means nothing and is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready(NonZeroU8);

impl Default for Ready {
    fn default() -> Self {
        Self(NonZeroU8::MIN)
    }
}

impl Ready {
    /// Reading may find something.
    pub const READ: Self = Self::bit(1);
    /// Writing may find room.
    pub const WRITE: Self = Self::bit(2);
    /// The peer has finished or is gone: reading will not wait any more.
    pub const ENDED: Self = Self::bit(3);
    /// The socket has failed.
    pub const FAILED: Self = Self::bit(4);

    const fn bit(place: u8) -> Self {
        Self(NonZeroU8::MIN.saturating_add(1 << place))
    }

    /// Whether it has any of these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0.get() & other.0.get() != NonZeroU8::MIN.get()
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(NonZeroU8::MIN | (self.0.get() & !other.0.get()))
    }
}

impl From<EventFlags> for Ready {
    fn from(flags: EventFlags) -> Self {
        let mut ready = Self::default();
        if flags.intersects(EventFlags::IN) {
            ready = ready.and(Self::READ);
        }
        if flags.intersects(EventFlags::OUT) {
            ready = ready.and(Self::WRITE);
        }
        if flags.intersects(EventFlags::RDHUP) {
            ready = ready.and(Self::READ).and(Self::ENDED);
        }
        if flags.intersects(EventFlags::HUP) {
            ready = ready.and(Self::READ).and(Self::WRITE).and(Self::ENDED);
        }
        if flags.intersects(EventFlags::ERR) {
            ready = ready.and(Self::READ).and(Self::WRITE).and(Self::ENDED).and(Self::FAILED);
        }
        ready
    }
}

/// The sockets of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reactor {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    entries: RefCell<Slab<Entry>>,
    /// How many events the last turn brought.
    brought: Cell<usize>,
}

#[derive(Debug, Default)]
struct Entry {
    ready: Ready,
    waker: Option<Waker>,
}

/// A socket's place in the reactor. The socket itself is whoever holds this one's.
#[derive(Debug)]
pub struct Registration {
    shared: Rc<Shared>,
    key: usize,
}

impl Reactor {
    /// A reactor without sockets.
    ///
    /// # Errors
    /// The kernel has no descriptor for it.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (entries, brought) = (RefCell::default(), Cell::new(0));
        Ok(Self { shared: Rc::new(Shared { epoll, entries, brought }) })
    }

    /// Registers a connected or connecting socket. It is unregistered by being closed, and must
    /// not be duplicated.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn register(&self, socket: impl AsFd) -> io::Result<Registration> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.add(socket.as_fd(), all)
    }

    /// Registers a listening socket, which other workers may listen on too: each new connection
    /// wakes one of them. To be unregistered before it is closed, as its duplicates stay open.
    ///
    /// # Errors
    /// As [`Reactor::register`].
    pub fn register_listener(&self, socket: impl AsFd) -> io::Result<Registration> {
        self.add(socket.as_fd(), EventFlags::IN | EventFlags::EXCLUSIVE)
    }

    fn add(&self, socket: BorrowedFd<'_>, flags: EventFlags) -> io::Result<Registration> {
        let key = self.shared.entries.borrow_mut().insert(Entry::default());
        let registration = Registration { shared: Rc::clone(&self.shared), key };
        epoll::add(&self.shared.epoll, socket, EventData::new_u64(key as u64), flags)?;
        Ok(registration)
    }

    /// Takes a socket out without closing it.
    pub fn unregister(&self, socket: impl AsFd) {
        // One that is not in any more is out.
        let _ = epoll::delete(&self.shared.epoll, socket);
    }

    /// Lets an event descriptor end the waiting of [`Reactor::wait`].
    pub(super) fn register_alarm(&self, alarm: impl AsFd) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&self.shared.epoll, alarm, EventData::new_u64(NOBODY), flags)?)
    }

    /// How many events the last turn brought: the measure of how busy the worker is.
    #[must_use]
    pub fn brought(&self) -> usize {
        self.shared.brought.get()
    }

    /// Waits for events, at most for so long.
    pub(super) fn wait(&self, events: &mut Events, longest: Option<Duration>) -> io::Result<()> {
        let longest = longest.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        events.count = match epoll::wait(&self.shared.epoll, &mut events.all[..], longest.as_ref())
        {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// Notes the events and wakes those whom they concern. No task may run before all of them are
    /// noted: none can then close a socket whose event is still to come and hand its place on.
    pub(super) fn note(&self, events: &Events) {
        self.shared.brought.set(events.count);
        for event in events.all.iter().take(events.count) {
            let (flags, key) = (event.flags, event.data.u64());
            let waker = {
                let mut entries = self.shared.entries.borrow_mut();
                let key = usize::try_from(key).ok();
                let Some(entry) = key.and_then(|key| entries.get_mut(key)) else { continue };
                entry.ready = entry.ready.and(flags.into());
                entry.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Room for the events of a turn.
pub(super) struct Events {
    all: Box<[Event]>,
    count: usize,
}

impl Default for Events {
    fn default() -> Self {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(NOBODY) };
        Self { all: vec![none; EVENTS].into_boxed_slice(), count: 0 }
    }
}

impl Registration {
    /// What is ready now.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.shared.entries.borrow().get(self.key).map_or(Ready::default(), |entry| entry.ready)
    }

    /// Ready once the socket is ready for any of `wanted`.
    pub fn poll_ready(&self, cx: &mut Context<'_>, wanted: Ready) -> Poll<Ready> {
        let mut entries = self.shared.entries.borrow_mut();
        let Some(entry) = entries.get_mut(self.key) else { return Poll::Pending };
        if entry.ready.has(wanted) {
            return Poll::Ready(entry.ready);
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The socket has just said that it is not ready for this any more. A socket whose peer has
    /// ended goes on to be readable: there will be no other event.
    pub fn exhausted(&self, what: Ready) {
        let mut entries = self.shared.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(self.key) {
            let is_kept = what == Ready::READ && entry.ready.has(Ready::ENDED);
            if !is_kept {
                entry.ready = entry.ready.without(what);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.entries.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_told_and_taken_back() {
        let all = [Ready::READ, Ready::WRITE, Ready::ENDED, Ready::FAILED];
        for (place, one) in all.into_iter().enumerate() {
            assert!(!Ready::default().has(one) && one.has(one), "{one:?}");
            for other in all.into_iter().skip(place + 1) {
                assert!(!one.has(other) && one.and(other).has(other), "{one:?} {other:?}");
                assert_eq!(one.and(other).without(other), one);
            }
            assert_eq!(one.without(one), Ready::default());
        }
        assert!(size_of::<Option<Entry>>() <= 24, "{}", size_of::<Option<Entry>>());
    }
}
