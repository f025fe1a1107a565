//! Faults as people read them: the place, the line with a mark under it, what is wrong and what
//! to do.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use serde_json::{Value, json};

use super::{Color, Format, Status};
use crate::config;
use crate::source;
use crate::source::place::Place;

/// How a command talks with whoever typed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voice {
    /// Results, on standard output.
    pub(super) style: Style,
    /// Words about them, on standard error.
    pub(super) complaints: Style,
    /// How results are told.
    pub(super) format: Format,
    /// Whether each call is told as well.
    pub(super) is_verbose: bool,
}

/// How one of the two outputs shows things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colored: bool,
    /// How many columns the terminal has, if it is one.
    width: Option<u16>,
}

/// Columns of a terminal that does not tell.
const USUAL_WIDTH: u16 = 80;

impl Style {
    /// For standard output.
    pub(super) fn new(color: Color) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let width = is_terminal.then(|| comfy_table::Table::new().width().unwrap_or(USUAL_WIDTH));
        Self { colored: Self::colors(color, is_terminal), width }
    }

    /// For standard error.
    pub(super) fn of_complaints(color: Color) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let width = is_terminal.then_some(USUAL_WIDTH);
        Self { colored: Self::colors(color, is_terminal), width }
    }

    fn colors(color: Color, is_terminal: bool) -> bool {
        match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }

    /// Without colours.
    #[cfg(test)]
    pub(super) fn plain(width: Option<u16>) -> Self {
        Self { colored: false, width }
    }

    pub(super) fn is_colored(self) -> bool {
        self.colored
    }

    /// Whether somebody looks at it as it comes.
    pub(super) fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    /// How many columns there are; no number, no limit.
    pub(super) fn width(self) -> Option<u16> {
        self.width
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// One thing that is wrong, wherever it was found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) message: String,
}

impl From<&config::Fault> for Finding {
    fn from(fault: &config::Fault) -> Self {
        Self { place: fault.place.clone(), message: fault.kind.to_string() }
    }
}

impl From<&source::Fault> for Finding {
    fn from(fault: &source::Fault) -> Self {
        Self { place: fault.place.clone(), message: fault.kind.to_string() }
    }
}

impl Finding {
    /// As something that is wrong.
    pub(super) fn show(&self, style: Style) -> String {
        self.show_in(style, &style.bad(&self.message))
    }

    /// As something that is only odd.
    pub(super) fn show_odd(&self, style: Style) -> String {
        self.show_in(style, &format!("warning: {}", self.message))
    }

    fn show_in(&self, style: Style, words: &str) -> String {
        let origin = self.place.origin.to_string();
        let mut text = format!("{}: {words}\n", style.strong(&origin));
        if !self.place.line_text.is_empty() {
            let number = self.place.origin.line.to_string();
            let column = usize::try_from(self.place.origin.column.max(1) - 1).unwrap_or(0);
            // Tabs keep their width under the mark.
            let before = self.place.line_text.chars().take(column);
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let mark = "^".repeat(self.place.width.max(1));
            let gutter = " ".repeat(number.len());
            let _ =
                writeln!(text, " {} {}", style.faint(&format!("{number} |")), self.place.line_text);
            let _ = writeln!(
                text,
                " {} {indent}{}",
                style.faint(&format!("{gutter} |")),
                style.bad(&mark)
            );
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "source": &*self.place.origin.source,
            "line": (self.place.origin.line > 0).then_some(self.place.origin.line),
            "column": (self.place.origin.column > 0).then_some(self.place.origin.column),
            "message": self.message,
        })
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is no fault of ours.
pub(super) fn print(text: &str) {
    let _ = put(text);
}

/// Writes to standard output at once, for whoever goes on for as long as somebody reads.
pub(super) fn put(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Shows all that is wrong; what follows is that the command refuses.
pub(super) fn complain_all(findings: &[Finding], style: Style) -> Status {
    for finding in findings {
        complain(&finding.show(style));
    }
    Status::Refused
}

/// Complains of what is only odd.
pub(super) fn complain_odd(findings: &[Finding], style: Style) {
    for finding in findings {
        complain(&finding.show_odd(style));
    }
}

/// Writes to standard error.
pub(super) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
