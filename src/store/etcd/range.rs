//! Reading a key, or all keys under a prefix as of one revision.
//!
//! A range comes in pages. The first one is of now and tells the revision, the others are of that
//! revision: what changes meanwhile is not seen, and nothing is seen twice.

use super::calls::{Calls, Failure};
use super::rpc::{KeyValue, RangeRequest};
use super::settings::Prefix;
use crate::store::{Entry, Error, Range};

/// Entries in a page: 1.5 MB of routes. For each page, etcd looks at all keys of the range.
const PAGE: i64 = 5000;
/// How often a range begins anew because its revision was compacted while it was read.
const MOST_STARTS: usize = 3;

/// What a key holds.
pub(super) async fn get(calls: &Calls, prefix: &Prefix, key: &str) -> Result<Option<Entry>, Error> {
    let request = RangeRequest { key: prefix.with(key), ..RangeRequest::default() };
    let answer = calls.range(request).await.map_err(told)?;
    Ok(answer.kvs.into_iter().next().and_then(|kv| entry(prefix, kv)))
}

/// Everything under a prefix of ours.
pub(super) async fn range(calls: &Calls, prefix: &Prefix, under: &str) -> Result<Range, Error> {
    let mut starts = 1;
    loop {
        match pages(calls, prefix, under).await {
            Ok(range) => return Ok(range),
            Err(Failure::Compacted) if starts < MOST_STARTS => starts += 1,
            Err(failure) => return Err(told(failure)),
        }
    }
}

async fn pages(calls: &Calls, prefix: &Prefix, under: &str) -> Result<Range, Failure> {
    let (mut key, range_end) = span(prefix, under);
    let mut range = Range::default();
    let (mut limit, mut revision) = (PAGE, 0);
    loop {
        let request =
            RangeRequest { key: key.clone(), range_end: range_end.clone(), limit, revision };
        let answer = match calls.range(request).await {
            Ok(answer) => answer,
            // Large values: smaller pages. One value fits in any case.
            Err(Failure::AnswerTooLarge) if limit > 1 => {
                limit = (limit / 8).max(1);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if revision == 0 {
            revision = answer.header.unwrap_or_default().revision;
            range.revision = u64::try_from(revision).unwrap_or(0);
        }
        if let Some(last) = answer.kvs.last() {
            // The smallest key behind the last.
            key.clone_from(&last.key);
            key.push(0);
        }
        let is_last = !answer.more || answer.kvs.is_empty();
        range.entries.extend(answer.kvs.into_iter().filter_map(|kv| entry(prefix, kv)));
        if is_last {
            return Ok(range);
        }
    }
}

/// The first key under a prefix of ours, and the first one behind them.
pub(super) fn span(prefix: &Prefix, under: &str) -> (Vec<u8>, Vec<u8>) {
    let first = prefix.with(under);
    let mut end = first.clone();
    while let Some(letter) = end.pop() {
        if letter < u8::MAX {
            end.push(letter + 1);
            return (first, end);
        }
    }
    // Every key: etcd writes it as "from the key 0, without an end".
    (vec![0], vec![0])
}

/// An entry of etcd as ours. None: its key is no text, so none of us wrote it.
fn entry(prefix: &Prefix, kv: KeyValue) -> Option<Entry> {
    let key = prefix.strip(&kv.key)?;
    Some(Entry { key, value: kv.value, revision: u64::try_from(kv.mod_revision).ok()? })
}

/// What whoever reads is told.
fn told(failure: Failure) -> Error {
    match failure {
        Failure::Final(error) => error,
        Failure::Compacted => Error::Unavailable {
            why: "etcd: what was read was compacted meanwhile, several times".into(),
            tried: std::time::Duration::ZERO,
        },
        Failure::AnswerTooLarge => Error::Refused(format!(
            "etcd: one value is larger than {} MiB",
            super::calls::MOST_BYTES >> 20
        )),
        Failure::TooManyChanges | Failure::RequestTooLarge | Failure::Full => {
            Error::Refused("etcd: it does not take this question".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_spans_its_keys_only() {
        let prefix = Prefix::try_from("p/".to_owned()).unwrap();
        assert_eq!(span(&prefix, "routes/"), (b"p/routes/".to_vec(), b"p/routes0".to_vec()));
        assert_eq!(span(&prefix, ""), (b"p/".to_vec(), b"p0".to_vec()));
        let none = Prefix::try_from(String::new()).unwrap();
        assert_eq!(span(&none, ""), (vec![0], vec![0]));
        assert_eq!(span(&none, "a\u{7f}"), (b"a\x7f".to_vec(), b"a\x80".to_vec()));
    }
}
