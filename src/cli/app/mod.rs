//! `app`: apps that run behind a proxy or its fleet, from a manifest to their end.

mod deploy;
mod list;
mod phase;
mod shown;

use super::Status;
use super::remote::{AdminArguments, with_proxy};
use super::report::Voice;

/// The project that is meant where none is named.
const PROJECT: &str = "default";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Judge a manifest, and deploy its app if nothing speaks against it.
    Deploy(deploy::Arguments),
    /// List apps, where they are in their lives and when they end.
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show one app: its hostnames, its end, how to reach it.
    Show(Named),
    /// Say that an app has gone on in its life, or where it is.
    Phase(phase::Arguments),
    /// Stop an app: its routes go, its connections are cut.
    Stop(phase::Stopping),
}

/// An app by its name.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The app: NAME of the project `default`, or PROJECT/NAME as `app list` shows it.
    name: String,
    /// Its project; NAME is then taken as it is, with any slash in it.
    #[arg(long)]
    project: Option<String>,
}

impl Named {
    /// The project and the name that are meant.
    fn meant(&self) -> (String, String) {
        let (project, name) = match (&self.project, self.name.split_once('/')) {
            (Some(project), _) => (project.as_str(), self.name.as_str()),
            (None, Some(parts)) => parts,
            (None, None) => (PROJECT, self.name.as_str()),
        };
        (project.to_owned(), name.to_owned())
    }
}

pub(super) fn run(command: &Command, admin: &AdminArguments, voice: Voice) -> Status {
    with_proxy(admin, voice, async |remote| match command {
        Command::Deploy(arguments) => deploy::run(arguments, remote).await,
        Command::List(arguments) => list::run(arguments, remote).await,
        Command::Show(named) => phase::show(named, remote).await,
        Command::Phase(arguments) => phase::run(arguments, remote).await,
        Command::Stop(stopping) => phase::stop(stopping, remote).await,
    })
}
