//! `route`: the routes of a running proxy or its fleet.

mod apply;
mod differences;
mod draft;
mod history;
mod list;
mod pages;
mod remove;
mod set;
mod show;
mod steps;
mod verify;
mod watch;

use super::Status;
use super::remote::{AdminArguments, with_proxy};
use super::report::Voice;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List routes, how they stand and when they end.
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show one route, as it stands.
    Show(show::Arguments),
    /// Create a route, or change what is given of one that is there.
    Set(Box<set::Arguments>),
    /// Remove routes.
    #[command(visible_alias = "rm")]
    Remove(remove::Arguments),
    /// Make the stored routes what a routes file says, or tell what that would do.
    Apply(apply::Arguments),
    /// Follow the changes of stored routes, until Ctrl-C.
    Watch(watch::Arguments),
    /// Tell who changed which route and when; check that nobody tampered with that.
    History(history::Arguments),
}

pub(super) fn run(command: &Command, admin: &AdminArguments, voice: Voice) -> Status {
    with_proxy(admin, voice, async |remote| match command {
        Command::List(arguments) => list::run(arguments, remote).await,
        Command::Show(arguments) => show::run(arguments, remote).await,
        Command::Set(arguments) => set::run(arguments, remote).await,
        Command::Remove(arguments) => remove::run(arguments, remote).await,
        Command::Apply(arguments) => apply::run(arguments, remote).await,
        Command::Watch(arguments) => watch::run(arguments, remote).await,
        Command::History(arguments) => history::run(arguments, remote).await,
    })
}
