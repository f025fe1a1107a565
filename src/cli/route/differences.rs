//! What an apply changes, as a table and for programs.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::report::Style;
use crate::cli::shown::gist;
use crate::cli::table::{Column, Part, Tone, table};
use crate::cli::words::{counted, grouped, rate};
use crate::control::proto::difference::Kind;
use crate::control::proto::{ApplyResponse, Difference, Route};

/// So many rows are shown on a terminal, those that cut connections first.
const SHOWN: usize = 100;

/// How much changes, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    added: u64,
    changed: u64,
    pub(super) removed: u64,
    sooner: u64,
    pub(super) cut_connections: u64,
    cut_bytes_per_second: u64,
    unchanged: u64,
}

impl Sum {
    pub(super) fn of(answer: &ApplyResponse) -> Self {
        let mut sum = Self { unchanged: answer.unchanged, ..Self::default() };
        for one in &answer.differences {
            match one.kind() {
                Kind::Added => sum.added += 1,
                Kind::Removed => sum.removed += 1,
                Kind::Changed | Kind::Unspecified => sum.changed += 1,
            }
            sum.sooner += u64::from(one.ends_sooner);
            sum.cut_connections += one.cut_connections;
            sum.cut_bytes_per_second += one.cut_bytes_per_second;
        }
        sum
    }

    /// In one sentence without its end.
    pub(super) fn words(&self, style: Style) -> String {
        let part = |count: u64, word: &str, painted: fn(Style, &str) -> String| {
            let text = format!("{} {word}", grouped(count));
            if count == 0 { text } else { painted(style, &text) }
        };
        let mut text = [
            part(self.added, "added", Style::good),
            part(self.changed, "changed", Style::warning),
            part(self.removed, "removed", Style::bad),
            part(self.unchanged, "unchanged", |_, text| text.to_owned()),
        ]
        .join(", ");
        if self.sooner > 0 {
            let _ = write!(text, "; {} sooner to end", grouped(self.sooner));
        }
        if self.cut_connections > 0 {
            let cut = format!(
                "{} cut, carrying {}",
                counted(self.cut_connections, "live connection"),
                rate(self.cut_bytes_per_second)
            );
            let _ = write!(text, "; {}", style.bad(&cut));
        }
        text
    }
}

/// A row for each route that changes; `wanted` are the routes that are to be, by their ids.
pub(super) fn rows(
    answer: &ApplyResponse,
    wanted: &HashMap<String, Route>,
    style: Style,
) -> String {
    let sum = Sum::of(answer);
    let shown = Shown { ends: sum.sooner > 0, cuts: sum.cut_connections > 0, wanted };
    let mut all: Vec<&Difference> = answer.differences.iter().collect();
    all.sort_by_key(|one| u64::MAX - one.cut_connections);
    let most = if style.is_terminal() { SHOWN } else { usize::MAX };
    let rows: Vec<_> = all.iter().take(most).map(|one| shown.row(one)).collect();
    let mut text = table(&shown.columns(), &rows, style);
    let more = all.len() - rows.len();
    if more > 0 {
        let more = counted(u64::try_from(more).unwrap_or(u64::MAX), "more change");
        let line = format!("… {more}; --format json tells all");
        let _ = writeln!(text, "{}", style.faint(&line));
    }
    text
}

/// Which columns have anything to tell.
struct Shown<'a> {
    ends: bool,
    cuts: bool,
    wanted: &'a HashMap<String, Route>,
}

impl Shown<'_> {
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::whole("CHANGE"), Column::whole("ID")];
        if self.ends {
            columns.push(Column::whole("ENDS"));
        }
        if self.cuts {
            columns.push(Column::whole("CUTS").number());
            columns.push(Column::whole("CARRYING").number());
        }
        columns.push(Column::cut("WHAT").at_least(20).or_left_out());
        columns
    }

    fn row(&self, one: &Difference) -> Vec<Part> {
        let (word, tone) = match one.kind() {
            Kind::Added => ("+ added", Tone::Good),
            Kind::Removed => ("- removed", Tone::Bad),
            Kind::Changed | Kind::Unspecified => ("~ changed", Tone::Warning),
        };
        let mut row = vec![Part::new(word, tone), Part::new(&one.id, Tone::Strong)];
        let nothing = || Part::new("-", Tone::Faint);
        if self.ends {
            row.push(if one.ends_sooner { Part::new("sooner", Tone::Warning) } else { nothing() });
        }
        if self.cuts {
            row.extend(match one.cut_connections {
                0 => [nothing(), nothing()],
                count => [
                    Part::new(grouped(count), Tone::Bad),
                    Part::plain(rate(one.cut_bytes_per_second)),
                ],
            });
        }
        row.push(match self.wanted.get(&one.id) {
            Some(route) if one.kind() == Kind::Added => Part::plain(gist(route)),
            _ => Part::plain(one.detail.lines().collect::<Vec<_>>().join("; ")),
        });
        row
    }
}

/// The same for programs. Without a revision nothing was changed.
pub(super) fn json(answer: &ApplyResponse, revision: Option<u64>) -> Value {
    let differences = answer.differences.iter().map(|one| {
        json!({
            "change": match one.kind() {
                Kind::Added => "added",
                Kind::Removed => "removed",
                Kind::Changed | Kind::Unspecified => "changed",
            },
            "id": one.id,
            "ends_sooner": one.ends_sooner,
            "cut_connections": one.cut_connections,
            "cut_bytes_per_second": one.cut_bytes_per_second,
            "detail": one.detail,
        })
    });
    let sum = Sum::of(answer);
    json!({
        "differences": differences.collect::<Vec<_>>(),
        "added": sum.added,
        "changed": sum.changed,
        "removed": sum.removed,
        "unchanged": sum.unchanged,
        "ends_sooner": sum.sooner,
        "cut_connections": sum.cut_connections,
        "cut_bytes_per_second": sum.cut_bytes_per_second,
        "revision": revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_says_what_is_lost() {
        let difference = |kind: Kind, cut| Difference {
            kind: kind.into(),
            ends_sooner: kind == Kind::Changed,
            cut_connections: cut,
            cut_bytes_per_second: cut * 1_000_000,
            ..Difference::default()
        };
        let answer = ApplyResponse {
            differences: vec![
                difference(Kind::Added, 0),
                difference(Kind::Changed, 0),
                difference(Kind::Removed, 3),
            ],
            revision: 0,
            unchanged: 1200,
        };
        let style = Style::plain(None);
        assert_eq!(
            Sum::of(&answer).words(style),
            "1 added, 1 changed, 1 removed, 1,200 unchanged; 1 sooner to end; \
             3 live connections cut, carrying 3.0 MB/s"
        );
        let first = rows(&answer, &HashMap::new(), style).lines().nth(1).map(str::to_owned);
        assert!(first.is_some_and(|line| line.starts_with("- removed")), "what cuts comes first");
    }
}
