//! A route as it is given on a command line or in a text, and what is wrong with that.
//!
//! Both are judged by the reader of routes files, before the proxy is asked: whoever typed them
//! learns of all faults at once, with their places.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::cli::check::read_routes;
use crate::cli::report::Finding;
use crate::control::convert::message;
use crate::control::proto::Route;
use crate::routing::snapshot::Snapshot;
use crate::source::document;
use crate::source::place::Place;

/// What a text on standard input is told under.
const STANDARD_INPUT: &str = "standard input";

/// The largest text that is read from standard input, in bytes.
const MAX_TEXT: u64 = 1 << 30;

/// The routes of a file, a folder, or standard input (`-`); all that is wrong with them, if
/// anything is: what is left out of a set would be removed.
pub(super) fn read(path: &Path) -> Result<Vec<Route>, Vec<Finding>> {
    let (snapshot, findings) =
        if path == Path::new("-") { read_standard_input() } else { read_routes(path) };
    if findings.is_empty() {
        Ok(snapshot.claims().map(|written| message(&written.route)).collect())
    } else {
        Err(findings)
    }
}

fn read_standard_input() -> (Snapshot, Vec<Finding>) {
    let source: Arc<str> = STANDARD_INPUT.into();
    let mut text = String::new();
    if let Err(error) = io::stdin().lock().take(MAX_TEXT).read_to_string(&mut text) {
        let finding = Finding { place: Place::of_source(&source), message: error.to_string() };
        return (Snapshot::default(), vec![finding]);
    }
    judge(&source, &text)
}

/// The routes of a text, with all that is wrong.
pub(super) fn judge(source: &Arc<str>, text: &str) -> (Snapshot, Vec<Finding>) {
    let read = document::read(source, text);
    let mut findings: Vec<Finding> = read.faults.iter().map(Finding::from).collect();
    let (snapshot, conflicts) = Snapshot::after(&Snapshot::default(), &read.claims);
    findings.extend(conflicts.iter().map(|(claim, conflict)| Finding {
        place: Place::of_origin(&claim.origin),
        message: conflict.to_string(),
    }));
    (snapshot, findings)
}
