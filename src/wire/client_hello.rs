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

use std::fmt;

use crate::hostname::{Hostname, HostnameError, MAX_LABEL, MAX_NAME, is_name_byte};

/// The largest payload of a plaintext record (RFC 8446 §5.1).
pub const MAX_RECORD: u16 = 1 << 14;
/// The bytes around a record's payload.
pub const RECORD_HEADER: usize = 5;
/// The shortest body: version, random and three vectors of their least size.
const MIN_BODY: u32 = 2 + 32 + 1 + (2 + 2) + (1 + 1);

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849 §5).
const ECH: u16 = 0xfe0d;

/// What routing wants to know of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The name asked for, if one was; with ECH it is the outer name.
    pub sni: Option<Hostname>,
    /// The protocols offered, in the client's order.
    pub alpn: Alpn,
    /// Whether `encrypted_client_hello` was there, in earnest or as GREASE.
    pub ech: bool,
    /// Size of the handshake message in bytes, its own header included.
    pub size: u32,
    /// Size of all the records that carried it, in bytes, their headers included.
    pub wire_size: usize,
}

/// The protocols of an ALPN extension, in their wire form: one length byte before each.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Alpn(Vec<u8>);

impl Alpn {
    /// Builds a list from names; those that are empty or over 255 bytes cannot stand in it.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut wire = Vec::new();
        for name in names {
            if let (Ok(length @ 1..), name) = (u8::try_from(name.len()), name) {
                wire.push(length);
                wire.extend_from_slice(name);
            }
        }
        Self(wire)
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(length))?;
            rest = tail;
            Some(name)
        })
    }

    /// Whether nothing was offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Alpn {
    /// The names with commas between them, every unprintable byte escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", name.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alpn({self})")
    }
}

/// Why bytes are not a ClientHello that could be routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The first bytes are no TLS record.
    #[error("not TLS")]
    NotTls,
    /// An HTTP request line.
    #[error("plain HTTP")]
    PlainHttp,
    /// An SSLv2 CLIENT-HELLO (RFC 6101 appendix E).
    #[error("SSLv2 hello")]
    Sslv2,
    /// A TLS record of another type than handshake.
    #[error("record of type {0} before the end of the hello")]
    RecordType(u8),
    /// A later record whose version is not 3.0 to 3.4.
    #[error("record version changed to {0}.{1}")]
    RecordVersion(u8, u8),
    /// A record with a payload over [`MAX_RECORD`].
    #[error("record over 16384 bytes")]
    RecordTooLarge,
    /// A handshake record without payload (RFC 8446 §5.1 forbids it).
    #[error("empty handshake record")]
    EmptyRecord,
    /// Another handshake message first.
    #[error("handshake message of type {0} first")]
    HandshakeType(u8),
    /// A message larger than the limit.
    #[error("hello of {size} bytes")]
    TooLarge {
        /// Its size with its header, in bytes.
        size: u32,
    },
    /// A `legacy_version` that is not 3.x.
    #[error("legacy_version {0}.{1}")]
    Version(u8, u8),
    /// A length that does not fit what surrounds it.
    #[error("length of {0} disagrees")]
    Length(&'static str),
    /// The record goes on behind the hello.
    #[error("trailing bytes in the record of the hello")]
    TrailingBytes,
    /// A second `server_name` or ALPN extension.
    #[error("two {0} extensions")]
    Duplicate(&'static str),
    /// More than one name in `server_name`.
    #[error("two names in server_name")]
    SeveralNames,
    /// A `server_name` entry that is not a `host_name`.
    #[error("name of type {0} in server_name")]
    NameType(u8),
    /// A name that is none.
    #[error("server_name: {0}")]
    Name(HostnameError),
}

impl Reject {
    /// One word for the reason, for logs and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::Sslv2 => "sslv2",
            Self::RecordType(_) => "record_type",
            Self::RecordVersion(..) => "record_version",
            Self::RecordTooLarge => "record_too_large",
            Self::EmptyRecord => "empty_record",
            Self::HandshakeType(_) => "handshake_type",
            Self::TooLarge { .. } => "hello_too_large",
            Self::Version(..) => "legacy_version",
            Self::Length(_) => "length",
            Self::TrailingBytes => "trailing_bytes",
            Self::Duplicate(_) => "duplicate_extension",
            Self::SeveralNames => "several_names",
            Self::NameType(_) => "name_type",
            Self::Name(why) => match why {
                HostnameError::Empty => "name_empty",
                HostnameError::TooLong { .. } => "name_too_long",
                HostnameError::EmptyLabel => "label_empty",
                HostnameError::LabelTooLong { .. } => "label_too_long",
                HostnameError::ForbiddenByte { .. }
                | HostnameError::NotIdna
                | HostnameError::MisplacedStar => "name_forbidden_byte",
                HostnameError::EdgeHyphen => "label_edge_hyphen",
                HostnameError::IpLiteral => "name_ip_literal",
            },
        }
    }
}

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

fn take_front<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
    *bytes = rest;
    front
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}

/// What the handshake layer expects next. Those with a width are big-endian numbers; the others
/// run for as many bytes as `Message::run` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Type,
    Size,
    Version,
    Random,
    SessionIdLength,
    SessionId,
    CiphersLength,
    Ciphers,
    CompressionsLength,
    Compressions,
    ExtensionsLength,
    ExtensionType,
    ExtensionLength,
    ExtensionBody,
    NameListLength,
    NameType,
    NameLength,
    Name,
    ProtocolListLength,
    ProtocolLength,
    Protocol,
    Whole,
}

impl Field {
    const fn width(self) -> Option<u8> {
        match self {
            Self::Type
            | Self::SessionIdLength
            | Self::CompressionsLength
            | Self::NameType
            | Self::ProtocolLength => Some(1),
            Self::Version
            | Self::CiphersLength
            | Self::ExtensionsLength
            | Self::ExtensionType
            | Self::ExtensionLength
            | Self::NameListLength
            | Self::NameLength
            | Self::ProtocolListLength => Some(2),
            Self::Size => Some(3),
            Self::Random
            | Self::SessionId
            | Self::Ciphers
            | Self::Compressions
            | Self::ExtensionBody
            | Self::Name
            | Self::Protocol
            | Self::Whole => None,
        }
    }
}

/// The handshake layer: a cursor through the message and what was learnt on the way.
#[derive(Debug)]
struct Message {
    max_size: u32,
    field: Field,
    /// The number being read, and how many of its bytes are in.
    number: u32,
    have: u8,
    /// What is left of the field that runs.
    run: u32,
    /// What is left of the message, and of the extension that is open.
    left: u32,
    extension_left: u32,
    extension_type: u16,
    label: usize,
    size: u32,
    name: Vec<u8>,
    sni: Option<Hostname>,
    alpn: Option<Vec<u8>>,
    ech: bool,
}

impl Message {
    fn new(max_size: u32) -> Self {
        Self {
            max_size,
            field: Field::Type,
            number: 0,
            have: 0,
            run: 0,
            left: 0,
            extension_left: 0,
            extension_type: 0,
            label: 0,
            size: 0,
            name: Vec::new(),
            sni: None,
            alpn: None,
            ech: false,
        }
    }

    fn finish(&mut self, wire_size: usize) -> ClientHello {
        ClientHello {
            sni: self.sni.take(),
            alpn: Alpn(self.alpn.take().unwrap_or_default()),
            ech: self.ech,
            size: self.size,
            wire_size,
        }
    }

    /// Takes bytes of the message; true when it is whole, with what is behind it left in `chunk`.
    fn feed(&mut self, chunk: &mut &[u8]) -> Result<bool, Reject> {
        while self.field != Field::Whole && !chunk.is_empty() {
            let Some(width) = self.field.width() else {
                let take = chunk.len().min(usize::try_from(self.run).unwrap_or(usize::MAX));
                let bytes = take_front(chunk, take);
                let taken = u32::try_from(take).unwrap_or(self.run);
                self.run -= taken;
                self.spend(taken);
                self.keep(bytes)?;
                if self.run == 0 {
                    self.field = self.after_run()?;
                }
                continue;
            };
            let Some(byte) = take_byte(chunk) else { break };
            self.number = self.number << 8 | u32::from(byte);
            self.have += 1;
            if self.have == width {
                let number = self.number;
                (self.number, self.have) = (0, 0);
                self.spend(u32::from(width));
                self.field = self.after_number(number)?;
            }
        }
        Ok(self.field == Field::Whole)
    }

    /// Every byte of the body counts against the message, and against the open extension.
    fn spend(&mut self, count: u32) {
        self.left = self.left.saturating_sub(count);
        self.extension_left = self.extension_left.saturating_sub(count);
    }

    /// Looks at the bytes of a running field that routing cares about.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        match self.field {
            Field::Name => {
                for &byte in bytes {
                    let offset = self.name.len();
                    if byte == b'.' {
                        // A lone dot is told apart at the end; here only a second one is wrong.
                        if self.label == 0 && offset > 0 {
                            return Err(Reject::Name(HostnameError::EmptyLabel));
                        }
                        self.label = 0;
                    } else if is_name_byte(byte) {
                        self.label += 1;
                        if self.label > MAX_LABEL {
                            let octets = self.label;
                            return Err(Reject::Name(HostnameError::LabelTooLong { octets }));
                        }
                    } else {
                        return Err(Reject::Name(HostnameError::ForbiddenByte { byte, offset }));
                    }
                    self.name.push(byte);
                }
            }
            Field::Protocol => self.alpn.get_or_insert_default().extend_from_slice(bytes),
            _ => {}
        }
        Ok(())
    }

    /// Starts a running field, or skips to what follows it when it is empty.
    fn start(&mut self, field: Field, run: u32) -> Result<Field, Reject> {
        self.run = run;
        self.field = field;
        if run == 0 { self.after_run() } else { Ok(field) }
    }

    /// `field` comes next if the message has room for it.
    fn expect(&self, field: Field, room: u32, name: &'static str) -> Result<Field, Reject> {
        if room <= self.left { Ok(field) } else { Err(Reject::Length(name)) }
    }

    fn after_number(&mut self, number: u32) -> Result<Field, Reject> {
        let low = u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match self.field {
            Field::Type if low == CLIENT_HELLO => Ok(Field::Size),
            Field::Type => Err(Reject::HandshakeType(low)),
            Field::Size => {
                self.size = number.saturating_add(4);
                self.left = number;
                if self.size > self.max_size {
                    return Err(Reject::TooLarge { size: self.size });
                }
                self.expect(Field::Version, MIN_BODY, "the message")
            }
            Field::Version if number >> 8 == 3 => self.start(Field::Random, 32),
            Field::Version => Err(Reject::Version(u8::try_from(number >> 8).unwrap_or(0), low)),
            Field::SessionIdLength if number > 32 => Err(Reject::Length("session_id")),
            Field::SessionIdLength => {
                // At least the two vectors behind it must fit as well.
                self.expect(Field::SessionId, number + 6, "session_id")?;
                self.start(Field::SessionId, number)
            }
            Field::CiphersLength => {
                if number == 0 || !number.is_multiple_of(2) {
                    return Err(Reject::Length("cipher_suites"));
                }
                self.expect(Field::Ciphers, number + 2, "cipher_suites")?;
                self.start(Field::Ciphers, number)
            }
            Field::CompressionsLength => {
                if number == 0 {
                    return Err(Reject::Length("compression_methods"));
                }
                self.expect(Field::Compressions, number, "compression_methods")?;
                self.start(Field::Compressions, number)
            }
            Field::ExtensionsLength if number == self.left => self.next_extension(),
            Field::ExtensionsLength => Err(Reject::Length("extensions")),
            Field::ExtensionType => {
                self.extension_type = u16::try_from(number).unwrap_or(u16::MAX);
                match self.extension_type {
                    SERVER_NAME if self.sni.is_some() => Err(Reject::Duplicate("server_name")),
                    ALPN if self.alpn.is_some() => Err(Reject::Duplicate("ALPN")),
                    _ => Ok(Field::ExtensionLength),
                }
            }
            Field::ExtensionLength => self.open_extension(number),
            Field::NameListLength if number == self.extension_left && number > 0 => {
                Ok(Field::NameType)
            }
            Field::NameListLength => Err(Reject::Length("server_name_list")),
            Field::NameType if low != 0 => Err(Reject::NameType(low)),
            Field::NameType if self.extension_left < 2 => Err(Reject::Length("host_name")),
            Field::NameType => Ok(Field::NameLength),
            Field::NameLength => self.open_name(number),
            Field::ProtocolListLength if number == self.extension_left && number > 1 => {
                self.alpn = Some(Vec::with_capacity(usize::try_from(number.min(256)).unwrap_or(0)));
                Ok(Field::ProtocolLength)
            }
            Field::ProtocolListLength => Err(Reject::Length("protocol_name_list")),
            Field::ProtocolLength if number == 0 || number > self.extension_left => {
                Err(Reject::Length("protocol_name"))
            }
            Field::ProtocolLength => {
                self.alpn.get_or_insert_default().push(low);
                self.start(Field::Protocol, number)
            }
            Field::Random
            | Field::SessionId
            | Field::Ciphers
            | Field::Compressions
            | Field::ExtensionBody
            | Field::Name
            | Field::Protocol
            | Field::Whole => Ok(self.field),
        }
    }

    fn after_run(&mut self) -> Result<Field, Reject> {
        match self.field {
            Field::Random => Ok(Field::SessionIdLength),
            Field::SessionId => Ok(Field::CiphersLength),
            Field::Ciphers => Ok(Field::CompressionsLength),
            Field::Compressions if self.left == 0 => Ok(Field::Whole),
            Field::Compressions => self.expect(Field::ExtensionsLength, 2, "extensions"),
            Field::Protocol if self.extension_left > 0 => Ok(Field::ProtocolLength),
            Field::Name => {
                let name = std::mem::take(&mut self.name);
                self.sni = Some(Hostname::from_wire(&name).map_err(Reject::Name)?);
                self.next_extension()
            }
            _ => self.next_extension(),
        }
    }

    fn next_extension(&mut self) -> Result<Field, Reject> {
        if self.left == 0 {
            return Ok(Field::Whole);
        }
        self.expect(Field::ExtensionType, 4, "an extension")
    }

    fn open_extension(&mut self, length: u32) -> Result<Field, Reject> {
        if length > self.left {
            return Err(Reject::Length("an extension"));
        }
        self.extension_left = length;
        match self.extension_type {
            SERVER_NAME if length < 2 => Err(Reject::Length("server_name_list")),
            SERVER_NAME => Ok(Field::NameListLength),
            ALPN if length < 2 => Err(Reject::Length("protocol_name_list")),
            ALPN => Ok(Field::ProtocolListLength),
            kind => {
                self.ech |= kind == ECH;
                self.start(Field::ExtensionBody, length)
            }
        }
    }

    fn open_name(&mut self, length: u32) -> Result<Field, Reject> {
        if length > self.extension_left {
            return Err(Reject::Length("host_name"));
        }
        let octets = usize::try_from(length).unwrap_or(usize::MAX);
        match octets {
            0 => Err(Reject::Name(HostnameError::Empty)),
            _ if length < self.extension_left => Err(Reject::SeveralNames),
            // One more than the longest name, for its trailing dot.
            _ if octets > MAX_NAME + 1 => Err(Reject::Name(HostnameError::TooLong { octets })),
            _ => {
                self.name.reserve_exact(octets);
                self.start(Field::Name, length)
            }
        }
    }
}
