//! The service as a foreign client sees it: Python's gRPC, by reflection alone.

use std::process::Command;

use crate::route_support::Controlled;
use crate::support::python;
use crate::support::text;

#[test]
fn a_foreign_client_goes_through_the_whole_cycle() {
    let proxy = Controlled::storing("");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/foreign_client.py");
    let output =
        Command::new(python()).arg(script).arg(proxy.socket()).arg("127.0.0.1:1").output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
