//! `hardware`: so many booked of a kind are so many apps at once on it.

use serde_json::{Value, json};

use super::remote::{AdminArguments, Expected, with_proxy};
use super::report::{Voice, print};
use super::table::{Column, Part, Tone, table};
use super::words::joined;
use super::{Format, Status};
use crate::control::proto::{Hardware, HardwareRequest, ProjectRequest};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Book more of a kind.
    Book(Seats),
    /// List what a project has, and who uses it.
    #[command(visible_alias = "ls")]
    List(Of),
    /// Drop some of a kind, at once: the apps that came last stop, if there are too many.
    Drop(Seats),
}

/// Whose.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
}

/// So many of a kind.
#[derive(Debug, clap::Args)]
pub(super) struct Seats {
    /// The kind, as 8g-eu-001.
    kind: String,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    expected: Expected,
}

impl Seats {
    fn request(&self) -> HardwareRequest {
        let Self { kind, count, of, expected: Expected { if_revision } } = self;
        let (project, kind) = (of.project.clone(), kind.clone());
        HardwareRequest { project, kind, count: *count, if_revision: *if_revision }
    }
}

const COLUMNS: [Column; 4] = [
    Column::whole("KIND"),
    Column::whole("BOOKED").number(),
    Column::whole("FREE").number(),
    Column::cut("APPS"),
];

pub(super) fn run(command: &Command, admin: &AdminArguments, voice: Voice) -> Status {
    with_proxy(admin, voice, async |remote| {
        let client = &remote.client;
        let all = match command {
            Command::Book(seats) => vec![client.book(seats.request()).await?],
            Command::Drop(seats) => vec![client.drop_hardware(seats.request()).await?],
            Command::List(of) => {
                let name = of.project.clone();
                let request = ProjectRequest { name, if_revision: None };
                client.hardware(request).await?.hardware
            }
        };
        print(&match voice.format {
            Format::Json => {
                let all: Vec<_> = all.iter().map(as_json).collect();
                format!("{}\n", json!({ "hardware": all }))
            }
            Format::Table => {
                let rows: Vec<_> = all.iter().map(row).collect();
                table(&COLUMNS, &rows, voice.style)
            }
        });
        Ok(Status::Done)
    })
}

fn row(hardware: &Hardware) -> Vec<Part> {
    let free = left(hardware);
    let tone = if free == 0 { Tone::Warning } else { Tone::Good };
    let apps = &hardware.apps;
    vec![
        Part::new(&hardware.kind, Tone::Strong),
        Part::plain(hardware.booked.to_string()),
        Part::new(free.to_string(), tone),
        Part::plain(if apps.is_empty() { "-".to_owned() } else { joined(apps) }),
    ]
}

fn left(hardware: &Hardware) -> u32 {
    hardware.booked.saturating_sub(u32::try_from(hardware.apps.len()).unwrap_or(u32::MAX))
}

fn as_json(hardware: &Hardware) -> Value {
    json!({
        "project": hardware.project,
        "kind": hardware.kind,
        "booked": hardware.booked,
        "free": left(hardware),
        "apps": hardware.apps,
        "revision": hardware.revision,
    })
}
