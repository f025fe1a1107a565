//! The handshake layer: a cursor through the ClientHello message.
//!
//! It is fed the payloads of records in whatever pieces they come, looks at each byte once, and
//! keeps the name, the protocols and a few counters. Every length is held against what surrounds
//! it as soon as it is known.

use super::hello::{Alpn, ClientHello, Reject};
use crate::hostname::{Hostname, HostnameError, MAX_LABEL, MAX_NAME, is_name_byte};

/// The shortest body: version, random and three vectors of their least size.
const MIN_BODY: u32 = 2 + 32 + 1 + (2 + 2) + (1 + 1);

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849 §5).
const ECH: u16 = 0xfe0d;

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
pub(super) struct Message {
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
    pub(super) fn new(max_size: u32) -> Self {
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

    pub(super) fn finish(&mut self, wire_size: usize) -> ClientHello {
        ClientHello {
            sni: self.sni.take(),
            alpn: Alpn(self.alpn.take().unwrap_or_default().into()),
            ech: self.ech,
            size: self.size,
            wire_size,
        }
    }

    /// Takes bytes of the message; true when it is whole, with what is behind it left in `chunk`.
    pub(super) fn feed(&mut self, chunk: &mut &[u8]) -> Result<bool, Reject> {
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

/// Takes up to `count` bytes off the front.
pub(super) fn take_front<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
    *bytes = rest;
    front
}

/// Takes one byte off the front.
pub(super) fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}
