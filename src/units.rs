//! Lengths of time, sizes and shares as an operator writes them: `"1h 30m"`, `"64KiB"`, `50`.
//!
//! All types keep what they mean, not how it was written, and print a form that reads back.
//! They know no key, no file and no default.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written as whole numbers with units: `500ms`, `5s`, `10m`, `1h 30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Period(pub Duration);

impl From<Period> for SignedDuration {
    fn from(period: Period) -> Self {
        Self::try_from(period.0).unwrap_or(Self::MAX)
    }
}

/// A number of bytes, written `512`, `512B`, `64KiB`, `1MiB` or `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

/// A share in percent, from 0 to 100; written as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Percent(u8);

impl Percent {
    /// The whole.
    pub const ALL: Self = Self(100);

    /// Whether a part of a whole is more than this share.
    #[must_use]
    pub fn is_less_than(self, part: usize, whole: usize) -> bool {
        part.saturating_mul(100) > whole.saturating_mul(self.0.into())
    }
}

impl TryFrom<i64> for Percent {
    type Error = UnitError;

    fn try_from(number: i64) -> Result<Self, UnitError> {
        let small = u8::try_from(number).ok().filter(|number| *number <= 100);
        small.map(Self).ok_or(UnitError::Percent)
    }
}

impl From<Percent> for i64 {
    fn from(percent: Percent) -> Self {
        percent.0.into()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is neither a [`Period`] nor a [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a length of time.
    #[error("not a length of time; write whole numbers with ms, s, m, h or d, as \"1h 30m\"")]
    Period,
    /// Not a size.
    #[error("not a size; write a whole number with B, KiB, MiB or GiB, as \"64KiB\"")]
    Size,
    /// Not a share.
    #[error("not a share in percent; write a whole number from 0 to 100")]
    Percent,
    /// More than can be counted.
    #[error("the value is too large")]
    TooLarge,
}

const PERIOD_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Splits the leading whole number from what follows it.
fn number(text: &str) -> Option<(Result<u64, UnitError>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits.parse().map_err(|_| UnitError::TooLarge), rest))
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return Err(UnitError::Period);
        }
        while !rest.is_empty() {
            let (count, after) = number(rest).ok_or(UnitError::Period)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, factor) =
                PERIOD_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Period)?;
            millis = count?
                .checked_mul(*factor)
                .and_then(|part| millis.checked_add(part))
                .ok_or(UnitError::TooLarge)?;
            rest = after.trim_start();
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        let mut separator = "";
        for (unit, factor) in PERIOD_UNITS {
            if left >= factor {
                write!(f, "{separator}{}{unit}", left / factor)?;
                left %= factor;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = number(text.trim()).ok_or(UnitError::Size)?;
        let unit = unit.trim_start();
        let factor = if unit.is_empty() {
            1
        } else {
            SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Size)?.1
        };
        count?.checked_mul(factor).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in SIZE_UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Both types are strings in TOML; a size may also be a bare number of bytes.
macro_rules! as_text {
    ($type:ident, $expecting:literal, $($visit:tt)*) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    $($visit)*
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

as_text!(Period, "a length of time in quotes, as \"1h 30m\"",);
as_text!(
    Size,
    "a size, as \"64KiB\"",
    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::custom(UnitError::Size))
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_print_back() {
        for (text, millis, printed) in [
            ("5s", 5_000, "5s"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("90m", 5_400_000, "1h 30m"),
            ("1h30m", 5_400_000, "1h 30m"),
            ("250ms", 250, "250ms"),
            ("7d", 604_800_000, "7d"),
            ("0s", 0, "0s"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.0, Duration::from_millis(millis), "{text}");
            assert_eq!(period.to_string(), printed);
            assert_eq!(printed.parse::<Period>().unwrap(), period);
        }
        for text in ["", "5", "s", "5 s", "1.5h", "-1s", "5 parsecs", "5S"] {
            assert_eq!(text.parse::<Period>(), Err(UnitError::Period), "{text}");
        }
        assert_eq!("99999999999999999999d".parse::<Period>(), Err(UnitError::TooLarge));
        assert_eq!("9999999999999999d".parse::<Period>(), Err(UnitError::TooLarge));
    }

    #[test]
    fn shares_are_exact() {
        let half = Percent::try_from(50).unwrap();
        assert!(half.is_less_than(3, 5) && !half.is_less_than(2, 4) && !half.is_less_than(0, 0));
        assert!(!Percent::ALL.is_less_than(7, 7));
        let none = Percent::try_from(0).unwrap();
        assert!(none.is_less_than(1, usize::MAX) && !none.is_less_than(0, 9));
        for number in [-1, 101, 256, i64::MAX] {
            assert_eq!(Percent::try_from(number), Err(UnitError::Percent));
        }
    }

    #[test]
    fn sizes_read_and_print_back() {
        for (text, bytes, printed) in [
            ("64KiB", 65_536, "64KiB"),
            ("65536", 65_536, "64KiB"),
            ("1500 B", 1_500, "1500B"),
            ("2GiB", 1 << 31, "2GiB"),
            ("0", 0, "0B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string(), printed);
        }
        for text in ["", "KiB", "64kb", "64KB", "-1", "1.5KiB"] {
            assert_eq!(text.parse::<Size>(), Err(UnitError::Size), "{text}");
        }
        assert_eq!("99999999999GiB".parse::<Size>(), Err(UnitError::TooLarge));
    }
}
