//! Reading the ClientHello without answering it.
//!
//! Bytes are read, not peeked: they go through the parser once and are kept as the prefix that is
//! owed to the backend, with whatever came behind the hello. A client that has sent nothing owns
//! no buffer. The deadline is the caller's and absolute: a trickle never extends it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

use crate::outcome::Outcome;
use crate::proxy::limits::{BytesFull, Permit};
use crate::proxy::relay::buffer;
use crate::units::{Period, Size};
use crate::wire::client_hello::{ClientHello, Parser, Progress, Reject};

/// The section `hello` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// From accept to the last byte of the hello.
    pub timeout: Period,
    /// Of the handshake message, however many records carry it.
    pub max_size: HelloSize,
    /// What a client that speaks HTTP gets.
    pub plain_http: PlainHttp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Period(Duration::from_secs(5)),
            max_size: HelloSize(64 * 1024),
            plain_http: PlainHttp::Explain,
        }
    }
}

/// A limit from 1 KiB, which real hellos need, to 16 MiB, what a handshake length can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Size", into = "Size")]
pub struct HelloSize(u32);

impl HelloSize {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<Size> for HelloSize {
    type Error = String;

    fn try_from(size: Size) -> Result<Self, String> {
        match u32::try_from(size.0) {
            Ok(bytes @ 0x400..=0x100_0000) => Ok(Self(bytes)),
            _ => Err(format!("must be between 1KiB and 16MiB (it is {size})")),
        }
    }
}

impl From<HelloSize> for Size {
    fn from(size: HelloSize) -> Self {
        Self(u64::from(size.0))
    }
}

/// What a client that speaks HTTP on the TLS port gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlainHttp {
    /// A short 400 page.
    Explain,
    /// What every refused client gets.
    Close,
}

/// A hello and all the bytes that were read with it.
#[derive(Debug)]
pub struct Peeked {
    /// What the hello says.
    pub hello: ClientHello,
    /// Every byte read so far, owed to the backend.
    pub prefix: Vec<u8>,
}

/// Why there is no hello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// The client finished or broke off before its hello was whole.
    #[error("the client left")]
    Left,
    /// Connections without a name hold too many bytes in all.
    #[error("no room for more of the hello")]
    NoRoom,
    /// The bytes are no hello that could be routed.
    #[error(transparent)]
    Rejected(#[from] Reject),
}

impl From<&PeekError> for Outcome {
    fn from(error: &PeekError) -> Self {
        match error {
            PeekError::Left => Self::ClientLeft,
            PeekError::NoRoom => Self::LimitPending,
            PeekError::Rejected(reject) => match reject {
                Reject::NotTls => Self::NotTls,
                Reject::PlainHttp => Self::PlainHttp,
                Reject::Sslv2 => Self::Sslv2,
                Reject::TooLarge { .. } => Self::HelloTooLarge,
                Reject::SeveralNames | Reject::NameType(_) | Reject::Name(_) => Self::InvalidSni,
                Reject::RecordType(_)
                | Reject::RecordVersion(..)
                | Reject::RecordTooLarge
                | Reject::EmptyRecord
                | Reject::HandshakeType(_)
                | Reject::Version(..)
                | Reject::Length(_)
                | Reject::TrailingBytes
                | Reject::Duplicate(_) => Self::MalformedHello,
            },
        }
    }
}

/// Reads until the hello is whole or cannot become so. Memory grows with what has come, to at most
/// six times `max_size` (records of one byte) and one buffer.
///
/// # Errors
/// See [`PeekError`]. All bytes that the kernel held at that moment have been read.
pub async fn peek<S: AsyncRead + Unpin>(
    stream: &mut S,
    max_size: HelloSize,
    permit: &mut Permit,
) -> Result<Peeked, PeekError> {
    let mut parser = Parser::new(max_size.bytes());
    let mut prefix = Vec::new();
    loop {
        let held = prefix.len();
        let progress = read_some(stream, &mut parser, &mut prefix).await;
        match progress.map_err(|_| PeekError::Left)? {
            None => return Err(PeekError::Left),
            Some(Progress::Incomplete) => {
                permit.hold(prefix.len() - held).map_err(|BytesFull| PeekError::NoRoom)?;
            }
            Some(Progress::Hello(hello)) => return Ok(Peeked { hello: *hello, prefix }),
            Some(Progress::Reject(reject)) => return Err(reject.into()),
        }
    }
}

/// One read into the thread's buffer, through the parser, and behind the prefix; none at the end.
async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    parser: &mut Parser,
    prefix: &mut Vec<u8>,
) -> io::Result<Option<Progress>> {
    std::future::poll_fn(|cx| {
        buffer::with(|buffer| {
            let mut read = ReadBuf::new(buffer);
            std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                return std::task::Poll::Ready(Ok(None));
            }
            let progress = parser.feed(bytes);
            if prefix.is_empty() {
                // Nearly every hello comes in one or two reads: exactly what it needs.
                prefix.reserve_exact(bytes.len());
            }
            prefix.extend_from_slice(bytes);
            std::task::Poll::Ready(Ok(Some(progress)))
        })
    })
    .await
}
