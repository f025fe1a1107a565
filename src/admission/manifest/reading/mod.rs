//! Reading a manifest: every key is judged, whatever is wrong with the others.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::admission::manifest::fault::{Fault, FaultKind, Warning, WarningKind};
use crate::admission::manifest::keys::{
    self, CERTIFICATE, CODE, HARDWARE, NAME, PRIVATE_KEY, PROJECT, SECRETS, TESTS, TESTS_CMD,
};
use crate::admission::manifest::{Cloud, Manifest, Places, Ssl};
use crate::clock::Timestamp;
use crate::nearest::nearest;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::source::place::Text;
use crate::source::values::{self, Slips};

/// The longest text that is read, in bytes. Real manifests have less than 2 KB.
pub const MAX_TEXT: usize = 256 * 1024;

/// What a text says.
#[derive(Debug, Default)]
pub struct Reading {
    /// The manifest, if nothing is wrong.
    pub manifest: Option<Manifest>,
    /// All that is wrong, in the order of the text.
    pub faults: Vec<Fault>,
    /// All that is odd, in the order of the text.
    pub warnings: Vec<Warning>,
    /// Where the values of its keys stand.
    pub places: Places,
    /// What it names on the disk, by key, whatever else is wrong.
    pub paths: Vec<(&'static str, PathBuf)>,
}

/// Reads a text; `source` is what its places are told under, and its end date must be after `now`.
#[must_use]
pub fn read(source: &Arc<str>, text: &str, now: Timestamp) -> Reading {
    let lines = Text::new(source, text);
    let breach = |span, kind| {
        let fault = Fault { place: lines.place(span), kind };
        Reading { faults: vec![fault], ..Reading::default() }
    };
    if text.len() > MAX_TEXT {
        return breach(0..0, FaultKind::TooLong { most: MAX_TEXT });
    }
    let (table, slips) = match values::parse(text, |_| true) {
        Ok(parsed) => parsed,
        Err(found) => return breach(found.span, FaultKind::NotToml(found.why)),
    };
    let mut reader = Reader::new(text, &slips, now);
    let manifest = reader.whole(table.get_ref());
    let Reader { mut faults, mut warnings, places, paths, .. } = reader;
    faults.sort_by_key(|(span, _)| span.start);
    warnings.sort_by_key(|(span, _)| span.start);
    let place = |span: Range<usize>| lines.place(span);
    Reading {
        manifest: manifest.filter(|_| faults.is_empty()),
        faults: faults.into_iter().map(|(at, kind)| Fault { place: place(at), kind }).collect(),
        warnings: warnings
            .into_iter()
            .map(|(at, kind)| Warning { place: place(at), kind })
            .collect(),
        places: places.into_iter().map(|(key, span)| (key, place(span))).collect(),
        paths,
    }
}

type Value<'a> = Spanned<DeValue<'a>>;
type Table<'a> = DeTable<'a>;

struct Reader<'a> {
    text: &'a str,
    slips: &'a Slips,
    now: Timestamp,
    /// Where the sections that are there begin; the top is always there.
    headers: BTreeMap<&'static str, Range<usize>>,
    /// What known keys hold, each in its place; no two have the same word.
    given: BTreeMap<&'static str, &'a Value<'a>>,
    strays: Vec<Stray<'a>>,
    /// Slips that a fault was told of.
    told: BTreeSet<usize>,
    places: BTreeMap<&'static str, Range<usize>>,
    paths: Vec<(&'static str, PathBuf)>,
    faults: Vec<(Range<usize>, FaultKind)>,
    warnings: Vec<(Range<usize>, WarningKind)>,
}

/// A key that is not known where it stands.
struct Stray<'a> {
    section: &'static str,
    word: &'a str,
    span: Range<usize>,
    value: &'a Value<'a>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, slips: &'a Slips, now: Timestamp) -> Self {
        Self {
            text,
            slips,
            now,
            headers: BTreeMap::from([("", 0..0)]),
            given: BTreeMap::new(),
            strays: Vec::new(),
            told: BTreeSet::new(),
            places: BTreeMap::new(),
            paths: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn fault(&mut self, span: Range<usize>, kind: FaultKind) {
        self.faults.push((span, kind));
    }

    fn warn(&mut self, span: Range<usize>, kind: WarningKind) {
        self.warnings.push((span, kind));
    }

    fn whole(&mut self, top: &'a Table<'a>) -> Option<Manifest> {
        self.sort("", top);
        let moved = self.judge_strays();
        self.judge_missing(&moved);
        let manifest = self.manifest();
        let untold = self.slips.iter().filter(|(at, _)| !self.told.contains(at));
        let untold: Vec<_> = untold.map(|(at, why)| (*at, why.clone())).collect();
        for (at, why) in untold {
            self.fault(at..at, FaultKind::NotToml(why));
        }
        manifest
    }

    /// Finds the known keys of a section and of those in it.
    fn sort(&mut self, section: &'static str, table: &'a Table<'a>) {
        for (key, value) in table {
            let (word, span) = (key.get_ref().as_ref(), key.span());
            let inner = match (section, word) {
                ("", "cloud") => Some("cloud"),
                ("" | "cloud", "ssl") => Some("cloud.ssl"),
                // A string is a folder that belongs below.
                ("", "code") if matches!(value.get_ref(), DeValue::Table(_)) => Some("code"),
                _ => None,
            };
            match (inner, value.get_ref()) {
                (Some("cloud.ssl"), DeValue::Table(_)) if section.is_empty() && has_ssl(table) => {
                    self.fault(span, FaultKind::BothSsl);
                }
                (Some(inner), DeValue::Table(entries)) => {
                    if inner == "cloud.ssl" && section.is_empty() {
                        self.warn(span.clone(), WarningKind::TopLevelSsl);
                    }
                    self.headers.insert(inner, span);
                    self.sort(inner, entries);
                }
                (Some(inner), _) => self.fault(span, FaultKind::NotASection(inner)),
                (None, _) => match keys::of_section(section).find(|key| key.word == word) {
                    Some(key) => drop(self.given.insert(key.word, value)),
                    None => self.strays.push(Stray { section, word, span, value }),
                },
            }
        }
    }

    /// Tells what the keys in wrong places mean. Gives the words of the right keys that are not
    /// missing for that.
    fn judge_strays(&mut self) -> BTreeSet<&'static str> {
        let mut moved = BTreeSet::new();
        for Stray { section, word, span, value } in std::mem::take(&mut self.strays) {
            let written =
                if section.is_empty() { word.to_owned() } else { format!("{section}.{word}") };
            if self.has_slips(&written, value) {
                continue;
            }
            let is_table = matches!(value.get_ref(), DeValue::Table(_));
            match keys::meant(word).filter(|_| !is_table) {
                Some(key) if self.given.contains_key(key.word) => {
                    let kind = WarningKind::Repeated { key: written, section: key.section };
                    self.warn(span, kind);
                }
                Some(key) => {
                    let value = self.text.get(value.span()).unwrap_or_default().to_owned();
                    self.fault(span, FaultKind::Moved { written, key, value });
                    moved.insert(key.word);
                }
                None => {
                    let sections: &[&str] = match section {
                        "" => &["cloud"],
                        "cloud" => &["ssl"],
                        _ => &[],
                    };
                    let known = keys::of_section(section).map(|key| key.word);
                    let allowed: Vec<_> = known.chain(sections.iter().copied()).collect();
                    let nearest = nearest(word, allowed.iter().copied());
                    self.warn(span, WarningKind::UnknownKey { key: written, nearest, allowed });
                }
            }
        }
        moved
    }

    fn judge_missing(&mut self, moved: &BTreeSet<&'static str>) {
        let has_cloud = self.headers.contains_key("cloud");
        if !has_cloud && moved.is_empty() && !self.faults.iter().any(is_about_cloud) {
            self.fault(0..0, FaultKind::NoCloud);
        }
        for key in keys::KEYS {
            // What was moved shows how a section without a header is meant.
            let header = match self.headers.get(key.section) {
                Some(header) => Some(header.clone()),
                None => (key.section == "cloud" && !moved.is_empty()).then_some(0..0),
            };
            let is_there = self.given.contains_key(key.word) || moved.contains(key.word);
            if let Some(header) = header.filter(|_| key.is_required && !is_there) {
                self.fault(header, FaultKind::Missing(key));
            }
        }
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let name = self.name::<AppName>(&NAME, AppName::MOST);
        let python_application = self.python_application();
        let healthcheck_endpoint = self.healthcheck();
        let tests_cmd = self.filled(&TESTS_CMD).map(|(text, _)| text.to_owned());
        let tests_requirements = self.tests_requirements();
        let cloud = self.cloud();
        Some(Manifest {
            name: name?,
            python_application: python_application?,
            healthcheck_endpoint: healthcheck_endpoint?,
            tests_cmd: tests_cmd?,
            tests_requirements: tests_requirements?,
            cloud: cloud?,
        })
    }

    fn cloud(&mut self) -> Option<Cloud> {
        let code = self.path(&CODE);
        let tests = self.path(&TESTS);
        let docker = self.docker();
        let project = self.name::<ProjectName>(&PROJECT, ProjectName::MOST);
        let hardware = self.name::<HardwareName>(&HARDWARE, HardwareName::MOST);
        let expiration_date = self.expiration_date();
        let secrets = self.path(&SECRETS);
        let domain_name = self.domain_name();
        let private_key = self.path(&PRIVATE_KEY);
        let certificate = self.path(&CERTIFICATE);
        let ssl = match (domain_name, private_key, certificate) {
            (Some(domain_name), Some(private_key), Some(certificate)) => {
                Some(Ssl { domain_name, private_key, certificate })
            }
            _ => None,
        };
        Some(Cloud {
            code: code?,
            tests: tests?,
            docker: docker?,
            project: project?,
            hardware: hardware?,
            expiration_date,
            secrets,
            ssl,
        })
    }
}

/// Whether there is a section `cloud.ssl`.
fn has_ssl(top: &Table<'_>) -> bool {
    let cloud = top.get("cloud").map(Spanned::get_ref);
    matches!(cloud, Some(DeValue::Table(cloud)) if cloud.contains_key("ssl"))
}

/// Whether a fault says already what is wrong with the section.
fn is_about_cloud((_, kind): &(Range<usize>, FaultKind)) -> bool {
    matches!(kind, FaultKind::NotASection("cloud"))
}
