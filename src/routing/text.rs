//! A route as text of a routes file: the one way to write what `source::document` reads.
//!
//! One route has one text: keys in the order of the documentation, those that say nothing left out,
//! names as they are stored (A-labels). Whoever reads it gets an equal route.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::hostname::Pattern;
use crate::routing::route::{Lifetime, Mode, Route, Terms};
use crate::units::Period;

/// Writes a route, with its `[[route]]` line.
#[must_use]
pub fn write(route: &Route) -> String {
    let mut text = String::from("[[route]]\n");
    // Every term is named here, so that a new one cannot be forgotten.
    let Terms { lifetime, app, mode, alpn, refusal, max_connections } = route.terms();
    let Lifetime { not_before, expires_at, grace } = lifetime;
    let mut line = |key: &str, value: &dyn Display| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("hosts", &list(route.hosts.iter()));
    line("backends", &list(route.backends.iter()));
    if let Some(end) = expires_at {
        line("expires_at", &end);
    }
    if let Some(start) = not_before {
        line("not_before", &start);
    }
    if let Ok(grace @ Duration { .. }) = Duration::try_from(grace)
        && !grace.is_zero()
    {
        line("grace", &quoted(&Period(grace).to_string()));
    }
    if route.hosts.first().map(Pattern::to_string).as_deref() != Some(&*route.id) {
        line("id", &quoted(&route.id));
    }
    if let Some(app) = app {
        line("app", &quoted(&app));
    }
    match mode {
        Mode::Passthrough => {}
    }
    if !alpn.is_empty() {
        line("alpn", &list(alpn.iter().map(|name| String::from_utf8_lossy(name))));
    }
    if let Some(refusal) = refusal {
        line("refusal", &quoted(refusal.word()));
    }
    if max_connections > 0 {
        line("max_connections", &max_connections);
    }
    text
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
