//! TOML as people write it: a text whose single values may be wrong without hiding the others.
//!
//! A parser that stumbles over one plain value on one line (a word without quotes, a 13th month)
//! has lost nothing behind it: that is a slip. Everything else is a breach, after which nobody can
//! say what belongs where. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest text in which slips are told apart from worse: the parser keeps over 100 bytes for
/// each error, and garbage may have one in each byte.
pub(super) const MAX_RECOVERED: usize = 1 << 20;

/// A text as TOML.
pub type Parsed<'a> = Spanned<DeTable<'a>>;

/// What is no TOML inside of single values, by the offset at which the value begins.
pub type Slips = BTreeMap<usize, String>;

/// Why a text is no TOML as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Where the parser stumbled first.
    pub span: Range<usize>,
    /// What it says.
    pub why: String,
}

/// Parses a text; `may_slip` says below which top-level keys a slip is no breach.
///
/// # Errors
/// The first breach: it draws others behind it, and is the one to mend.
pub fn parse(text: &str, may_slip: impl Fn(&str) -> bool) -> Result<(Parsed<'_>, Slips), Breach> {
    let error = match DeTable::parse(text) {
        Ok(table) => return Ok((table, Slips::new())),
        Err(error) => error,
    };
    let (table, errors) = if text.len() > MAX_RECOVERED {
        (Parsed::new(0..0, DeTable::new()), vec![error])
    } else {
        DeTable::parse_recoverable(text)
    };
    let scalars = scalars(&table, text, may_slip);
    let mut slips = Slips::new();
    let mut breach: Option<(Range<usize>, &str)> = None;
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let message = error.message().trim_end();
        let value = scalars.range(..=span.start).next_back();
        match value.filter(|(_, end)| span.end <= **end) {
            Some((start, _)) => drop(slips.entry(*start).or_insert_with(|| message.to_owned())),
            None if breach.as_ref().is_none_or(|(known, _)| span.start < known.start) => {
                breach = Some((span, message));
            }
            None => {}
        }
    }
    match breach {
        None => Ok((table, slips)),
        Some((span, message)) => Err(Breach { span, why: message.to_owned() }),
    }
}

/// Beginnings and ends of the plain values that may slip, as far as each stands on one line that
/// ends: a parser that stumbled over one of these has lost nothing behind it.
fn scalars(
    table: &Parsed<'_>,
    text: &str,
    may_slip: impl Fn(&str) -> bool,
) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&Spanned<DeValue<'_>>> = Vec::new();
    open.extend(table.get_ref().iter().filter(|(key, _)| may_slip(key.get_ref())).map(|(_, v)| v));
    while let Some(value) = open.pop() {
        match value.get_ref() {
            DeValue::Array(items) => open.extend(items.iter()),
            DeValue::Table(entries) => open.extend(entries.iter().map(|(_, value)| value)),
            _ => {
                let Range { start, end } = value.span();
                let is_on_one_line = text.get(start..end).is_some_and(|own| !own.contains('\n'));
                if is_on_one_line && text.get(end..).is_some_and(|rest| rest.contains('\n')) {
                    found.insert(start, end);
                }
            }
        }
    }
    found
}

/// The slips inside of a value, which then says nothing: from where on, and what the parser says.
pub fn within<'a>(
    slips: &'a Slips,
    value: &Range<usize>,
) -> impl Iterator<Item = (Range<usize>, &'a str)> + use<'a> {
    let end = value.end;
    slips.range(value.start..=end).map(move |(slip, why)| (*slip..end, &**why))
}

/// What a value is, in the words of messages.
#[must_use]
pub fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
