//! What `explain` tells, whoever was asked: a file, or a running proxy.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::json;

use super::report::Style;
use super::shown::{instant, lines, route_json, short, state_json};
use super::words::clean;
use crate::clock::Timestamp;
use crate::control::proto::ExplainResponse;

/// An answer, and what was asked beside the name.
pub(super) struct Verdict {
    pub(super) answer: ExplainResponse,
    pub(super) from: Option<IpAddr>,
    /// Whether a running proxy said so.
    pub(super) is_running: bool,
}

impl Verdict {
    pub(super) fn prose(&self, style: Style, now: Timestamp) -> String {
        let ExplainResponse { allowed, outcome, why, route, host, at, table_revision } =
            &self.answer;
        let host = clean(host);
        let mut text = if *allowed {
            format!("{host} is {}\n", style.good("let through"))
        } else {
            format!("{host} is refused: {} ({})\n", style.bad(outcome), clean(why))
        };
        let mut line = |word: &str, value: &str| {
            let _ = writeln!(text, "  {} {value}", style.faint(&format!("{word:<8}")));
        };
        if let Some(state) = route {
            let route = state.route.clone().unwrap_or_default();
            line("route", &format!("{} ({})", clean(&route.id), clean(&state.origin)));
            for (word, value) in lines(&route, instant(at).unwrap_or(now)) {
                line(word, &value);
            }
            if !state.note.is_empty() {
                line("note", &clean(&state.note));
            }
        }
        if let Some(from) = self.from {
            line("from", &from.to_string());
        }
        line("at", &short(at));
        if self.is_running {
            line("table", &format!("revision {table_revision}"));
        }
        text
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let answer = &self.answer;
        let route = answer.route.as_ref().map(|state| {
            if self.is_running {
                return state_json(state);
            }
            let mut map = route_json(&state.route.clone().unwrap_or_default());
            map.insert("origin".to_owned(), json!(state.origin));
            serde_json::Value::Object(map)
        });
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "host": answer.host,
            "from": self.from,
            "at": answer.at,
            "allowed": answer.allowed,
            "outcome": text(&answer.outcome),
            "why": text(&answer.why),
            "route": route,
            "table_revision": self.is_running.then_some(answer.table_revision),
        })
    }
}
