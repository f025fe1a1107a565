//! `explain`: what would happen to a client that asks for a name.
//!
//! The answer comes from the same lookup that the data path uses; nothing is decided twice.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::SignedDuration;
use serde_json::json;

use super::check::{load, read_routes};
use super::report::{Style, complain, complain_all, print};
use super::{ConfigArgument, Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::outcome::Outcome;
use crate::routing::explain::{Explanation, Verdict, explain};
use crate::units::Period;
use crate::wire::client_hello::Alpn;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name that the client asks for.
    host: String,
    /// The protocols that it offers, in its order.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Where it comes from. No rule depends on it yet; the answer repeats it.
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// When it comes: an RFC 3339 time, or from now, as +2h.
    #[arg(long, value_name = "TIME|+2h", value_parser = parse_time)]
    at: Option<At>,
    /// The routes file or folder to ask.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    routes: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Time(Timestamp),
    In(SignedDuration),
}

fn parse_time(text: &str) -> Result<At, String> {
    if let Some(period) = text.strip_prefix('+') {
        let period: Period = period.parse().map_err(|error| format!("{error}"))?;
        return SignedDuration::try_from(period.0).map(At::In).map_err(|error| error.to_string());
    }
    text.parse().map(At::Time).map_err(|_| {
        "write a time as 2026-12-24T18:00:00Z (with its offset), or from now as +2h".to_owned()
    })
}

pub(super) fn run(arguments: &Arguments, style: Style, format: Format) -> Status {
    let config = match load(arguments.config.config.as_deref(), &Config::default()) {
        Ok(config) => config,
        Err(findings) => {
            return complain_all(&findings, style);
        }
    };
    let Some(path) = arguments.routes.as_ref().or(config.routes.path.as_ref()) else {
        complain("no routes were named: give --routes PATH, or --config FILE with routes.path\n");
        return Status::Refused;
    };
    let (snapshot, findings) = read_routes(path);
    complain_all(&findings, style);
    let clock_now = SystemClock.now();
    let at = match arguments.at {
        None => clock_now,
        Some(At::Time(time)) => time,
        Some(At::In(period)) => clock_now.saturating_add(period).unwrap_or(Timestamp::MAX),
    };
    let alpn = Alpn::from_names(arguments.alpn.iter().map(String::as_bytes));
    let explanation = explain(&snapshot, &arguments.host, &alpn, at);
    let answer = Answer { explanation, from: arguments.from };
    print(&match format {
        Format::Json => format!("{}\n", answer.json()),
        Format::Table => answer.prose(style),
    });
    match answer.explanation.verdict {
        Verdict::Allowed(_) => Status::Done,
        Verdict::NoName(_) | Verdict::Missed(_) => Status::Refused,
    }
}

/// What is told of it.
struct Answer {
    explanation: Explanation,
    from: Option<IpAddr>,
}

impl Answer {
    fn prose(&self, style: Style) -> String {
        let Explanation { host, at, verdict, origin } = &self.explanation;
        let mut text = match (verdict.refusal(), verdict.why()) {
            (Some(outcome), Some(why)) => {
                format!("{host} is refused: {} ({why})\n", style.bad(outcome.word()))
            }
            _ => format!("{host} is {}\n", style.good("let through")),
        };
        let mut line = |word: &str, value: String| {
            let _ = writeln!(text, "  {} {value}", style.faint(&format!("{word:<8}")));
        };
        if let Some(route) = verdict.route() {
            let origin = origin.as_ref().map(ToString::to_string);
            line("route", format!("{} ({})", route.id, origin.unwrap_or_default()));
            if let Some(app) = route.app() {
                line("app", app.to_string());
            }
            line("hosts", joined(&route.hosts));
            line("backends", joined(&route.backends));
            line("mode", "passthrough: TLS ends in the backend".to_owned());
            match route.lifetime().expires_at {
                Some(end) => line("until", format!("{end}, {}", remaining(*at, end))),
                None => line("until", "no end date".to_owned()),
            }
        }
        if let Some(from) = self.from {
            line("from", from.to_string());
        }
        line("at", at.to_string());
        text
    }

    fn json(&self) -> serde_json::Value {
        let Explanation { host, at, verdict, origin } = &self.explanation;
        let route = verdict.route().map(|route| {
            json!({
                "id": &*route.id,
                "app": route.app().map(|app| &**app),
                "origin": origin.as_ref().map(ToString::to_string),
                "hosts": route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "backends": route.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "not_before": route.lifetime().not_before.map(|time| time.to_string()),
                "expires_at": route.lifetime().expires_at.map(|time| time.to_string()),
            })
        });
        json!({
            "host": host,
            "from": self.from,
            "at": at.to_string(),
            "allowed": verdict.refusal().is_none(),
            "outcome": verdict.refusal().map(Outcome::word),
            "why": verdict.why(),
            "route": route,
        })
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The time from one instant to another, in words of at most two units.
fn remaining(from: Timestamp, to: Timestamp) -> String {
    let left = to.duration_since(from);
    let seconds = left.abs().as_secs();
    let words = match seconds {
        86_400.. => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
        3_600.. => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        60.. => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{seconds}s"),
    };
    if left.is_negative() || left.is_zero() {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}
