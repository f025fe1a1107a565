//! `check`: every fault of a configuration, of its routes and of a manifest, without serving.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::manifest::{self, Judged};
use super::report::{Finding, Style, Voice, complain, complain_all, complain_odd, print};
use super::words::plural;
use super::{ConfigArgument, Format, Status};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::proxy::capacity::Machine;
use crate::routing::snapshot::Snapshot;
use crate::routing::zones::Zones;
use crate::source::file;
use crate::source::place::Place;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The manifest of an app (mse.toml) to judge, by the rules of the configured platform.
    #[arg(value_name = "MANIFEST")]
    manifest: Option<PathBuf>,
    /// Ask DNS whether the manifest's domain leads to the platform's proxy.
    #[arg(long, requires = "manifest")]
    dns: bool,
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

/// Routes that are asked where no proxy is: those of a file or folder.
#[derive(Debug, clap::Args)]
pub(super) struct RoutesArguments {
    /// Ask this routes file or folder, and not the running proxy.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    routes: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

impl RoutesArguments {
    /// Whether there is any.
    pub(super) fn are_named(&self) -> bool {
        self.routes.is_some() || self.config.config.is_some()
    }

    /// The routes, and words for all that is wrong with them.
    pub(super) fn read(&self, complaints: Style) -> Result<Snapshot, Status> {
        let config = load(self.config.config.as_deref(), &Config::default())
            .map_err(|findings| complain_all(&findings, complaints))?;
        let Some(path) = self.routes.as_ref().or(config.routes.path.as_ref()) else {
            complain(
                "no routes were named: give --routes PATH, or --config FILE with routes.path\n",
            );
            return Err(Status::Refused);
        };
        let (snapshot, findings) = read_routes(path, &config.terminate.zones);
        complain_all(&findings, complaints);
        Ok(snapshot)
    }
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
    let judged = arguments
        .manifest
        .as_deref()
        .map(|path| manifest::check(path, &config.platform, arguments.dns, SystemClock.now()));
    if let Some(judged) = &judged {
        findings.extend(judged.faults.iter().cloned());
    }
    // No faults: the configuration may be meant for another machine, as that of a platform is.
    let of_machine = match judged {
        Some(_) => Vec::new(),
        None => Machine::look().judge(&config.limits).iter().map(ToString::to_string).collect(),
    };
    match voice.format {
        Format::Json => print_json(&findings, routes, judged.as_ref(), &of_machine),
        Format::Table => {
            for warning in &of_machine {
                complain(&format!("{}: {warning}\n", voice.complaints.strong("this machine")));
            }
            if let Some(judged) = &judged {
                complain_odd(&judged.warnings, voice.complaints);
            }
            complain_all(&findings, voice.complaints);
            print(&format!("{}\n", summary(&findings, routes, judged.as_ref(), style)));
        }
    }
    if findings.is_empty() { Status::Done } else { Status::Refused }
}

fn print_json(
    findings: &[Finding],
    routes: Option<usize>,
    judged: Option<&Judged>,
    of_machine: &[String],
) {
    let faults: Vec<_> = findings.iter().map(Finding::json).collect();
    let odd = judged.iter().flat_map(|judged| &judged.warnings).map(Finding::json);
    let warnings: Vec<_> = of_machine.iter().map(|words| json!(words)).chain(odd).collect();
    let mut all = json!({ "routes": routes, "faults": faults, "warnings": warnings });
    if let (Some(all), Some(judged)) = (all.as_object_mut(), judged) {
        all.insert("manifest".to_owned(), judged.json());
    }
    print(&format!("{all}\n"));
}

/// The last line: how many faults, and what is good.
fn summary(
    findings: &[Finding],
    routes: Option<usize>,
    judged: Option<&Judged>,
    style: Style,
) -> String {
    let verdict = match findings.len() {
        0 => style.good("no faults"),
        count => style.bad(&format!("{count} {}", plural(count, "fault"))),
    };
    let routes = routes.map(|count| format!("{count} good {}", plural(count, "route")));
    let good = match (routes, judged) {
        (None, None) => "no routes were named (--routes PATH, or routes.path)".to_owned(),
        (Some(routes), None) => routes,
        (None, Some(judged)) => judged.summary(),
        (Some(routes), Some(judged)) => format!("{routes}, {}", judged.summary()),
    };
    format!("{verdict}, {good}")
}
