//! Whether a history is what was once written.
//!
//! Records are handed in one by one, from the oldest that is kept; the first that is not what the
//! record after it, or the head, says of it is named by its number. What was removed for its age
//! cannot be checked any more: the chain begins with the oldest record that is kept.

use crate::registry::history::{Head, Kept, Record, digest};

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
