//! A thread that writes what others hand over, so that nobody waits for a disk or for a reader.
//!
//! What is handed over waits in a bounded queue. When the queue is full because what is written to
//! stands still, the newest is dropped; what cannot be written is lost as well; both are counted,
//! and told to the log in few words. Closing writes out what waits, for as long as the caller has
//! patience. What is written, and to where, is the business of a [`Pen`].

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, warn};

/// How much is written at once, at the most: some 100 KiB.
const BATCH: usize = 256;
/// Losses are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long a caller waits for [`Scribe::reopen`]. Opening a file takes microseconds, unless its
/// disk or what is written to just then stands still.
const REOPEN_PATIENCE: Duration = Duration::from_secs(2);

/// Knows how and where to write.
pub(super) trait Pen: Send + 'static {
    /// What is handed over.
    type Item: Send + 'static;

    /// Writes these, in their order.
    ///
    /// # Errors
    /// How many of them are lost, and why.
    fn write(&mut self, items: &[Self::Item]) -> Result<(), Unwritten>;

    /// Opens again what it writes to, if that can be done.
    fn reopen(&mut self) {}
}

/// Some of what was to be written is lost.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// How much of it.
    pub(super) count: u64,
    /// Why.
    pub(super) error: io::Error,
}

/// What was handed over is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Whether it is the first since the queue was last seen empty.
    pub(super) is_first: bool,
}

/// Takes what is to be written, without ever waiting.
#[derive(Debug)]
pub(super) struct Scribe<T> {
    queue: SyncSender<Message<T>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message<T> {
    Item(T),
    /// Something was asked for.
    Look,
    Close,
}

#[derive(Debug)]
struct Shared {
    /// What is written, as the log calls it.
    name: &'static str,
    /// How much is in the queue or being written.
    waiting: AtomicU64,
    lost: AtomicU64,
    is_jammed: AtomicBool,
    /// How often it was asked to reopen, and how often it did.
    asked: AtomicU64,
    reopened: watch::Sender<u64>,
}

impl<T: Send + 'static> Scribe<T> {
    /// Starts the thread. At most `most` things wait.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(
        name: &'static str,
        most: usize,
        pen: impl Pen<Item = T>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            waiting: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            is_jammed: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            reopened: watch::Sender::new(0),
        });
        let (queue, messages) = sync_channel(most);
        let desk = Desk { pen, shared: Arc::clone(&shared), voice: Voice::default() };
        let thread = std::thread::Builder::new().name(name.replace(' ', "-"));
        let thread = thread.spawn(move || desk.work(&messages))?;
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands something over.
    ///
    /// # Errors
    /// The queue is full, or closed.
    pub(super) fn hand_over(&self, item: T) -> Result<(), Dropped> {
        // Before it can be taken out of the queue.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(Message::Item(item)).map_err(|_| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            Dropped { is_first: !self.shared.is_jammed.swap(true, Ordering::Relaxed) }
        })
    }

    /// How much was dropped or could not be written so far.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Has the pen reopen what it writes to, and waits until it did, within reason.
    pub(super) async fn reopen(&self) {
        let mut reopened = self.shared.reopened.subscribe();
        let asked = self.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        // In a full queue there is something else that makes the thread look.
        let _ = self.queue.try_send(Message::Look);
        let _ = timeout(REOPEN_PATIENCE, reopened.wait_for(|done| *done >= asked)).await;
    }

    /// Writes out what waits, for at most `patience`; what is handed over later is dropped. Gives
    /// how much could not be written in that time.
    pub(super) fn close(&self, patience: Duration) -> u64 {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return 0 };
        let deadline = Instant::now() + patience;
        let mut is_told = false;
        // A thread that writes to what stands still cannot be joined; it is left behind instead.
        while !thread.is_finished() && Instant::now() < deadline {
            is_told = is_told || self.queue.try_send(Message::Close).is_ok();
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            return 0;
        }
        let left = self.shared.waiting.load(Ordering::Relaxed);
        self.shared.lost.fetch_add(left, Ordering::Relaxed);
        left
    }
}

/// The thread's own.
struct Desk<P> {
    pen: P,
    shared: Arc<Shared>,
    voice: Voice,
}

impl<P: Pen> Desk<P> {
    fn work(mut self, messages: &Receiver<Message<P::Item>>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut is_over = false;
        while !is_over && let Ok(first) = messages.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Item(item) => batch.push(item),
                    Message::Look => {}
                    Message::Close => is_over = true,
                }
                let is_full = is_over || batch.len() == BATCH;
                next = if is_full { None } else { messages.try_recv().ok() };
            }
            self.reopen_if_asked();
            let written = if batch.is_empty() { Ok(()) } else { self.pen.write(&batch) };
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
            // Fewer than fit: nothing else was waiting.
            if batch.len() < BATCH {
                self.shared.is_jammed.store(false, Ordering::Relaxed);
            }
            batch.clear();
            if let Err(unwritten) = &written {
                self.shared.lost.fetch_add(unwritten.count, Ordering::Relaxed);
            }
            self.voice.tell(&self.shared, written.err().map(|unwritten| unwritten.error));
        }
    }

    fn reopen_if_asked(&mut self) {
        let asked = self.shared.asked.load(Ordering::Acquire);
        if asked > *self.shared.reopened.borrow() {
            self.pen.reopen();
            self.shared.reopened.send_replace(asked);
        }
    }
}

/// What the log was told of losses. Few words: a log that cannot be written must not fill another.
#[derive(Debug, Default)]
struct Voice {
    spoke: Option<Instant>,
    is_failing: bool,
    told: u64,
}

impl Voice {
    fn tell(&mut self, shared: &Shared, error: Option<io::Error>) {
        let lost = shared.lost.load(Ordering::Relaxed);
        let may_speak = self.spoke.is_none_or(|spoke| spoke.elapsed() >= TELL_EVERY);
        match error {
            Some(error) if may_speak && !self.is_failing => {
                error!(%error, "the {} cannot be written: what belongs there is lost and counted", shared.name);
                (self.is_failing, self.spoke) = (true, Some(Instant::now()));
            }
            None if lost > self.told && (may_speak || self.is_failing) => {
                warn!(
                    lost = lost - self.told,
                    "the {} is written, but some of it was lost", shared.name
                );
                *self = Self { spoke: Some(Instant::now()), is_failing: false, told: lost };
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// A write has begun.
    const BEGUN: u32 = 2000;
    const REOPENED: u32 = 1000;

    /// Writes to the test, when the test lets it.
    struct Held {
        gate: Receiver<Result<(), ()>>,
        written: Sender<Vec<u32>>,
    }

    impl Pen for Held {
        type Item = u32;

        fn write(&mut self, items: &[u32]) -> Result<(), Unwritten> {
            // Who does not want to know any more has gone.
            let _ = self.written.send(vec![BEGUN]);
            let told = self.gate.recv().unwrap_or(Ok(()));
            told.map_err(|()| Unwritten {
                count: items.len() as u64,
                error: io::ErrorKind::StorageFull.into(),
            })?;
            let _ = self.written.send(items.to_vec());
            Ok(())
        }

        fn reopen(&mut self) {
            let _ = self.written.send(vec![REOPENED]);
        }
    }

    struct Scene {
        scribe: Scribe<u32>,
        gate: Sender<Result<(), ()>>,
        written: Receiver<Vec<u32>>,
    }

    fn scene(most: usize) -> Scene {
        let (gate, closed) = channel();
        let (written, read) = channel();
        let pen = Held { gate: closed, written };
        Scene { scribe: Scribe::start("test", most, pen).unwrap(), gate, written: read }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_the_rest_is_written() {
        let Scene { scribe, gate, written } = scene(4);
        let mut taken = Vec::new();
        // One batch is with the pen, four wait; more cannot be.
        for item in 0..100 {
            match scribe.hand_over(item) {
                Ok(()) => taken.push(item),
                Err(dropped) => assert_eq!(dropped.is_first, scribe.lost() == 1),
            }
        }
        assert!((4..=4 + BATCH).contains(&taken.len()), "{taken:?}");
        assert_eq!(scribe.lost(), 100 - taken.len() as u64);
        drop(gate);
        assert_eq!(scribe.close(Duration::from_mins(1)), 0);
        let items = written.iter().flatten().filter(|item| *item != BEGUN);
        assert_eq!(items.collect::<Vec<_>>(), taken);
        assert!(scribe.hand_over(7).is_err(), "it is closed");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let Scene { scribe, gate, written } = scene(16);
        for item in 0..3 {
            scribe.hand_over(item).unwrap();
            assert_eq!(written.recv().unwrap(), [BEGUN]);
            gate.send(Err(())).unwrap();
            while scribe.lost() <= u64::from(item) {
                std::thread::yield_now();
            }
        }
        drop(gate);
        scribe.hand_over(3).unwrap();
        assert_eq!(scribe.close(Duration::from_mins(1)), 0);
        assert_eq!(written.iter().flatten().collect::<Vec<_>>(), [BEGUN, 3]);
        assert_eq!(scribe.lost(), 3);
    }

    #[test]
    fn closing_has_patience_and_no_more() {
        let Scene { scribe, gate, .. } = scene(4);
        for item in 0..3 {
            scribe.hand_over(item).unwrap();
        }
        assert_eq!(scribe.close(Duration::from_millis(20)), 3);
        assert_eq!(scribe.lost(), 3);
        assert_eq!(scribe.close(Duration::from_mins(1)), 0, "a second time there is nothing to do");
        drop(gate);
    }

    #[tokio::test]
    async fn it_reopens_when_asked_idle_or_busy() {
        let Scene { scribe, gate, written } = scene(1);
        scribe.reopen().await;
        assert_eq!(written.recv().unwrap(), [REOPENED]);
        // The pen is busy and the queue is full: it reopens before it writes what waits.
        scribe.hand_over(1).unwrap();
        assert_eq!(written.recv().unwrap(), [BEGUN]);
        scribe.hand_over(2).unwrap();
        assert!(scribe.hand_over(3).is_err());
        tokio::join!(scribe.reopen(), async { drop(gate) });
        scribe.close(Duration::from_mins(1));
        assert_eq!(written.iter().flatten().collect::<Vec<_>>(), [1, REOPENED, BEGUN, 2]);
    }
}
