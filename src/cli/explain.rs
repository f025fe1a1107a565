//! `explain`: what would happen to a client that asks for a name.
//!
//! The answer comes from the same lookup that the data path uses; nothing is decided twice. A file
//! is asked if one is named, else the running proxy.

use std::net::IpAddr;

use super::check::RoutesArguments;
use super::remote::{AdminArguments, Remote, with_proxy};
use super::report::{Voice, complain, print};
use super::verdict::Verdict;
use super::words::{When, parse_when};
use super::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::convert::message;
use crate::control::proto::{ExplainRequest, ExplainResponse, RouteState};
use crate::outcome::Outcome;
use crate::routing::explain::{Explanation, explain};
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
    #[arg(long, value_name = "TIME|+2h", value_parser = parse_when)]
    at: Option<When>,
    #[command(flatten)]
    file: RoutesArguments,
}

pub(super) fn run(
    arguments: &Arguments,
    admin: &AdminArguments,
    names_admin: bool,
    voice: Voice,
) -> Status {
    let now = SystemClock.now();
    let names_file = arguments.file.are_named();
    if names_file && names_admin {
        complain(
            "a file and a running proxy cannot be asked at once: leave --admin out, or --routes and --config\n",
        );
        return Status::Usage;
    }
    if names_file {
        return ask_file(arguments, now, voice);
    }
    let status = with_proxy(admin, voice, async |remote| ask_proxy(remote, arguments, now).await);
    if status == Status::Unreachable {
        complain("--routes PATH or --config FILE asks a file, without a proxy\n");
    }
    status
}

fn ask_file(arguments: &Arguments, now: Timestamp, voice: Voice) -> Status {
    let snapshot = match arguments.file.read(voice.complaints) {
        Ok(snapshot) => snapshot,
        Err(status) => return status,
    };
    let at = arguments.at.map_or(now, |at| at.instant(now));
    let alpn = Alpn::from_names(arguments.alpn.iter().map(String::as_bytes));
    let answer = told(&explain(&snapshot, &arguments.host, &alpn, at));
    tell(arguments, answer, false, now, voice)
}

async fn ask_proxy(
    remote: &Remote,
    arguments: &Arguments,
    now: Timestamp,
) -> Result<Status, Error> {
    let text = |value: Option<String>| value.unwrap_or_default();
    let request = ExplainRequest {
        host: arguments.host.clone(),
        alpn: arguments.alpn.clone(),
        at: text(arguments.at.map(|at| at.instant(now).to_string())),
        from: text(arguments.from.map(|from| from.to_string())),
    };
    let answer = remote.client.explain(request).await?;
    Ok(tell(arguments, answer, true, now, remote.voice))
}

fn tell(
    arguments: &Arguments,
    answer: ExplainResponse,
    is_running: bool,
    now: Timestamp,
    voice: Voice,
) -> Status {
    let status = if answer.allowed { Status::Done } else { Status::Refused };
    let verdict = Verdict { answer, from: arguments.from, is_running };
    print(&match voice.format {
        Format::Json => format!("{}\n", verdict.json()),
        Format::Table => verdict.prose(voice.style, now),
    });
    status
}

/// What a file says, in the words of a running proxy.
fn told(explanation: &Explanation) -> ExplainResponse {
    let Explanation { host, at, verdict, origin } = explanation;
    let route = verdict.route().map(|route| RouteState {
        route: Some(message(route)),
        origin: origin.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..RouteState::default()
    });
    ExplainResponse {
        allowed: verdict.refusal().is_none(),
        outcome: verdict.refusal().map(Outcome::word).unwrap_or_default().to_owned(),
        why: verdict.why().unwrap_or_default(),
        route,
        host: host.clone(),
        at: at.to_string(),
        table_revision: 0,
    }
}
