//! The services as a foreign client sees them: Python's gRPC, by reflection alone.

use std::process::Command;

use crate::apps::manifest;
use crate::route_support::Controlled;
use crate::support::{python, text};

/// Runs a script that fails where anything is not as promised.
fn run(script: &str, proxy: &Controlled, more: &[&str]) {
    let script = format!("{}/tests/process/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(python());
    // It leaves nothing behind beside its sources.
    python.arg("-B").arg(script).arg(proxy.socket()).arg("127.0.0.1:1").args(more);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_foreign_client_goes_through_the_whole_cycle() {
    run("foreign_client.py", &Controlled::storing(""), &[]);
}

#[test]
fn a_foreign_client_goes_through_the_whole_life_of_an_app() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), &[("4g-eu-001", "8g-eu-001")]);
    run("foreign_apps.py", &Controlled::storing(""), &[&path]);
}
