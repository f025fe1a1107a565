//! The line that one exchange leaves behind in the access log, and what is known of it until then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::{Request, Version};
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::outcome::Outcome;
use crate::outcome::record::Record;
use crate::outcome::request::Asked;
use crate::proxy::terminate::http::gate::Traffic;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Tally;

/// How much of a method and a path a record keeps.
const RECORDED_METHOD: usize = 32;
const RECORDED_PATH: usize = 512;

/// One exchange: held by whatever belongs to it, and written when the last of these is gone.
pub(crate) struct Line {
    /// What is known of it from the beginning.
    record: RefCell<Option<Record>>,
    began: Instant,
    status: Cell<Option<u16>>,
    first_byte: Cell<Option<Instant>>,
    to_backend: Cell<u64>,
    to_client: Cell<u64>,
    /// None while it is under way.
    outcome: Cell<Option<Outcome>>,
    is_slow: Cell<bool>,
    under_way: Rc<Cell<usize>>,
    traffic: Rc<Traffic>,
    log: AccessLog,
    tally: Rc<Tally>,
}

impl Line {
    /// The line of an exchange that begins now.
    pub(crate) fn begin<B>(
        mut record: Record,
        request: &Request<B>,
        under_way: &Rc<Cell<usize>>,
        traffic: &Rc<Traffic>,
        log: AccessLog,
        tally: Rc<Tally>,
    ) -> Self {
        under_way.set(under_way.get() + 1);
        traffic.asked();
        let is_written = log.is_on();
        let cut = |text: &str, most: usize| -> Box<str> {
            let most = if is_written { most } else { 0 };
            text.get(..text.floor_char_boundary(most)).unwrap_or_default().into()
        };
        let protocol = match request.version() {
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        };
        record.asked = Some(Box::new(Asked {
            method: cut(request.method().as_str(), RECORDED_METHOD),
            path: cut(request.uri().path(), RECORDED_PATH),
            protocol,
            status: None,
        }));
        Self {
            record: RefCell::new(Some(record)),
            began: Instant::now(),
            status: Cell::new(None),
            first_byte: Cell::new(None),
            to_backend: Cell::new(0),
            to_client: Cell::new(0),
            outcome: Cell::new(None),
            is_slow: Cell::new(false),
            under_way: Rc::clone(under_way),
            traffic: Rc::clone(traffic),
            log,
            tally,
        }
    }

    /// Which of the route's backends was reached.
    pub(crate) fn reached(&self, endpoint: Option<&Endpoint>) {
        if let Some(record) = self.record.borrow_mut().as_mut() {
            record.endpoint = endpoint.cloned();
        }
    }

    /// An answer goes to the client.
    pub(crate) fn answered(&self, status: u16) {
        self.status.set(Some(status));
        self.first_byte.set(Some(Instant::now()));
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.to_backend.set(self.to_backend.get() + bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.to_client.set(self.to_client.get() + bytes as u64);
    }

    /// The whole response was passed on.
    pub(crate) fn finished(&self) {
        self.ended(Outcome::Closed);
    }

    /// One side left before the end.
    pub(crate) fn broke(&self, outcome: Outcome) {
        self.ended(outcome);
    }

    /// It was not passed on, or not answered.
    pub(crate) fn refused(&self, outcome: Outcome, reason: Option<&'static str>) {
        if let Some(record) = self.record.borrow_mut().as_mut() {
            record.reason = reason;
        }
        self.ended(outcome);
    }

    /// The first end is the one that counts.
    pub(crate) fn ended(&self, outcome: Outcome) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(outcome));
        }
    }

    /// How it ended, if it did.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome.get()
    }

    /// The client's body came too slowly.
    pub(crate) fn is_slow(&self) {
        self.is_slow.set(true);
    }

    pub(crate) fn was_slow(&self) -> bool {
        self.is_slow.get()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        let now = Instant::now();
        self.traffic.touched(now);
        let Some(mut record) = self.record.take() else { return };
        // Whoever drops it before its end is the client's side: its stream or its connection.
        record.outcome = self.outcome.get().unwrap_or(Outcome::ClientReset);
        if record.outcome == Outcome::ClientReset && !self.is_answered() {
            self.traffic.taken_back(self.began.elapsed());
        }
        record.first_byte = self.first_byte.get().map(|at| at - self.began);
        record.duration = now - self.began;
        record.to_backend_bytes = self.to_backend.get();
        record.to_client_bytes = self.to_client.get();
        if let Some(asked) = &mut record.asked {
            asked.status = self.status.get();
        }
        self.tally.exchanged(&record);
        self.log.write(record);
    }
}
