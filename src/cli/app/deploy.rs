//! `app deploy`: what lies with the owner is looked at here, the rest is judged by the proxy.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::shown::{app_json, prose, title};
use crate::cli::manifest::{Loaded, load};
use crate::cli::progress::Progress;
use crate::cli::remote::{Expected, Remote};
use crate::cli::report::{Style, complain, complain_all, complain_odd, print};
use crate::cli::words::clean;
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock};
use crate::control::client::Error;
use crate::control::proto::{App, AppRequest, DeployRequest, DeployResponse};
use crate::endpoint::Endpoint;

/// How often somebody who waits looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = "mse.toml")]
    path: PathBuf,
    /// Where the app is, as a backend of a route, if that is known; `app phase` tells it later.
    #[arg(long, value_name = "ADDR")]
    backend: Option<Endpoint>,
    /// Let TLS end in the proxy, with a certificate of the operator.
    #[arg(long)]
    operator_tls: bool,
    /// Wait until the app runs, or has ended.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Only judge.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    expected: Expected,
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let style = remote.voice.complaints;
    let loaded = load(&arguments.path, SystemClock.now());
    let Loaded { text, certificate, key, warnings: seen } = match loaded {
        Ok(loaded) => loaded,
        Err(judged) => {
            complain_odd(&judged.warnings, style);
            return Ok(complain_all(&judged.faults, style));
        }
    };
    // Whatever becomes of it; what the proxy finds odd besides, it tells with its answer.
    warn(&seen, style);
    let request = DeployRequest {
        manifest: text,
        manifest_name: arguments.path.display().to_string(),
        certificate,
        key: key.map(|key| key.word().to_owned()).unwrap_or_default(),
        operator_tls: arguments.operator_tls,
        backend: arguments.backend.as_ref().map(ToString::to_string).unwrap_or_default(),
        dry_run: arguments.dry_run,
        if_revision: arguments.expected.if_revision,
    };
    let DeployResponse { app, warnings, deployed } = remote.client.deploy(request).await?;
    warn(&warnings, style);
    let warnings = [seen, warnings].concat();
    let app = app.unwrap_or_default();
    if !arguments.wait {
        tell(&app, deployed, &warnings, remote);
        return Ok(Status::Done);
    }
    let app = wait(app, remote).await?;
    tell(&app, deployed, &warnings, remote);
    Ok(if app.phase == "running" { Status::Done } else { Status::Refused })
}

fn warn(warnings: &[String], style: Style) {
    for warning in warnings {
        complain(&format!("{}: {}\n", style.warning("warning"), clean(warning)));
    }
}

/// Waits until an app runs or has ended, which it does at its end at the latest.
async fn wait(mut app: App, remote: &Remote) -> Result<App, Error> {
    let complaints = remote.voice.complaints;
    let doing = |app: &App| format!("it is {} and waited for", clean(&app.phase));
    let progress = Progress::new(1, doing(&app), remote.voice);
    while matches!(app.phase.as_str(), "spawning" | "initializing") {
        sleep(LOOK).await;
        let request = AppRequest { project: app.project.clone(), name: app.name.clone() };
        let next = remote.client.app(request).await?;
        if next.phase != app.phase {
            let words = format!("{} is {}\n", title(&next, complaints), next.phase);
            progress.aside(|| complain(&words));
            progress.goes_on(doing(&next));
        }
        app = next;
    }
    Ok(app)
}

fn tell(app: &App, deployed: bool, warnings: &[String], remote: &Remote) {
    let style = remote.voice.style;
    print(&match remote.voice.format {
        Format::Json => {
            let told = json!({ "app": app_json(app), "deployed": deployed, "warnings": warnings });
            format!("{told}\n")
        }
        Format::Table => {
            let what = if deployed {
                format!("is {} ({})", style.good("deployed"), app.phase)
            } else {
                "would be deployed".to_owned()
            };
            let lines = prose(app, SystemClock.now(), style);
            format!("{} {what}\n{lines}", title(app, style))
        }
    });
}
