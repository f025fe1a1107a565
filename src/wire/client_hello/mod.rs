//! The TLS ClientHello, read as a stream: every byte is looked at once, however it is cut up.
//!
//! ```text
//! record      | 22 | 3, 0..4 | length:2 | payload: 1..2^14 bytes |      RFC 8446 §5.1
//!             |              any number of these             |
//! handshake   | 1 | length:3 | body |                                  RFC 8446 §4
//! body        | version:2 | random:32 | session_id:<0..32> | ciphers:<2..2^16-2>
//!             | compressions:<1..255> | [ extensions:<0..2^16-1> ]     RFC 8446 §4.1.2
//! extension   | type:2 | data:<0..2^16-1> |
//! server_name | list:<..> of | 0 | name:<1..2^16-1> |                  RFC 6066 §3
//! alpn        | list:<..> of | protocol:<1..255> |                     RFC 7301 §3.1
//! ```
//!
//! The parser keeps the name, the protocols and a few counters, never the message: the caller owns
//! the bytes. It is strict where a lax reading could route one client to another's backend, and
//! ignores whatever does not concern routing. It knows no socket, no clock and no route.

mod hello;
mod message;
#[cfg(test)]
mod tests;

pub use hello::{Alpn, ClientHello, Reject};
use message::{Message, take_byte, take_front};

/// The largest payload of a plaintext record (RFC 8446 §5.1).
pub const MAX_RECORD: u16 = 1 << 14;
/// The bytes around a record's payload.
pub const RECORD_HEADER: usize = 5;

const HANDSHAKE: u8 = 22;

/// What is known after some more bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is wrong so far, and more is to come.
    Incomplete,
    /// The hello is whole.
    Hello(Box<ClientHello>),
    /// These bytes can never become a hello that could be routed.
    Reject(Reject),
}

/// Reads one ClientHello from the bytes of one connection.
#[derive(Debug)]
pub struct Parser {
    layer: Layer,
    message: Message,
    wire_size: usize,
}

/// Where the record layer stands.
#[derive(Debug)]
enum Layer {
    /// Inside a record header.
    Header { bytes: [u8; RECORD_HEADER], have: usize },
    /// Inside a payload.
    Payload { left: u16 },
    /// Not TLS for sure; the first bytes tell in which way.
    Foreign { bytes: [u8; FOREIGN], have: usize },
}

/// Enough to tell any request method of HTTP, and an SSLv2 hello.
const FOREIGN: usize = 8;

impl Parser {
    /// A parser that takes messages of at most `max_size` bytes, their header included.
    #[must_use]
    pub fn new(max_size: u32) -> Self {
        Self {
            layer: Layer::Header { bytes: [0; RECORD_HEADER], have: 0 },
            message: Message::new(max_size),
            wire_size: 0,
        }
    }

    /// Takes the bytes that came next. After any other answer than `Incomplete` the parser is
    /// spent; bytes behind the hello are not looked at.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Progress {
        while !bytes.is_empty() {
            match self.advance(&mut bytes) {
                Ok(false) => {}
                Ok(true) => return Progress::Hello(Box::new(self.message.finish(self.wire_size))),
                Err(reject) => return Progress::Reject(reject),
            }
        }
        Progress::Incomplete
    }

    /// Takes at least one byte; true when the hello is whole.
    fn advance(&mut self, bytes: &mut &[u8]) -> Result<bool, Reject> {
        match &mut self.layer {
            Layer::Payload { left } => {
                let take = usize::from(*left).min(bytes.len());
                let mut chunk = take_front(bytes, take);
                *left -= u16::try_from(take).unwrap_or(*left);
                self.wire_size += take;
                let ends_record = *left == 0;
                if ends_record {
                    self.layer = Layer::Header { bytes: [0; RECORD_HEADER], have: 0 };
                }
                let whole = self.message.feed(&mut chunk)?;
                if whole && !(ends_record && chunk.is_empty()) {
                    return Err(Reject::TrailingBytes);
                }
                Ok(whole)
            }
            Layer::Header { bytes: header, have } => {
                let Some(byte) = take_byte(bytes) else { return Ok(false) };
                if let Some(slot) = header.get_mut(*have) {
                    *slot = byte;
                }
                *have += 1;
                self.wire_size += 1;
                let first = self.wire_size <= RECORD_HEADER;
                if let Some(next) = record_header(*header, *have, first)? {
                    self.layer = next;
                }
                Ok(false)
            }
            Layer::Foreign { bytes: seen, have } => {
                let Some(byte) = take_byte(bytes) else { return Ok(false) };
                if let Some(slot) = seen.get_mut(*have) {
                    *slot = byte;
                }
                *have += 1;
                foreign(seen.get(..*have).unwrap_or(seen)).map_or(Ok(false), Err)
            }
        }
    }
}

/// Judges a record header of which `have` bytes are known, the newest last.
fn record_header(
    header: [u8; RECORD_HEADER],
    have: usize,
    first: bool,
) -> Result<Option<Layer>, Reject> {
    let [kind, major, minor, high, low] = header;
    let length = u16::from_be_bytes([high, low]);
    match have {
        1 if kind == HANDSHAKE => Ok(None),
        // change_cipher_spec, alert, application_data, heartbeat: TLS, but not now.
        1 if !first || (20..=24).contains(&kind) => Err(Reject::RecordType(kind)),
        1 => {
            let mut bytes = [0; FOREIGN];
            if let Some(slot) = bytes.first_mut() {
                *slot = kind;
            }
            foreign(&[kind]).map_or(Ok(Some(Layer::Foreign { bytes, have: 1 })), Err)
        }
        2 if major != 3 && first => Err(Reject::NotTls),
        3 if minor > 4 && first => Err(Reject::NotTls),
        3 if major != 3 || minor > 4 => Err(Reject::RecordVersion(major, minor)),
        4 if u16::from_be_bytes([high, 0]) > MAX_RECORD => Err(Reject::RecordTooLarge),
        RECORD_HEADER => match length {
            0 => Err(Reject::EmptyRecord),
            1..=MAX_RECORD => Ok(Some(Layer::Payload { left: length })),
            _ => Err(Reject::RecordTooLarge),
        },
        _ => Ok(None),
    }
}

/// What the first bytes of something that is not TLS are, once that can be said.
fn foreign(seen: &[u8]) -> Option<Reject> {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
        b"PATCH ",
        b"PRI * ",
    ];
    match *seen {
        // Two bytes of length with the high bit set, CLIENT-HELLO, version 2 or 3.x.
        [0x80..=0xff, _, 1, 0 | 3, ..] => return Some(Reject::Sslv2),
        [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] => return None,
        _ => {}
    }
    if METHODS.iter().any(|method| seen.starts_with(method.get(..FOREIGN).unwrap_or(method))) {
        return Some(Reject::PlainHttp);
    }
    let may_become = METHODS.iter().any(|method| method.starts_with(seen));
    (!may_become).then_some(Reject::NotTls)
}
