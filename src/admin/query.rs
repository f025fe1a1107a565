//! What may stand behind the `?` of `/status.json`: `limit` and `filter`.
//!
//! A key that is not known is left alone, as is usual for HTTP; a value that makes no sense falls
//! back to the default.

/// How many routes are told if nobody says how many. A browser shows them without a stutter.
const DEFAULT: usize = 500;
/// How many are told at the most: about 2 MB of text.
const MOST: usize = 5000;

/// Which routes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// How many, the first ones.
    pub(super) limit: usize,
    /// Only those that contain this, in lower case; all if it is empty.
    pub(super) filter: String,
}

impl Query {
    pub(super) fn read(text: &str) -> Self {
        let mut query = Self { limit: DEFAULT, filter: String::new() };
        for pair in text.split('&') {
            match pair.split_once('=') {
                Some(("limit", value)) => {
                    query.limit = value.parse().map_or(DEFAULT, |limit: usize| limit.min(MOST));
                }
                Some(("filter", value)) => query.filter = decode(value).trim().to_lowercase(),
                _ => {}
            }
        }
        query
    }
}

/// Undoes percent-encoding; what is not encoded well stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let encoded = after.get(..2).filter(|_| *first == b'%');
        let digits = encoded.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => bytes.push(if *first == b'+' { b' ' } else { *first }),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_falls_back() {
        for (text, limit, filter) in [
            ("", 500, ""),
            ("limit=3&filter=Shop", 3, "shop"),
            ("filter=a%20b+c%C3%A4&x=1", 500, "a b cä"),
            ("limit=-1", 500, ""),
            ("limit=999999999", MOST, ""),
            ("filter=%", 500, "%"),
            ("filter=%zz%4", 500, "%zz%4"),
            ("filter=%ff", 500, "\u{fffd}"),
        ] {
            let filter = filter.to_owned();
            assert_eq!(Query::read(text), Query { limit, filter }, "{text}");
        }
    }
}
