//! The keys of one `[[route]]` table: from TOML values to a route, or to all that is wrong.
//!
//! Every key is judged, even after the first fault, so that an operator mends a route once. A key
//! that only later versions know is refused, never ignored: it would route what it means to hold
//! back. Spans are those of the parser; who calls knows where they lie in a file.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::{HostnameError, MAX_NAME, Pattern};
use crate::nearest::nearest;
use crate::routing::route::{Lifetime, Mode, Origin, Route, Terms};
use crate::routing::termination::Protocol;
use crate::source::fault::FaultKind;
use crate::source::instant;
use crate::source::terminating::Terminating;
use crate::source::values::{Slips, kind_of, within};
use crate::units::Period;
use crate::wire::alert::Answer;

/// The keys of a route.
pub(super) const KEYS: [&str; 17] = [
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
    "protocol",
    "backend_tls",
    "backend_ca",
    "backend_name",
    "pin",
    "client_ca",
];
const MODES: [&str; 2] = ["passthrough", "terminate"];
/// The longest id or label, in characters: any host can be one.
const MAX_LABEL: usize = MAX_NAME + "**.".len();
/// More bytes than any host has in any spelling (253 letters of at most 4 bytes): not worth
/// handing to IDNA.
const MAX_HOST: usize = 4 * MAX_NAME;

type Value<'a> = Spanned<DeValue<'a>>;
type Faults = Vec<(Range<usize>, FaultKind)>;

/// Reads a route. `header` is where the route as a whole is said to stand.
pub(super) fn read(
    table: &DeTable<'_>,
    header: &Range<usize>,
    slips: &Slips,
    whereabouts: &dyn Fn(usize) -> Origin,
) -> Result<Route, Faults> {
    let mut reading = Reading { slips, whereabouts, faults: Vec::new(), draft: Draft::default() };
    for (key, value) in table {
        reading.entry(key.get_ref(), &key.span(), value);
    }
    let has = |key| table.contains_key(key);
    reading.judge_whole(header, has("hosts"), has("backends"));
    let Reading { mut faults, draft, .. } = reading;
    match draft.finish() {
        Some(route) if faults.is_empty() => Ok(route),
        _ => {
            faults.sort_by_key(|(span, _)| span.start);
            Err(faults)
        }
    }
}

/// A route in the making.
#[derive(Default)]
struct Draft {
    id: Option<Arc<str>>,
    hosts: Vec<Pattern>,
    backends: Vec<Endpoint>,
    terms: Terms,
    alpn: Vec<Box<[u8]>>,
    is_terminating: bool,
    terminating: Terminating,
}

impl Draft {
    fn finish(self) -> Option<Route> {
        let id = match (self.id, self.hosts.first()?) {
            (Some(id), _) => id,
            (None, Pattern::Exact(name)) => name.shared(),
            (None, wildcard) => wildcard.to_string().into(),
        };
        let (mode, pin) = if self.is_terminating {
            (Mode::Terminate(Arc::new(self.terminating.finish()?)), None)
        } else {
            (Mode::Passthrough, self.terminating.sealed_pin())
        };
        let terms = Terms { alpn: self.alpn.into(), mode, pin, ..self.terms };
        Some(Route::new(id, self.hosts, self.backends, terms))
    }
}

struct Reading<'a> {
    slips: &'a Slips,
    whereabouts: &'a dyn Fn(usize) -> Origin,
    faults: Faults,
    draft: Draft,
}

impl Reading<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, kind: FaultKind) {
        self.faults.push((at.span(), kind));
    }

    fn entry(&mut self, key: &str, key_span: &Range<usize>, value: &Value<'_>) {
        if self.has_slips(key, value) {
            return;
        }
        match key {
            "hosts" => self.hosts(value),
            "backends" => self.backends(value),
            "expires_at" => {
                self.draft.terms.lifetime.expires_at = self.instant("expires_at", value);
            }
            "not_before" => {
                self.draft.terms.lifetime.not_before = self.instant("not_before", value);
            }
            "grace" => self.grace(value),
            "id" => self.draft.id = self.label("id", value),
            "app" => self.draft.terms.app = self.label("app", value),
            "mode" => self.mode(value),
            "alpn" => self.alpn(value),
            "refusal" => self.refusal(value),
            "max_connections" => self.max_connections(value),
            "protocol" => self.protocol(key_span, value),
            "backend_tls" => self.backend_tls(key_span, value),
            "backend_ca" => {
                let path = self.path("backend_ca", value);
                self.draft.terminating.backend_ca.note("backend_ca", key_span, path);
            }
            "backend_name" => self.backend_name(key_span, value),
            "pin" => self.pin(key_span, value),
            "client_ca" => {
                let path = self.path("client_ca", value);
                self.draft.terminating.client_ca.note("client_ca", key_span, path);
            }
            other => {
                let kind = FaultKind::UnknownKey {
                    key: other.to_owned(),
                    nearest: nearest(other, KEYS),
                    allowed: &KEYS,
                };
                self.faults.push((key_span.clone(), kind));
            }
        }
    }

    /// Whether the parser stumbled inside of the value, which then says nothing.
    fn has_slips(&mut self, key: &str, value: &Value<'_>) -> bool {
        let before = self.faults.len();
        for (span, why) in within(self.slips, &value.span()) {
            let kind = FaultKind::NotAValue { key: key.to_owned(), why: why.to_owned() };
            self.faults.push((span, kind));
        }
        self.faults.len() > before
    }

    /// What no single key can tell.
    fn judge_whole(&mut self, header: &Range<usize>, has_hosts: bool, has_backends: bool) {
        for (key, example, is_there) in
            [("hosts", HOST_EXAMPLE, has_hosts), ("backends", BACKEND_EXAMPLE, has_backends)]
        {
            if !is_there {
                self.faults.push((header.clone(), FaultKind::Missing { key, example }));
            }
        }
        let Lifetime { not_before, expires_at, .. } = self.draft.terms.lifetime;
        if let (Some(start), Some(end)) = (not_before, expires_at)
            && end <= start
        {
            self.faults.push((header.clone(), FaultKind::NeverLive { start, end }));
        }
        let Draft { is_terminating, terminating, alpn, .. } = &self.draft;
        self.faults.extend(terminating.judge(*is_terminating, alpn, header));
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
        example: &'static str,
        value: &'v Value<'_>,
    ) -> Vec<(&'v Value<'v>, &'v str)> {
        let DeValue::Array(items) = value.get_ref() else {
            let expected = "a list of texts in quotes, as [\"…\", \"…\"]";
            self.fault(value, wrong_type(key, expected, value.get_ref()));
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(value, FaultKind::Empty { key, example });
        }
        items.iter().filter_map(|item| Some((item, self.text(key, item)?))).collect()
    }

    fn hosts(&mut self, value: &Value<'_>) {
        let items = self.texts("hosts", HOST_EXAMPLE, value);
        let mut good = Vec::with_capacity(items.len());
        for (item, text) in items {
            match pattern(text) {
                Ok(pattern) => {
                    self.draft.hosts.push(pattern);
                    good.push(item);
                }
                Err(why) => self.fault(item, FaultKind::Host { host: text.to_owned(), why }),
            }
        }
        for (later, first) in repeated(&self.draft.hosts) {
            if let (Some(item), Some(first), Some(pattern)) =
                (good.get(later), good.get(first), self.draft.hosts.get(later))
            {
                let first = (self.whereabouts)(first.span().start);
                let kind = FaultKind::RepeatedHost { host: pattern.to_string(), first };
                self.faults.push((item.span(), kind));
            }
        }
    }

    fn backends(&mut self, value: &Value<'_>) {
        for (item, text) in self.texts("backends", BACKEND_EXAMPLE, value) {
            match text.parse() {
                Ok(endpoint) => self.draft.backends.push(endpoint),
                Err(why) => self.fault(item, FaultKind::Backend { backend: text.to_owned(), why }),
            }
        }
    }

    fn alpn(&mut self, value: &Value<'_>) {
        for (item, text) in self.texts("alpn", "acme-tls/1", value) {
            match text.len() {
                1..=255 => self.draft.alpn.push(text.as_bytes().into()),
                _ => self.fault(item, FaultKind::Protocol),
            }
        }
    }

    fn instant(&mut self, key: &'static str, value: &Value<'_>) -> Option<Timestamp> {
        let read = match value.get_ref() {
            DeValue::Datetime(written) => instant::from_toml(*written),
            DeValue::String(text) => instant::from_text(text),
            other => {
                let expected = "an instant, as 2026-12-24T18:00:00Z";
                self.fault(value, wrong_type(key, expected, other));
                return None;
            }
        };
        read.map_err(|why| self.fault(value, FaultKind::Time { key, why })).ok()
    }

    fn grace(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("grace", value) else { return };
        match text.parse::<Period>() {
            Ok(period) => self.draft.terms.lifetime.grace = period.into(),
            Err(why) => self.fault(value, FaultKind::Period { key: "grace", why }),
        }
    }

    fn label(&mut self, key: &'static str, value: &Value<'_>) -> Option<Arc<str>> {
        let text = self.text(key, value)?;
        let is_printable = !text.is_empty() && !text.contains(char::is_control);
        if is_printable && text.chars().nth(MAX_LABEL).is_none() {
            return Some(text.into());
        }
        self.fault(value, FaultKind::Label { key, most: MAX_LABEL });
        None
    }

    fn mode(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("mode", value) else { return };
        match text {
            "passthrough" => self.draft.is_terminating = false,
            "terminate" => self.draft.is_terminating = true,
            other => self.unknown_word("mode", other, &MODES, value),
        }
    }

    fn protocol(&mut self, key: &Range<usize>, value: &Value<'_>) {
        let Some(text) = self.text("protocol", value) else { return };
        let protocol = Protocol::from_word(text);
        if protocol.is_none() {
            self.unknown_word("protocol", text, &Protocol::WORDS, value);
        }
        self.draft.terminating.protocol.note("protocol", key, protocol);
    }

    fn backend_tls(&mut self, key: &Range<usize>, value: &Value<'_>) {
        let Some(text) = self.text("backend_tls", value) else { return };
        let is_on = match text {
            "verify" => Some(true),
            "off" => Some(false),
            other => {
                self.unknown_word("backend_tls", other, &["verify", "off"], value);
                None
            }
        };
        self.draft.terminating.backend_tls.note("backend_tls", key, is_on);
    }

    fn backend_name(&mut self, key: &Range<usize>, value: &Value<'_>) {
        let Some(text) = self.text("backend_name", value) else { return };
        let name = match pattern(text) {
            Ok(Pattern::Exact(name)) => Some(name),
            Ok(Pattern::OneLabel(_) | Pattern::AnyDepth(_)) => {
                let kind = FaultKind::BackendName(HostnameError::MisplacedStar);
                self.fault(value, kind);
                None
            }
            Err(why) => {
                self.fault(value, FaultKind::BackendName(why));
                None
            }
        };
        self.draft.terminating.backend_name.note("backend_name", key, name);
    }

    fn pin(&mut self, key: &Range<usize>, value: &Value<'_>) {
        let Some(text) = self.text("pin", value) else { return };
        let digest = text.parse().map_err(|why| self.fault(value, FaultKind::Pin(why))).ok();
        self.draft.terminating.pin.note("pin", key, digest);
    }

    /// The absolute path of a file.
    fn path(&mut self, key: &'static str, value: &Value<'_>) -> Option<Arc<Path>> {
        let path = Path::new(self.text(key, value)?);
        if path.is_absolute() {
            return Some(path.into());
        }
        self.fault(value, FaultKind::Path { key });
        None
    }

    fn refusal(&mut self, value: &Value<'_>) {
        let Some(text) = self.text("refusal", value) else { return };
        match Answer::from_word(text) {
            Some(answer) => self.draft.terms.refusal = Some(answer),
            None => self.unknown_word("refusal", text, &Answer::WORDS, value),
        }
    }

    fn unknown_word(
        &mut self,
        key: &'static str,
        word: &str,
        allowed: &'static [&'static str],
        value: &Value<'_>,
    ) {
        let nearest = nearest(word, allowed.iter().copied());
        self.fault(value, FaultKind::Word { key, word: word.to_owned(), nearest, allowed });
    }

    fn max_connections(&mut self, value: &Value<'_>) {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number {
            Some(number) => self.draft.terms.max_connections = number,
            None => self.fault(
                value,
                FaultKind::Number { key: "max_connections", least: 0, most: u32::MAX },
            ),
        }
    }
}

const HOST_EXAMPLE: &str = "app.example.com";
const BACKEND_EXAMPLE: &str = "10.1.2.3:27283";

fn pattern(text: &str) -> Result<Pattern, HostnameError> {
    if text.len() > MAX_HOST {
        return Err(HostnameError::TooLong { octets: text.len() });
    }
    text.parse()
}

/// The items that are equal to an earlier one, and the first of their kind. Linear search would
/// take minutes for a route with a million hosts.
fn repeated<T: Ord>(items: &[T]) -> Vec<(usize, usize)> {
    if items.len() < 2 {
        return Vec::new();
    }
    let mut order: Vec<(&T, usize)> = items.iter().zip(0..).collect();
    order.sort_unstable();
    let runs = order.chunk_by(|(one, _), (other, _)| one == other);
    let pairs = runs.filter_map(|run| {
        let ((_, first), later) = run.split_first()?;
        Some(later.iter().map(|(_, later)| (*later, *first)))
    });
    pairs.flatten().collect()
}

fn wrong_type(key: &'static str, expected: &'static str, found: &DeValue<'_>) -> FaultKind {
    FaultKind::Type { key, expected, found: kind_of(found) }
}
