//! Cutting a routes text into pieces that can be parsed one by one, as it is being read.
//!
//! The TOML parser keeps about 22 bytes for each byte of text until it is done: in pieces, neither
//! a text of 150 MB nor what the parser makes of it is ever in memory as a whole. A piece begins
//! with a line `[[route]]`, which TOML allows nowhere but between two tables, except inside of a
//! multi-line string; from where there might be one, a text is left whole, as is one with anything
//! but comments before its first route, which could define `route` in another way.
//!
//! Which of these lines begin a piece is decided by what stands below them, so that a text in which
//! some lines changed has the same pieces as before, but for those around the change.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use memchr::{memchr_iter, memmem};

/// Large enough for the cost of a parser's start to vanish.
const LEAST: usize = 32 << 10;
/// One route in so many begins a piece, as soon as the one before has its least size: with 120
/// bytes a route, pieces of 40 KB, which a CPU's cache holds.
const ONE_IN: u64 = 64;
/// How much below its header says whether a route begins a piece: enough to have the name in it.
const TELLING: usize = 64;
/// A piece as long as this ends with the next route.
const ENOUGH: usize = 128 << 10;
/// The most that is parsed at once: garbage of this size may cost the parser 60 times as much memory
/// (measured with nothing but `=`), and half a million hosts fit into one route.
pub(super) const MAX_PIECE: usize = 16 << 20;
/// How much of a text is looked at at a time.
pub(super) const BLOCK: usize = 256 << 10;

const HEADER: &[u8] = b"[[route]]";
const NEXT_HEADER: &[u8] = b"\n[[route]]";

/// A part of a text that is TOML by itself if the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many bytes of the text stand before it.
    pub(super) base: usize,
    /// How many lines of the text stand before it.
    pub(super) above: u32,
    /// What it says; only the beginning, if it is longer than [`MAX_PIECE`].
    pub(super) bytes: Vec<u8>,
    /// How long it is.
    pub(super) length: usize,
}

/// Cuts a text that comes block by block. After each block, all pieces are to be taken.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// What has come; all before `start` is cut.
    come: Vec<u8>,
    start: usize,
    base: usize,
    above: u32,
    stage: Stage,
    /// How much more has come than can be a piece.
    beyond: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// No route has come.
    #[default]
    Prelude,
    /// Between two routes it may be cut.
    Routes,
    /// From here on it is left whole.
    Whole,
}

impl Cutter {
    /// Takes the next block of the text.
    pub(super) fn feed(&mut self, block: &[u8]) {
        self.come.drain(..self.start);
        self.start = 0;
        if self.beyond > 0 || self.come.len() > MAX_PIECE {
            (self.stage, self.beyond) = (Stage::Whole, self.beyond + block.len());
        } else {
            self.come.extend_from_slice(block);
        }
    }

    /// The next piece, if its end has come; all of the rest, if nothing more will come.
    pub(super) fn next(&mut self, is_all: bool) -> Option<Piece> {
        let rest = self.come.get(self.start..).filter(|rest| !rest.is_empty())?;
        if self.stage == Stage::Prelude {
            self.stage = after_prelude(rest, is_all)?;
        }
        let mut end = if self.stage == Stage::Whole { None } else { Some(cut(rest, is_all)?) };
        if end.and_then(|end| rest.get(..end)).is_some_and(may_have_long_strings) {
            (self.stage, end) = (Stage::Whole, None);
        }
        let end = match end {
            Some(end) => end,
            None if is_all => rest.len(),
            None => return None,
        };
        let bytes = rest.get(..end)?.to_vec();
        let (base, above) = (self.base, self.above);
        let lines = memchr_iter(b'\n', &bytes).count();
        self.start += end;
        self.base += end;
        self.above = self.above.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        Some(Piece { base, above, length: end + std::mem::take(&mut self.beyond), bytes })
    }
}

/// Whether a text may be cut between its routes. None, if that cannot be told yet.
fn after_prelude(text: &[u8], is_all: bool) -> Option<Stage> {
    let first = if text.starts_with(HEADER) { Some(0) } else { memmem::find(text, NEXT_HEADER) };
    let Some(first) = first else { return is_all.then_some(Stage::Whole) };
    let is_comment = |line: &[u8]| {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii_start();
        line.is_empty() || line.starts_with(b"#")
    };
    let mut before = text.get(..first).unwrap_or_default().split(|byte| *byte == b'\n');
    Some(if before.all(is_comment) { Stage::Routes } else { Stage::Whole })
}

/// Where the piece ends with which a text begins. None, if that has not come yet.
fn cut(text: &[u8], is_all: bool) -> Option<usize> {
    let mut from = LEAST;
    while let Some(found) = text.get(from..).and_then(|tail| memmem::find(tail, NEXT_HEADER)) {
        // The line break stays with the piece that it ends.
        let end = from + found + 1;
        let below = text.get(end + HEADER.len()..).unwrap_or_default();
        if below.len() < TELLING && !is_all {
            return None;
        }
        let telling = below.get(..TELLING).unwrap_or(below);
        if end >= ENOUGH || FixedState::default().hash_one(telling) % ONE_IN == 0 {
            return Some(end);
        }
        from = end;
    }
    is_all.then_some(text.len())
}

fn may_have_long_strings(text: &[u8]) -> bool {
    memmem::find(text, b"\"\"\"").is_some() || memmem::find(text, b"'''").is_some()
}

/// The pieces of a text that is at hand.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece> {
    let mut cutter = Cutter::default();
    let mut blocks = text.as_bytes().chunks(BLOCK);
    let mut is_all = false;
    std::iter::from_fn(move || {
        loop {
            if let Some(piece) = cutter.next(is_all) {
                return Some(piece);
            }
            match blocks.next() {
                Some(block) => cutter.feed(block),
                None if is_all => return None,
                None => is_all = true,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn many(count: usize) -> String {
        let comment = "# ä\r\n\n".to_owned();
        (0..count).fold(comment, |text, id| text + &format!("[[route]]\r\nid = \"ä{id}\"\r\n\n"))
    }

    fn texts(text: &str) -> Vec<String> {
        pieces(text).map(|piece| String::from_utf8(piece.bytes).unwrap()).collect()
    }

    #[test]
    fn pieces_are_the_text_and_begin_with_a_route() {
        let text = many(20_000);
        let pieces: Vec<_> = pieces(&text).collect();
        assert!(pieces.len() > 5, "{}", pieces.len());
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.clone()).collect();
        assert_eq!(all, text.as_bytes());
        for piece in pieces {
            assert!(piece.base == 0 || piece.bytes.starts_with(HEADER));
            let before = &text[..piece.base];
            assert_eq!(usize::try_from(piece.above).unwrap(), before.matches('\n').count());
            assert_eq!(piece.length, piece.bytes.len());
            assert!(piece.length < ENOUGH + 100);
        }
    }

    #[test]
    fn what_cannot_be_cut_safely_stays_whole() {
        let other_route = "route = []\n".to_owned() + &many(20_000);
        let foreign = "[x]\n".to_owned() + &many(20_000);
        for text in [other_route, foreign, "x".repeat(200_000), many(1)] {
            assert_eq!(texts(&text), [text]);
        }
        assert_eq!(pieces("").count(), 0);
    }

    #[test]
    fn from_a_long_string_on_nothing_is_cut() {
        for quotes in ["\"\"\"", "'''"] {
            let strings = format!("[[route]]\nid = {quotes}\n[[route]]\n{quotes}\n");
            let text = many(20_000) + &strings + &many(20_000);
            let pieces = texts(&text);
            assert_eq!(pieces.concat(), text);
            let (last, others) = pieces.split_last().unwrap();
            assert!(others.len() > 5 && others.iter().all(|piece| !piece.contains(quotes)));
            assert!(last.contains(&strings) && last.len() > many(20_000).len());
        }
    }

    #[test]
    fn more_than_can_be_parsed_is_counted_and_not_kept() {
        let text = "[[route]]\nid = [".to_owned() + &"1,".repeat(MAX_PIECE);
        let pieces: Vec<_> = pieces(&text).collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].length, text.len());
        assert!(pieces[0].bytes.len() <= MAX_PIECE + BLOCK);
        assert!(text.as_bytes().starts_with(&pieces[0].bytes));
    }

    #[test]
    fn a_change_leaves_the_pieces_elsewhere_as_they_were() {
        let text = many(60_000);
        let before: HashSet<String> = texts(&text).into_iter().collect();
        let middle = text.find("[[route]]\r\nid = \"ä30000\"").unwrap();
        let mut longer = text.clone();
        longer.insert_str(middle, "[[route]]\r\nid = \"new\"\r\n\n");
        let shorter = text.replace("[[route]]\r\nid = \"ä30000\"\r\n\n", "");
        for changed in [longer, shorter, text.replace("ä30000", "xx"), text.clone() + &many(1)] {
            let after = texts(&changed);
            let fresh = after.iter().filter(|piece| !before.contains(*piece)).count();
            assert!(after.len() > 20 && fresh <= 4, "{fresh} of {}", after.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

        #[test]
        fn where_a_text_is_cut_does_not_depend_on_the_blocks_it_comes_in(
            count in 0..6_000_usize,
            quotes in proptest::option::of(0..200_000_usize),
            sizes in proptest::collection::vec(1..100_000_usize, 1..8),
        ) {
            let mut text = many(count);
            if let Some(at) = quotes.filter(|at| *at < text.len()) {
                text.insert_str(text.floor_char_boundary(at), "'''");
            }
            let mut cutter = Cutter::default();
            let (mut rest, mut cut) = (text.as_bytes(), Vec::new());
            for size in sizes.iter().cycle() {
                let (block, later) = rest.split_at((*size).min(rest.len()));
                cutter.feed(block);
                rest = later;
                cut.extend(std::iter::from_fn(|| cutter.next(rest.is_empty())));
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(cut, pieces(&text).collect::<Vec<_>>());
        }
    }
}
