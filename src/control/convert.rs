//! Between messages and routes. A message becomes a route by way of the text of a routes file, so
//! that what either may say is judged in one place, `source::document`; what a route says under which
//! key is told in one place, `routing::text`.

use std::fmt::Write as _;
use std::sync::Arc;

use toml::Value;

use crate::control::proto;
use crate::routing::route::{self, Route};
use crate::routing::text::{self, Said};
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
    let proto::Route { protocol, backend_tls, backend_ca, backend_name, pin, client_ca, .. } =
        message;
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
        ("protocol", protocol),
        ("backend_tls", backend_tls),
        ("backend_ca", backend_ca),
        ("backend_name", backend_name),
        ("pin", pin),
        ("client_ca", client_ca),
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
    let mut message = proto::Route {
        id: route.id.to_string(),
        mode: "passthrough".to_owned(),
        max_connections: route.max_connections(),
        ..proto::Route::default()
    };
    text::tell(route, |key, said| {
        let list = match key {
            "hosts" => &mut message.hosts,
            "backends" => &mut message.backends,
            "alpn" => &mut message.alpn,
            _ => return tell_word(&mut message, key, said),
        };
        if let Said::List(items) = said {
            *list = items;
        }
    });
    message
}

fn tell_word(message: &mut proto::Route, key: &str, said: Said) {
    let word = match key {
        "id" | "max_connections" => return,
        "expires_at" => &mut message.expires_at,
        "not_before" => &mut message.not_before,
        "grace" => &mut message.grace,
        "app" => &mut message.app,
        "mode" => &mut message.mode,
        "refusal" => &mut message.refusal,
        "protocol" => &mut message.protocol,
        "backend_tls" => &mut message.backend_tls,
        "backend_ca" => &mut message.backend_ca,
        "backend_name" => &mut message.backend_name,
        "pin" => &mut message.pin,
        "client_ca" => &mut message.client_ca,
        key => {
            let _ = writeln!(message.more, "{key} = {said}");
            return;
        }
    };
    match said {
        Said::Bare(said) | Said::Text(said) => *word = said,
        list @ Said::List(_) => *word = list.to_string(),
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
            ..proto::Route::default()
        }
    }

    #[test]
    fn how_tls_is_ended_comes_back() {
        let least = proto::Route {
            id: "shop.test".into(),
            hosts: vec!["shop.test".into()],
            backends: vec!["127.0.0.1:1".into()],
            mode: "terminate".into(),
            ..proto::Route::default()
        };
        let with_authorities = proto::Route {
            protocol: "tcp".into(),
            backend_ca: "/etc/a \"b\".pem".into(),
            backend_name: "inner.test".into(),
            client_ca: "/etc/clients.pem".into(),
            ..least.clone()
        };
        let pinned = proto::Route { pin: format!("sha256:{}", "0a".repeat(32)), ..least.clone() };
        let clear = proto::Route { backend_tls: "off".into(), ..least.clone() };
        for full in [least.clone(), with_authorities, pinned, clear] {
            assert_eq!(message(&route(&full).unwrap()), full);
        }
        // What says nothing is not told.
        let said =
            proto::Route { protocol: "http".into(), backend_tls: "verify".into(), ..least.clone() };
        assert_eq!(message(&route(&said).unwrap()), least);
        let sealed = proto::Route { mode: "passthrough".into(), pin: "x".into(), ..least.clone() };
        assert_eq!(route(&sealed).unwrap_err().0.len(), 1);
        // The backends of a sealed route are looked at beside its connections.
        let pin = format!("sha256:{}", "0a".repeat(32));
        let sealed = proto::Route { mode: "passthrough".into(), pin, ..least };
        assert_eq!(message(&route(&sealed).unwrap()), sealed);
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
