//! How a route that has its TLS ended here is served: values only.
//!
//! The files that are named here are read elsewhere, beside the path of a connection.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::hostname::Hostname;

/// What happens behind the TLS that is ended here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Termination {
    /// What is spoken inside of it.
    pub protocol: Protocol,
    /// How the backend is spoken to.
    pub backend: BackendTls,
    /// If set: only clients that show a certificate of these authorities (a PEM file).
    pub client_ca: Option<Arc<Path>>,
}

/// What is spoken inside of the TLS that is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2: requests are passed on.
    #[default]
    Http,
    /// Anything: bytes are passed on.
    Tcp,
}

impl Protocol {
    /// The words of the configuration.
    pub const WORDS: [&str; 2] = ["http", "tcp"];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// The protocol that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "http" => Some(Self::Http),
            "tcp" => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// How a backend is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTls {
    /// Over TLS, and only if it proves who it is.
    Verified {
        /// Whom its proof must come from.
        trust: Trust,
        /// The name that it is asked for and must have; without one, that which the client asked for.
        name: Option<Hostname>,
    },
    /// In the clear.
    Off,
}

impl Default for BackendTls {
    fn default() -> Self {
        Self::Verified { trust: Trust::default(), name: None }
    }
}

/// What proves that a backend is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Trust {
    /// A certificate for its name of any authority that this machine trusts.
    #[default]
    Platform,
    /// A certificate for its name of these authorities (a PEM file).
    Authorities(Arc<Path>),
    /// This key, whatever its certificate says.
    Key(KeyDigest),
}

/// The SHA-256 of a public key with its algorithm (`SubjectPublicKeyInfo`), as RFC 7469 pins keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

/// A text that is no digest of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key digest is written as sha256: and 64 hexadecimal digits")]
pub struct NotADigest;

const PREFIX: &str = "sha256:";

impl FromStr for KeyDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix(PREFIX).ok_or(NotADigest)?.as_bytes();
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return Err(NotADigest);
        }
        let (pairs, _) = digits.as_chunks::<2>();
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let (high, low) = (value(*high).ok_or(NotADigest)?, value(*low).ok_or(NotADigest)?);
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let text = format!("sha256:{}", "0aF1".repeat(16));
        let digest: KeyDigest = text.parse().unwrap();
        assert_eq!(digest.0[..4], [0x0a, 0xf1, 0x0a, 0xf1]);
        assert_eq!(digest.to_string(), text.to_lowercase());
        for bad in ["", "sha256:", &text[7..], &text[..70], &(text.clone() + "0"), "sha1:00"] {
            assert_eq!(bad.parse::<KeyDigest>(), Err(NotADigest), "{bad}");
        }
        assert!(text.replace('F', "g").parse::<KeyDigest>().is_err());
    }
}
