//! A good manifest, and the instant at which everything is judged.

use jiff::Timestamp;
use mse_proxy::admission::manifest::{Reading, read};

/// When everything is judged.
pub(crate) fn now() -> Timestamp {
    at("2026-06-01T12:00:00Z")
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A manifest without a fault, line by line.
pub(crate) const GOOD: [&str; 17] = [
    "name = \"test\"",
    "python_application = \"app:app\"",
    "healthcheck_endpoint = \"/\"",
    "tests_cmd = \"pytest\"",
    "tests_requirements = [\"pytest==7.2.0\"]",
    "[cloud]",
    "code = \"my_project/code\"",
    "tests = \"my_project/tests\"",
    "docker = \"registry.example/image:20230710\"",
    "project = \"default\"",
    "hardware = \"4g-eu-001\"",
    "expiration_date = \"2026-06-29 00:00:00+00:00\"",
    "secrets = \"secrets.json\"",
    "[cloud.ssl]",
    "domain_name = \"app.example.com\"",
    "private_key = \"key.pem\"",
    "certificate = \"fullchain.pem\"",
];

/// The good manifest with other lines in the place of some: each edit begins with the word of the
/// line that it replaces (`-word` only takes it away), or is added behind all if there is none.
pub(crate) fn edited(edits: &[&str]) -> String {
    let mut lines: Vec<String> = GOOD.iter().map(|line| (*line).to_owned()).collect();
    let word = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    for edit in edits {
        let away = edit.strip_prefix('-');
        let wanted = word(away.unwrap_or(edit));
        let place = lines.iter().position(|line| word(line) == wanted);
        match (place, away) {
            (Some(place), Some(_)) => drop(lines.remove(place)),
            (Some(place), None) => (*edit).clone_into(&mut lines[place]),
            (None, None) => lines.push((*edit).to_owned()),
            (None, Some(word)) => panic!("the good manifest has no `{word}`"),
        }
    }
    lines.join("\n") + "\n"
}

pub(crate) fn reading(text: &str) -> Reading {
    read(&"mse.toml".into(), text, now())
}

/// Everything that was told, with its places.
pub(crate) fn told(reading: &Reading) -> Vec<String> {
    let faults =
        reading.faults.iter().map(|fault| format!("{} {}", fault.place.origin, fault.kind));
    let warnings = reading
        .warnings
        .iter()
        .map(|warning| format!("warning {} {}", warning.place.origin, warning.kind));
    faults.chain(warnings).collect()
}
