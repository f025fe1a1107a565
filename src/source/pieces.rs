//! Cutting a routes text into pieces that can be parsed one by one.
//!
//! The TOML parser keeps about 22 bytes for each byte of text until it is done. Parsed in pieces,
//! 100,000 routes (15 MB) take it 160 ms in place of 370, and 2 MB in place of 330. A piece begins
//! with a line `[[route]]`, which TOML allows nowhere but between two tables, except inside of a
//! multi-line string; a text that might have one is left whole, as is one with anything but
//! comments before its first route, which could define `route` in another way.

/// Small enough for a CPU's cache, large enough for the cost of a parser's start to vanish.
const ENOUGH: usize = 64 << 10;
/// The most that is parsed at once: garbage of this size may cost the parser 60 times as much memory
/// (measured with nothing but `=`), and half a million hosts fit into one route.
pub(super) const MAX_PIECE: usize = 16 << 20;

const HEADER: &str = "[[route]]";
const NEXT_HEADER: &str = "\n[[route]]";

/// A part of a text that is TOML by itself if the whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Its offset in the whole.
    pub(super) base: usize,
    /// What it says.
    pub(super) text: &'a str,
}

/// The pieces of a text, in order; together they are the text.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let enough = if can_be_cut(text) { ENOUGH } else { text.len() };
    let mut base = 0;
    std::iter::from_fn(move || {
        let rest = text.get(base..).filter(|rest| !rest.is_empty())?;
        let least = rest.ceil_char_boundary(enough);
        let cut = rest.get(least..).and_then(|tail| tail.find(NEXT_HEADER));
        // The line break stays with the piece that it ends.
        let length = cut.map_or(rest.len(), |at| least + at + 1);
        let piece = Piece { base, text: rest.get(..length)? };
        base += length;
        Some(piece)
    })
}

fn can_be_cut(text: &str) -> bool {
    let may_have_long_strings = || text.contains("\"\"\"") || text.contains("'''");
    let mut before_routes = text.lines().take_while(|line| !line.starts_with(HEADER));
    let is_comment = |line: &str| {
        let line = line.trim_start_matches('\u{feff}').trim_start();
        line.is_empty() || line.starts_with('#')
    };
    text.len() > ENOUGH && before_routes.all(is_comment) && !may_have_long_strings()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> String {
        let comment = "# ä\r\n\n".to_owned();
        (0..count).fold(comment, |text, id| text + &format!("[[route]]\r\nid = \"ä{id}\"\r\n\n"))
    }

    #[test]
    fn pieces_are_the_text_and_begin_with_a_route() {
        let text = many(20_000);
        let pieces: Vec<_> = pieces(&text).collect();
        assert!(pieces.len() > 5, "{}", pieces.len());
        assert_eq!(pieces.iter().map(|piece| piece.text).collect::<String>(), text);
        for piece in pieces {
            assert!(piece.base == 0 || piece.text.starts_with(HEADER));
            assert_eq!(text.get(piece.base..piece.base + piece.text.len()), Some(piece.text));
            assert!(piece.text.len() < ENOUGH + 100);
        }
    }

    #[test]
    fn what_cannot_be_cut_safely_stays_whole() {
        let long_string = many(20_000) + "[[route]]\nid = \"\"\"\n[[route]]\n\"\"\"\n";
        let other_route = "route = []\n".to_owned() + &many(20_000);
        let foreign = "[x]\n".to_owned() + &many(20_000);
        for text in [long_string, other_route, foreign, "x".repeat(200_000), many(1)] {
            assert_eq!(pieces(&text).count(), 1);
        }
        assert_eq!(pieces("").count(), 0);
    }
}
