//! `routes.toml`: from text to routes, and to everything that is wrong with it.
//!
//! A faulty route is left out whole, with all its faults told at once; the others stay. A slip
//! inside one value (a word without quotes, a 13th month) is a fault of that route alone; any
//! other breach of TOML means that nobody can say where a route ends, so the text gives no routes
//! and says so: whoever reads it can keep what was good. Whether two routes claim the same name is
//! not judged here: that rule has one place, `Snapshot::merge`. Pure: no file, no clock.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use crate::routing::claims::{Claims, Passage, Written};
use crate::routing::route::{Origin, Route};
use crate::source::fault::{Fault, FaultKind};
use crate::source::keys::{self, KEYS};
use crate::source::pieces::{MAX_PIECE, Piece, pieces};
use crate::source::place::{Place, Text};
use crate::source::values::{self, Parsed, Slips};

/// Faults that are kept of one text. Who has more mends them by a program, not one by one.
const MAX_FAULTS: usize = 1000;

/// What a text says.
#[derive(Debug, Default)]
pub struct Document {
    /// The good routes, in the order of the text.
    pub claims: Claims,
    /// All that is wrong, in the order of the text.
    pub faults: Vec<Fault>,
    /// How many routes were left out for that.
    pub left_out: usize,
    /// Whether the text is TOML at all; if not, it has no routes.
    pub parsed: bool,
}

/// Reads a text; `source` is what its places are told under.
#[must_use]
pub fn read(source: &Arc<str>, text: &str) -> Document {
    // A text is cut between characters only.
    let pages: Vec<Page> = pieces(text).flat_map(|piece| page(source, &piece)).collect();
    bind(pages.iter())
}

/// Reads a text that is one route and nothing else.
///
/// # Errors
/// All that is wrong with it; at least one fault.
pub fn route(source: &Arc<str>, text: &str) -> Result<Arc<Route>, Vec<Fault>> {
    let (bytes, length) = (text.as_bytes().to_vec(), text.len());
    let whole = Piece { base: 0, above: 0, bytes, length };
    let page = page(source, &whole).map_err(|NotUtf8 { offset, place }| {
        vec![Fault { place, kind: FaultKind::NotUtf8 { offset, kept: 0 } }]
    })?;
    match page.passage.written() {
        [only] if page.faults.is_empty() => Ok(Arc::clone(&only.route)),
        written if page.faults.is_empty() => {
            let kind = FaultKind::NotOneRoute { found: written.len() };
            Err(vec![Fault { place: Place::of_source(source), kind }])
        }
        _ => Err(bind(std::iter::once(&page)).faults),
    }
}

/// What one piece of a text says.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Its good routes.
    pub(super) passage: Passage,
    /// All that is wrong, as far as it is kept.
    pub(super) faults: Vec<Fault>,
    /// How many more faults there are.
    untold: usize,
    left_out: usize,
    /// Where it ends, if more is wrong than is kept.
    end: Option<Place>,
    /// Whether nothing in it keeps routes from being told apart.
    is_toml: bool,
}

/// A piece that is no text.
#[derive(Debug)]
pub(super) struct NotUtf8 {
    /// The offset of the byte that belongs to no character.
    pub(super) offset: usize,
    /// Where that is.
    pub(super) place: Place,
}

/// Reads one piece of a text.
pub(super) fn page(source: &Arc<str>, piece: &Piece) -> Result<Page, NotUtf8> {
    let valid = str::from_utf8(&piece.bytes).unwrap_or_else(|error| {
        let good = piece.bytes.get(..error.valid_up_to()).unwrap_or_default();
        str::from_utf8(good).unwrap_or_default()
    });
    let lines = Text::new(source, valid).below(piece.above);
    let is_too_long = piece.length > MAX_PIECE;
    if valid.len() < piece.bytes.len() && !is_too_long {
        let place = lines.place(valid.len()..valid.len());
        return Err(NotUtf8 { offset: piece.base + valid.len(), place });
    }
    let mut reader = Reader::new(lines, piece.above);
    let parsed = if is_too_long {
        let kind = FaultKind::TooLong { bytes: piece.length, most: MAX_PIECE };
        Err((0..0, kind))
    } else {
        values::parse(valid, |key| key == "route")
            .map_err(|breach| (breach.span, FaultKind::NotToml(breach.why)))
    };
    let breach = parsed.map(|(table, slips)| reader.take(&table, &slips)).err();
    let is_toml = breach.is_none();
    if let Some((span, kind)) = breach {
        reader.fault(span, kind);
    }
    Ok(reader.finish(is_toml))
}

/// Puts the pages of a text together. If one of them is no TOML, nothing counts but that: what
/// comes behind a breach may be no fault at all, once that is mended.
pub(super) fn bind<'a>(pages: impl Iterator<Item = &'a Page> + Clone) -> Document {
    let parsed = pages.clone().all(|page| page.is_toml);
    let counted = pages.filter(|page| parsed || !page.is_toml);
    let mut document = Document { parsed, ..Document::default() };
    let mut untold = 0;
    let mut end = None;
    for page in counted.clone().filter(|page| !page.faults.is_empty()) {
        document.left_out += page.left_out;
        let room = MAX_FAULTS - document.faults.len();
        document.faults.extend(page.faults.iter().take(room).cloned());
        untold += page.faults.len().saturating_sub(room) + page.untold;
        end = page.end.clone().or(end);
    }
    if untold > 0 {
        let place = end.or_else(|| document.faults.last().map(|fault| fault.place.clone()));
        document.faults.extend(place.map(|place| Fault { place, kind: FaultKind::Untold(untold) }));
    }
    if parsed {
        document.claims = counted.map(|page| page.passage.clone()).collect();
    }
    document
}

struct Reader<'a> {
    lines: Text<'a>,
    above: u32,
    written: Vec<Written>,
    faults: Vec<Fault>,
    untold: usize,
    left_out: usize,
}

impl<'a> Reader<'a> {
    fn new(lines: Text<'a>, above: u32) -> Self {
        let (written, faults) = (Vec::new(), Vec::new());
        Self { lines, above, written, faults, untold: 0, left_out: 0 }
    }

    fn fault(&mut self, span: Range<usize>, kind: FaultKind) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { place: self.lines.place(span), kind });
        } else {
            self.untold += 1;
        }
    }

    fn take(&mut self, table: &Parsed<'_>, slips: &Slips) {
        for (key, value) in table.get_ref() {
            let kind = match (key.get_ref().as_ref(), value.get_ref()) {
                ("route", DeValue::Array(routes)) => {
                    self.written.reserve_exact(routes.len());
                    routes.iter().for_each(|route| self.route(route, slips));
                    continue;
                }
                ("route", _) => FaultKind::NotAList,
                (other, _) => match KEYS.iter().find(|known| **known == other) {
                    Some(key) => FaultKind::StrayKey(key),
                    None => FaultKind::UnknownTable(other.to_owned()),
                },
            };
            self.fault(key.span(), kind);
        }
    }

    fn route(&mut self, value: &Spanned<DeValue<'_>>, slips: &Slips) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.fault(value.span(), FaultKind::NotAList);
        };
        let Origin { line, column, .. } = self.lines.origin(value.span().start);
        let whereabouts = |offset: usize| self.lines.origin(offset);
        match keys::read(table, &value.span(), slips, &whereabouts) {
            Ok(route) => {
                let line = line.saturating_sub(self.above);
                self.written.push(Written { route: Arc::new(route), line, column });
            }
            Err(faults) => {
                self.left_out += 1;
                for (span, kind) in faults {
                    self.fault(span, kind);
                }
            }
        }
    }

    fn finish(mut self, is_toml: bool) -> Page {
        // Keys come out of a table by the alphabet.
        let position = |fault: &Fault| (fault.place.origin.line, fault.place.origin.column);
        if !self.faults.is_sorted_by_key(position) {
            self.faults.sort_by_key(position);
        }
        let end = (self.untold > 0).then(|| self.lines.place(usize::MAX..usize::MAX));
        let passage = Passage::new(self.lines.source(), self.above, self.written);
        let Self { faults, untold, left_out, .. } = self;
        Page { passage, faults, untold, left_out, end, is_toml }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::values::MAX_RECOVERED;
    use std::fmt::Write as _;

    fn reading(text: &str) -> Document {
        read(&"r.toml".into(), text)
    }

    #[test]
    fn depth_and_bulk_neither_overflow_nor_stall() {
        let deep = 100_000;
        for text in [
            "[".repeat(deep),
            format!("a = {}", "[".repeat(deep)),
            format!("a = {}", "{a=".repeat(deep)),
            format!("{}b = 1", "a.".repeat(deep)),
            format!("[{}b]", "a.".repeat(deep)),
            format!("[[route]]\n{}b = 1", "a.".repeat(deep)),
            "=".repeat(MAX_RECOVERED + 1),
            "x".repeat(MAX_PIECE + 1),
        ] {
            let document = reading(&text);
            assert!(!document.parsed && document.claims.is_empty());
            assert_eq!(document.faults.len(), 1);
        }
        let wide = format!("route = [{}]", "{ hosts = [5] }, ".repeat(20_000));
        let document = reading(&wide);
        assert_eq!(document.faults.len(), MAX_FAULTS + 1);
        let last = document.faults.last().unwrap();
        assert_eq!(last.kind, FaultKind::Untold(40_000 - MAX_FAULTS));
    }

    #[test]
    fn a_long_text_is_read_like_a_short_one() {
        let mut text = String::from("# many\n");
        for id in 0..3_000 {
            let hosts = if id % 1_000 == 999 { "[]" } else { "['a.test']" };
            let _ = writeln!(
                text,
                "[[route]]\nid = 'ä{id}'\nhosts = {hosts}\nbackends = ['10.0.0.1:1']"
            );
        }
        assert!(pieces(&text).count() > 2);
        let document = reading(&text);
        assert_eq!(document.claims.len(), 2_997);
        for claim in document.claims.iter() {
            let id: u32 = claim.route.id.trim_start_matches('ä').parse().unwrap();
            assert_eq!((claim.origin.line, claim.origin.column), (id * 4 + 2, 1));
        }
        let lines: Vec<_> = document.faults.iter().map(|fault| fault.place.origin.line).collect();
        assert_eq!(lines, [4_000, 8_000, 12_000]);
        let torn = text.replace("id = 'ä2500'", "id == 1").replace("id = 'ä10'", "id == 1");
        let document = reading(&torn);
        assert!(!document.parsed && document.claims.is_empty());
        let lines: Vec<_> = document.faults.iter().map(|fault| fault.place.origin.line).collect();
        assert_eq!(lines, [43, 10_003]);
    }
}
