//! The end date of a manifest, in every form that people write it.
//!
//! More forms than routes may use: manifests are older than this proxy, and were read by tools
//! that took Unix time and dates without an offset. Whatever is taken means one instant, and
//! whatever does not is refused with an example.

use jiff::SignedDuration;
use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use crate::clock::Timestamp;
use crate::source::fault::Shown;
use crate::source::instant::{self, NotAnInstant};

/// Unix time from here on is meant in milliseconds: in seconds it would be the year 5138, in
/// milliseconds it is 1973.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// An end date as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    /// What it means.
    pub(super) instant: Timestamp,
    /// Whether it said no offset from UTC, and was taken for UTC.
    pub(super) is_without_offset: bool,
}

/// Why something is no end date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// Nothing between the quotes.
    #[error("it is empty; leave the key out, or {EXAMPLE}")]
    Empty,
    /// A day without a time.
    #[error("the time of day is missing; {EXAMPLE}")]
    NoTime,
    /// A time without a day.
    #[error("the date is missing; {EXAMPLE}")]
    NoDate,
    /// A year of two digits.
    #[error("the year needs four digits; {EXAMPLE}")]
    ShortYear,
    /// `UTC`, `tomorrow` and the like.
    #[error("the word `{}` is not understood; {EXAMPLE}", Shown(_0))]
    Word(String),
    /// Digits in quotes.
    #[error(
        "a number in quotes may be a date or Unix time; {EXAMPLE}, or Unix time without quotes"
    )]
    Digits,
    /// A number that is no time.
    #[error("this number is no Unix time; {EXAMPLE}")]
    Number,
    /// A value that can be no date.
    #[error("it must be a date, not {found}; {EXAMPLE}")]
    Type {
        /// What it is.
        found: &'static str,
    },
    /// Anything else.
    #[error("this is no date with a time of day; {EXAMPLE}")]
    Unreadable,
    /// It has passed.
    #[error("{at} is not after now ({now}); give a later one")]
    Past {
        /// What was written.
        at: Timestamp,
        /// When it was judged.
        now: Timestamp,
    },
}

const EXAMPLE: &str = "write it as \"2030-06-29 18:00:00+00:00\"";

/// The end date that a value means; it must be after `now`.
pub(super) fn read(value: &DeValue<'_>, now: Timestamp) -> Result<Date, DateError> {
    let date = match value {
        DeValue::String(text) => from_text(text),
        DeValue::Datetime(written) => from_toml(*written),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map_err(|_| DateError::Number).and_then(from_integer).map(at)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse::<f64>();
            number.map_err(|_| DateError::Number).and_then(from_float).map(at)
        }
        other => Err(DateError::Type { found: crate::source::values::kind_of(other) }),
    }?;
    if date.instant <= now {
        return Err(DateError::Past { at: date.instant, now });
    }
    Ok(date)
}

fn at(instant: Timestamp) -> Date {
    Date { instant, is_without_offset: false }
}

fn from_toml(written: Datetime) -> Result<Date, DateError> {
    match instant::from_toml(written) {
        Ok(instant) => Ok(at(instant)),
        Err(NotAnInstant::NoOffset(local)) => {
            let utc = Datetime { offset: Some(Offset::Z), ..local };
            let instant = instant::from_toml(utc).map_err(|_| DateError::Unreadable)?;
            Ok(Date { instant, is_without_offset: true })
        }
        Err(NotAnInstant::NoTime(_)) => Err(DateError::NoTime),
        Err(NotAnInstant::NoDate(_)) => Err(DateError::NoDate),
        Err(NotAnInstant::Unreadable) => Err(DateError::Unreadable),
    }
}

fn from_text(text: &str) -> Result<Date, DateError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(DateError::Empty);
    }
    match with_colon(text).parse() {
        Ok(written) => from_toml(written),
        Err(_) => Err(why_not(text)),
    }
}

/// `+0000` as RFC 3339 writes it, `+00:00`.
fn with_colon(text: &str) -> String {
    let at = text.len().checked_sub(5);
    let parts =
        at.and_then(|at| Some((text.get(..at)?, text.get(at..at + 3)?, text.get(at + 3..)?)));
    if let Some((before, hours, minutes)) = parts
        && before.contains(':')
        && hours.starts_with(['+', '-'])
        && hours.bytes().skip(1).chain(minutes.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return format!("{before}{hours}:{minutes}");
    }
    text.to_owned()
}

fn why_not(text: &str) -> DateError {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return DateError::Digits;
    }
    let is_word = |part: &&str| part.chars().count() > 1;
    let mut words = text.split(|letter: char| !letter.is_alphabetic());
    if let Some(word) = words.find(is_word) {
        return DateError::Word(word.to_owned());
    }
    let mut digits = text.split(|letter: char| !letter.is_ascii_digit()).map(str::len);
    match (digits.next(), digits.next(), digits.next()) {
        (Some(2), Some(1..=2), Some(1..=2)) => DateError::ShortYear,
        _ => DateError::Unreadable,
    }
}

fn from_integer(number: i64) -> Result<Timestamp, DateError> {
    let instant = if number < MILLISECONDS_FROM {
        Timestamp::from_second(number)
    } else {
        Timestamp::from_millisecond(number)
    };
    instant.map_err(|_| DateError::Number)
}

fn from_float(number: f64) -> Result<Timestamp, DateError> {
    #[allow(clippy::cast_precision_loss, reason = "1e11 is exact")]
    let seconds = if number < MILLISECONDS_FROM as f64 { number } else { number / 1000.0 };
    let since = SignedDuration::try_from_secs_f64(seconds).map_err(|_| DateError::Number)?;
    Timestamp::UNIX_EPOCH.checked_add(since).map_err(|_| DateError::Number)
}
