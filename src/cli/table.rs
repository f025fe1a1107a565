//! Tables for people: aligned, cut to the terminal, and the same for every reader of a pipe.
//!
//! On a terminal, columns that may be cut give way, then those that are least missed are left out.
//! Without one, nothing is cut and nothing depends on where it runs.

use comfy_table::presets::NOTHING;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table,
};

use super::report::Style;
use super::words::clean;

/// Below this width, a column that may be cut says nothing any more, and others go first.
const LEAST: usize = 14;
const GAP: u16 = 2;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    head: &'static str,
    /// To how much its texts may be cut, if they may.
    least: Option<usize>,
    may_be_left_out: bool,
    is_number: bool,
}

impl Column {
    /// A column that is shown as it is.
    pub(super) const fn whole(head: &'static str) -> Self {
        Self { head, least: None, may_be_left_out: false, is_number: false }
    }

    /// A column whose texts may be cut.
    pub(super) const fn cut(head: &'static str) -> Self {
        Self { least: Some(LEAST), ..Self::whole(head) }
    }

    /// The same column, if its texts say little when they are cut below that.
    pub(super) const fn at_least(self, columns: usize) -> Self {
        Self { least: Some(columns), ..self }
    }

    /// The same column, if it may also be left out; the last one goes first.
    pub(super) const fn or_left_out(self) -> Self {
        Self { may_be_left_out: true, ..self }
    }

    /// The same column, if it holds numbers.
    pub(super) const fn number(self) -> Self {
        Self { is_number: true, ..self }
    }
}

/// What stands in a cell.
#[derive(Debug, Clone)]
pub(super) struct Part {
    text: String,
    tone: Tone,
}

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Part {
    pub(super) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }

    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Tone::Plain)
    }

    fn cell(&self, column: Column) -> Cell {
        let cell = Cell::new(&self.text);
        let cell = if column.is_number { cell.set_alignment(CellAlignment::Right) } else { cell };
        match self.tone {
            Tone::Plain => cell,
            Tone::Strong => cell.add_attribute(Attribute::Bold),
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Warning => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// A table as text; each row has a part for each column.
pub(super) fn table(columns: &[Column], rows: &[Vec<Part>], style: Style) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_truncation_indicator("…").force_no_tty();
    // Texts are cut where the column ends, not at the last word before that.
    table.set_delimiter('\u{0}');
    if style.is_colored() {
        table.enforce_styling().style_text_only();
    }
    let heads = columns.iter().map(|column| Part::new(column.head, Tone::Faint).cell(*column));
    table.set_header(row(heads));
    for parts in rows {
        table.add_row(row(parts.iter().zip(columns).map(|(part, column)| part.cell(*column))));
    }
    if let Some(width) = style.width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        fit(&mut table, columns, usize::from(width));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(cells: impl Iterator<Item = Cell>) -> Row {
    let mut row = Row::new();
    for cell in cells {
        row.add_cell(cell);
    }
    // What does not fit is cut, not broken into letters.
    row.max_height(1);
    row
}

/// Decides which columns are shown whole, and which not at all.
fn fit(table: &mut Table, columns: &[Column], width: usize) {
    let widths = table.column_max_content_widths();
    let mut shown: Vec<(usize, Column, usize)> = columns
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(index, (column, width))| (index, *column, usize::from(width)))
        .collect();
    let needed = |shown: &[(usize, Column, usize)]| {
        let least = |(_, column, width): &(usize, Column, usize)| {
            column.least.map_or(*width, |least| (*width).min(least))
        };
        shown.iter().map(|column| least(column) + usize::from(GAP)).sum::<usize>()
    };
    while needed(&shown) > width {
        let last = shown.iter().rposition(|(_, column, _)| column.may_be_left_out);
        let Some(last) = last else { break };
        let (index, ..) = shown.remove(last);
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    // Where even that is too much, all give way.
    if needed(&shown) > width {
        return;
    }
    for (index, ..) in shown.iter().filter(|(_, column, _)| column.least.is_none()) {
        if let Some(column) = table.column_mut(*index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::whole("ID"),
        Column::cut("HOSTS"),
        Column::whole("ENDS"),
        Column::whole("OPEN").number().or_left_out(),
    ];

    fn shown(width: Option<u16>) -> String {
        let row = |cells: [&str; 4]| cells.map(Part::plain).to_vec();
        let rows = [
            row(["shop", "shop.example.com, *.shop.example.com", "in 3h 12m", "3"]),
            row(["bücher-東京", "bücher.example", "never", "1,200"]),
        ];
        table(&COLUMNS, &rows, Style::plain(width))
    }

    #[test]
    fn nothing_is_cut_without_a_terminal() {
        assert_eq!(
            shown(None),
            "ID           HOSTS                                 ENDS        OPEN\n\
             shop         shop.example.com, *.shop.example.com  in 3h 12m      3\n\
             bücher-東京  bücher.example                        never      1,200\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_first_and_leaves_out_then() {
        let wide = shown(Some(60));
        assert!(
            wide.contains("…") && wide.contains("OPEN") && wide.contains("in 3h 12m"),
            "{wide}"
        );
        let narrow = shown(Some(42));
        assert!(!narrow.contains("OPEN") && narrow.contains("in 3h 12m"), "{narrow}");
        for (text, width) in [(wide, 60), (narrow, 42)] {
            for line in text.lines() {
                let columns = line.chars().map(|c| if c > '\u{3000}' { 2 } else { 1 });
                assert!(columns.sum::<usize>() <= width, "{line}");
            }
        }
    }
}
