//! The journal's own protocol: one datagram an entry, to the socket of systemd-journald.
//!
//! ```text
//! KEY=value\n                                    value without a line feed
//! KEY\n  length, 8 bytes little-endian  value\n  any value
//! ```
//!
//! See <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. Each entry is sent to the path anew, so that a
//! journald that was restarted is found again. A journald that does not read makes this wait, and
//! the queue before it overflow.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::outcome::Level;
use crate::outcome::record::Record;
use crate::telemetry::access_log::line;
use crate::telemetry::scribe::{Pen, Unwritten};

/// Who says so.
const IDENTIFIER: &str = "mse-proxy";
/// Before the names of the record's fields, so that they are nobody else's.
const PREFIX: &str = "MSE_PROXY_";
/// What entries of this kind have in common: `journalctl MESSAGE_ID=…` finds them all.
const MESSAGE_ID: &str = "822bce2556664575a9b285a58fc9222f";
/// The most of one value. Only paths and lists of protocols come near; all fields together stay far
/// below the 208 KiB that Linux takes in one datagram by default.
const LONGEST: usize = 4096;

/// Sends records to journald.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    entry: Vec<u8>,
}

impl Journal {
    /// Looks whether somebody listens there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        Ok(Self { socket, path: path.to_owned(), entry: Vec::new() })
    }
}

impl Pen for Journal {
    type Item = Box<Record>;

    fn write(&mut self, records: &[Box<Record>]) -> Result<(), Unwritten> {
        let mut unwritten: Option<Unwritten> = None;
        for record in records {
            self.entry.clear();
            write_entry(&mut self.entry, record);
            if let Err(error) = self.socket.send_to(&self.entry, &self.path) {
                let count = unwritten.map_or(0, |before| before.count) + 1;
                unwritten = Some(Unwritten { count, error });
            }
        }
        unwritten.map_or(Ok(()), Err)
    }
}

fn write_entry(entry: &mut Vec<u8>, record: &Record) {
    let mut message = Vec::new();
    line::summary(&mut message, record);
    write_field(entry, "MESSAGE", &message);
    write_field(entry, "MESSAGE_ID", MESSAGE_ID.as_bytes());
    write_field(entry, "PRIORITY", priority(record.outcome.level()).as_bytes());
    write_field(entry, "SYSLOG_IDENTIFIER", IDENTIFIER.as_bytes());
    for (name, value) in line::fields(record) {
        let name = PREFIX.to_owned() + &name.to_ascii_uppercase();
        match value {
            Value::String(text) => write_field(entry, &name, text.as_bytes()),
            other => write_field(entry, &name, other.to_string().as_bytes()),
        }
    }
}

fn write_field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    let value = value.get(..LONGEST).unwrap_or(value);
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// As syslog(3) counts.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Debug => "7",
        Level::Info => "6",
        Level::Warn => "4",
        Level::Error => "3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::wire::client_hello::Alpn;

    #[test]
    fn a_value_with_a_line_feed_is_sent_with_its_length_and_a_long_one_is_cut() {
        let mut entry = Vec::new();
        write_field(&mut entry, "ONE", b"plain = value");
        write_field(&mut entry, "TWO", b"a\nb");
        write_field(&mut entry, "LONG", &[b'x'; 10_000]);
        let long = [b'x'; LONGEST];
        let wanted: [&[u8]; 5] =
            [b"ONE=plain = value\n", b"TWO\n\x03\0\0\0\0\0\0\0a\nb\n", b"LONG=", &long, b"\n"];
        assert_eq!(entry, wanted.concat());
    }

    #[test]
    fn the_largest_record_fits_into_a_datagram() {
        let address = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
        let time = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut record = Record::new(time, u64::MAX, address, address);
        record.outcome = Outcome::BackendClosedEarly;
        record.store_revision = Some(7);
        record.alpn = Alpn::from_names(vec![&[0_u8; 255][..]; 250]);
        record.sni = format!("{0}.{0}.{0}.test", "x".repeat(63)).parse().ok();
        (record.route, record.app) = (Some("r".repeat(100_000).into()), Some("a".into()));
        assert!(record.sni.is_some());
        let mut entry = Vec::new();
        write_entry(&mut entry, &record);
        assert!(entry.len() < 32 * 1024, "{}", entry.len());
        let text = String::from_utf8(entry).unwrap();
        assert!(text.contains("\nPRIORITY=4\n"), "{text}");
        assert!(text.contains("\nMSE_PROXY_OUTCOME=backend_closed_early\n"), "{text}");
        assert!(text.contains("\nMSE_PROXY_STORE_REVISION=7\n"), "{text}");
    }
}
