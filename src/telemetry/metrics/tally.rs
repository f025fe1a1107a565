//! What one worker counts, and what one session counts on it.
//!
//! A [`Visit`] is a session's mark under its route and leaves by being dropped; the bytes of a relay
//! are counted while they move. Everything is added with `Relaxed` on memory that only
//! this worker writes, so an addition costs about five nanoseconds and never waits for another
//! core; the sums that a scrape sees may be some nanoseconds apart.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::outcome::record::Record;
use crate::outcome::request::StatusClass;
use crate::outcome::{HANDSHAKE_REASONS, Outcome};
use crate::telemetry::metrics::histogram::{self, Histogram};
use crate::telemetry::metrics::routes::{Book, Series};

/// Why a connection could not be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFailure {
    /// No file descriptor was left.
    Descriptors,
    /// The kernel had no memory for it.
    Memory,
    /// The client was gone before, or its network failed.
    Aborted,
}

impl AcceptFailure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Memory, Self::Aborted];

    /// The word that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Aborted => "aborted",
        }
    }
}

/// The counts of one worker. Two cache lines apart from its neighbours, since cores fetch lines in
/// pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Sheet {
    ended: [AtomicU64; Outcome::ALL.len()],
    requests: [AtomicU64; StatusClass::ALL.len()],
    handshake_failures: [AtomicU64; HANDSHAKE_REASONS.len()],
    to_backend: AtomicU64,
    to_client: AtomicU64,
    spliced: AtomicU64,
    accept_failures: [AtomicU64; AcceptFailure::ALL.len()],
    hello_bytes: Histogram,
    hello: Histogram,
    connect: Histogram,
    first_byte: Histogram,
}

/// A distribution: its name, what it is, and where it stands on a sheet.
type Told = (&'static str, &'static str, fn(&Sheet) -> &Histogram);

/// All distributions.
pub(super) const TIMES: [Told; 4] = [
    (
        "mse_proxy_hello_bytes",
        "Size of the ClientHello message, of sessions whose hello was whole.",
        |sheet| &sheet.hello_bytes,
    ),
    ("mse_proxy_hello_seconds", "From accept to the last byte of the ClientHello.", |sheet| {
        &sheet.hello
    }),
    (
        "mse_proxy_connect_seconds",
        "How long connecting to a backend took, retries and failures included.",
        |sheet| &sheet.connect,
    ),
    ("mse_proxy_first_byte_seconds", "From accept to the first byte of the backend.", |sheet| {
        &sheet.first_byte
    }),
];

impl Default for Sheet {
    fn default() -> Self {
        Self {
            ended: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
            requests: [const { AtomicU64::new(0) }; StatusClass::ALL.len()],
            handshake_failures: [const { AtomicU64::new(0) }; HANDSHAKE_REASONS.len()],
            to_backend: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            spliced: AtomicU64::new(0),
            accept_failures: [const { AtomicU64::new(0) }; AcceptFailure::ALL.len()],
            hello_bytes: Histogram::new(histogram::HELLO_SIZES),
            hello: Histogram::new(histogram::TIMES),
            connect: Histogram::new(histogram::TIMES),
            first_byte: Histogram::new(histogram::TIMES),
        }
    }
}

impl Sheet {
    pub(super) fn ended(&self, outcome: Outcome) -> u64 {
        self.ended.get(outcome.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn handshake_failures(&self, reason: usize) -> u64 {
        self.handshake_failures.get(reason).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn requests(&self, class: StatusClass) -> u64 {
        self.requests.get(class as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn to_backend(&self) -> u64 {
        self.to_backend.load(Ordering::Relaxed)
    }

    pub(super) fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    pub(super) fn spliced(&self) -> u64 {
        self.spliced.load(Ordering::Relaxed)
    }

    pub(super) fn accept_failures(&self, kind: AcceptFailure) -> u64 {
        self.accept_failures.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Where one worker counts.
#[derive(Debug)]
pub struct Tally {
    sheet: Arc<Sheet>,
    book: Arc<Book>,
    shard: usize,
    /// Series that this worker has met. They are not kept alive: those of a removed route go when
    /// its last session does.
    met: RefCell<HashMap<Arc<str>, Weak<Series>, foldhash::fast::RandomState>>,
}

impl Tally {
    pub(super) fn new(sheet: Arc<Sheet>, book: Arc<Book>, number: usize) -> Self {
        let shard = number % book.shards();
        Self { sheet, book, shard, met: RefCell::default() }
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self, kind: AcceptFailure) {
        if let Some(count) = self.sheet.accept_failures.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Marks a session under the route with this id, which must be a configured one.
    pub fn visit(&self, route: &Arc<str>) -> Visit {
        Visit { series: self.series(route), shard: self.shard, is_open: false }
    }

    fn series(&self, route: &Arc<str>) -> Arc<Series> {
        let mut met = self.met.borrow_mut();
        if let Some(series) = met.get(route).and_then(Weak::upgrade) {
            return series;
        }
        let (series, has_place) = self.book.series(route);
        if has_place {
            if met.len() >= 2 * self.book.most() {
                // Only leftovers of removed routes can make it this long.
                met.clear();
            }
            met.insert(Arc::clone(route), Arc::downgrade(&series));
        }
        series
    }

    /// Counts how far a relay has come since it was last counted. Meant to be called after every
    /// poll of the relay: it costs three comparisons when nothing moved, and two additions on lines
    /// of this worker's own for each direction that did (some ten nanoseconds beside two system
    /// calls).
    pub fn carried(&self, visit: Option<&Visit>, told: &mut Moved, now: Moved) {
        let before = std::mem::replace(told, now);
        let to_backend = now.to_backend - before.to_backend;
        if to_backend > 0 {
            self.sheet.to_backend.fetch_add(to_backend, Ordering::Relaxed);
            if let Some(visit) = visit {
                visit.series.carried_to_backend(visit.shard, to_backend);
            }
        }
        let to_client = now.to_client - before.to_client;
        if to_client > 0 {
            self.sheet.to_client.fetch_add(to_client, Ordering::Relaxed);
            if let Some(visit) = visit {
                visit.series.carried_to_client(visit.shard, to_client);
            }
        }
        if now.spliced > before.spliced {
            self.sheet.spliced.fetch_add(now.spliced - before.spliced, Ordering::Relaxed);
        }
    }

    /// An exchange of a session has ended and left this record.
    pub fn exchanged(&self, record: &Record) {
        let Some(asked) = &record.asked else { return };
        let class = StatusClass::of(asked.status);
        if let Some(count) = self.sheet.requests.get(class as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(route) = &record.route {
            self.series(route).requested(self.shard, class);
        }
    }

    /// A session has ended and left this record.
    pub fn ended(&self, record: &Record, visit: Option<Visit>) {
        if let Some(count) = self.sheet.ended.get(record.outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if record.outcome == Outcome::HandshakeFailed {
            let told = record.reason.unwrap_or_default();
            let known = HANDSHAKE_REASONS.iter().position(|reason| *reason == told);
            let place = known.unwrap_or(HANDSHAKE_REASONS.len() - 1);
            if let Some(count) = self.sheet.handshake_failures.get(place) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(size) = record.hello_bytes {
            self.sheet.hello_bytes.observe(size.into());
        }
        for (time, histogram) in [
            (record.hello, &self.sheet.hello),
            (record.connect, &self.sheet.connect),
            (record.first_byte, &self.sheet.first_byte),
        ] {
            if let Some(time) = time {
                histogram.observe_time(time);
            }
        }
        if let Some(visit) = visit {
            visit.series.ended(visit.shard, record.outcome);
        }
    }
}

/// A session's mark under its route.
#[derive(Debug)]
pub struct Visit {
    series: Arc<Series>,
    shard: usize,
    is_open: bool,
}

impl Visit {
    /// The session stands under the route from here until the mark is dropped.
    pub fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.series.opened(self.shard);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.is_open {
            self.series.closed(self.shard);
        }
    }
}

/// How many bytes a relay has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// To the backend.
    pub to_backend: u64,
    /// To the client.
    pub to_client: u64,
    /// How many of both the kernel moved through pipes.
    pub spliced: u64,
}
