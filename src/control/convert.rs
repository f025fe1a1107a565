//! Between messages and routes, by way of the text of a routes file: what a file may say and what
//! a message may say is judged in one place, `source::document`, and written in one place,
//! `routing::text`.

use std::fmt::Write as _;
use std::sync::Arc;

use toml::{Table, Value};

use crate::control::proto;
use crate::routing::route::{self, Route};
use crate::routing::text;
use crate::source::document;

/// What places in a message are told under.
const SOURCE: &str = "the request";

/// All that is wrong with one route of a message, one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(super) struct Faulty(pub(super) Vec<String>);

/// The route that a message means.
pub(super) fn route(message: &proto::Route) -> Result<Arc<Route>, Faulty> {
    document::route(&SOURCE.into(), &to_text(message))
        .map_err(|faults| Faulty(faults.iter().map(|fault| fault.kind.to_string()).collect()))
}

fn to_text(message: &proto::Route) -> String {
    let mut written = String::from("[[route]]\n");
    let mut line = |key: &str, value: Value| {
        let _ = writeln!(written, "{key} = {value}");
    };
    let list = |items: &[String]| Value::from(items.to_vec());
    let proto::Route { id, hosts, backends, expires_at, not_before, grace, app, .. } = message;
    let proto::Route { mode, alpn, refusal, max_connections, more, .. } = message;
    line("hosts", list(hosts));
    line("backends", list(backends));
    let texts = [
        ("id", id),
        ("expires_at", expires_at),
        ("not_before", not_before),
        ("grace", grace),
        ("app", app),
        ("mode", mode),
        ("refusal", refusal),
    ];
    for (key, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
        line(key, Value::from(value.as_str()));
    }
    if !alpn.is_empty() {
        line("alpn", list(alpn));
    }
    if *max_connections > 0 {
        line("max_connections", Value::from(*max_connections));
    }
    written.push_str(more);
    written.push('\n');
    written
}

/// The message that tells a route.
#[must_use]
pub fn message(route: &Route) -> proto::Route {
    let text = text::write(route);
    // Our own words: they are a table.
    let mut keys = text.parse::<Table>().ok().and_then(first_route).unwrap_or_default();
    let mut take = |key: &str| keys.remove(key);
    let mut message = proto::Route {
        id: route.id.to_string(),
        hosts: list(take("hosts")),
        backends: list(take("backends")),
        expires_at: word(take("expires_at")),
        not_before: word(take("not_before")),
        grace: word(take("grace")),
        app: word(take("app")),
        mode: word(take("mode")),
        alpn: list(take("alpn")),
        refusal: word(take("refusal")),
        max_connections: route.max_connections(),
        more: String::new(),
    };
    if message.mode.is_empty() {
        "passthrough".clone_into(&mut message.mode);
    }
    drop((keys.remove("id"), keys.remove("max_connections")));
    for (key, value) in keys {
        let _ = writeln!(message.more, "{key} = {value}");
    }
    message
}

fn first_route(mut table: Table) -> Option<Table> {
    match table.remove("route")? {
        Value::Array(routes) => match routes.into_iter().next()? {
            Value::Table(route) => Some(route),
            _ => None,
        },
        _ => None,
    }
}

fn word(value: Option<Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    }
}

fn list(value: Option<Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.into_iter().map(|item| word(Some(item))).collect(),
        _ => Vec::new(),
    }
}

/// Where an instant lies in the life of a route.
pub(super) fn phase(phase: route::Phase) -> proto::Phase {
    match phase {
        route::Phase::NotYet => proto::Phase::Pending,
        route::Phase::Live => proto::Phase::Live,
        route::Phase::Expired => proto::Phase::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> proto::Route {
        proto::Route {
            id: "sh\"op\\".into(),
            hosts: vec!["shop.example.com".into(), "*.shop.example.com".into()],
            backends: vec!["10.1.2.3:27283".into(), "unix:/run/a\"b.sock".into()],
            expires_at: "2026-12-24T00:00:00.5Z".into(),
            not_before: "2026-11-24T00:00:00Z".into(),
            grace: "1h 30m".into(),
            app: "project/name".into(),
            mode: "passthrough".into(),
            alpn: vec!["acme-tls/1".into()],
            refusal: "close_notify".into(),
            max_connections: 7,
            more: String::new(),
        }
    }

    #[test]
    fn every_field_comes_back() {
        let full = full();
        assert_eq!(message(&route(&full).unwrap()), full);
        let least = proto::Route {
            hosts: vec!["a.test".into()],
            backends: vec!["127.0.0.1:1".into()],
            ..proto::Route::default()
        };
        let back = message(&route(&least).unwrap());
        let expected = proto::Route { id: "a.test".into(), mode: "passthrough".into(), ..least };
        assert_eq!(back, expected);
    }

    #[test]
    fn all_faults_are_told_and_nothing_can_be_smuggled_in() {
        let bad = proto::Route {
            hosts: vec!["a b".into()],
            grace: "soon".into(),
            more: "colour = 1\n".into(),
            ..full()
        };
        let faults = route(&bad).unwrap_err();
        assert_eq!(faults.0.len(), 3, "{faults}");
        let sneaky = proto::Route {
            more: "[[route]]\nhosts = [\"x.test\"]\nbackends = [\"127.0.0.1:1\"]".into(),
            ..full()
        };
        assert!(route(&sneaky).is_err());
        for more in ["id = \"other\"", "[other]\nx = 1", "x = \"\"\"", "\u{0}"] {
            let sneaky = proto::Route { more: more.into(), ..full() };
            assert!(route(&sneaky).is_err(), "{more}");
        }
        assert!(route(&proto::Route::default()).unwrap_err().0.len() >= 2);
    }
}
