//! `route set`: a route is created, or what is given of it is changed.
//!
//! What is not given stays as it is: a route that only moves to another backend must not lose its
//! end date by that. The change is made to the revision that was looked at, or not at all.

use std::path::PathBuf;

use jiff::SignedDuration;
use serde_json::json;

use super::draft;
use crate::cli::remote::Remote;
use crate::cli::report::{complain, complain_all, print};
use crate::cli::shown::{changes, gist};
use crate::cli::words::{When, clean, parse_period, parse_when};
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::{Error, Refusal, request_id};
use crate::control::proto::{Route, SetRequest, WriteResponse};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The route's id.
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// A name that it takes, `*.name` for one label more, `**.name` for any depth; may be repeated.
    /// A new route without one takes its own id.
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Where it leads: `ip:port`, `name:port` or `unix:/path`; may be repeated, in the order of
    /// preference.
    #[arg(long = "backend", value_name = "BACKEND", value_delimiter = ',')]
    backends: Vec<String>,
    /// When it ends: an RFC 3339 time, from now as +4h, or never.
    #[arg(long, value_name = "TIME|never", value_parser = parse_end, conflicts_with = "expires_in")]
    expires_at: Option<End>,
    /// The same as --expires-at +PERIOD.
    #[arg(long, value_name = "PERIOD", value_parser = parse_period)]
    expires_in: Option<SignedDuration>,
    /// When it begins: an RFC 3339 time, from now as +4h, or never, if it has no beginning.
    #[arg(long, value_name = "TIME|never", value_parser = parse_end)]
    not_before: Option<End>,
    /// How long live connections may outlast the end; an empty text takes it away, as for the
    /// options below.
    #[arg(long, value_name = "PERIOD")]
    grace: Option<String>,
    /// Whom it is for.
    #[arg(long, value_name = "PROJECT/NAME")]
    app: Option<String>,
    /// Whether TLS passes through sealed: `passthrough`, or `terminate`.
    #[arg(long)]
    mode: Option<String>,
    #[command(flatten)]
    terminating: Terminating,
    /// Only for hellos that offer one of these protocols.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    alpn: Option<Vec<String>>,
    /// How its refused clients are answered: `close`, `close_notify` or `alert`.
    #[arg(long)]
    refusal: Option<String>,
    /// How many connections at once; 0 is no limit.
    #[arg(long, value_name = "NUMBER")]
    max_connections: Option<u32>,
    /// Take the whole route from this file instead, or from standard input (`-`): a routes file
    /// with one route.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "hosts", "backends", "expires_at",
        "expires_in", "not_before", "grace", "app", "mode", "alpn", "refusal", "max_connections",
        "protocol", "backend_tls", "backend_ca", "backend_name", "pin", "client_ca"])]
    file: Option<PathBuf>,
    /// Only if the route has this revision; 0: only if there is none.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Under which id the write may be repeated; made up without.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// How TLS is ended, with `--mode terminate`.
#[derive(Debug, clap::Args)]
struct Terminating {
    /// What is spoken inside of it: `http` or `tcp`.
    #[arg(long)]
    protocol: Option<String>,
    /// Whether the backend is spoken to over TLS: `verify` or `off`.
    #[arg(long)]
    backend_tls: Option<String>,
    /// The authorities that vouch for the backend, as a PEM file of the proxy's machine.
    #[arg(long, value_name = "FILE")]
    backend_ca: Option<String>,
    /// The name that the backend is asked for, and must have.
    #[arg(long, value_name = "NAME")]
    backend_name: Option<String>,
    /// The only key that the backends may have, whatever their certificates say; also for a sealed
    /// route, which then leads only to those that were seen to have it.
    #[arg(long, value_name = "sha256:DIGEST")]
    pin: Option<String>,
    /// Only clients with a certificate of these authorities, a PEM file of the proxy's machine.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<String>,
}

/// An instant, or that there is none.
#[derive(Debug, Clone, Copy)]
enum End {
    When(When),
    Never,
}

fn parse_end(text: &str) -> Result<End, String> {
    if text == "never" { Ok(End::Never) } else { parse_when(text).map(End::When) }
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let planned = match &arguments.file {
        Some(file) => match draft::read(file) {
            Ok(routes) => whole(routes),
            Err(findings) => return Ok(complain_all(&findings, remote.voice.complaints)),
        },
        None => patched(arguments, remote).await?,
    };
    let Some(Planned { route, before, revision }) = planned else { return Ok(Status::Refused) };
    let request = SetRequest {
        route: Some(route.clone()),
        if_revision: arguments.if_revision.or(revision),
        request_id: arguments.request_id.clone().unwrap_or_else(request_id),
    };
    let request_id = request.request_id.clone();
    let answer = remote.client.set(request).await?;
    tell(&route, before.as_ref(), &answer, &request_id, remote);
    Ok(Status::Done)
}

/// What is to be set, what was there, and which revision it had, if that was looked at.
struct Planned {
    route: Route,
    before: Option<Route>,
    revision: Option<u64>,
}

/// The route of a file, which must be the only one.
fn whole(routes: Vec<Route>) -> Option<Planned> {
    match <[Route; 1]>::try_from(routes) {
        Ok([route]) => Some(Planned { route, before: None, revision: None }),
        Err(routes) => {
            complain(&format!(
                "the file has {} routes, and one is wanted; `mse-proxy route apply --keep-others` sets several\n",
                routes.len()
            ));
            None
        }
    }
}

/// What is there, with what is given in its place.
async fn patched(arguments: &Arguments, remote: &Remote) -> Result<Option<Planned>, Error> {
    let id = arguments.id.clone().unwrap_or_default();
    let found = match remote.client.get(&id).await {
        Ok(state) => Some(state),
        Err(Error::Refused { refusal: Refusal::NotFound, .. }) => None,
        Err(error) => return Err(error),
    };
    if let Some(state) = found.as_ref().filter(|state| state.source != "store") {
        complain(&format!(
            "{}: the route `{}` is written in {}, and is changed there\n",
            remote.voice.complaints.bad("refused"),
            clean(&id),
            clean(&state.origin)
        ));
        return Ok(None);
    }
    // One that was removed a moment ago may still be in the table.
    let found = found.filter(|state| state.revision > 0);
    let revision = Some(found.as_ref().map_or(0, |state| state.revision));
    let before = found.and_then(|state| state.route);
    let mut route =
        before.clone().unwrap_or_else(|| Route { hosts: vec![id.clone()], ..Route::default() });
    route.id = id;
    put(arguments, &mut route, SystemClock.now());
    Ok(Some(Planned { route, before, revision }))
}

/// Puts what is given into a route.
fn put(arguments: &Arguments, route: &mut Route, now: Timestamp) {
    let text = |end: End| match end {
        End::Never => String::new(),
        End::When(When::At(time)) => time.to_string(),
        // Nobody means so much and a fraction of a second.
        End::When(when @ When::From(_)) => format!("{:.0}", when.instant(now)),
    };
    if !arguments.hosts.is_empty() {
        route.hosts.clone_from(&arguments.hosts);
    }
    if !arguments.backends.is_empty() {
        route.backends.clone_from(&arguments.backends);
    }
    let end = arguments.expires_in.map(|period| End::When(When::From(period)));
    if let Some(end) = end.or(arguments.expires_at) {
        route.expires_at = text(end);
    }
    if let Some(start) = arguments.not_before {
        route.not_before = text(start);
    }
    let terminating = &arguments.terminating;
    let texts = [
        (&arguments.grace, &mut route.grace),
        (&arguments.app, &mut route.app),
        (&arguments.mode, &mut route.mode),
        (&arguments.refusal, &mut route.refusal),
        (&terminating.protocol, &mut route.protocol),
        (&terminating.backend_tls, &mut route.backend_tls),
        (&terminating.backend_ca, &mut route.backend_ca),
        (&terminating.backend_name, &mut route.backend_name),
        (&terminating.pin, &mut route.pin),
        (&terminating.client_ca, &mut route.client_ca),
    ];
    for (given, kept) in texts {
        if let Some(given) = given {
            kept.clone_from(given);
        }
    }
    if let Some(alpn) = &arguments.alpn {
        route.alpn = alpn.iter().filter(|name| !name.is_empty()).cloned().collect();
    }
    if let Some(most) = arguments.max_connections {
        route.max_connections = most;
    }
}

fn tell(
    route: &Route,
    before: Option<&Route>,
    answer: &WriteResponse,
    request_id: &str,
    remote: &Remote,
) {
    let WriteResponse { revision, changed } = answer;
    let id = if route.id.is_empty() {
        route.hosts.first().cloned().unwrap_or_default()
    } else {
        route.id.clone()
    };
    if remote.voice.format == Format::Json {
        let told =
            json!({"id": id, "revision": revision, "changed": changed, "request_id": request_id});
        return print(&format!("{told}\n"));
    }
    let style = remote.voice.style;
    let id = style.strong(&clean(&id));
    if !changed {
        return print(&format!("{id} is so already, since revision {revision}\n"));
    }
    let lines = match before {
        Some(before) => changes(before, route),
        None => vec![gist(route)],
    };
    print(&format!("{id} is {} at revision {revision}\n", style.good("set")));
    for line in lines {
        print(&format!("  {line}\n"));
    }
}
