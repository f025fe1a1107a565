//! `probe`: what certificate the backend of a name shows. The backend is named, or a routes file
//! tells it, or the running proxy does; this program looks at it itself.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::check::RoutesArguments;
use super::remote::{AdminArguments, with_proxy};
use super::report::{Style, Voice, complain, print};
use super::words::plural;
use super::{Format, Status};
use crate::admission::certificate::{Chain, Quote};
use crate::admission::sight::{Notice, Sight, notices};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::control::proto::ExplainRequest;
use crate::endpoint::Endpoint;
use crate::hostname::{Hostname, Pattern};
use crate::probe::certificate::Onlooker;
use crate::resolve::SystemResolver;
use crate::wire::client_hello::Alpn;

/// What the look offers; routes may tell clients apart by that.
const OFFERED: [&str; 2] = ["h2", "http/1.1"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name to ask for.
    host: Hostname,
    /// The backend to ask, in the place of those that the routes of the running proxy name.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["routes", "config"])]
    backend: Option<Endpoint>,
    #[command(flatten)]
    file: RoutesArguments,
}

/// Whom to ask, and until when a route leads there.
struct Aim {
    backends: Vec<Endpoint>,
    ends_at: Option<Timestamp>,
}

pub(super) fn run(
    arguments: &Arguments,
    admin: &AdminArguments,
    names_admin: bool,
    voice: Voice,
) -> Status {
    let now = SystemClock.now();
    let names_file = arguments.file.are_named();
    if names_admin && (names_file || arguments.backend.is_some()) {
        complain(
            "the backend is told by one of them: leave --admin out, or --backend, --routes and --config\n",
        );
        return Status::Usage;
    }
    let aim = if let Some(backend) = &arguments.backend {
        Ok(Aim { backends: vec![backend.clone()], ends_at: None })
    } else if names_file {
        of_file(arguments, voice.complaints, now)
    } else {
        of_proxy(arguments, admin, voice)
    };
    let aim = match aim {
        Ok(aim) => aim,
        Err(status) => return status,
    };
    let seen: Vec<_> = aim
        .backends
        .iter()
        .map(|backend| (backend, look(backend, &arguments.host)))
        .map(|(backend, chain)| (backend, chain.map(|chain| judge(chain, arguments, &aim, now))))
        .collect();
    let all_seen = seen.iter().all(|(_, seen)| seen.is_ok());
    match voice.format {
        Format::Json => {
            let backends = seen.iter().map(|(backend, seen)| match seen {
                Ok((chain, notices)) => as_json(backend, chain, notices),
                Err(why) => json!({ "backend": backend.to_string(), "error": why }),
            });
            let backends: Vec<_> = backends.collect();
            print(&format!(
                "{}\n",
                json!({ "host": arguments.host.as_str(), "backends": backends })
            ));
        }
        Format::Table => {
            for (backend, seen) in &seen {
                match seen {
                    Ok((chain, notices)) => {
                        print(&prose(&arguments.host, backend, chain, notices, voice.style));
                    }
                    Err(why) => complain(&format!("{backend}: {}\n", voice.complaints.bad(why))),
                }
            }
        }
    }
    if all_seen { Status::Done } else { Status::Refused }
}

fn of_file(arguments: &Arguments, style: Style, now: Timestamp) -> Result<Aim, Status> {
    let snapshot = arguments.file.read(style)?;
    let route = snapshot
        .lookup(&arguments.host, &Alpn::from_names(OFFERED.map(str::as_bytes)), now)
        .map_err(|_| not_led(&arguments.host))?;
    let ends_at = route.lifetime().expires_at;
    Ok(Aim { backends: route.backends.iter().cloned().collect(), ends_at })
}

fn of_proxy(arguments: &Arguments, admin: &AdminArguments, voice: Voice) -> Result<Aim, Status> {
    let mut aim = None;
    let status = with_proxy(admin, voice, async |remote| {
        let request = ExplainRequest {
            host: arguments.host.to_string(),
            alpn: OFFERED.map(str::to_owned).to_vec(),
            ..ExplainRequest::default()
        };
        let answer = remote.client.explain(request).await?;
        let route = answer.route.filter(|_| answer.allowed).and_then(|state| state.route);
        aim = route.map(|route| Aim {
            // What a proxy routes to can be read.
            backends: route.backends.iter().filter_map(|backend| backend.parse().ok()).collect(),
            ends_at: route.expires_at.parse().ok(),
        });
        Ok(Status::Done)
    });
    if status == Status::Unreachable {
        complain(
            "--backend ADDR, --routes PATH or --config FILE tell the backend, without a proxy\n",
        );
    }
    if status != Status::Done {
        return Err(status);
    }
    aim.ok_or_else(|| not_led(&arguments.host))
}

fn not_led(host: &Hostname) -> Status {
    complain(&format!("no live route covers {host}; why: mse-proxy explain {host}\n"));
    Status::Refused
}

/// Looks once; the words say why nothing was seen.
fn look(backend: &Endpoint, host: &Hostname) -> Result<Chain, String> {
    let onlooker = Onlooker::new().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let looking = onlooker.look(backend, host, &SystemResolver);
    runtime.block_on(looking).map_err(|error| error.to_string())
}

fn judge(chain: Chain, arguments: &Arguments, aim: &Aim, now: Timestamp) -> (Chain, Vec<Notice>) {
    let hosts = [Pattern::Exact(arguments.host.clone())];
    let notices = notices(&hosts, aim.ends_at, &chain, now);
    (chain, notices)
}

const fn enclave(quote: Quote) -> &'static str {
    match quote {
        Quote::Absent => "the certificate carries no quote",
        Quote::Malformed => "the certificate carries something that is no quote",
        Quote::OtherKey => "the certificate carries a quote, which is for another key",
        Quote::ThisKey => "the certificate carries a quote, which is for its key",
    }
}

fn prose(
    host: &Hostname,
    backend: &Endpoint,
    chain: &Chain,
    notices: &[Notice],
    style: Style,
) -> String {
    let (leaf, seen) = (&chain.leaf, Sight::from(chain));
    let addresses = leaf.ip_names.iter().map(ToString::to_string);
    let names: Vec<String> = leaf.dns_names.iter().cloned().chain(addresses).collect();
    let above = chain.above.len();
    let mut text = format!("{} shows for {host}\n", style.strong(&backend.to_string()));
    for (label, value) in [
        ("subject", leaf.subject.clone()),
        ("names", if names.is_empty() { "none".to_owned() } else { names.join(", ") }),
        ("valid", format!("{} until {}", leaf.not_before, leaf.not_after)),
        ("issuer", format!("{} ({above} {} behind it)", leaf.issuer, plural(above, "certificate"))),
        ("key", seen.key),
        ("enclave", enclave(leaf.quote).to_owned()),
    ] {
        // Whoever made the certificate chose its words.
        let value: String =
            value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let _ = writeln!(text, "  {label:<8} {value}");
    }
    for notice in notices {
        let _ = writeln!(text, "  {}", style.bad(&format!("warning: {notice}")));
    }
    text
}

fn as_json(backend: &Endpoint, chain: &Chain, notices: &[Notice]) -> Value {
    let leaf = &chain.leaf;
    let seen = Sight::from(chain);
    json!({
        "backend": backend.to_string(),
        "subject": leaf.subject,
        "issuer": leaf.issuer,
        "names": leaf.dns_names,
        "addresses": leaf.ip_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "not_before": seen.not_before.to_string(),
        "not_after": seen.not_after.to_string(),
        "chain": chain.all().count(),
        "certificate": seen.leaf,
        "key": seen.key,
        "quote": seen.quote,
        "warnings": notices.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
