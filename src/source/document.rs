//! `routes.toml`: from text to routes, and to everything that is wrong with it.
//!
//! A faulty route is left out whole, with all its faults told at once; the others stay. A text that
//! is no TOML at all gives no routes, and says so, so that whoever reads it can keep what was good.
//! Pure: no file, no clock.

use std::sync::Arc;

use jiff::SignedDuration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::Pattern;
use crate::nearest::nearest;
use crate::routing::route::{Claim, Lifetime, Mode, Route};
use crate::source::fault::{Fault, FaultKind};
use crate::source::place::Text;
use crate::units::Period;
use crate::wire::alert::Answer;

/// The keys of a route.
const KEYS: [&str; 11] = [
    "hosts",
    "backends",
    "expires_at",
    "not_before",
    "grace",
    "id",
    "app",
    "mode",
    "alpn",
    "refusal",
    "max_connections",
];
/// Keys that only later versions know. Ignoring them would route what they mean to hold back.
const LATER_KEYS: [&str; 6] =
    ["pin", "protocol", "backend_tls", "backend_ca", "backend_name", "client_ca"];
const MODES: [&str; 2] = ["passthrough", "terminate"];
/// The longest id or label.
const MAX_LABEL: usize = 255;

/// What a text says.
#[derive(Debug, Default)]
pub struct Document {
    /// The good routes.
    pub claims: Vec<Claim>,
    /// All that is wrong.
    pub faults: Vec<Fault>,
    /// How many routes were left out for that.
    pub left_out: usize,
    /// Whether the text is TOML at all.
    pub parsed: bool,
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// Reads a text; `source` is what its places are told under.
#[must_use]
pub fn read(source: &Arc<str>, text: &str) -> Document {
    let lines = Text::new(source, text);
    let mut document = Document::default();
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let place = lines.place(error.span().unwrap_or(0..0));
            let kind = FaultKind::Syntax(error.message().trim_end().to_owned());
            document.faults.push(Fault { place, kind });
            return document;
        }
    };
    document.parsed = true;
    for (key, value) in table.get_ref() {
        if key.get_ref() != "route" {
            let kind = FaultKind::UnknownKey {
                key: key.get_ref().to_string(),
                where_: " of a routes file",
                nearest: nearest(key.get_ref(), ["route"]),
            };
            document.faults.push(Fault { place: lines.place(key.span()), kind });
            continue;
        }
        match value.get_ref() {
            DeValue::Array(routes) => {
                for route in routes {
                    read_route(route, &lines, &mut document);
                }
            }
            other => {
                let kind = wrong_type("route", "a list of tables, each begun by [[route]]", other);
                document.faults.push(Fault { place: lines.place(key.span()), kind });
            }
        }
    }
    document
}

fn read_route(value: &Value<'_>, lines: &Text<'_>, document: &mut Document) {
    let before = document.faults.len();
    let mut reading = Reading { lines, faults: &mut document.faults, draft: Draft::default() };
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                reading.entry(key, value);
            }
            reading.check_whole(value);
        }
        other => reading.fault(value, wrong_type("route", "a table", other)),
    }
    let draft = reading.draft;
    if document.faults.len() > before {
        document.left_out += 1;
        return;
    }
    if let Some(route) = draft.finish() {
        let origin = lines.origin(value.span().start);
        document.claims.push(Claim { route: Arc::new(route), origin });
    }
}

/// A route in the making.
#[derive(Default)]
struct Draft {
    hosts: Vec<Pattern>,
    backends: Vec<Endpoint>,
    seen_hosts: bool,
    seen_backends: bool,
    lifetime: Lifetime,
    id: Option<Arc<str>>,
    app: Option<Arc<str>>,
    mode: Mode,
    alpn: Vec<Box<[u8]>>,
    refusal: Option<Answer>,
    max_connections: u32,
}

impl Draft {
    fn finish(self) -> Option<Route> {
        let id = match self.id {
            Some(id) => id,
            None => self.hosts.first()?.to_string().into(),
        };
        Some(Route {
            id,
            hosts: self.hosts.into(),
            backends: self.backends.into(),
            lifetime: self.lifetime,
            app: self.app,
            mode: self.mode,
            alpn: self.alpn.into(),
            refusal: self.refusal,
            max_connections: self.max_connections,
        })
    }
}

struct Reading<'a> {
    lines: &'a Text<'a>,
    faults: &'a mut Vec<Fault>,
    draft: Draft,
}

impl Reading<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, kind: FaultKind) {
        self.faults.push(Fault { place: self.lines.place(at.span()), kind });
    }

    fn entry(&mut self, key: &Key<'_>, value: &Value<'_>) {
        match key.get_ref().as_ref() {
            "hosts" => self.hosts(value),
            "backends" => self.backends(value),
            "expires_at" => self.draft.lifetime.expires_at = self.time("expires_at", value),
            "not_before" => self.draft.lifetime.not_before = self.time("not_before", value),
            "grace" => self.grace(value),
            "id" => self.draft.id = self.label("id", value),
            "app" => self.draft.app = self.label("app", value),
            "mode" => self.mode(value),
            "alpn" => self.alpn(value),
            "refusal" => self.refusal(value),
            "max_connections" => self.max_connections(value),
            later if LATER_KEYS.contains(&later) => {
                self.fault(key, FaultKind::NotSupported(later.to_owned()));
            }
            other => {
                let nearest = nearest(other, KEYS);
                let key_text = other.to_owned();
                self.fault(
                    key,
                    FaultKind::UnknownKey { key: key_text, where_: " of a route", nearest },
                );
            }
        }
    }

    /// What no single key can tell.
    fn check_whole(&mut self, route: &Value<'_>) {
        if !self.draft.seen_hosts {
            let kind =
                FaultKind::Missing { key: "hosts", example: "hosts = [\"app.example.com\"]" };
            self.fault(route, kind);
        }
        if !self.draft.seen_backends {
            let kind =
                FaultKind::Missing { key: "backends", example: "backends = [\"10.1.2.3:27283\"]" };
            self.fault(route, kind);
        }
        let Lifetime { not_before, expires_at, .. } = self.draft.lifetime;
        if let (Some(start), Some(end)) = (not_before, expires_at)
            && end <= start
        {
            let (start, end) = (start.to_string(), end.to_string());
            self.fault(route, FaultKind::NeverLive { start, end });
        }
    }

    fn text<'v>(&mut self, key: &'static str, value: &'v Value<'_>) -> Option<&'v str> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text);
        }
        self.fault(value, wrong_type(key, "a text in quotes", value.get_ref()));
        None
    }

    /// The texts of a list that has at least one.
    fn texts<'v>(
        &mut self,
        key: &'static str,
        value: &'v Value<'_>,
    ) -> Vec<(&'v Value<'v>, &'v str)> {
        let DeValue::Array(items) = value.get_ref() else {
            self.fault(value, wrong_type(key, "a list of texts, as [\"…\"]", value.get_ref()));
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(value, FaultKind::Empty(key));
        }
        items.iter().filter_map(|item| Some((item, self.text(key, item)?))).collect()
    }

    fn hosts(&mut self, value: &Value<'_>) {
        self.draft.seen_hosts = true;
        for (item, text) in self.texts("hosts", value) {
            match text.parse::<Pattern>() {
                Ok(pattern) if self.draft.hosts.contains(&pattern) => {
                    self.fault(item, FaultKind::RepeatedHost(text.to_owned()));
                }
                Ok(pattern) => self.draft.hosts.push(pattern),
                Err(why) => self.fault(item, FaultKind::Host { host: text.to_owned(), why }),
            }
        }
    }

    fn backends(&mut self, value: &Value<'_>) {
        self.draft.seen_backends = true;
        for (item, text) in self.texts("backends", value) {
            match text.parse() {
                Ok(endpoint) => self.draft.backends.push(endpoint),
                Err(why) => self.fault(item, FaultKind::Backend { backend: text.to_owned(), why }),
            }
        }
    }

    fn alpn(&mut self, value: &Value<'_>) {
        for (item, text) in self.texts("alpn", value) {
            if text.is_empty() || text.len() > usize::from(u8::MAX) {
                self.fault(item, FaultKind::Protocol);
            } else if !self.draft.alpn.iter().any(|known| **known == *text.as_bytes()) {
                self.draft.alpn.push(text.as_bytes().into());
            }
        }
    }

    fn time(&mut self, key: &'static str, value: &Value<'_>) -> Option<Timestamp> {
        let parsed = match value.get_ref() {
            DeValue::Datetime(time) => time.to_string().parse(),
            DeValue::String(text) => text.trim().parse(),
            other => {
                let expected = "an instant, as 2026-12-24T18:00:00Z";
                self.fault(value, wrong_type(key, expected, other));
                return None;
            }
        };
        parsed.map_err(|_| self.fault(value, FaultKind::Time { key })).ok()
    }

    fn grace(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("grace", value) else { return };
        match text.parse::<Period>() {
            Ok(period) => {
                self.draft.lifetime.grace =
                    SignedDuration::try_from(period.0).unwrap_or(SignedDuration::MAX);
            }
            Err(why) => self.fault(value, FaultKind::Period { key: "grace", why }),
        }
    }

    fn label(&mut self, key: &'static str, value: &Value<'_>) -> Option<Arc<str>> {
        let text = self.text(key, value)?;
        let count = text.chars().count();
        if count == 0 || count > MAX_LABEL || text.chars().any(char::is_control) {
            self.fault(value, FaultKind::Label { key });
            return None;
        }
        Some(text.into())
    }

    fn mode(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("mode", value) else { return };
        match text {
            "passthrough" => self.draft.mode = Mode::Passthrough,
            "terminate" => {
                self.fault(value, FaultKind::NotSupported("mode = \"terminate\"".to_owned()));
            }
            other => self.word("mode", other, &MODES, value),
        }
    }

    fn refusal(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("refusal", value) else { return };
        match Answer::from_word(text) {
            Some(answer) => self.draft.refusal = Some(answer),
            None => self.word("refusal", text, &Answer::WORDS, value),
        }
    }

    fn word(
        &mut self,
        key: &'static str,
        word: &str,
        allowed: &'static [&'static str],
        value: &Value<'_>,
    ) {
        let nearest = nearest(word, allowed.iter().copied());
        self.fault(value, FaultKind::Word { key, word: word.to_owned(), allowed, nearest });
    }

    fn max_connections(&mut self, value: &Value<'_>) {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number {
            Some(number) => self.draft.max_connections = number,
            None => self.fault(
                value,
                FaultKind::Number { key: "max_connections", least: 0, most: u32::MAX },
            ),
        }
    }
}

fn wrong_type(key: &'static str, expected: &'static str, found: &DeValue<'_>) -> FaultKind {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    FaultKind::Type { key, expected, found }
}
