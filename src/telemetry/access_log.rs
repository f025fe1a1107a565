//! The access log: one record a connection, written by a thread of its own.
//!
//! The data path hands records over through a bounded queue and never waits: when the reader of
//! the log stands still, records are dropped and counted. Closing the log writes out what is
//! queued.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::hostname::Hostname;
use crate::outcome::{Outcome, Record};
use crate::telemetry::logging::{Access, Settings};

/// How many records may wait: a second of a busy proxy, in about 4 MiB.
const QUEUE: usize = 16_384;

/// Hands records to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Option<SyncSender<Message>>,
    dropped: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    Record(Box<Record>),
    Close,
}

impl AccessLog {
    /// Opens the log where the settings say.
    ///
    /// # Errors
    /// A file that cannot be opened for appending.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let text = settings.format.is_text(&io::stdout());
        let sink: Box<dyn Write + Send> = match &settings.access {
            Access::Off => return Ok(Self::new(None, None)),
            Access::Stdout => Box::new(io::stdout()),
            Access::File(path) => Box::new(append(path)?),
        };
        let (queue, records) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&records, sink, text))?;
        Ok(Self::new(Some(queue), Some(writer)))
    }

    fn new(queue: Option<SyncSender<Message>>, writer: Option<JoinHandle<()>>) -> Self {
        let shared = Shared { queue, dropped: AtomicU64::new(0), writer: Mutex::new(writer) };
        Self { shared: Arc::new(shared) }
    }

    /// Hands a record over, or drops it if the queue is full.
    pub fn write(&self, record: Record) {
        let Some(queue) = &self.shared.queue else { return };
        if queue.try_send(Message::Record(Box::new(record))).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records were dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes out what is queued, for at most `patience`; later records go nowhere.
    pub fn close(&self, patience: Duration) {
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(writer), Some(queue)) = (writer, &self.shared.queue) else { return };
        let deadline = std::time::Instant::now() + patience;
        // A writer whose reader stands still cannot be joined; it is left behind instead.
        let mut told = false;
        while !writer.is_finished() && std::time::Instant::now() < deadline {
            told = told || queue.try_send(Message::Close).is_ok();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(messages: &Receiver<Message>, sink: Box<dyn Write + Send>, text: bool) {
    let mut sink = BufWriter::new(sink);
    let mut told = false;
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        let mut written = Ok(());
        while let Some(message) = next {
            let Message::Record(record) = message else {
                let _ = sink.flush();
                return;
            };
            written = written.and_then(|()| write_one(&mut sink, &record, text));
            next = messages.try_recv().ok();
        }
        if let Err(error) = written.and_then(|()| sink.flush()) {
            // Said once: a log that cannot be written must not fill the other one.
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "the access log cannot be written");
            }
        }
    }
}

fn write_one(sink: &mut impl Write, record: &Record, text: bool) -> io::Result<()> {
    if text { write_text(sink, record) } else { write_json(sink, record) }
}

/// The JSON form; its field names are a contract.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    session: String,
    client: String,
    listener: String,
    sni: Option<&'a str>,
    alpn: Option<String>,
    ech: bool,
    route: Option<&'a str>,
    app: Option<&'a str>,
    revision: Option<u64>,
    endpoint: Option<String>,
    outcome: Outcome,
    reason: Option<&'static str>,
    blame: &'static str,
    hello_bytes: Option<u32>,
    hello_s: Option<f64>,
    connect_s: Option<f64>,
    first_byte_s: Option<f64>,
    duration_s: f64,
    to_backend_bytes: u64,
    to_client_bytes: u64,
}

fn write_json(sink: &mut impl Write, record: &Record) -> io::Result<()> {
    let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
    let line = Line {
        time: format!("{:.6}", record.time),
        session: format!("{:016x}", record.session),
        client: record.client.to_string(),
        listener: record.listener.to_string(),
        sni: record.sni.as_ref().map(Hostname::as_str),
        alpn: (!record.alpn.is_empty()).then(|| record.alpn.to_string()),
        ech: record.ech,
        route: record.route.as_deref(),
        app: record.app.as_deref(),
        revision: record.revision,
        endpoint: record.endpoint.as_ref().map(ToString::to_string),
        outcome: record.outcome,
        reason: record.reason,
        blame: record.outcome.blame().word(),
        hello_bytes: record.hello_bytes,
        hello_s: record.hello.map(seconds),
        connect_s: record.connect.map(seconds),
        first_byte_s: record.first_byte.map(seconds),
        duration_s: seconds(record.duration),
        to_backend_bytes: record.to_backend_bytes,
        to_client_bytes: record.to_client_bytes,
    };
    serde_json::to_writer(&mut *sink, &line)?;
    sink.write_all(b"\n")
}

fn write_text(sink: &mut impl Write, record: &Record) -> io::Result<()> {
    let name = record.sni.as_ref().map_or("-", |name| name.as_str());
    write!(sink, "{:.3} {} {} {name}", record.time, record.outcome, record.client)?;
    if let Some(endpoint) = &record.endpoint {
        write!(sink, " -> {endpoint}")?;
    }
    if let Some(reason) = record.reason.filter(|reason| *reason != record.outcome.word()) {
        write!(sink, " ({reason})")?;
    }
    writeln!(
        sink,
        " {:.3}s {}B up {}B down",
        record.duration.as_secs_f64(),
        record.to_backend_bytes,
        record.to_client_bytes
    )
}
