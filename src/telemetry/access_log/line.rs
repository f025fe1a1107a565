//! The forms of a record: a JSON object, a line for people, and named fields.
//!
//! Writing to memory cannot fail, so nothing here does.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::outcome::record::Record;
use crate::outcome::request::Asked;

/// The fields of a record; their names are a contract.
#[derive(Serialize)]
struct Fields<'a> {
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
    store_revision: Option<u64>,
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
    #[serde(flatten)]
    asked: Option<AskedFields<'a>>,
}

/// What the record of a request has besides.
#[derive(Serialize)]
struct AskedFields<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    status: Option<u16>,
}

impl<'a> From<&'a Asked> for AskedFields<'a> {
    fn from(asked: &'a Asked) -> Self {
        let Asked { method, path, protocol, status } = asked;
        Self { method, path, protocol, status: *status }
    }
}

impl<'a> From<&'a Record> for Fields<'a> {
    fn from(record: &'a Record) -> Self {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        Self {
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
            store_revision: record.store_revision,
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
            asked: record.asked.as_deref().map(AskedFields::from),
        }
    }
}

/// Adds a line with a JSON object.
pub(super) fn json(bytes: &mut Vec<u8>, record: &Record) {
    let _ = serde_json::to_writer(&mut *bytes, &Fields::from(record));
    bytes.push(b'\n');
}

/// The fields that this record has, by name.
pub(super) fn fields(record: &Record) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(Fields::from(record)) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.retain(|_, value| !value.is_null());
    fields
}

/// Adds a line for people.
pub(super) fn text(bytes: &mut Vec<u8>, record: &Record) {
    let _ = write!(bytes, "{:.3} ", record.time);
    summary(bytes, record);
    bytes.push(b'\n');
}

/// Adds what a line for people tells beside the time.
pub(super) fn summary(bytes: &mut Vec<u8>, record: &Record) {
    let name = record.sni.as_ref().map_or("-", |name| name.as_str());
    let _ = write!(bytes, "{} {} {name}", record.outcome, record.client);
    if let Some(endpoint) = &record.endpoint {
        let _ = write!(bytes, " -> {endpoint}");
    }
    if let Some(Asked { method, path, status, .. }) = record.asked.as_deref() {
        let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let _ = write!(bytes, " {method} {path} {status}");
    }
    if let Some(reason) = record.reason.filter(|reason| *reason != record.outcome.word()) {
        let _ = write!(bytes, " ({reason})");
    }
    let (seconds, up, down) =
        (record.duration.as_secs_f64(), record.to_backend_bytes, record.to_client_bytes);
    let _ = write!(bytes, " {seconds:.3}s {up}B up {down}B down");
}
