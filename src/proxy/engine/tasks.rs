//! The loop of one worker: polls tasks that were woken, waits for events and deadlines.
//!
//! Tasks stay on their worker and need not be `Send`; they may be woken from any thread. A task
//! that panics ends alone.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::event::{EventfdFlags, eventfd};
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::reactor::{Events, Reactor};

type Task = LocalBoxFuture<'static, ()>;

/// Starts tasks on a worker, from that worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spawner {
    fresh: Rc<RefCell<Vec<Task>>>,
    /// How many tasks there are beside those, as others may see it.
    load: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Spawner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

impl Spawner {
    /// Starts a task. It is polled first when the task that calls this is done with its turn.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // The panic hook has told what happened; what the task held is given back by dropping it.
        let task = AssertUnwindSafe(task).catch_unwind().map(drop);
        self.fresh.borrow_mut().push(task.boxed_local());
    }

    /// How many tasks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.load.load(Ordering::Relaxed) + self.fresh.borrow().len()
    }

    /// How many tasks there were at the end of the worker's last turn, for other threads to see.
    #[must_use]
    pub fn load(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.load)
    }
}

/// Ends the waiting of a worker, from whichever thread.
#[derive(Debug)]
pub(super) struct Alarm {
    event: OwnedFd,
    is_raised: AtomicBool,
    is_parked: AtomicBool,
}

impl Alarm {
    /// One that ends the waiting of this reactor.
    ///
    /// # Errors
    /// The kernel gives no event descriptor.
    pub(super) fn of(reactor: &Reactor) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        reactor.register_alarm(&event)?;
        Ok(Self { event, is_raised: AtomicBool::new(false), is_parked: AtomicBool::new(false) })
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was_raised = self.is_raised.swap(true, Ordering::SeqCst);
        if !was_raised && self.is_parked.load(Ordering::SeqCst) {
            // Fails only when the counter is full, and then the worker is being woken already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// Runs `main` and all tasks that it starts, until `main` is over. The other tasks are dropped
/// then.
///
/// # Errors
/// Waiting for events failed.
pub(super) fn run<T: 'static>(
    reactor: &Reactor,
    deadlines: &Deadlines,
    spawner: &Spawner,
    alarm: &Arc<Alarm>,
    main: impl Future<Output = T> + 'static,
) -> io::Result<T> {
    let waker = Waker::from(Arc::clone(alarm));
    let mut cx = Context::from_waker(&waker);

    let result = Rc::new(Cell::new(None));
    let told = Rc::clone(&result);
    spawner.fresh.borrow_mut().push(main.map(move |value| told.set(Some(value))).boxed_local());
    let mut tasks = FuturesUnordered::new();
    let mut events = Events::default();
    loop {
        alarm.is_raised.store(false, Ordering::SeqCst);
        loop {
            tasks.extend(spawner.fresh.borrow_mut().drain(..));
            while let Poll::Ready(Some(())) = tasks.poll_next_unpin(&mut cx) {
                if let Some(value) = result.take() {
                    return Ok(value);
                }
            }
            // Who was started meanwhile is polled before the worker looks for events again.
            if spawner.fresh.borrow().is_empty() {
                break;
            }
        }
        spawner.load.store(tasks.len(), Ordering::Relaxed);
        let mut longest = deadlines.next(Instant::now());
        alarm.is_parked.store(true, Ordering::SeqCst);
        if alarm.is_raised.load(Ordering::SeqCst) {
            longest = Some(Duration::ZERO);
        }
        reactor.wait(&mut events, longest)?;
        alarm.is_parked.store(false, Ordering::SeqCst);
        reactor.note(&events);
        deadlines.turn(Instant::now());
    }
}
