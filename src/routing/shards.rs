//! A hash table that is cut into several of at most some hundred thousand entries each.
//!
//! A table doubles when it is seven eighths full: one of a million entries would be half empty. Cut
//! into tables that are nearly full it takes two thirds of that. What the hash of an entry is, its
//! owner knows.

use hashbrown::HashTable;

/// A table of 2^17 places takes 114,688 entries. The entries of one are never far from the average.
const ENTRIES: usize = 110_000;

/// A hash table of entries that are found by hash and comparison.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[HashTable<T>]>);

impl<T> Shards<T> {
    /// An empty table with room for so many entries.
    pub(super) fn with_capacity(entries: usize) -> Self {
        let count = entries.div_ceil(ENTRIES).max(1);
        // A little more than the average, which does not double a table that is full by design.
        let each = entries / count;
        let each = each + each / 64;
        Self((0..count).map(|_| HashTable::with_capacity(each)).collect())
    }

    /// The entry with this hash that fits.
    pub(super) fn find(&self, hash: u64, fits: impl FnMut(&T) -> bool) -> Option<&T> {
        self.0.get(shard(hash, self.0.len()))?.find(hash, fits)
    }

    /// Adds an entry that is not there. `rehash` tells the hash of any entry again.
    pub(super) fn insert(&mut self, hash: u64, entry: T, rehash: impl Fn(&T) -> u64) {
        let count = self.0.len();
        if let Some(table) = self.0.get_mut(shard(hash, count)) {
            table.insert_unique(hash, entry, rehash);
        }
    }

    /// Gives back room that is not needed.
    pub(super) fn shrink(&mut self, rehash: impl Fn(&T) -> u64) {
        for table in &mut self.0 {
            table.shrink_to_fit(&rehash);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(HashTable::is_empty)
    }
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

/// Which of so many shards a hash belongs to. The lowest and the highest bits are left alone:
/// within a shard they say where an entry lies and whether it is worth a comparison.
fn shard(hash: u64, count: usize) -> usize {
    let middle = u128::from(hash >> 24 & 0xffff_ffff);
    let scaled = (middle * u128::try_from(count).unwrap_or(1)) >> 32;
    usize::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn every_entry_is_found_and_no_table_doubles() {
        let hasher = foldhash::fast::FixedState::default();
        let hash = |entry: &u32| hasher.hash_one(entry);
        for count in [0, 1, 1_000, 110_001, 1_000_000] {
            let mut table = Shards::with_capacity(count);
            let room: usize = table.0.iter().map(HashTable::capacity).sum();
            for entry in 0..u32::try_from(count).unwrap() {
                table.insert(hash(&entry), entry, hash);
            }
            assert_eq!(table.len(), count);
            assert_eq!(table.is_empty(), count == 0);
            let absent = u32::MAX;
            assert_eq!(table.find(hash(&absent), |entry| *entry == absent), None);
            for entry in (0..u32::try_from(count).unwrap()).step_by(97) {
                assert_eq!(table.find(hash(&entry), |found| *found == entry), Some(&entry));
            }
            assert_eq!(room, table.0.iter().map(HashTable::capacity).sum::<usize>(), "{count}");
        }
    }

    #[test]
    fn a_million_entries_fill_their_tables() {
        let table = Shards::<u64>::with_capacity(1_000_000);
        let room: usize = table.0.iter().map(HashTable::capacity).sum();
        assert!((1_000_000..1_200_000).contains(&room), "{room}");
    }
}
