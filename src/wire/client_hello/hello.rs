//! What a hello says, and why bytes are none: the values that the parser gives.

use std::fmt;

use crate::hostname::{Hostname, HostnameError};

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
pub struct Alpn(pub(super) Box<[u8]>);

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
        Self(wire.into())
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(length))?;
            rest = tail;
            Some(name)
        })
    }

    /// The first names, as many as fit into so many bytes of the wire form: a client may send 64 KiB
    /// of them, and whoever keeps the list for long does not want to keep that.
    #[must_use]
    pub fn shortened(&self, most: usize) -> Self {
        let mut end = 0;
        for name in self.iter() {
            let next = end + 1 + name.len();
            if next > most {
                break;
            }
            end = next;
        }
        Self(self.0.get(..end).unwrap_or_default().into())
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
    /// A record with a payload over 16384 bytes.
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
