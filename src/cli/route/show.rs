//! `route show`.

use std::fmt::Write as _;

use crate::cli::remote::Remote;
use crate::cli::report::{Style, print};
use crate::cli::shown::{lines, phase_word, state_json};
use crate::cli::words::{clean, counted};
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::proto::{Phase, RouteState};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The route.
    id: String,
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let state = match remote.client.get(&arguments.id).await {
        Ok(state) => state,
        Err(error) => return Ok(remote.refuse_route(&error, &arguments.id).await),
    };
    print(&match remote.voice.format {
        Format::Json => format!("{}\n", state_json(&state)),
        Format::Table => prose(&state, SystemClock.now(), remote.voice.style),
    });
    Ok(Status::Done)
}

fn prose(state: &RouteState, now: Timestamp, style: Style) -> String {
    let route = state.route.clone().unwrap_or_default();
    let word = phase_word(state);
    let word = match state.phase() {
        Phase::Live => style.good(word),
        Phase::Faulty => style.bad(word),
        Phase::Pending => style.warning(word),
        Phase::Expired | Phase::Unspecified => style.faint(word),
    };
    let mut text = format!("{} is {word}\n", style.strong(&clean(&route.id)));
    let mut line = |word: &str, value: &str| {
        let _ = writeln!(text, "  {} {value}", style.faint(&format!("{word:<8}")));
    };
    if !state.fault.is_empty() {
        line("why", &clean(&state.fault));
    }
    for (word, value) in lines(&route, now) {
        line(word, &value);
    }
    if !state.note.is_empty() {
        line("note", &clean(&state.note));
    }
    line("open", &counted(state.open_connections, "connection"));
    let from = match state.revision {
        0 => format!("{} ({})", state.source, state.origin),
        revision => format!("{}, revision {revision}", state.source),
    };
    line("from", &clean(&from));
    text
}
