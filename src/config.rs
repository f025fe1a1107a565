//! The configuration: the sum of the rooms' settings, read from TOML and the environment.
//!
//! Every key has a built-in default, so nothing is needed on disk. `MSE_PROXY_` and a key in
//! capitals, with `_` for `.`, goes before the file. All faults are found at once: each key is
//! judged alone before the whole is put together.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::admin::Http;
use crate::admission;
use crate::control::{address, tls};
use crate::nearest::nearest;
use crate::probe::watch as certificates;
use crate::proxy::connections::OnRemove;
use crate::proxy::{backend, drain, fresh, limits, listener, peek, relay, terminate};
use crate::reconcile::Precedence;
use crate::registry::history::Bounds;
use crate::routing::route::Origin;
use crate::routing::zones::Zones;
use crate::source::file;
use crate::source::place::{Place, Text};
use crate::store::etcd;
use crate::telemetry::{logging, metrics};
use crate::units::{Percent, Period};
use crate::wire::alert::Answer;

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "MSE_PROXY_";

/// Variables by which commands are told of a running proxy (`cli::remote`): no keys.
const NO_KEYS: [&str; 4] =
    ["MSE_PROXY_ADMIN", "MSE_PROXY_ADMIN_CA", "MSE_PROXY_ADMIN_CERT", "MSE_PROXY_ADMIN_KEY"];

/// Keys without a default, which therefore do not show in the default's own text.
const UNSET: [(&str, &str); 10] = [
    ("routes", "path"),
    ("admin.tls", "certificate"),
    ("admin.tls", "key"),
    ("admin.tls", "client_ca"),
    ("store", "path"),
    ("store.etcd", "user"),
    ("store.etcd", "password_file"),
    ("store.etcd", "ca"),
    ("store.etcd", "certificate"),
    ("store.etcd", "key"),
];

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: listener::Settings,
    /// How hellos are read.
    pub hello: peek::Settings,
    /// Where routes come from.
    pub routes: Routes,
    /// How refused clients are answered.
    pub refusal: Refusal,
    /// How backends are dialled.
    pub backend: backend::connect::Settings,
    /// How long a relay may stand still.
    pub relay: relay::idle::Settings,
    /// Where and how TLS is ended.
    pub terminate: terminate::Settings,
    /// How many connections there may be.
    pub limits: limits::Settings,
    /// How a stop goes.
    pub drain: drain::Settings,
    /// Where it is watched and changed.
    pub admin: Admin,
    /// Where routes are kept that are changed there.
    pub store: Store,
    /// How apps are reached that are being configured.
    pub admission: fresh::Settings,
    /// Which apps may run here, and under which names.
    pub platform: admission::Settings,
    /// How certificates of backends are watched.
    pub probe: certificates::Settings,
    /// What is counted.
    pub telemetry: metrics::Settings,
    /// Log and access log.
    pub log: logging::Settings,
}

/// The section `routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Routes {
    /// A file, or a folder of `*.toml`; watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether one bad route keeps a whole new set out.
    pub strict: bool,
    /// What becomes of the live connections of a route that goes.
    pub on_remove: OnRemove,
    /// Which source has a name that several claim.
    pub precedence: Precedence,
    /// How much of what is in force a new set may take away without being confirmed.
    pub max_removed_percent: Percent,
}

impl Default for Routes {
    fn default() -> Self {
        let file::Settings { path, strict, max_removed_percent, .. } = file::Settings::default();
        let (on_remove, precedence) = (OnRemove::default(), Precedence::default());
        Self { path, strict, on_remove, precedence, max_removed_percent }
    }
}

impl Routes {
    /// What the file source needs of it; routes may have TLS ended in these zones.
    #[must_use]
    pub fn source(&self, zones: &Zones) -> file::Settings {
        let Self { strict, max_removed_percent, .. } = *self;
        file::Settings {
            path: self.path.clone(),
            strict,
            zones: zones.clone(),
            max_removed_percent,
        }
    }
}

/// The section `admin`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where metrics, probes and the status page are served.
    pub http: Http,
    /// Where routes are read and changed.
    pub grpc: address::Address,
    /// What that takes over TCP.
    pub tls: tls::Settings,
}

/// The section `store`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The file in which this proxy keeps routes of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How long what was changed is remembered.
    pub history_max_age: Period,
    /// How many changes are.
    pub history_max_records: u64,
    /// The store that a fleet shares.
    pub etcd: etcd::Settings,
}

impl Default for Store {
    fn default() -> Self {
        let Bounds { max_age, max_records } = Bounds::default();
        Self {
            path: None,
            history_max_age: Period(max_age.unsigned_abs()),
            history_max_records: max_records,
            etcd: etcd::Settings::default(),
        }
    }
}

impl Store {
    /// How much of the history is kept.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { max_age: self.history_max_age.into(), max_records: self.history_max_records }
    }
}

/// The section `refusal`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refusal {
    /// What a refused TLS client finds before the FIN.
    pub answer: Answer,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The text is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// No such section or key.
    #[error("`{key}` is not known{}{}", Meant(nearest), Allowed(allowed))]
    Unknown {
        /// What was written.
        key: String,
        /// The nearest word that is known.
        nearest: Option<String>,
        /// All words that are, where there are few.
        allowed: Vec<String>,
    },
    /// A section that is not a table.
    #[error("`{0}` is a section; write its keys under `[{0}]`")]
    NotASection(String),
    /// A value that the key does not take.
    #[error("`{key}`: {why}")]
    Value {
        /// The key, with its section.
        key: String,
        /// What is wrong with its value.
        why: String,
    },
}

struct Meant<'a>(&'a Option<String>);

impl std::fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |word| write!(f, "; did you mean `{word}`?"))
    }
}

struct Allowed<'a>(&'a [String]);

impl std::fmt::Display for Allowed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (known: {})", self.0.join(", ")) }
    }
}

impl Config {
    /// Puts a configuration together from the built-in defaults, the text of a file, and the
    /// environment.
    ///
    /// # Errors
    /// All the faults of both, in the order in which they stand.
    pub fn read(
        base: &Self,
        file: Option<(&Arc<str>, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Fault>> {
        let mut reading =
            Reading { known: known_keys(base), table: as_table(base), faults: vec![] };
        if let Some((source, text)) = file {
            reading.file(&Text::new(source, text), text);
        }
        reading.environment(environment);
        if !reading.faults.is_empty() {
            return Err(reading.faults);
        }
        let whole = Self::deserialize(toml::Value::Table(reading.table));
        whole.map_err(|error| {
            let place = Place::of_source(&Arc::from("the configuration"));
            let kind = FaultKind::Syntax(error.message().to_owned());
            vec![Fault { place, kind }]
        })
    }
}

/// A section and its keys. One that stands in another is called by both: `store.etcd`.
type Known = Vec<(String, Vec<String>)>;

fn as_table(config: &Config) -> toml::Table {
    // Settings are plain tables of plain values; one that were not would show in every test.
    toml::Table::try_from(config).unwrap_or_default()
}

fn known_keys(base: &Config) -> Known {
    let mut known = Known::new();
    for (section, value) in as_table(base) {
        learn(section, &value, &mut known);
    }
    known
}

fn learn(section: String, value: &toml::Value, known: &mut Known) {
    let unset = UNSET.iter().filter(|(owner, _)| *owner == section);
    let mut keys: Vec<String> = unset.map(|(_, key)| (*key).to_owned()).collect();
    let mut inside = Vec::new();
    for (key, value) in value.as_table().into_iter().flatten() {
        if value.is_table() {
            inside.push((format!("{section}.{key}"), value));
        } else if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    known.push((section, keys));
    for (section, value) in inside {
        learn(section, value, known);
    }
}

struct Reading {
    known: Known,
    table: toml::Table,
    faults: Vec<Fault>,
}

impl Reading {
    fn fault(&mut self, place: Place, kind: FaultKind) {
        self.faults.push(Fault { place, kind });
    }

    fn file(&mut self, lines: &Text<'_>, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let place = lines.place(error.span().unwrap_or(0..0));
            self.fault(place, FaultKind::Syntax(error.message().to_owned()));
        }
        // A text that is no TOML is told as such; what could be made of it is no fault of the keys.
        if !errors.is_empty() {
            return;
        }
        for (section, value) in document.into_inner() {
            let (name, span) = (section.get_ref().to_string(), section.span());
            self.section(lines, &name, span, value);
        }
    }

    fn section(
        &mut self,
        lines: &Text<'_>,
        section: &str,
        span: Range<usize>,
        value: Spanned<DeValue<'_>>,
    ) {
        let place = lines.place(span);
        let Some((_, keys)) = self.known.iter().find(|(known, _)| known == section) else {
            let outermost = self.known.iter().filter(|(known, _)| !known.contains('.'));
            let words: Vec<String> = outermost.map(|(known, _)| known.clone()).collect();
            return self.fault(place, unknown(section, words));
        };
        let keys = keys.clone();
        let DeValue::Table(entries) = value.into_inner() else {
            return self.fault(place, FaultKind::NotASection(section.to_owned()));
        };
        for (key, value) in entries {
            let full = format!("{section}.{}", key.get_ref());
            if self.known.iter().any(|(known, _)| *known == full) {
                self.section(lines, &full, key.span(), value);
                continue;
            }
            if !keys.iter().any(|known| known == key.get_ref().as_ref()) {
                let words = keys.iter().map(|known| format!("{section}.{known}")).collect();
                self.fault(lines.place(key.span()), unknown(&full, words));
                continue;
            }
            let place = lines.place(value.span());
            match toml::Value::deserialize(ValueDeserializer::from(value)) {
                Ok(value) => self.set(section, key.get_ref(), value, place),
                Err(error) => {
                    let why = error.message().to_owned();
                    self.fault(place, FaultKind::Value { key: full, why });
                }
            }
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let is_key = |name: &str| name.starts_with(ENV_PREFIX) && !NO_KEYS.contains(&name);
        let ours = variables.into_iter().filter(|(name, _)| is_key(name));
        let mut ours: Vec<_> = ours.collect();
        ours.sort_unstable();
        let known = self.known.clone();
        let names = known.iter().flat_map(|(section, keys)| {
            keys.iter().map(move |key| (variable(section, key), section, key))
        });
        let names: Vec<_> = names.collect();
        for (name, text) in ours {
            let place = Place::of_source(&Arc::from(format!("environment variable {name}")));
            if let Some((_, section, key)) = names.iter().find(|(known, ..)| *known == name) {
                let value = self.value_of(section, key, &text);
                self.set(section, key, value, place);
            } else {
                let words = names.iter().map(|(known, ..)| known.clone()).collect();
                self.fault(place, unknown(&name, words));
            }
        }
    }

    /// A value as it would stand in the file, or a plain word; lists may be written with commas.
    fn value_of(&self, section: &str, key: &str, text: &str) -> toml::Value {
        let line = format!("value = {text}");
        let parsed = line.parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        let mut table = Some(&self.table);
        for part in section.split('.') {
            table = table.and_then(|table| table.get(part)?.as_table());
        }
        let is_list = table.and_then(|table| table.get(key)).is_some_and(toml::Value::is_array);
        match parsed {
            Some(value) => value,
            None if is_list => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                toml::Value::Array(words.map(toml::Value::from).collect())
            }
            None => toml::Value::from(text),
        }
    }

    /// Judges one key alone, and keeps its value if it is good.
    fn set(&mut self, section: &str, key: &str, value: toml::Value, place: Place) {
        let mut alone = toml::Table::from_iter([(key.to_owned(), value.clone())]);
        for part in section.rsplit('.') {
            alone = toml::Table::from_iter([(part.to_owned(), toml::Value::Table(alone))]);
        }
        if let Err(error) = Config::deserialize(toml::Value::Table(alone)) {
            let (key, why) = (format!("{section}.{key}"), error.message().trim_end().to_owned());
            return self.fault(place, FaultKind::Value { key, why });
        }
        let mut table = Some(&mut self.table);
        for part in section.split('.') {
            table = table.and_then(|table| table.get_mut(part)?.as_table_mut());
        }
        if let Some(table) = table {
            table.insert(key.to_owned(), value);
        }
    }
}

fn unknown(key: &str, words: Vec<String>) -> FaultKind {
    let nearest = nearest(key, words.iter().map(String::as_str)).map(str::to_owned);
    // A long list helps nobody who is one letter off.
    let allowed = if nearest.is_none() && words.len() <= 16 { words } else { Vec::new() };
    FaultKind::Unknown { key: key.to_owned(), nearest, allowed }
}

/// The environment variable of a key.
fn variable(section: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{section}_{key}").to_uppercase().replace('.', "_")
}

impl From<&Fault> for Origin {
    fn from(fault: &Fault) -> Self {
        fault.place.origin.clone()
    }
}
