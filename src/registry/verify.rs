//! Whether a history is what was once written.
//!
//! Records are handed in one by one, from the oldest that is kept; the first that is not what the
//! record after it, or the head, says of it is named by its number. What was removed for its age
//! cannot be checked any more: the chain begins with the oldest record that is kept.

use crate::registry::digest::digest;
use crate::registry::history::{Head, Kept, Record};

/// A chain that is being checked.
#[derive(Debug, Clone)]
pub struct Chain {
    oldest: u64,
    /// The record before, its number and digest.
    last: Option<(u64, String)>,
    /// The one before that, if the last remembers another digest of it: either may be at fault.
    doubted: Option<u64>,
}

/// The first thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A record that is none.
    #[error("record {number} was tampered with: {why}")]
    Unreadable {
        /// Its number.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A record that is not what the one after it, or the head, remembers.
    #[error("record {number} was tampered with: {witness} remembers another digest of it")]
    Changed {
        /// Its number.
        number: u64,
        /// Who remembers it.
        witness: Witness,
    },
    /// A record that is not there.
    #[error("record {number} is missing")]
    Missing {
        /// Its number.
        number: u64,
    },
    /// A record behind the newest.
    #[error("record {number} is not known to the head, whose newest is {newest}")]
    Stray {
        /// Its number.
        number: u64,
        /// The newest that the head knows.
        newest: u64,
    },
}

/// Who remembers a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// The record with this number.
    Record(u64),
    /// The head.
    Head,
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(number) => write!(f, "record {number}"),
            Self::Head => f.write_str("the head"),
        }
    }
}

impl Broken {
    /// The number of the first record that is not as it was written.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Unreadable { number, .. }
            | Self::Changed { number, .. }
            | Self::Missing { number }
            | Self::Stray { number, .. } => *number,
        }
    }
}

impl Chain {
    /// A chain that begins with this record.
    #[must_use]
    pub fn new(oldest: u64) -> Self {
        Self { oldest, last: None, doubted: None }
    }

    /// The number of the record that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.last.as_ref().map_or(self.oldest, |(number, _)| number + 1)
    }

    /// Checks the next record, which is kept under this number.
    ///
    /// # Errors
    /// [`Broken`] names the first record that was tampered with.
    pub fn check(&mut self, number: u64, bytes: &[u8]) -> Result<Record, Broken> {
        let expected = self.next();
        let read = if number == expected {
            read(number, bytes)
        } else {
            Err(Broken::Missing { number: expected })
        };
        let remembered = read.as_ref().ok().map(|record| record.previous.as_str());
        self.settle(remembered, Witness::Record(number))?;
        let record = read?;
        self.doubted = match &self.last {
            Some((before, known)) if *known != record.previous => Some(*before),
            _ => None,
        };
        self.last = Some((number, digest(bytes)));
        Ok(record)
    }

    /// Checks the end of the chain.
    ///
    /// # Errors
    /// As [`Chain::check`].
    pub fn finish(self, head: &Head) -> Result<(), Broken> {
        let Some((number, known)) = &self.last else {
            return Err(Broken::Missing { number: self.oldest });
        };
        let is_end = *number == head.number;
        self.settle(is_end.then_some(&*head.digest), Witness::Head)?;
        match () {
            () if *number < head.number => Err(Broken::Missing { number: number + 1 }),
            () if *number > head.number => {
                Err(Broken::Stray { number: head.number + 1, newest: head.number })
            }
            () if *known != head.digest => {
                Err(Broken::Changed { number: *number, witness: Witness::Head })
            }
            () => Ok(()),
        }
    }

    /// Decides who is at fault, where the last record remembers another digest of the one before it:
    /// if it is itself what `witness` remembers of it, the one before.
    fn settle(&self, remembered: Option<&str>, witness: Witness) -> Result<(), Broken> {
        match (self.doubted, &self.last, remembered) {
            (Some(_), Some((number, known)), Some(remembered)) if known != remembered => {
                Err(Broken::Changed { number: *number, witness })
            }
            (Some(doubted), Some((number, _)), _) => {
                Err(Broken::Changed { number: doubted, witness: Witness::Record(*number) })
            }
            _ => Ok(()),
        }
    }
}

fn read(number: u64, bytes: &[u8]) -> Result<Record, Broken> {
    let unreadable = |why: String| Broken::Unreadable { number, why };
    let record = Record::read(bytes).map_err(|error| unreadable(error.to_string()))?;
    if record.number != number {
        return Err(unreadable(format!("it says that it is record {}", record.number)));
    }
    if number == 1 && !record.previous.is_empty() {
        return Err(unreadable("the first record names one before it".into()));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::registry::history::Change;
    use proptest::prelude::*;

    /// A history that begins with this number.
    fn history(oldest: u64, count: u64) -> (Vec<(u64, Vec<u8>)>, Head) {
        let mut head = Head { number: oldest - 1, digest: String::new(), oldest };
        if oldest > 1 {
            head.digest = digest(b"a record that is no longer kept");
        }
        let mut records = Vec::new();
        for number in oldest..oldest + count {
            let change =
                Change { id: format!("r{number}"), before: None, after: Some("x".to_owned()) };
            let record = Record {
                number,
                at: Timestamp::UNIX_EPOCH,
                by: "unix:uid=0(root) pid=7".into(),
                request: String::new(),
                changes: vec![change],
                unchanged: 0,
                answered: None,
                previous: std::mem::take(&mut head.digest),
            };
            let bytes = record.to_bytes();
            (head.number, head.digest) = (number, digest(&bytes));
            records.push((number, bytes));
        }
        (records, head)
    }

    fn verify(records: &[(u64, Vec<u8>)], head: &Head) -> Result<(), Broken> {
        let mut chain = Chain::new(head.oldest);
        for (number, bytes) in records {
            chain.check(*number, bytes)?;
        }
        chain.finish(head)
    }

    #[test]
    fn a_history_as_it_was_written_is_whole() {
        for (oldest, count) in [(1, 1), (1, 20), (57, 1), (57, 20)] {
            let (records, head) = history(oldest, count);
            assert_eq!(verify(&records, &head), Ok(()));
        }
    }

    #[test]
    fn a_record_that_is_missing_or_put_in_is_named() {
        let (records, head) = history(3, 10);
        for at in 0..records.len() {
            let mut fewer = records.clone();
            let (number, _) = fewer.remove(at);
            assert_eq!(verify(&fewer, &head), Err(Broken::Missing { number }));
        }
        assert_eq!(verify(&[], &head), Err(Broken::Missing { number: 3 }));
        let more = history(3, 12).0;
        let stray = Broken::Stray { number: 13, newest: 12 };
        assert_eq!(verify(&more, &head), Err(stray.clone()));
        assert!(stray.to_string().contains("record 13 is not known to the head"));
        let mut exchanged = records.clone();
        exchanged.swap(4, 5);
        let broken = verify(&exchanged, &head).unwrap_err();
        assert_eq!(broken.number(), 7);
    }

    #[test]
    fn a_head_that_was_changed_is_told_of_the_newest_record() {
        let (records, head) = history(1, 3);
        let other = Head { digest: digest(b"x"), ..head };
        let broken = Broken::Changed { number: 3, witness: Witness::Head };
        assert_eq!(verify(&records, &other), Err(broken));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_changed_in_a_record_names_it(
            oldest in 1..50_u64,
            count in 1..12_u64,
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (mut records, head) = history(oldest, count);
            let which = which.index(records.len());
            let (number, bytes) = &mut records[which];
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            let number = *number;
            let broken = verify(&records, &head).unwrap_err();
            prop_assert_eq!(broken.number(), number, "{}", broken);
            prop_assert!(broken.to_string().contains("was tampered with"));
        }

        #[test]
        fn a_record_that_was_written_anew_to_match_those_before_it_is_named(
            count in 2..12_u64,
            which in any::<prop::sample::Index>(),
        ) {
            let (mut records, head) = history(1, count);
            let (number, bytes) = &mut records[which.index(usize::try_from(count).unwrap())];
            let mut record = Record::read(bytes).unwrap();
            record.by = "somebody else".into();
            *bytes = record.to_bytes();
            let number = *number;
            prop_assert_eq!(verify(&records, &head).unwrap_err().number(), number);
        }
    }
}
