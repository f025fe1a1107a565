//! An app, its project and its domain, for the tests of this room.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

use crate::clock::Timestamp;
use crate::registry::app::{App, AppHost, CertificateOrigin, Phase, Role};
use crate::registry::domain::{Domain, Gate};
use crate::registry::project::Project;

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn app(phase: Phase) -> App {
    let host = |(host, role): (&str, Role)| AppHost { host: host.parse().unwrap(), role };
    App {
        project: "p".parse().unwrap(),
        name: "a".parse().unwrap(),
        hardware: "8g".parse().unwrap(),
        docker: "r.example/i:1".to_owned(),
        healthcheck_endpoint: "/".to_owned(),
        origin: CertificateOrigin::Owner,
        leaf: None,
        hosts: [("conf.test", Role::Configuration), ("own.test", Role::Custom)].map(host).into(),
        phase,
        backend: Some("10.0.0.1:443".parse().unwrap()),
        key: None,
        deployed_at: at("2026-06-01T00:00:00Z"),
        ends_at: at("2026-06-02T00:00:00Z"),
        ended_at: None,
    }
}

pub(super) fn project() -> Project {
    Project::new("p".parse().unwrap(), String::new(), at("2026-01-01T00:00:00Z"))
}

pub(super) fn domain(gate: Gate) -> Domain {
    Domain {
        host: "own.test".parse().unwrap(),
        project: "p".parse().unwrap(),
        app: "a".parse().unwrap(),
        until: at("2026-06-02T00:00:00Z"),
        gate,
        failures: 0,
    }
}
