//! How times, counts and names are put into words.

use std::fmt::Write as _;

use jiff::SignedDuration;

use crate::clock::Timestamp;
use crate::units::Period;

/// A noun for so many.
pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// The same with the number before it, as `3 routes`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let word = plural(usize::try_from(count).unwrap_or(usize::MAX), noun);
    format!("{} {word}", grouped(count))
}

/// A number as people read it: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The time from one instant to another, in words of at most two units.
pub(super) fn remaining(from: Timestamp, to: Timestamp) -> String {
    let left = to.duration_since(from);
    let seconds = left.abs().as_secs();
    let words = match seconds {
        31_536_000.. => format!("{}y {}d", seconds / 31_536_000, seconds % 31_536_000 / 86_400),
        86_400.. => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
        3_600.. => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        60.. => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{seconds}s"),
    };
    if left.is_negative() || left.is_zero() {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

/// How much is carried in a second, as `1.2 MB/s`.
pub(super) fn rate(bytes_per_second: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    for (unit, size) in UNITS {
        if bytes_per_second >= size {
            let tenths = bytes_per_second / (size / 10);
            return format!("{}.{} {unit}/s", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes_per_second} B/s")
}

/// What others wrote, without what could steer a terminal.
pub(super) fn clean(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut clean, letter| {
        if letter.is_control() {
            let _ = write!(clean, "{}", letter.escape_default());
        } else {
            clean.push(letter);
        }
        clean
    })
}

/// An instant as it is typed on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// That one.
    At(Timestamp),
    /// So much later than now; earlier, if negative.
    From(SignedDuration),
}

impl When {
    /// Which instant that is, if it is `now` now.
    pub(super) fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::From(period) => now.saturating_add(period).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Reads an instant, or a period from now with `+` before it.
pub(super) fn parse_when(text: &str) -> Result<When, String> {
    if let Some(period) = text.strip_prefix('+') {
        return parse_period(period).map(When::From);
    }
    text.parse().map(When::At).map_err(|_| {
        "write a time as 2026-12-24T18:00:00Z (with its offset), or from now as +2h".to_owned()
    })
}

/// Reads an instant, or how long ago it was.
pub(super) fn parse_since(text: &str) -> Result<When, String> {
    if let Ok(period) = parse_period(text) {
        return Ok(When::From(-period));
    }
    text.parse().map(When::At).map_err(|_| {
        "write a time as 2026-12-24T18:00:00Z (with its offset), or how long ago, as 2h".to_owned()
    })
}

/// Reads a length of time.
pub(super) fn parse_period(text: &str) -> Result<SignedDuration, String> {
    let period: Period = text.parse().map_err(|error| format!("{error}"))?;
    SignedDuration::try_from(period.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_numbers_mean() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (to, words) in [
            (1_000_000, "0s ago"),
            (1_000_001, "in 1s"),
            (1_000_090, "in 1m 30s"),
            (999_280, "12m 0s ago"),
            (1_011_520, "in 3h 12m"),
            (1_000_000 + 30 * 86_400 - 1, "in 29d 23h"),
            (1_000_000 + 400 * 86_400, "in 1y 35d"),
        ] {
            assert_eq!(remaining(at(1_000_000), at(to)), words);
        }
        for (bytes, words) in
            [(0, "0 B/s"), (999, "999 B/s"), (1_250_000, "1.2 MB/s"), (7_000_000_000, "7.0 GB/s")]
        {
            assert_eq!(rate(bytes), words);
        }
        for (number, words) in [(7, "7"), (100, "100"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), words);
        }
        assert_eq!(counted(1, "route"), "1 route");
        assert_eq!(clean("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
    }

    #[test]
    fn times_are_read_both_ways() {
        let now: Timestamp = "2026-12-24T18:00:00Z".parse().unwrap();
        let later = parse_when("+2h").unwrap().instant(now);
        assert_eq!(later.to_string(), "2026-12-24T20:00:00Z");
        let ago = parse_since("1h 30m").unwrap().instant(now);
        assert_eq!(ago.to_string(), "2026-12-24T16:30:00Z");
        assert_eq!(parse_when("2026-12-24T18:00:00Z"), Ok(When::At(now)));
        assert_eq!(parse_since("2026-12-24T18:00:00Z"), Ok(When::At(now)));
        assert!(parse_when("tomorrow").is_err() && parse_since("2026-12-24").is_err());
    }
}
