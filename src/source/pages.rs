//! Reading a text piece by piece, and only those pieces that were not read before.
//!
//! A piece is known by a digest of its bytes. What it says does not depend on where it stands, but
//! for the places of its faults: so a text in which one line changed costs a look at every byte
//! and the parsing of one or two pieces.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::Arc;

use crate::source::crew::spread;
use crate::source::document::{NotUtf8, Page, page};
use crate::source::pieces::{BLOCK, Cutter, Piece};

/// A page, and what it was read from.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    digest: Digest,
    above: u32,
    pub(super) page: Page,
    /// Whether it was parsed just now.
    pub(super) is_fresh: bool,
}

/// Length and hash of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Digest(usize, u64);

/// Keys the hash, so that nobody can write two pieces that only seem to be the same.
#[derive(Debug, Default)]
pub(super) struct Key(RandomState);

/// Why a text cannot be read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    Io(io::Error),
    NotUtf8(NotUtf8),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a text. What is in `known` is taken from there; the rest is parsed on so many threads.
pub(super) fn read<'a>(
    text: &mut impl Read,
    source: &Arc<str>,
    key: &Key,
    known: impl Iterator<Item = &'a Leaf>,
    threads: usize,
) -> Result<Vec<Leaf>, Unread> {
    let known: HashMap<Digest, &Leaf> = known.map(|leaf| (leaf.digest, leaf)).collect();
    let parse = |(slot, digest, piece): (usize, Digest, Piece)| {
        let fresh = |page| Leaf { digest, above: piece.above, page, is_fresh: true };
        (slot, page(source, &piece).map(fresh))
    };
    let mut leaves: Vec<Option<Leaf>> = Vec::new();
    let parsed = spread(threads, parse, |hand_out| {
        each_piece(text, |piece| {
            let digest = Digest(piece.length, key.0.hash_one(&piece.bytes));
            let leaf = known.get(&digest).and_then(|leaf| leaf.at(piece.above));
            let slot = leaves.len();
            if leaf.is_none() {
                hand_out((slot, digest, piece));
            }
            leaves.push(leaf);
        })
    })?;
    for (slot, leaf) in parsed {
        let leaf = leaf.map_err(Unread::NotUtf8)?;
        if let Some(place) = leaves.get_mut(slot) {
            *place = Some(leaf);
        }
    }
    Ok(leaves.into_iter().flatten().collect())
}

impl Leaf {
    /// The same leaf where it stands now, if that can be told without reading it again.
    fn at(&self, above: u32) -> Option<Self> {
        if above != self.above && !self.page.faults.is_empty() {
            return None;
        }
        let mut leaf = Self { above, is_fresh: false, ..self.clone() };
        leaf.page.passage = leaf.page.passage.below(above);
        Some(leaf)
    }

    /// Whether it was read from the same bytes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

fn each_piece(text: &mut impl Read, mut take: impl FnMut(Piece)) -> io::Result<()> {
    let mut cutter = Cutter::default();
    let mut block = vec![0; BLOCK];
    loop {
        let length = match text.read(&mut block) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        cutter.feed(block.get(..length).unwrap_or_default());
        std::iter::from_fn(|| cutter.next(length == 0)).for_each(&mut take);
        if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document;
    use proptest::prelude::*;

    /// A text of many routes, one of them perhaps faulty, where `edits` put lines in or out.
    fn text(count: usize, edits: &[(usize, u8)]) -> String {
        let mut routes: Vec<String> = (0..count)
            .map(|id| {
                format!(
                    "[[route]]\nid = 'r{id}'\nhosts = ['h{id}.test']\nbackends = ['10.0.0.1:1']\n"
                )
            })
            .collect();
        for (at, edit) in edits {
            let Some(route) = routes.get_mut(at % count) else { continue };
            match edit % 6 {
                0 => route.clear(),
                1 => route.push_str("\n# a comment\n"),
                2 => *route = route.replace("10.0.0.1:1", "10.0.0.2:2"),
                3 => route.push_str("colour = 1\n"),
                4 => *route = format!("{route}[[route]]\nid = 'n{at}'\n"),
                _ => route.push_str("app = '''\n[[route]]\n'''\n"),
            }
        }
        routes.concat()
    }

    fn bound(leaves: &[Leaf]) -> document::Document {
        document::bind(leaves.iter().map(|leaf| &leaf.page))
    }

    fn look(text: &str, key: &Key, known: &[Leaf], threads: usize) -> Vec<Leaf> {
        read(&mut text.as_bytes(), &"r.toml".into(), key, known.iter(), threads).unwrap()
    }

    #[test]
    fn only_what_changed_is_parsed_again() {
        let (key, count) = (Key::default(), 20_000);
        let first = look(&text(count, &[]), &key, &[], 2);
        assert!(first.len() > 20 && first.iter().all(|leaf| leaf.is_fresh));
        let fresh_of =
            |text: &str| look(text, &key, &first, 1).iter().filter(|leaf| leaf.is_fresh).count();
        assert_eq!(fresh_of(&text(count, &[])), 0);
        for edit in 0..=4 {
            let fresh = fresh_of(&text(count, &[(count / 2, edit)]));
            assert!((1..=4).contains(&fresh), "edit {edit}: {fresh} of {}", first.len());
        }
        // An end of line at the beginning moves everything down.
        assert_eq!(fresh_of(&format!("\n{}", text(count, &[]))), 1);
    }

    #[test]
    fn faults_that_moved_are_told_where_they_are_now() {
        let key = Key::default();
        let before = text(5_000, &[(4_000, 3)]);
        let leaves = look(&before, &key, &[], 1);
        assert_eq!(bound(&leaves).faults[0].place.origin.line, 16_005);
        let leaves = look(&format!("\n{before}"), &key, &leaves, 1);
        assert_eq!(bound(&leaves).faults[0].place.origin.line, 16_006);
    }

    #[test]
    fn what_is_no_text_is_told_where_it_is() {
        let mut bytes = text(2_000, &[]).into_bytes();
        let offset = bytes.len() / 2;
        bytes[offset] = 0xff;
        let lines = memchr::memchr_iter(b'\n', &bytes[..offset]).count();
        for threads in [1, 2] {
            let read = read(&mut &*bytes, &"r".into(), &Key::default(), [].iter(), threads);
            let Err(Unread::NotUtf8(error)) = read else { panic!("{read:?}") };
            assert_eq!(error.offset, offset);
            assert_eq!(usize::try_from(error.place.origin.line).unwrap(), lines + 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        #[test]
        fn reading_again_says_what_reading_anew_says(
            before in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            after in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            threads in 1..4_usize,
            breach in proptest::option::of(0..1_000_usize),
        ) {
            let key = Key::default();
            let known = look(&text(3_000, &before), &key, &[], threads);
            let mut changed = text(3_000, &after);
            if let Some(line) = breach {
                changed = changed.replace(&format!("id = 'r{line}'"), "id == 1");
            }
            let again = bound(&look(&changed, &key, &known, threads));
            let anew = document::read(&"r.toml".into(), &changed);
            prop_assert_eq!(again.parsed, anew.parsed);
            prop_assert_eq!(again.left_out, anew.left_out);
            prop_assert_eq!(again.faults, anew.faults);
            let all = |claims: &crate::routing::claims::Claims| claims.iter().collect::<Vec<_>>();
            prop_assert_eq!(all(&again.claims), all(&anew.claims));
        }
    }
}
