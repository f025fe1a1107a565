//! `app show`, `app phase` and `app stop`: one app, as it stands or goes on.

use super::Named;
use super::shown::{app_json, prose, title};
use crate::cli::remote::{Expected, Remote};
use crate::cli::report::print;
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock};
use crate::control::client::Error;
use crate::control::proto::{AdvanceRequest, App, AppRequest};
use crate::endpoint::Endpoint;
use crate::registry::app::Phase;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    app: Named,
    /// The phase that it has come to: initializing, running, stopped, `on_error` or expired.
    #[arg(required_unless_present = "backend")]
    phase: Option<Phase>,
    /// Where it is, as a backend of a route.
    #[arg(long, value_name = "ADDR")]
    backend: Option<Endpoint>,
    #[command(flatten)]
    expected: Expected,
}

/// An app that is to end.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Stopping {
    #[command(flatten)]
    app: Named,
    #[command(flatten)]
    expected: Expected,
}

pub(super) async fn show(named: &Named, remote: &Remote) -> Result<Status, Error> {
    let (project, name) = named.meant();
    let app = remote.client.app(AppRequest { project, name }).await?;
    tell(&app, remote);
    Ok(Status::Done)
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let phase = arguments.phase.map(|phase| phase.to_string()).unwrap_or_default();
    let backend = arguments.backend.as_ref().map(ToString::to_string).unwrap_or_default();
    advance(&arguments.app, (phase, backend), arguments.expected, remote).await
}

pub(super) async fn stop(stopping: &Stopping, remote: &Remote) -> Result<Status, Error> {
    let Stopping { app, expected } = stopping;
    advance(app, (Phase::Stopped.to_string(), String::new()), *expected, remote).await
}

async fn advance(
    named: &Named,
    (phase, backend): (String, String),
    Expected { if_revision }: Expected,
    remote: &Remote,
) -> Result<Status, Error> {
    let (project, name) = named.meant();
    let request = AdvanceRequest { project, name, phase, backend, if_revision };
    let app = remote.client.advance(request).await?;
    tell(&app, remote);
    Ok(Status::Done)
}

fn tell(app: &App, remote: &Remote) {
    let style = remote.voice.style;
    print(&match remote.voice.format {
        Format::Json => format!("{}\n", app_json(app)),
        Format::Table => {
            let lines = prose(app, SystemClock.now(), style);
            format!("{} is {}\n{lines}", title(app, style), app.phase)
        }
    });
}
