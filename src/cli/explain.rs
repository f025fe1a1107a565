//! `explain`: what would happen to a client that asks for a name.
//!
//! The answer comes from the same lookup that the data path uses; nothing is decided twice.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;

use super::check::{load, read_routes};
use super::report::{Style, complain, complain_all, print};
use super::{ConfigArgument, Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::hostname::Hostname;
use crate::outcome::Outcome;
use crate::routing::route::{Mode, Route};
use crate::routing::snapshot::{Miss, Snapshot};
use crate::routing::termination::{BackendTls, Protocol};
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
    let (snapshot, findings) = read_routes(path, &config.terminate.zones);
    complain_all(&findings, style);
    let clock_now = SystemClock.now();
    let at = match arguments.at {
        None => clock_now,
        Some(At::Time(time)) => time,
        Some(At::In(period)) => clock_now.saturating_add(period).unwrap_or(Timestamp::MAX),
    };
    let alpn = Alpn::from_names(arguments.alpn.iter().map(String::as_bytes));
    let mut answer = Answer::new(&arguments.host, &alpn, at, &snapshot);
    answer.from = arguments.from;
    print(&match format {
        Format::Json => format!("{}\n", answer.json(&snapshot)),
        Format::Table => answer.prose(&snapshot, style),
    });
    if answer.outcome.is_none() { Status::Done } else { Status::Refused }
}

/// What would happen; no outcome means that the client is let through.
struct Answer {
    host: String,
    from: Option<IpAddr>,
    at: Timestamp,
    outcome: Option<Outcome>,
    why: Option<String>,
    route: Option<Arc<Route>>,
}

impl Answer {
    fn new(host: &str, alpn: &Alpn, at: Timestamp, snapshot: &Snapshot) -> Self {
        let refused = |outcome, why: String, route| Self {
            host: host.to_owned(),
            from: None,
            at,
            outcome: Some(outcome),
            why: Some(why),
            route,
        };
        let name: Hostname = match host.parse() {
            Ok(name) => name,
            Err(error) => {
                let why = format!("{error}");
                return refused(Outcome::InvalidSni, why, None);
            }
        };
        match snapshot.lookup(&name, alpn, at) {
            Ok(route) => Self {
                host: name.to_string(),
                from: None,
                at,
                outcome: None,
                why: None,
                route: Some(Arc::clone(route)),
            },
            Err(miss) => {
                let outcome = Outcome::from(&miss);
                match miss {
                    Miss::Unknown => {
                        let why = "no route covers this name with these protocols";
                        refused(outcome, why.to_owned(), None)
                    }
                    Miss::NotYet(route) => {
                        let from = route.lifetime().not_before.unwrap_or(at);
                        refused(outcome, format!("the route begins at {from}"), Some(route))
                    }
                    Miss::Expired(route) => {
                        let end = route.lifetime().expires_at.unwrap_or(at);
                        refused(outcome, format!("the route ended at {end}"), Some(route))
                    }
                }
            }
        }
    }

    fn prose(&self, snapshot: &Snapshot, style: Style) -> String {
        let mut text = match (&self.outcome, &self.why) {
            (Some(outcome), Some(why)) => {
                format!("{} is refused: {} ({why})\n", self.host, style.bad(outcome.word()))
            }
            _ => format!("{} is {}\n", self.host, style.good("let through")),
        };
        let mut line = |word: &str, value: String| {
            let _ = writeln!(text, "  {} {value}", style.faint(&format!("{word:<8}")));
        };
        if let Some(route) = &self.route {
            let origin = snapshot.origin(&route.id).map(|origin| origin.to_string());
            line("route", format!("{} ({})", route.id, origin.unwrap_or_default()));
            if let Some(app) = route.app() {
                line("app", app.to_string());
            }
            line("hosts", joined(&route.hosts));
            line("backends", joined(&route.backends));
            line("mode", told(route.mode()).to_owned());
            match route.lifetime().expires_at {
                Some(end) => line("until", format!("{end}, {}", remaining(self.at, end))),
                None => line("until", "no end date".to_owned()),
            }
        }
        if let Some(from) = self.from {
            line("from", from.to_string());
        }
        line("at", self.at.to_string());
        text
    }

    fn json(&self, snapshot: &Snapshot) -> serde_json::Value {
        let route = self.route.as_ref().map(|route| {
            json!({
                "id": &*route.id,
                "app": route.app().map(|app| &**app),
                "origin": snapshot.origin(&route.id).map(|origin| origin.to_string()),
                "hosts": route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "mode": word(route.mode()),
                "backends": route.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "not_before": route.lifetime().not_before.map(|time| time.to_string()),
                "expires_at": route.lifetime().expires_at.map(|time| time.to_string()),
            })
        });
        json!({
            "host": self.host,
            "from": self.from,
            "at": self.at.to_string(),
            "allowed": self.outcome.is_none(),
            "outcome": self.outcome.map(Outcome::word),
            "why": self.why,
            "route": route,
        })
    }
}

const fn word(mode: &Mode) -> &'static str {
    match mode {
        Mode::Passthrough => "passthrough",
        Mode::Terminate(_) => "terminate",
    }
}

fn told(mode: &Mode) -> &'static str {
    match mode {
        Mode::Passthrough => "passthrough: TLS ends in the backend",
        Mode::Terminate(how) => match (how.protocol, &how.backend) {
            (Protocol::Http, BackendTls::Off) => "terminate: HTTP, passed on in the clear",
            (Protocol::Http, BackendTls::Verified { .. }) => "terminate: HTTP, passed on over TLS",
            (Protocol::Tcp, BackendTls::Off) => "terminate: bytes, passed on in the clear",
            (Protocol::Tcp, BackendTls::Verified { .. }) => "terminate: bytes, passed on over TLS",
        },
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
