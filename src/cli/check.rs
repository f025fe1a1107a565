//! `check`: every fault of a configuration and of its routes, without serving.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::report::{Finding, Voice, complain, complain_all, print};
use super::words::plural;
use super::{ConfigArgument, Format, Status};
use crate::config::Config;
use crate::proxy::capacity::Machine;
use crate::routing::snapshot::Snapshot;
use crate::routing::zones::Zones;
use crate::source::file;
use crate::source::place::Place;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A routes file or folder to judge, in the place of the configured one.
    #[arg(long, value_name = "PATH")]
    routes: Option<PathBuf>,
}

/// Reads the configuration that a command names.
pub(super) fn load(path: Option<&Path>, base: &Config) -> Result<Config, Vec<Finding>> {
    let file = match path {
        None => None,
        Some(path) => {
            let name: Arc<str> = path.display().to_string().into();
            let text = std::fs::read_to_string(path).map_err(|error| {
                let message = format!("the configuration cannot be read: {error}");
                vec![Finding { place: Place::of_source(&name), message }]
            })?;
            Some((name, text))
        }
    };
    // A variable that is no UTF-8 cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let file = file.as_ref().map(|(name, text)| (name, text.as_str()));
    Config::read(base, file, environment)
        .map_err(|faults| faults.iter().map(Finding::from).collect())
}

/// Reads a routes file or folder once, and tells all that is wrong with it where TLS may be ended
/// in these zones.
pub(super) fn read_routes(path: &Path, zones: &Zones) -> (Snapshot, Vec<Finding>) {
    let set = file::read_once(path);
    let mut findings: Vec<Finding> = set.faults.iter().map(Finding::from).collect();
    let (snapshot, conflicts) = Snapshot::after(&Snapshot::within(zones.clone()), &set.claims);
    findings.extend(conflicts.iter().map(|(claim, conflict)| Finding {
        place: Place::of_origin(&claim.origin),
        message: conflict.to_string(),
    }));
    (snapshot, findings)
}

pub(super) fn run(arguments: &Arguments, voice: Voice) -> Status {
    let style = voice.style;
    let (config, mut findings) = match load(arguments.config.config.as_deref(), &Config::default())
    {
        Ok(config) => (config, Vec::new()),
        Err(findings) => (Config::default(), findings),
    };
    let path = arguments.routes.as_ref().or(config.routes.path.as_ref());
    let mut routes = None;
    if let Some(path) = path {
        let (snapshot, more) = read_routes(path, &config.terminate.zones);
        routes = Some(snapshot.len());
        findings.extend(more);
    }
    // No faults: the configuration may be meant for another machine.
    let warnings = Machine::look().judge(&config.limits);
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    match voice.format {
        Format::Json => {
            let faults: Vec<_> = findings.iter().map(Finding::json).collect();
            let all = json!({ "routes": routes, "faults": faults, "warnings": warnings });
            print(&format!("{all}\n"));
        }
        Format::Table => {
            for warning in &warnings {
                complain(&format!("{}: {warning}\n", voice.complaints.strong("this machine")));
            }
            complain_all(&findings, voice.complaints);
            let good = routes.map_or_else(
                || "no routes were named (--routes PATH, or routes.path)".to_owned(),
                |count| format!("{count} good {}", plural(count, "route")),
            );
            let verdict = match findings.len() {
                0 => style.good("no faults"),
                count => style.bad(&format!("{count} {}", plural(count, "fault"))),
            };
            print(&format!("{verdict}, {good}\n"));
        }
    }
    if findings.is_empty() { Status::Done } else { Status::Refused }
}
