//! `app list`.

use serde_json::json;

use super::shown::{app_json, phase};
use crate::cli::remote::Remote;
use crate::cli::report::print;
use crate::cli::shown::{end_of, instant};
use crate::cli::table::{Column, Part, Tone, table};
use crate::cli::words::joined;
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock};
use crate::control::client::Error;
use crate::control::proto::ListAppsRequest;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only apps of this project.
    #[arg(long)]
    project: Option<String>,
}

const COLUMNS: [Column; 6] = [
    Column::whole("APP"),
    Column::whole("PHASE"),
    Column::cut("HOSTS"),
    Column::whole("ENDS"),
    Column::whole("HARDWARE").or_left_out(),
    Column::cut("BACKEND").or_left_out(),
];

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let project = arguments.project.clone().unwrap_or_default();
    let apps = remote.client.apps(ListAppsRequest { project }).await?.apps;
    let style = remote.voice.style;
    let now = SystemClock.now();
    match remote.voice.format {
        Format::Json => {
            let all: Vec<_> = apps.iter().map(app_json).collect();
            print(&format!("{}\n", json!({ "apps": all })));
        }
        Format::Table => {
            let rows: Vec<_> = apps
                .iter()
                .map(|app| {
                    let ended = Some(&app.ended_at).filter(|end| !end.is_empty());
                    let hosts = app.hosts.iter().filter(|host| host.reachable);
                    let hosts: Vec<_> = hosts.map(|host| &host.host).collect();
                    vec![
                        Part::new(format!("{}/{}", app.project, app.name), Tone::Strong),
                        phase(app),
                        Part::plain(if hosts.is_empty() { "-".to_owned() } else { joined(&hosts) }),
                        end_of(instant(ended.unwrap_or(&app.ends_at)), now, style),
                        Part::plain(&app.hardware),
                        Part::new(&app.backend, Tone::Faint),
                    ]
                })
                .collect();
            print(&table(&COLUMNS, &rows, style));
        }
    }
    Ok(Status::Done)
}
