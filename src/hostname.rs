//! Hostnames and the patterns that routes claim.
//!
//! A [`Hostname`] is a DNS name in its one canonical form: lower case, A-labels only, no trailing
//! dot. It cannot be built wrong, so whoever holds one may compare it byte by byte. A [`Pattern`]
//! is what a route claims: one name, `*.x` (exactly one label below `x`) or `**.x` (any number of
//! labels below `x`); neither wildcard covers `x` itself. Nothing here knows routes or sockets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in octets without its trailing dot (RFC 1035 §2.3.4: 255 on the wire).
pub const MAX_NAME: usize = 253;
/// The longest label in octets (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;

/// A DNS name in canonical form: lower case, A-labels, no trailing dot, 1 to 253 octets. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

/// Why some bytes are not a hostname.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// Nothing but at most a dot.
    #[error("the name is empty")]
    Empty,
    /// More than [`MAX_NAME`] octets.
    #[error("the name has {octets} octets, {MAX_NAME} are allowed")]
    TooLong {
        /// How many there were.
        octets: usize,
    },
    /// Two dots in a row, or a dot at the start.
    #[error("a label of the name is empty")]
    EmptyLabel,
    /// More than [`MAX_LABEL`] octets between two dots.
    #[error("a label of the name has {octets} octets, {MAX_LABEL} are allowed")]
    LabelTooLong {
        /// How many there were.
        octets: usize,
    },
    /// A byte outside of letters, digits, hyphen, underscore and dot.
    #[error("{} at offset {offset} is not allowed in a name", Shown(*byte))]
    ForbiddenByte {
        /// The byte.
        byte: u8,
        /// Where it stands, from 0.
        offset: usize,
    },
    /// A label that begins or ends with a hyphen (RFC 5890 §2.3.1).
    #[error("a label begins or ends with a hyphen")]
    EdgeHyphen,
    /// An IPv4 address where a name belongs (RFC 6066 §3 forbids it in SNI), or a last label that
    /// is a number: clients read `127.1` and `a.0x7f` as addresses (WHATWG URL §3.5), and no
    /// top-level domain is numeric (RFC 3696 §2).
    #[error("an IP address is not a name, nor is what ends in a number")]
    IpLiteral,
    /// A U-label that IDNA (UTS 46) does not allow.
    #[error("the name is not a valid international name (IDNA)")]
    NotIdna,
    /// A `*` elsewhere than in a leading `*.` or `**.`.
    #[error("`*` is only allowed as a leading `*.` (one label) or `**.` (any depth)")]
    MisplacedStar,
}

struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "`{}`", char::from(self.0))
        } else {
            write!(f, "byte 0x{:02x}", self.0)
        }
    }
}

impl Hostname {
    /// Reads the name that a client sent in SNI: ASCII only, in any case, perhaps with one
    /// trailing dot.
    ///
    /// # Errors
    /// Whatever makes it no LDH name; underscore counts as a letter, because real names use it.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, HostnameError> {
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(HostnameError::Empty);
        }
        if bytes.len() > MAX_NAME {
            return Err(HostnameError::TooLong { octets: bytes.len() });
        }
        let is_allowed = |byte: u8| is_name_byte(byte) || byte == b'.';
        if let Some(offset) = bytes.iter().position(|byte| !is_allowed(*byte)) {
            let byte = bytes.get(offset).copied().unwrap_or_default();
            return Err(HostnameError::ForbiddenByte { byte, offset });
        }
        let mut room = [0; MAX_NAME];
        let (canonical, _) = room.split_at_mut(bytes.len());
        canonical.copy_from_slice(bytes);
        canonical.make_ascii_lowercase();
        // Nothing but ASCII got here.
        let canonical = str::from_utf8(canonical).unwrap_or_default();
        for label in canonical.split('.') {
            match label.len() {
                0 => return Err(HostnameError::EmptyLabel),
                1..=MAX_LABEL => {}
                octets => return Err(HostnameError::LabelTooLong { octets }),
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(HostnameError::EdgeHyphen);
            }
        }
        if canonical.rsplit('.').next().is_some_and(is_number) {
            return Err(HostnameError::IpLiteral);
        }
        Ok(Self(canonical.into()))
    }

    /// A name that the product itself knows, in canonical form.
    pub(crate) fn from_static(name: &'static str) -> Self {
        debug_assert!(Self::from_wire(name.as_bytes()).is_ok_and(|own| own.as_str() == name));
        Self(name.into())
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same letters for whoever keeps them too.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The names above this one, nearest first: `a.b.c` gives `b.c`, then `c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').filter_map(|(dot, _)| self.0.get(dot + 1..))
    }
}

/// Whether a byte may stand inside a label as a client sends it.
#[must_use]
pub const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Whether a label reads as a number, decimal or hexadecimal, to those who look for addresses.
fn is_number(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl FromStr for Hostname {
    type Err = HostnameError;

    /// Reads a name that a person wrote: U-labels are turned into A-labels (UTS 46).
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        if text.is_ascii() {
            return Self::from_wire(text.as_bytes());
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| HostnameError::NotIdna)?;
        Self::from_wire(ascii.as_bytes())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname({})", self.0)
    }
}

/// What a route claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// This name alone.
    Exact(Hostname),
    /// `*.x`: the names exactly one label below `x`.
    OneLabel(Hostname),
    /// `**.x`: the names any number of labels below `x`.
    AnyDepth(Hostname),
}

impl Pattern {
    /// The name in it, without its stars.
    #[must_use]
    pub fn name(&self) -> &Hostname {
        match self {
            Self::Exact(name) | Self::OneLabel(name) | Self::AnyDepth(name) => name,
        }
    }

    /// Whether the pattern covers `name`. This is the plain definition that lookups must agree with.
    #[must_use]
    pub fn covers(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::OneLabel(suffix) => name.parents().next() == Some(suffix.as_str()),
            Self::AnyDepth(suffix) => name.parents().any(|parent| parent == suffix.as_str()),
        }
    }
}

impl FromStr for Pattern {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let name = |rest: &str| {
            if rest.contains('*') { Err(HostnameError::MisplacedStar) } else { rest.parse() }
        };
        if let Some(suffix) = text.strip_prefix("**.") {
            name(suffix).map(Self::AnyDepth)
        } else if let Some(suffix) = text.strip_prefix("*.") {
            name(suffix).map(Self::OneLabel)
        } else {
            name(text).map(Self::Exact)
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::OneLabel(suffix) => write!(f, "*.{suffix}"),
            Self::AnyDepth(suffix) => write!(f, "**.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_has_one_canonical_form() {
        for written in ["Shop.Example.COM", "shop.example.com.", "SHOP.EXAMPLE.COM."] {
            assert_eq!(host(written).as_str(), "shop.example.com");
        }
        assert_eq!(host("bücher.example").as_str(), "xn--bcher-kva.example");
        assert_eq!(host("_dmarc.a_b.test").as_str(), "_dmarc.a_b.test");
        assert_eq!(host("localhost").as_str(), "localhost");
        assert_eq!(host("127.0.0.1.a1").as_str(), "127.0.0.1.a1");
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let long_label = format!("{}.test", "a".repeat(64));
        let long_name = ["a".repeat(63).as_str(); 4].join(".");
        let cases: [(&[u8], HostnameError); 18] = [
            (b"", HostnameError::Empty),
            (b".", HostnameError::Empty),
            (b"..", HostnameError::EmptyLabel),
            (b"a..b", HostnameError::EmptyLabel),
            (b".a.test", HostnameError::EmptyLabel),
            (b"a.test..", HostnameError::EmptyLabel),
            (b"a.test\0.evil", HostnameError::ForbiddenByte { byte: 0, offset: 6 }),
            (b"a b.test", HostnameError::ForbiddenByte { byte: b' ', offset: 1 }),
            (b"*.a.test", HostnameError::ForbiddenByte { byte: b'*', offset: 0 }),
            (b"-a.test", HostnameError::EdgeHyphen),
            (b"192.0.2.7", HostnameError::IpLiteral),
            (b"127.1", HostnameError::IpLiteral),
            (b"a.6.", HostnameError::IpLiteral),
            (b"a.0x7F", HostnameError::IpLiteral),
            (b"0x", HostnameError::IpLiteral),
            (b"[::1]", HostnameError::ForbiddenByte { byte: b'[', offset: 0 }),
            (long_label.as_bytes(), HostnameError::LabelTooLong { octets: 64 }),
            (long_name.as_bytes(), HostnameError::TooLong { octets: 255 }),
        ];
        for (bytes, why) in cases {
            assert_eq!(Hostname::from_wire(bytes), Err(why), "{:?}", bytes.escape_ascii());
        }
        let longest = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(61));
        assert_eq!(host(&longest).as_str().len(), MAX_NAME);
    }

    #[test]
    fn wildcards_cover_what_lies_below_and_never_themselves() {
        let one: Pattern = "*.w.test".parse().unwrap();
        let deep: Pattern = "**.w.test".parse().unwrap();
        assert!(one.covers(&host("a.w.test")) && deep.covers(&host("a.w.test")));
        assert!(!one.covers(&host("a.b.w.test")) && deep.covers(&host("a.b.w.test")));
        assert!(!one.covers(&host("w.test")) && !deep.covers(&host("w.test")));
        assert!(!deep.covers(&host("aw.test")));
    }

    #[test]
    fn a_star_elsewhere_is_a_fault() {
        for text in ["*", "**", "a.*.test", "*a.test", "***.test", "*.*.test"] {
            assert_eq!(text.parse::<Pattern>(), Err(HostnameError::MisplacedStar), "{text}");
        }
        assert_eq!("*.".parse::<Pattern>(), Err(HostnameError::Empty));
        assert_eq!("**.Ex.TEST".parse::<Pattern>().unwrap().to_string(), "**.ex.test");
    }
}
