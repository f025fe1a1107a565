//! Where in a text something stands, for people.
//!
//! Byte spans become lines and columns (in characters, from 1) only for what is told. Asking in
//! the order of the text costs no more than reading it once, however long its lines are.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use crate::routing::route::Origin;

/// The longest line that is worth showing, in characters.
const MAX_LINE: usize = 200;

/// A place in a text, with the line that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File, line and column.
    pub origin: Origin,
    /// The line, or nothing if there is none to show. It has no control characters but tabs.
    pub line_text: String,
    /// How many characters from the column on are meant.
    pub width: usize,
}

impl Place {
    /// A source as a whole.
    #[must_use]
    pub fn of_source(source: &Arc<str>) -> Self {
        Self::of_origin(&Origin { source: Arc::clone(source), line: 0, column: 0 })
    }

    /// A place whose text is not at hand.
    #[must_use]
    pub fn of_origin(origin: &Origin) -> Self {
        Self { origin: origin.clone(), line_text: String::new(), width: 0 }
    }
}

/// A text whose lines can be found.
#[derive(Debug)]
pub struct Text<'a> {
    source: Arc<str>,
    content: &'a str,
    /// How many lines of the source stand before it.
    above: u32,
    line_starts: Vec<usize>,
    /// The last offset that was asked for, and how many characters stand before it in its line.
    last: Cell<(usize, usize)>,
}

impl<'a> Text<'a> {
    /// Finds the lines of a text.
    #[must_use]
    pub fn new(source: &Arc<str>, text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        let last = Cell::new((0, 0));
        Self { source: Arc::clone(source), content: text, above: 0, line_starts, last }
    }

    /// The same text as a part of its source, below so many lines.
    #[must_use]
    pub fn below(self, above: u32) -> Self {
        Self { above, ..self }
    }

    /// The name of its source.
    #[must_use]
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Line and column of a byte offset; one behind the end is the end.
    #[must_use]
    pub fn origin(&self, offset: usize) -> Origin {
        let offset = self.content.floor_char_boundary(offset);
        let (line, start) = self.line_of(offset);
        let (known, known_count) = self.last.get();
        let (from, count) =
            if (start..=offset).contains(&known) { (known, known_count) } else { (start, 0) };
        let count = count + self.content.get(from..offset).map_or(0, |text| text.chars().count());
        self.last.set((offset, count));
        let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        let line = number(line).saturating_add(self.above);
        Origin { source: Arc::clone(&self.source), line, column: number(count) }
    }

    /// The place of a span of bytes; of its first line, if it has several.
    #[must_use]
    pub fn place(&self, span: Range<usize>) -> Place {
        let origin = self.origin(span.start);
        let from = self.content.floor_char_boundary(span.start);
        let (line, start) = self.line_of(from);
        let end = self.line_starts.get(line + 1).map_or(self.content.len(), |next| next - 1);
        let line_text = self.content.get(start..end).unwrap_or_default().trim_end_matches('\r');
        let to = self.content.floor_char_boundary(span.end).min(start + line_text.len());
        let marked = self.content.get(from..to).unwrap_or_default();
        let too_long = line_text.chars().nth(MAX_LINE).is_some();
        let shown = if too_long { "" } else { line_text };
        // One character for one, so that columns hold.
        let clean = |letter: char| match letter {
            '\t' => letter,
            _ if letter.is_control() => char::REPLACEMENT_CHARACTER,
            _ => letter,
        };
        Place {
            origin,
            line_text: shown.chars().map(clean).collect(),
            width: marked.chars().count(),
        }
    }

    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        (line, self.line_starts.get(line).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = Text::new(&"a.toml".into(), "äb = 1\r\n\n  cd = 2");
        let place = text.place(3..4);
        assert_eq!(place.origin.to_string(), "a.toml:1:3");
        assert_eq!(place.line_text, "äb = 1");
        assert_eq!(text.origin(9).to_string(), "a.toml:2:1");
        let place = text.place(12..14);
        assert_eq!((place.origin.to_string().as_str(), place.width), ("a.toml:3:3", 2));
        let place = text.place(99..120);
        assert_eq!((place.origin.to_string().as_str(), place.width), ("a.toml:3:9", 0));
        assert_eq!(text.place(0..99).width, 6);
    }

    #[test]
    fn columns_are_right_in_whatever_order_they_are_asked_for() {
        let content = "äöü = [\"ß\", 1]\nx\n\nzä";
        let offsets: Vec<usize> = (0..=content.len() + 2).collect();
        let fresh = |at: usize| Text::new(&"a".into(), content).origin(at);
        let text = Text::new(&"a".into(), content);
        for &at in offsets.iter().chain(offsets.iter().rev()) {
            assert_eq!(text.origin(at), fresh(at), "{at}");
        }
        for &at in &offsets {
            assert_eq!(text.origin(at), fresh(at));
            assert_eq!(text.origin(offsets.len() - at), fresh(offsets.len() - at), "{at}");
        }
    }

    #[test]
    fn a_line_is_shown_without_what_a_terminal_obeys() {
        let text = Text::new(&"a".into(), "a\u{1b}[0m\tb");
        assert_eq!(text.place(0..1).line_text, "a\u{fffd}[0m\tb");
        let long = "x".repeat(MAX_LINE + 1);
        assert_eq!(Text::new(&"a".into(), &long).place(0..1).line_text, "");
    }
}
