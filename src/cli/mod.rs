//! The command line: words in, prose and an exit status out.
//!
//! Only here do errors become sentences. Exit status: 0 done, 1 refused or faults were found,
//! 2 wrong usage, 3 the proxy could not be reached.

mod app;
mod check;
mod demo;
mod domain;
mod explain;
mod hardware;
mod man;
mod manifest;
mod probe;
mod progress;
mod project;
mod remote;
mod report;
mod route;
mod serve;
mod shown;
mod supervised;
mod table;
mod verdict;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// An SNI-routing TLS proxy for confidential apps: TLS ends inside the enclave, never on the way.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
struct Arguments {
    /// When to colour the output.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, help_heading = "Output")]
    color: Color,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    format: Format,
    /// Also tell each call to a running proxy, on standard error.
    #[arg(short, long, global = true, help_heading = "Output")]
    verbose: bool,
    #[command(flatten)]
    admin: remote::AdminArguments,
    #[command(subcommand)]
    command: Command,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or Ctrl-C; SIGHUP reads the routes again.
    Serve(serve::Arguments),
    /// Judge configuration, routes or an app's manifest without serving: every fault with its place
    /// and remedy.
    Check(check::Arguments),
    /// Tell what would happen to a client that asks for a name: which route, which backend, why not.
    Explain(explain::Arguments),
    /// Look at the certificate that the backend of a name shows: names, validity, key, enclave.
    Probe(probe::Arguments),
    /// Routes of a running proxy or its fleet: look at them, change them, see who did.
    #[command(subcommand)]
    Route(route::Command),
    /// Apps behind a running proxy or its fleet: deploy them from a manifest, look at them, end them.
    #[command(subcommand)]
    App(app::Command),
    /// Projects: who deploys apps, books hardware and pays for it.
    #[command(subcommand)]
    Project(project::Command),
    /// Hardware that projects have booked.
    #[command(subcommand)]
    Hardware(hardware::Command),
    /// Customers' own domains: whether they lead here, and who has a claim to them.
    #[command(subcommand)]
    Domain(domain::Command),
    /// Write manual pages.
    Man(man::Arguments),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Clone, clap::Args)]
struct ConfigArgument {
    /// The configuration file; built-in defaults without one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Done = 0,
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let names_admin = matches.value_source("admin") == Some(ValueSource::CommandLine);
    let voice = report::Voice {
        style: report::Style::new(arguments.color),
        complaints: report::Style::of_complaints(arguments.color),
        format: arguments.format,
        is_verbose: arguments.verbose,
    };
    let status = match arguments.command {
        Command::Serve(serve) => serve::run(&serve, voice),
        Command::Check(check) => check::run(&check, voice),
        Command::Explain(explain) => explain::run(&explain, &arguments.admin, names_admin, voice),
        Command::Probe(probe) => probe::run(&probe, &arguments.admin, names_admin, voice),
        Command::Route(route) => route::run(&route, &arguments.admin, voice),
        Command::App(app) => app::run(&app, &arguments.admin, voice),
        Command::Project(project) => project::run(&project, &arguments.admin, voice),
        Command::Hardware(hardware) => hardware::run(&hardware, &arguments.admin, voice),
        Command::Domain(domain) => domain::run(&domain, &arguments.admin, voice),
        Command::Man(man) => man::run(&man, Arguments::command(), voice),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "mse-proxy", &mut script);
            report::print(&String::from_utf8_lossy(&script));
            Status::Done
        }
    };
    ExitCode::from(status as u8)
}
