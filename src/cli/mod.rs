//! The command line: words in, prose and an exit status out.
//!
//! Only here do errors become sentences. Exit status: 0 done, 1 refused or faults were found,
//! 2 wrong usage, 3 the proxy could not be reached.

mod check;
mod demo;
mod explain;
mod manifest;
mod probe;
mod report;
mod serve;
mod supervised;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// An SNI-routing TLS proxy for confidential apps: TLS ends inside the enclave, never on the way.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
struct Arguments {
    /// When to colour the output.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    format: Format,
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
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let style = report::Style::new(arguments.color);
    let status = match arguments.command {
        Command::Serve(serve) => serve::run(&serve, style),
        Command::Check(check) => check::run(&check, style, arguments.format),
        Command::Explain(explain) => explain::run(&explain, style, arguments.format),
        Command::Probe(probe) => probe::run(&probe, style, arguments.format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "mse-proxy", &mut script);
            report::print(&String::from_utf8_lossy(&script));
            Status::Done
        }
    };
    ExitCode::from(status as u8)
}
