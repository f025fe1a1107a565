//! A route as text of a routes file: the one way to write what `source::document` reads.
//!
//! One route has one text: keys in the order of the documentation, those that say nothing left out,
//! names as they are stored (A-labels). Whoever reads it gets an equal route.

use std::fmt::{self, Display, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::hostname::Pattern;
use crate::routing::route::{Lifetime, Mode, Route, Terms};
use crate::routing::termination::{BackendTls, Protocol, Termination, Trust};
use crate::units::Period;

/// What a route says under one key. Shown as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A number or an instant, which stands without quotes.
    Bare(String),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl Said {
    fn text(text: impl Display) -> Self {
        Self::Text(text.to_string())
    }

    /// A path, which was a text once.
    fn path(path: &Path) -> Self {
        Self::text(path.to_string_lossy())
    }

    fn list(items: impl Iterator<Item = impl Display>) -> Self {
        Self::List(items.map(|item| item.to_string()).collect())
    }
}

impl Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(bare) => f.write_str(bare),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// Writes a route, with its `[[route]]` line.
#[must_use]
pub fn write(route: &Route) -> String {
    let mut text = String::from("[[route]]\n");
    tell(route, |key, said| {
        let _ = writeln!(text, "{key} = {said}");
    });
    text
}

/// Tells each key under which a route says something, in the order of the documentation.
pub fn tell(route: &Route, mut say: impl FnMut(&'static str, Said)) {
    // Every term is named here, so that a new one cannot be forgotten. Three are no keys: they are
    // what became of an app and what was seen of it, and no file can say them.
    let Terms {
        lifetime,
        app,
        mode,
        alpn,
        refusal,
        max_connections,
        pin,
        hold: _,
        is_initializing: _,
        seen: _,
    } = route.terms();
    let Lifetime { not_before, expires_at, grace } = lifetime;
    say("hosts", Said::list(route.hosts.iter()));
    say("backends", Said::list(route.backends.iter()));
    if let Some(end) = expires_at {
        say("expires_at", Said::Bare(end.to_string()));
    }
    if let Some(start) = not_before {
        say("not_before", Said::Bare(start.to_string()));
    }
    if let Ok(grace) = Duration::try_from(grace)
        && !grace.is_zero()
    {
        say("grace", Said::text(Period(grace)));
    }
    if route.hosts.first().map(Pattern::to_string).as_deref() != Some(&*route.id) {
        say("id", Said::text(&route.id));
    }
    if let Some(app) = app {
        say("app", Said::text(app));
    }
    match &mode {
        Mode::Passthrough => {}
        Mode::Terminate(_) => say("mode", Said::text("terminate")),
    }
    if !alpn.is_empty() {
        say("alpn", Said::list(alpn.iter().map(|name| String::from_utf8_lossy(name))));
    }
    if let Some(refusal) = refusal {
        say("refusal", Said::text(refusal.word()));
    }
    if max_connections > 0 {
        say("max_connections", Said::Bare(max_connections.to_string()));
    }
    if let Some(pin) = pin {
        say("pin", Said::text(pin));
    }
    if let Mode::Terminate(how) = mode {
        tell_termination(&how, say);
    }
}

/// How TLS is ended.
fn tell_termination(how: &Termination, mut say: impl FnMut(&'static str, Said)) {
    let Termination { protocol, backend, client_ca } = how;
    match protocol {
        Protocol::Http => {}
        Protocol::Tcp => say("protocol", Said::text(protocol.word())),
    }
    match backend {
        BackendTls::Off => say("backend_tls", Said::text("off")),
        BackendTls::Verified { trust, name } => {
            match trust {
                Trust::Platform => {}
                Trust::Authorities(path) => say("backend_ca", Said::path(path)),
                Trust::Key(digest) => say("pin", Said::text(digest)),
            }
            if let Some(name) = name {
                say("backend_name", Said::text(name));
            }
        }
    }
    if let Some(path) = client_ca {
        say("client_ca", Said::path(path));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::routing::termination::KeyDigest;
    use crate::source::document;
    use crate::wire::alert::Answer;
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn every_key_is_written_as_the_documentation_has_it() {
        let text = r#"[[route]]
hosts = ["shop.example.com", "*.shop.example.com", "**.xn--bcher-kva.example"]
backends = ["10.1.2.3:27283", "[2001:db8::1]:443", "app.internal:8443", "unix:/run/a \"b\".sock"]
expires_at = 2026-12-24T00:00:00.5Z
not_before = 2026-11-24T00:00:00Z
grace = "1h 30m"
id = "shop"
app = "project/n\\ame"
alpn = ["acme-tls/1", "h2"]
refusal = "close_notify"
max_connections = 1000
pin = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"#;
        let route = document::route(&"r.toml".into(), text).unwrap();
        assert_eq!(write(&route), text);
        let opened = r#"[[route]]
hosts = ["a.test"]
backends = ["10.1.2.3:443"]
mode = "terminate"
alpn = ["acme"]
protocol = "tcp"
backend_ca = "/etc/a \"b\".pem"
backend_name = "inner.test"
client_ca = "/etc/clients.pem"
"#;
        assert_eq!(write(&document::route(&"r.toml".into(), opened).unwrap()), opened);
        let plain = "[[route]]\nhosts = [\"*.a.test\"]\nbackends = [\"10.0.0.1:1\"]\n";
        let route = document::route(&"r.toml".into(), plain).unwrap();
        assert_eq!((write(&route), &*route.id), (plain.to_owned(), "*.a.test"));
    }

    fn instant() -> impl Strategy<Value = Timestamp> {
        // Years 1 to 9999.
        let second = -62_135_596_800..253_402_207_199_i64;
        (second, 0..1_000_000_000_i32).prop_map(|(second, nanosecond)| {
            Timestamp::from_second(second).unwrap() + SignedDuration::from_nanos(nanosecond.into())
        })
    }

    fn label() -> impl Strategy<Value = String> {
        "[\\PC]{1,20}".prop_filter("printable", |text| !text.contains(char::is_control))
    }

    fn path() -> impl Strategy<Value = Arc<Path>> {
        label().prop_map(|text| Path::new(&format!("/{text}")).into())
    }

    fn mode() -> impl Strategy<Value = Mode> {
        let trust = prop_oneof![
            Just(Trust::Platform),
            path().prop_map(Trust::Authorities),
            any::<[u8; 32]>().prop_map(|digest| Trust::Key(KeyDigest(digest))),
        ];
        let name = proptest::option::of("[a-z]{1,9}\\.test");
        let verified = (trust, name).prop_map(|(trust, name)| BackendTls::Verified {
            trust,
            name: name.map(|name| name.parse().unwrap()),
        });
        let backend = prop_oneof![Just(BackendTls::Off), verified];
        let protocol = prop_oneof![Just(Protocol::Http), Just(Protocol::Tcp)];
        let how = (protocol, backend, proptest::option::of(path())).prop_map(
            |(protocol, backend, client_ca)| Termination { protocol, backend, client_ca },
        );
        prop_oneof![Just(Mode::Passthrough), how.prop_map(|how| Mode::Terminate(Arc::new(how))),]
    }

    prop_compose! {
        fn route()(
            mode in mode(),
            hosts in proptest::collection::btree_set("(\\*\\.|\\*\\*\\.)?[a-z0-9]{1,9}\\.test", 1..4),
            backends in proptest::collection::vec(
                "10\\.0\\.0\\.[1-9]:[1-9][0-9]{0,3}|unix:/[ -~]{0,20}|[a-z]{3}\\.test:1", 1..3),
            starts_in in proptest::option::of(instant()),
            lasts in proptest::option::of(1..1_000_000_000_i64),
            grace in prop_oneof![Just(0_i64), 0..10_000_000_000_000_i64],
            id in proptest::option::of(label()),
            app in proptest::option::of(label()),
            alpn in proptest::collection::vec("[\\PC]{1,9}", 0..3),
            refusal in proptest::option::of(0..3_usize),
            pin in proptest::option::of(any::<[u8; 32]>()),
            max_connections in prop_oneof![Just(0), any::<u32>()],
        ) -> Route {
            let hosts: Vec<Pattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
            let id = id.unwrap_or_else(|| hosts[0].to_string());
            let backends: Vec<_> = backends.iter().map(|one| one.parse().unwrap()).collect();
            let end = |lasts| {
                let from = starts_in.unwrap_or(Timestamp::UNIX_EPOCH);
                from.checked_add(SignedDuration::from_secs(lasts)).ok()
            };
            let lifetime = Lifetime {
                not_before: starts_in,
                expires_at: lasts.and_then(end),
                grace: SignedDuration::from_millis(grace),
            };
            let refusal = refusal.and_then(|at| Answer::from_word(Answer::WORDS[at]));
            // Inside of HTTP nothing but HTTP is agreed upon.
            let alpn = match &mode {
                Mode::Terminate(how) if how.protocol == Protocol::Http => {
                    alpn.iter().map(|_| Box::from(b"h2".as_slice())).collect()
                }
                _ => alpn.iter().map(|name| Box::from(name.as_bytes())).collect(),
            };
            let app = app.map(Into::into);
            let pin = pin.map(KeyDigest).filter(|_| mode == Mode::Passthrough);
            let terms = Terms {
                lifetime,
                app,
                mode,
                alpn,
                refusal,
                max_connections,
                pin,
                ..Terms::default()
            };
            Route::new(id.into(), hosts, backends, terms)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_as_the_same_route(route in route()) {
            let text = write(&route);
            let read = document::route(&"r.toml".into(), &text);
            let read = read.map_err(|faults| TestCaseError::fail(format!("{faults:?}\n{text}")))?;
            prop_assert_eq!(&*read, &route, "{}", text);
            prop_assert_eq!(write(&read), text);
        }
    }
}
