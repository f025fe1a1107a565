//! `domain`: customers' own domains, whether they lead here, and who has a claim to them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::remote::{AdminArguments, Remote, with_proxy};
use super::report::{Style, Voice, print};
use super::shown::{end_of, instant, moment};
use super::table::{Column, Part, Tone, table};
use super::words::clean;
use super::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::proto::{Domain, DomainCheck, DomainRequest, ListDomainsRequest};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List domains, their gates and their apps.
    #[command(visible_alias = "ls")]
    List {
        /// Only domains of this project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Show one domain.
    Show {
        /// The domain.
        domain: String,
    },
    /// Ask DNS now where a domain leads; the proxy asks every minute by itself.
    Check {
        /// The domain.
        domain: String,
    },
}

const COLUMNS: [Column; 5] = [
    Column::whole("DOMAIN"),
    Column::whole("GATE"),
    Column::whole("CLAIM"),
    Column::cut("APP"),
    Column::whole("UNTIL").or_left_out(),
];

pub(super) fn run(command: &Command, admin: &AdminArguments, voice: Voice) -> Status {
    with_proxy(admin, voice, async |remote| match command {
        Command::List { project } => list(project.clone().unwrap_or_default(), remote).await,
        Command::Show { domain } => {
            let request = DomainRequest { domain: domain.clone() };
            let domain = remote.client.domain(request).await?;
            print(&match voice.format {
                Format::Json => format!("{}\n", as_json(&domain)),
                Format::Table => prose(&domain, SystemClock.now(), voice.style),
            });
            Ok(Status::Done)
        }
        Command::Check { domain } => check(domain, remote).await,
    })
}

async fn list(project: String, remote: &Remote) -> Result<Status, Error> {
    let domains = remote.client.domains(ListDomainsRequest { project }).await?.domains;
    let style = remote.voice.style;
    let now = SystemClock.now();
    print(&match remote.voice.format {
        Format::Json => {
            let all: Vec<_> = domains.iter().map(as_json).collect();
            format!("{}\n", json!({ "domains": all }))
        }
        Format::Table => {
            let rows: Vec<_> = domains
                .iter()
                .map(|domain| {
                    vec![
                        Part::new(&domain.domain, Tone::Strong),
                        gate(domain),
                        Part::plain(&domain.claim),
                        Part::plain(format!("{}/{}", domain.project, domain.app)),
                        end_of(instant(until(domain)), now, style),
                    ]
                })
                .collect();
            table(&COLUMNS, &rows, style)
        }
    });
    Ok(Status::Done)
}

async fn check(domain: &str, remote: &Remote) -> Result<Status, Error> {
    let request = DomainRequest { domain: domain.to_owned() };
    let DomainCheck { domain, seen, why } = remote.client.check_domain(request).await?;
    let domain = domain.unwrap_or_default();
    let style = remote.voice.style;
    print(&match remote.voice.format {
        Format::Json => {
            let why = (!why.is_empty()).then_some(&why);
            format!("{}\n", json!({ "domain": as_json(&domain), "seen": seen, "why": why }))
        }
        Format::Table => {
            let name = style.strong(&clean(&domain.domain));
            match seen.as_str() {
                "here" => format!("{name} {}\n", style.good("leads here")),
                _ => format!("{name}: {}\n", style.bad(&clean(&why))),
            }
        }
    });
    Ok(if seen == "here" { Status::Done } else { Status::Refused })
}

/// Until when somebody has a claim to it.
fn until(domain: &Domain) -> &str {
    if domain.reserved_until.is_empty() { &domain.until } else { &domain.reserved_until }
}

fn gate(domain: &Domain) -> Part {
    let tone = match domain.gate.as_str() {
        "open" => Tone::Good,
        "pending" => Tone::Warning,
        _ => Tone::Bad,
    };
    Part::new(&domain.gate, tone)
}

fn as_json(domain: &Domain) -> Value {
    json!({
        "domain": domain.domain,
        "project": domain.project,
        "app": domain.app,
        "claim": domain.claim,
        "until": domain.until,
        "reserved_until": (!domain.reserved_until.is_empty()).then_some(&domain.reserved_until),
        "gate": domain.gate,
        "failures": domain.failures,
        "revision": domain.revision,
    })
}

fn prose(domain: &Domain, now: Timestamp, style: Style) -> String {
    let mut text = format!("{} is {}\n", style.strong(&clean(&domain.domain)), clean(&domain.gate));
    let mut line = |word: &str, value: &str| {
        let _ = writeln!(text, "  {} {}", style.faint(&format!("{word:<8}")), clean(value));
    };
    let at = |at: &str| moment(at, now);
    line("app", &format!("{}/{}", domain.project, domain.app));
    match domain.claim.as_str() {
        "live" => line("until", &at(&domain.until)),
        "reserved" => line("reserved", &format!("until {}", at(&domain.reserved_until))),
        _ => line("free", &format!("its app ended at {}", at(&domain.until))),
    }
    if domain.failures > 0 {
        line("failed", &format!("{} checks in a row", domain.failures));
    }
    text
}
