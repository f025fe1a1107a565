//! The `mse-proxy` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mse_proxy::cli::run()
}
