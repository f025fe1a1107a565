//! What stands in the database: two tables, both from a text to bytes.
//!
//! `entries` holds what callers keep: a key, and under it the revision that wrote it (8 bytes, the
//! highest first) with the value behind. `store` says of the file itself which form it has and
//! which revision is the newest, in digits. Types of the database's own are not used, because
//! their encoding may change between its versions.

use redb::{
    Error, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use crate::store::{Change, Check, Entry, Range, Revision};

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

const ENTRIES: Definition = TableDefinition::new("entries");
const STORE: Definition = TableDefinition::new("store");

/// The form of the tables, as a row of `store`. Raise [`FORMAT`] when an older program would
/// misread them.
const FORMAT_ROW: &str = "format";
const REVISION_ROW: &str = "revision";

/// The form that this program writes, and the newest it reads.
pub(super) const FORMAT: u64 = 1;

/// How many bytes before a value tell its revision.
const HEAD: usize = size_of::<Revision>();

/// Makes the tables of an empty store.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Error> {
    transaction.open_table(ENTRIES)?;
    let mut store = transaction.open_table(STORE)?;
    store.insert(FORMAT_ROW, FORMAT.to_string().as_bytes())?;
    store.insert(REVISION_ROW, b"0".as_slice())?;
    Ok(())
}

/// Which form a file's tables have; none: they are somebody else's.
pub(super) fn format(transaction: &ReadTransaction) -> Result<Option<u64>, Error> {
    let store = match transaction.open_table(STORE) {
        Ok(store) => store,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let row = store.get(FORMAT_ROW)?;
    Ok(row.and_then(|row| number(row.value())))
}

/// The newest revision.
pub(super) fn revision(transaction: &ReadTransaction) -> Result<Revision, Error> {
    let store = transaction.open_table(STORE)?;
    let row = store.get(REVISION_ROW)?;
    row.and_then(|row| number(row.value()))
        .ok_or_else(|| Error::Corrupted("it does not say which revision is its newest".into()))
}

/// What a key holds.
pub(super) fn get(transaction: &ReadTransaction, key: &str) -> Result<Option<Entry>, Error> {
    let entries = transaction.open_table(ENTRIES)?;
    let row = entries.get(key)?;
    row.map(|row| entry(key, row.value())).transpose()
}

/// Everything under a prefix.
pub(super) fn range(transaction: &ReadTransaction, prefix: &str) -> Result<Range, Error> {
    let mut found = Range { revision: revision(transaction)?, entries: Vec::new() };
    for row in transaction.open_table(ENTRIES)?.range(prefix..)? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.entries.push(entry(key.value(), value.value())?);
    }
    Ok(found)
}

/// The entries, to be changed.
pub(super) struct Entries<'t> {
    table: Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Entries<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self { table: transaction.open_table(ENTRIES)? })
    }

    /// Whether all of these hold.
    pub(super) fn are(&self, checks: &[Check]) -> Result<bool, Error> {
        for check in checks {
            let row = self.table.get(check.key.as_str())?;
            let written =
                row.map(|row| split(&check.key, row.value()).map(|(revision, _)| revision));
            if written.transpose()?.unwrap_or(0) != check.revision {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes these changes, and gives back those that were any: what is not there cannot be
    /// removed.
    pub(super) fn change(
        &mut self,
        changes: &[Change],
        revision: Revision,
    ) -> Result<Vec<Change>, Error> {
        let mut real = Vec::with_capacity(changes.len());
        let mut row = Vec::new();
        for change in changes {
            let is_real = match &change.value {
                Some(value) => {
                    row.clear();
                    row.extend_from_slice(&revision.to_be_bytes());
                    row.extend_from_slice(value);
                    self.table.insert(change.key.as_str(), row.as_slice())?;
                    true
                }
                None => self.table.remove(change.key.as_str())?.is_some(),
            };
            if is_real {
                real.push(change.clone());
            }
        }
        Ok(real)
    }
}

/// Says which revision is the newest from now on.
pub(super) fn set_revision(
    transaction: &WriteTransaction,
    revision: Revision,
) -> Result<(), Error> {
    let mut store = transaction.open_table(STORE)?;
    store.insert(REVISION_ROW, revision.to_string().as_bytes())?;
    Ok(())
}

fn entry(key: &str, row: &[u8]) -> Result<Entry, Error> {
    let (revision, value) = split(key, row)?;
    Ok(Entry { key: key.to_owned(), value: value.to_vec(), revision })
}

fn split<'r>(key: &str, row: &'r [u8]) -> Result<(Revision, &'r [u8]), Error> {
    match row.split_first_chunk::<HEAD>() {
        Some((head, value)) => Ok((Revision::from_be_bytes(*head), value)),
        None => Err(Error::Corrupted(format!("the row of {key:?} is too short"))),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}
