//! Apps as people and programs are shown them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::report::Style;
use crate::cli::shown::moment;
use crate::cli::table::{Part, Tone};
use crate::cli::words::clean;
use crate::clock::Timestamp;
use crate::control::proto::{App, AppHost};

/// Where an app is in its life, with its colour.
pub(super) fn phase(app: &App) -> Part {
    let tone = match app.phase.as_str() {
        "running" => Tone::Good,
        "spawning" | "initializing" => Tone::Warning,
        "on_error" => Tone::Bad,
        _ => Tone::Faint,
    };
    Part::new(&app.phase, tone)
}

/// What a hostname is for, and why nobody gets there, if nobody does.
fn role(host: &AppHost) -> String {
    let role = match host.role.as_str() {
        "configuration" => "to configure it, while it initializes",
        "custom" | "terminated" => "once it runs",
        _ => "while it initializes and runs",
    };
    match (host.reachable, host.hold.as_str()) {
        (true, _) => "reachable".to_owned(),
        (false, "") => role.to_owned(),
        (false, hold) => format!("held back: {hold}"),
    }
}

pub(super) fn app_json(app: &App) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let hosts = app.hosts.iter().map(|host| {
        json!({
            "host": host.host,
            "role": host.role,
            "reachable": host.reachable,
            "hold": text(&host.hold),
        })
    });
    json!({
        "project": app.project,
        "name": app.name,
        "phase": app.phase,
        "backend": text(&app.backend),
        "hosts": hosts.collect::<Vec<_>>(),
        "certificate": app.certificate,
        "hardware": app.hardware,
        "docker": app.docker,
        "healthcheck_endpoint": app.healthcheck_endpoint,
        "deployed_at": app.deployed_at,
        "ends_at": app.ends_at,
        "ended_at": text(&app.ended_at),
        "revision": app.revision,
    })
}

/// An app in lines, below one that says what it is.
pub(super) fn prose(app: &App, now: Timestamp, style: Style) -> String {
    let mut text = String::new();
    let mut line = |word: &str, value: &str| {
        let _ = writeln!(text, "  {} {}", style.faint(&format!("{word:<8}")), clean(value));
    };
    for host in &app.hosts {
        line("host", &format!("{} ({})", host.host, role(host)));
    }
    let backend = if app.backend.is_empty() { "not known yet" } else { &app.backend };
    line("backend", backend);
    line("on", &format!("{}, {}", app.hardware, app.docker));
    let end = Some(&app.ended_at).filter(|end| !end.is_empty()).unwrap_or(&app.ends_at);
    line("until", &moment(end, now));
    if let Some(host) = app.hosts.iter().find(|host| host.reachable) {
        // The enclave's own certificate is known to nobody; the others are checked as usual.
        let insecure =
            if app.certificate == "self" || host.role == "configuration" { "-k " } else { "" };
        let path = &app.healthcheck_endpoint;
        line("try", &format!("curl {insecure}https://{}{path}", host.host));
    }
    text
}

/// `project/name`.
pub(super) fn title(app: &App, style: Style) -> String {
    style.strong(&clean(&format!("{}/{}", app.project, app.name)))
}
