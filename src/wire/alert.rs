//! TLS alerts as a proxy that holds no key can send them: in the clear, before any ServerHello.
//!
//! ```text
//!  0      1  2    3  4     5      6
//! +------+------+-------+-------+-------------+
//! | 0x15 | 3, 3 | 0, 2  | level | description |     RFC 8446 §5.1, §6
//! +------+------+-------+-------+-------------+
//! ```
//!
//! Which outcome deserves which alert is not known here (`outcome` has that one mapping).

use serde::{Deserialize, Serialize};

/// An alert description (RFC 8446 §6, RFC 6066 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Alert {
    /// 0, the one alert that is no error: the sender has nothing more to say.
    CloseNotify = 0,
    /// 47: a field is inconsistent or out of bounds.
    IllegalParameter = 47,
    /// 50: a message could not be decoded.
    DecodeError = 50,
    /// 70: this version of the protocol is not spoken here.
    ProtocolVersion = 70,
    /// 80: the failure is not the client's.
    InternalError = 80,
    /// 109: an extension that is needed is absent (RFC 8446 §9.2 wants it for a missing SNI).
    MissingExtension = 109,
    /// 112: no such name here (RFC 6066 §3).
    UnrecognizedName = 112,
}

impl Alert {
    /// The whole record: a warning for `close_notify`, fatal for everything else (RFC 8446 §6).
    #[must_use]
    pub const fn record(self) -> [u8; 7] {
        let level = if matches!(self, Self::CloseNotify) { 1 } else { 2 };
        [0x15, 3, 3, 0, 2, level, self as u8]
    }
}

/// What a client whose connection is refused finds on the wire before the FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing: Python and curl report a clean end of file.
    #[default]
    Close,
    /// A `close_notify`, also clean, and told apart from a broken network.
    CloseNotify,
    /// The fatal alert that fits the outcome.
    Alert,
}

impl Answer {
    /// The words that stand for the answers in configuration.
    pub const WORDS: [&str; 3] = ["close", "close_notify", "alert"];

    /// The answer that a configuration word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "close" => Some(Self::Close),
            "close_notify" => Some(Self::CloseNotify),
            "alert" => Some(Self::Alert),
            _ => None,
        }
    }

    /// The word that stands for it in configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::CloseNotify => "close_notify",
            Self::Alert => "alert",
        }
    }

    /// The record to send, given the alert that fits.
    #[must_use]
    pub const fn record(self, fitting: Alert) -> Option<[u8; 7]> {
        match self {
            Self::Close => None,
            Self::CloseNotify => Some(Alert::CloseNotify.record()),
            Self::Alert => Some(fitting.record()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_seven_bytes_of_tls() {
        assert_eq!(Alert::UnrecognizedName.record(), [0x15, 3, 3, 0, 2, 2, 112]);
        assert_eq!(Alert::CloseNotify.record(), [0x15, 3, 3, 0, 2, 1, 0]);
    }

    #[test]
    fn every_word_has_its_answer() {
        assert_eq!(
            Answer::WORDS.map(Answer::from_word),
            [Some(Answer::Close), Some(Answer::CloseNotify), Some(Answer::Alert)]
        );
        assert_eq!(Answer::Close.record(Alert::DecodeError), None);
        assert_eq!(Answer::Alert.record(Alert::DecodeError), Some(Alert::DecodeError.record()));
    }
}
