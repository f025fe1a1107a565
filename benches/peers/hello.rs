//! Canned `ClientHello`s for any name, without cryptography: what a proxy that only reads the name
//! cannot tell from a real one. The random bytes carry what the origin shall do, so that one
//! origin serves every kind of work and the proxies need only one backend.

use std::io;

/// What the origin does once it has read the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Sends this many bytes and closes.
    Answer(u64),
    /// Sends one byte; then returns each message of this many bytes.
    Echo(u64),
    /// Sends until the client leaves, or this many bytes.
    Send(u64),
    /// Sends one byte; then swallows everything.
    Swallow,
}

/// How large a hello is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// About 250 bytes, as of an ordinary TLS 1.3 library.
    Small,
    /// About 1,700 bytes with a post-quantum key share, as of a browser, sent in two segments.
    PostQuantum,
}

/// Marks our hellos among others that might reach the origin.
const MAGIC: [u8; 4] = *b"mseb";
/// Where the random bytes begin: record header, handshake header, version.
const RANDOM_AT: usize = 5 + 4 + 2;
/// What the origin must have read to know its order.
pub(crate) const ORDER_END: usize = RANDOM_AT + 4 + 1 + 8;
/// Where a post-quantum hello is cut: the payload of a first segment on a common network path.
const FIRST_SEGMENT: usize = 1388;
/// Length of every name that [`name`] makes.
pub(crate) const NAME_LENGTH: usize = 16 + SUFFIX.len();
const SUFFIX: &str = ".bench.test";

/// The name of a host: as a platform would number its apps, in no order.
pub(crate) fn name(host: usize) -> String {
    let scattered = (host as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}{SUFFIX}")
}

/// A hello whose name can be changed in place.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    bytes: Vec<u8>,
    name_at: usize,
    size: Size,
}

impl Hello {
    /// A hello for host 0.
    pub(crate) fn new(size: Size, order: Order) -> Self {
        let name = name(0);
        let mut extensions = Vec::new();
        extension(&mut extensions, 0x0000, &list(&[&[0], &*list(&[name.as_bytes()])]));
        extension(&mut extensions, 0x0017, &[]);
        extension(&mut extensions, 0x002b, &[4, 3, 4, 3, 3]);
        extension(&mut extensions, 0x000a, &list(&[&[0x11, 0xec, 0, 29, 0, 23, 0, 24]]));
        extension(&mut extensions, 0x000d, &list(&[&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1]]));
        extension(&mut extensions, 0x0010, &list(&[b"\x02h2\x08http/1.1"]));
        extension(&mut extensions, 0x0033, &list(&[&key_shares(size)]));
        let goal: usize = match size {
            Size::Small => 160,
            Size::PostQuantum => 1600,
        };
        if let Some(padding) = goal.checked_sub(extensions.len() + 4).filter(|&length| length > 0) {
            extension(&mut extensions, 0x0015, &vec![0; padding]);
        }

        let mut body = vec![3, 3];
        body.extend(MAGIC);
        let (code, argument) = order.code();
        body.push(code);
        body.extend(argument.to_be_bytes());
        body.extend([0x5a; 32 - 4 - 1 - 8]);
        body.push(32);
        body.extend([0xa5; 32]);
        body.extend(list(&[&[0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f]]));
        body.extend([1, 0]);
        body.extend(list(&[&extensions]));

        let mut bytes = vec![22, 3, 1];
        let mut message = vec![1, 0];
        message.extend(list(&[&body]));
        bytes.extend(list(&[&message]));
        let name_at = bytes.windows(NAME_LENGTH).position(|part| part == name.as_bytes());
        Self { bytes, name_at: name_at.unwrap_or_default(), size }
    }

    /// Asks for another host.
    pub(crate) fn rename(&mut self, host: usize) {
        let range = self.name_at..self.name_at + NAME_LENGTH;
        if let Some(place) = self.bytes.get_mut(range) {
            place.copy_from_slice(name(host).as_bytes());
        }
    }

    /// The pieces in which it is sent.
    pub(crate) fn segments(&self) -> (&[u8], &[u8]) {
        match self.size {
            Size::Small => (&self.bytes, &[]),
            Size::PostQuantum => self.bytes.split_at(FIRST_SEGMENT.min(self.bytes.len())),
        }
    }
}

impl Order {
    fn code(self) -> (u8, u64) {
        match self {
            Self::Answer(bytes) => (0, bytes),
            Self::Echo(bytes) => (1, bytes),
            Self::Send(bytes) => (2, bytes),
            Self::Swallow => (3, 0),
        }
    }

    /// Reads the order in the first [`ORDER_END`] bytes of a hello.
    pub(crate) fn read(hello: &[u8]) -> io::Result<Self> {
        let random = hello.get(RANDOM_AT..ORDER_END).and_then(|random| random.split_first_chunk());
        let (Some((&MAGIC, rest)), Some(22)) = (random, hello.first()) else {
            return Err(io::Error::other("a stranger's hello"));
        };
        let (code, argument) = match rest.split_first_chunk() {
            Some(([code], argument)) => (*code, argument),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let argument = u64::from_be_bytes(argument.try_into().unwrap_or_default());
        Ok(match code {
            0 => Self::Answer(argument),
            1 => Self::Echo(argument),
            2 => Self::Send(argument),
            _ => Self::Swallow,
        })
    }
}

fn key_shares(size: Size) -> Vec<u8> {
    let mut shares = Vec::new();
    if size == Size::PostQuantum {
        shares.extend([0x11, 0xec]);
        shares.extend(list(&[&[0x77; 1216]]));
    }
    shares.extend([0, 29]);
    shares.extend(list(&[&[0x33; 32]]));
    shares
}

/// A vector with a length of two bytes in front.
fn list(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &content].concat()
}

fn extension(extensions: &mut Vec<u8>, kind: u16, content: &[u8]) {
    extensions.extend(kind.to_be_bytes());
    extensions.extend(list(&[content]));
}
