//! Instants as an operator writes them: TOML's offset date-times, or the same in quotes.
//!
//! The promise of an end date must mean one instant, so a time without an offset is refused with
//! an example rather than guessed. Pure.

use jiff::civil::DateTime;
use jiff::tz;
use toml::value::{Datetime, Offset};

use crate::clock::Timestamp;

/// Why a time is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnInstant {
    /// Nothing of the kind.
    #[error("this is no date with a time of day; write it as 2026-12-24T18:00:00Z")]
    Unreadable,
    /// No offset from UTC.
    #[error("the offset is missing; write {0}Z for UTC, or {0}+01:00 for one hour east of it")]
    NoOffset(Datetime),
    /// A day without a time.
    #[error("the time of day is missing; write {0}T00:00:00Z for the beginning of that day in UTC")]
    NoTime(Datetime),
    /// A time without a day.
    #[error("the date is missing; write 2026-12-24T{0}Z, for example")]
    NoDate(Datetime),
}

/// The instant that a text names.
///
/// # Errors
/// What is wrong with it.
pub fn from_text(text: &str) -> Result<Timestamp, NotAnInstant> {
    text.parse().map_err(|_| NotAnInstant::Unreadable).and_then(from_toml)
}

/// The instant that a TOML date-time names.
///
/// # Errors
/// What is missing in it.
pub fn from_toml(written: Datetime) -> Result<Timestamp, NotAnInstant> {
    match (written.date, written.time, written.offset) {
        (Some(date), Some(time), Some(offset)) => {
            let year = i16::try_from(date.year).map_err(|_| NotAnInstant::Unreadable)?;
            let small = |number: u8| i8::try_from(number).map_err(|_| NotAnInstant::Unreadable);
            let (month, day) = (small(date.month)?, small(date.day)?);
            let (hour, minute) = (small(time.hour)?, small(time.minute)?);
            // POSIX time has no leap seconds: 23:59:60 is one with the second before.
            let second = small(time.second.unwrap_or(0).min(59))?;
            let nanosecond = i32::try_from(time.nanosecond.unwrap_or(0)).unwrap_or(0);
            let civil = DateTime::new(year, month, day, hour, minute, second, nanosecond)
                .map_err(|_| NotAnInstant::Unreadable)?;
            let seconds = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i32::from(minutes) * 60,
            };
            let offset = tz::Offset::from_seconds(seconds).map_err(|_| NotAnInstant::Unreadable)?;
            // RFC 5280 writes "never" as 9999-12-31T23:59:59Z, a day behind the last instant that
            // can be held. Before the first one lies nothing that anybody means.
            offset.to_timestamp(civil).or(Ok(Timestamp::MAX))
        }
        (Some(_), Some(_), None) => Err(NotAnInstant::NoOffset(written)),
        (Some(_), None, _) => Err(NotAnInstant::NoTime(written)),
        (None, Some(_), _) => Err(NotAnInstant::NoDate(written)),
        (None, None, _) => Err(NotAnInstant::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_rfc_3339_is_one_instant() {
        for (text, instant) in [
            ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
            ("2026-12-24 18:00:00Z", "2026-12-24T18:00:00Z"),
            ("2026-12-24t18:00:00z", "2026-12-24T18:00:00Z"),
            ("2026-12-24T18:00Z", "2026-12-24T18:00:00Z"),
            ("2026-12-24T19:30:00+01:30", "2026-12-24T18:00:00Z"),
            ("2026-12-24T00:00:00-23:59", "2026-12-24T23:59:00Z"),
            ("2026-12-24T18:00:00.123456789Z", "2026-12-24T18:00:00.123456789Z"),
            ("2026-12-24T18:00:00.1234567899Z", "2026-12-24T18:00:00.123456789Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(from_text(text), Ok(instant.parse().unwrap()), "{text}");
        }
        assert_eq!(from_text("9999-12-31T23:59:59Z"), Ok(Timestamp::MAX));
    }

    #[test]
    fn what_is_no_instant_is_told_how_to_become_one() {
        for (text, words) in [
            ("2026-12-24T18:00:00", "write 2026-12-24T18:00:00Z for UTC"),
            ("2026-12-24", "write 2026-12-24T00:00:00Z"),
            ("18:00:00", "write 2026-12-24T18:00:00Z"),
            ("26-12-24T18:00:00Z", "no date"),
            ("2026-02-30T18:00:00Z", "no date"),
            ("2026-13-01T18:00:00Z", "no date"),
            ("2026-12-24T24:00:00Z", "no date"),
            ("2026-12-24T18:00:00 Z", "no date"),
            (" 2026-12-24T18:00:00Z", "no date"),
            ("2026-12-24T18:00:00+1:00", "no date"),
            ("1798135200", "no date"),
            ("tomorrow", "no date"),
            ("", "no date"),
        ] {
            let why = from_text(text).unwrap_err().to_string();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
