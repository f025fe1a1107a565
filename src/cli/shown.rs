//! Routes as people and programs are shown them.

use serde_json::{Map, Value, json};

use super::report::Style;
use super::table::{Part, Tone};
use super::words::{clean, grouped, joined, remaining};
use crate::clock::Timestamp;
use crate::control::proto::{Phase, Route, RouteState};

/// An end that is nearer than this asks for attention.
const SOON: i64 = 24 * 3600;

/// The word for where a route stands.
pub(super) fn phase_word(state: &RouteState) -> &'static str {
    match state.phase() {
        Phase::Unspecified => "unknown",
        Phase::Live => "live",
        Phase::Pending => "pending",
        Phase::Expired => "expired",
        Phase::Faulty => "faulty",
    }
}

/// The same with its colour.
pub(super) fn phase(state: &RouteState) -> Part {
    let tone = match state.phase() {
        Phase::Unspecified => Tone::Plain,
        Phase::Live => Tone::Good,
        Phase::Pending => Tone::Warning,
        Phase::Expired => Tone::Faint,
        Phase::Faulty => Tone::Bad,
    };
    Part::new(phase_word(state), tone)
}

/// The instant that a message tells; none if it tells none.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An instant to the second, and how far that is.
pub(super) fn moment(at: &str, now: Timestamp) -> String {
    instant(at).map_or_else(|| at.to_owned(), |at| format!("{at:.0}, {}", remaining(now, at)))
}

/// An instant to the millisecond, always as long.
pub(super) fn short(at: &str) -> String {
    instant(at).map_or_else(|| clean(at), |at| format!("{at:.3}"))
}

/// When a route ends (or begins, before that): in words for who looks, as an instant in a pipe.
pub(super) fn end(route: &Route, now: Timestamp, style: Style) -> Part {
    let begins = instant(&route.not_before).filter(|start| *start > now);
    match begins {
        Some(start) if style.is_terminal() => {
            Part::new(format!("begins {}", remaining(now, start)), Tone::Warning)
        }
        Some(start) => Part::plain(start.to_string()),
        None => end_of(instant(&route.expires_at), now, style),
    }
}

/// The same for any end.
pub(super) fn end_of(at: Option<Timestamp>, now: Timestamp, style: Style) -> Part {
    let Some(at) = at else { return Part::new("never", Tone::Faint) };
    if !style.is_terminal() {
        return Part::plain(format!("{at:.0}"));
    }
    let words = remaining(now, at);
    match at.duration_since(now).as_secs() {
        ..=0 => Part::new(words, Tone::Faint),
        left if left < SOON => Part::new(words, Tone::Warning),
        _ => Part::plain(words),
    }
}

/// A route by its keys; what it does not say is null.
pub(super) fn route_json(route: &Route) -> Map<String, Value> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let value = json!({
        "id": route.id,
        "hosts": route.hosts,
        "backends": route.backends,
        "not_before": text(&route.not_before),
        "expires_at": text(&route.expires_at),
        "grace": text(&route.grace),
        "app": text(&route.app),
        "mode": text(&route.mode).unwrap_or_else(|| "passthrough".to_owned()),
        "alpn": route.alpn,
        "refusal": text(&route.refusal),
        "max_connections": route.max_connections,
        "protocol": text(&route.protocol),
        "backend_tls": text(&route.backend_tls),
        "backend_ca": text(&route.backend_ca),
        "backend_name": text(&route.backend_name),
        "pin": text(&route.pin),
        "client_ca": text(&route.client_ca),
        "more": text(&route.more),
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The same with how it stands.
pub(super) fn state_json(state: &RouteState) -> Value {
    let mut map = route_json(&state.route.clone().unwrap_or_default());
    let more = [
        ("state", json!(phase_word(state))),
        ("source", json!(state.source)),
        ("origin", json!(state.origin)),
        ("revision", json!((state.revision > 0).then_some(state.revision))),
        ("fault", json!((!state.fault.is_empty()).then_some(&state.fault))),
        ("open_connections", json!(state.open_connections)),
        ("ends_at", json!((!state.ends_at.is_empty()).then_some(&state.ends_at))),
        ("note", json!((!state.note.is_empty()).then_some(&state.note))),
    ];
    map.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(map)
}

/// What a route says, as pairs of a word and its value.
pub(super) fn lines(route: &Route, at: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut line = |word: &'static str, text: String| lines.push((word, clean(&text)));
    if !route.app.is_empty() {
        line("app", route.app.clone());
    }
    line("hosts", joined(&route.hosts));
    line("backends", joined(&route.backends));
    line("mode", mode(route));
    for (word, value) in [
        ("ca", &route.backend_ca),
        ("pin", &route.pin),
        ("name", &route.backend_name),
        ("clients", &route.client_ca),
    ] {
        if !value.is_empty() {
            line(word, value.clone());
        }
    }
    if !route.alpn.is_empty() {
        line("alpn", format!("only for hellos that offer {}", route.alpn.join(" or ")));
    }
    if let Some(start) = instant(&route.not_before) {
        line("since", format!("{start}, {}", remaining(at, start)));
    }
    match instant(&route.expires_at) {
        Some(end) => line("until", format!("{end}, {}", remaining(at, end))),
        None => line("until", "no end date".to_owned()),
    }
    if !route.grace.is_empty() {
        line("grace", format!("{}: so long live connections may outlast the end", route.grace));
    }
    if !route.refusal.is_empty() {
        line("refusal", route.refusal.clone());
    }
    if route.max_connections > 0 {
        line("limit", format!("{} connections at once", grouped(route.max_connections.into())));
    }
    for more in route.more.lines() {
        line("more", more.to_owned());
    }
    lines
}

fn mode(route: &Route) -> String {
    match &*route.mode {
        "" | "passthrough" => "passthrough: TLS ends in the backend".to_owned(),
        "terminate" => {
            let what = if route.protocol == "tcp" { "bytes" } else { "HTTP" };
            let how = if route.backend_tls == "off" { "in the clear" } else { "over TLS" };
            format!("terminate: {what}, passed on {how}")
        }
        other => other.to_owned(),
    }
}

/// What differs between two versions of a route, each as `key: before → after`.
pub(super) fn changes(before: &Route, after: &Route) -> Vec<String> {
    let (before, after) = (route_json(before), route_json(after));
    let word = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let texts = items.iter().filter_map(Value::as_str).map(clean);
            texts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let differing = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let told = differing.map(|(key, value)| {
        format!("{key}: {} → {}", before.get(key).map(word).unwrap_or_default(), word(value))
    });
    told.collect()
}

/// A route in one line beside its id: which names lead where, and until when.
pub(super) fn gist(route: &Route) -> String {
    let mut text = String::new();
    if route.hosts.iter().any(|host| *host != route.id) {
        text = format!("{} ", route.hosts.join(", "));
    }
    text.push_str("→ ");
    text.push_str(&route.backends.join(", "));
    if !route.expires_at.is_empty() {
        text.push_str(" until ");
        text.push_str(&route.expires_at);
    }
    clean(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_differs_and_nothing_else() {
        let before = Route {
            id: "shop".to_owned(),
            hosts: vec!["shop.test".to_owned()],
            backends: vec!["10.0.0.1:1".to_owned()],
            ..Route::default()
        };
        assert_eq!(changes(&before, &before), Vec::<String>::new());
        let mut after = before.clone();
        after.backends.push("10.0.0.2:1".to_owned());
        after.expires_at = "2026-12-24T00:00:00Z".to_owned();
        assert_eq!(
            changes(&before, &after),
            [
                "backends: 10.0.0.1:1 → 10.0.0.1:1, 10.0.0.2:1",
                "expires_at: none → 2026-12-24T00:00:00Z"
            ]
        );
        after.mode = "passthrough".to_owned();
        assert_eq!(changes(&before, &after).len(), 2, "the default mode may be written or not");
        assert_eq!(gist(&before), "shop.test → 10.0.0.1:1");
        after.id = "shop.test".to_owned();
        assert_eq!(gist(&after), "→ 10.0.0.1:1, 10.0.0.2:1 until 2026-12-24T00:00:00Z");
    }

    #[test]
    fn an_end_is_told_in_words_on_a_terminal_alone() {
        let now: Timestamp = "2026-12-24T00:00:00Z".parse().unwrap();
        let route = |start: &str, end: &str| Route {
            not_before: start.to_owned(),
            expires_at: end.to_owned(),
            ..Route::default()
        };
        for (start, end, words, piped) in [
            ("", "", "never", "never"),
            ("", "2026-12-24T03:12:00Z", "in 3h 12m", "2026-12-24T03:12:00Z"),
            ("", "2026-12-23T23:48:00Z", "12m 0s ago", "2026-12-23T23:48:00Z"),
            (
                "2026-12-25T00:00:00Z",
                "2026-12-26T00:00:00Z",
                "begins in 1d 0h",
                "2026-12-25T00:00:00Z",
            ),
        ] {
            let told =
                |width| format!("{:?}", super::end(&route(start, end), now, Style::plain(width)));
            assert!(told(Some(80)).contains(&format!("\"{words}\"")), "{}", told(Some(80)));
            assert!(told(None).contains(&format!("\"{piped}\"")), "{}", told(None));
        }
    }
}
