//! `project`: who deploys apps, books hardware and pays for it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::remote::{AdminArguments, Expected, Remote, with_proxy};
use super::report::{Style, Voice, print};
use super::shown::{end_of, instant, moment};
use super::table::{Column, Part, Tone, table};
use super::words::{When, clean, parse_since};
use super::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::proto::{ListProjectsRequest, Project, ProjectRequest, UnpaidRequest};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a project, with its free hardware.
    Create(Named),
    /// List projects and how they stand.
    #[command(visible_alias = "ls")]
    List,
    /// Show one project.
    Show(Named),
    /// Note that an invoice is unpaid: after three reminders and 7 days the project is suspended.
    Unpaid {
        #[command(flatten)]
        project: Changed,
        /// The day of the invoice, or how long ago that was; now without.
        #[arg(long, value_name = "DATE", value_parser = parse_since)]
        since: Option<When>,
    },
    /// Note that the invoice is paid.
    Paid(Changed),
    /// Suspend a project at once: its bookings go, its apps stop, their connections are cut.
    Suspend(Changed),
    /// Let a suspended project deploy again. Neither apps nor bookings come back.
    Resume(Changed),
}

/// A project by its name.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The project.
    name: String,
}

/// A project that is changed.
#[derive(Debug, clap::Args)]
pub(super) struct Changed {
    #[command(flatten)]
    project: Named,
    #[command(flatten)]
    expected: Expected,
}

impl Named {
    fn request(&self) -> ProjectRequest {
        ProjectRequest { name: self.name.clone(), if_revision: None }
    }
}

impl Changed {
    fn request(&self) -> ProjectRequest {
        let if_revision = self.expected.if_revision;
        ProjectRequest { if_revision, ..self.project.request() }
    }
}

const COLUMNS: [Column; 3] =
    [Column::whole("PROJECT"), Column::whole("STANDING"), Column::whole("SUSPENDED")];

pub(super) fn run(command: &Command, admin: &AdminArguments, voice: Voice) -> Status {
    with_proxy(admin, voice, async |remote| {
        let client = &remote.client;
        let project = match command {
            Command::List => return list(remote).await,
            Command::Create(named) => client.create_project(named.request()).await?,
            Command::Show(named) => client.project(named.request()).await?,
            Command::Paid(changed) => client.paid(changed.request()).await?,
            Command::Suspend(changed) => client.suspend(changed.request()).await?,
            Command::Resume(changed) => client.resume(changed.request()).await?,
            Command::Unpaid { project, since } => {
                let since = since.map(|since| since.instant(SystemClock.now()).to_string());
                let ProjectRequest { name, if_revision } = project.request();
                let since = since.unwrap_or_default();
                client.unpaid(UnpaidRequest { name, since, if_revision }).await?
            }
        };
        print(&match voice.format {
            Format::Json => format!("{}\n", as_json(&project)),
            Format::Table => prose(&project, SystemClock.now(), voice.style),
        });
        Ok(Status::Done)
    })
}

async fn list(remote: &Remote) -> Result<Status, Error> {
    let projects = remote.client.projects(ListProjectsRequest {}).await?.projects;
    let style = remote.voice.style;
    let now = SystemClock.now();
    print(&match remote.voice.format {
        Format::Json => {
            let all: Vec<_> = projects.iter().map(as_json).collect();
            format!("{}\n", json!({ "projects": all }))
        }
        Format::Table => {
            let rows: Vec<_> = projects
                .iter()
                .map(|project| {
                    let end = Some(&project.suspended_at).filter(|end| !end.is_empty());
                    let end = end.or(Some(&project.since).filter(|since| !since.is_empty()));
                    let end = match end.and_then(|end| instant(end)) {
                        None => Part::plain("-"),
                        end => end_of(end, now, style),
                    };
                    vec![Part::new(&project.name, Tone::Strong), standing(project), end]
                })
                .collect();
            table(&COLUMNS, &rows, style)
        }
    });
    Ok(Status::Done)
}

fn standing(project: &Project) -> Part {
    let tone = match project.standing.as_str() {
        "good" => Tone::Good,
        "unpaid" => Tone::Warning,
        _ => Tone::Bad,
    };
    Part::new(&project.standing, tone)
}

fn as_json(project: &Project) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "name": project.name,
        "created_at": project.created_at,
        "token": project.token,
        "standing": project.standing,
        "since": text(&project.since),
        "reminders": project.reminders,
        "suspended_at": text(&project.suspended_at),
        "cause": text(&project.cause),
        "revision": project.revision,
    })
}

fn prose(project: &Project, now: Timestamp, style: Style) -> String {
    let name = style.strong(&clean(&project.name));
    let mut text = match project.standing.as_str() {
        "good" => format!("{name} is {}\n", style.good("in good standing")),
        "unpaid" => format!("{name} is {}\n", style.warning("unpaid")),
        other => format!("{name} is {}\n", style.bad(&clean(other))),
    };
    let mut line = |word: &str, value: &str| {
        let _ = writeln!(text, "  {} {}", style.faint(&format!("{word:<8}")), clean(value));
    };
    let since = |at: &str| moment(at, now);
    match project.standing.as_str() {
        "unpaid" => {
            line("since", &since(&project.since));
            line("told", &format!("{} of 3 reminders", project.reminders));
            line("ends", &format!("suspended at {}", since(&project.suspended_at)));
        }
        "suspended" => {
            let cause = match project.cause.as_str() {
                "unpaid" => "its invoice was not paid",
                _ => "the operator said so",
            };
            line("since", &since(&project.since));
            line("why", cause);
        }
        _ => {}
    }
    line("created", &since(&project.created_at));
    line("token", &project.token);
    text
}
