//! What single keys of a manifest must hold.

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use toml::de::DeValue;

use super::{Reader, Value};
use crate::admission::manifest::fault::{FaultKind, WarningKind};
use crate::admission::manifest::keys::{
    DOCKER, DOMAIN_NAME, EXPIRATION_DATE, HEALTHCHECK_ENDPOINT, Key, PYTHON_APPLICATION,
    TESTS_REQUIREMENTS,
};
use crate::admission::manifest::{Image, date};
use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::names::NameError;
use crate::source::values::{kind_of, within};

impl<'a> Reader<'a> {
    /// Whether the parser stumbled inside of a value, which then says nothing.
    pub(super) fn has_slips(&mut self, key: &str, value: &Value<'_>) -> bool {
        let before = self.faults.len();
        for (span, why) in within(self.slips, &value.span()) {
            self.told.insert(span.start);
            let kind = FaultKind::NotAValue { key: key.to_owned(), why: why.to_owned() };
            self.faults.push((span, kind));
        }
        self.faults.len() > before
    }

    /// What a key holds, as far as it is TOML.
    fn value(&mut self, key: &'static Key) -> Option<&'a Value<'a>> {
        let value = *self.given.get(key.word)?;
        self.places.insert(key.word, value.span());
        (!self.has_slips(key.word, value)).then_some(value)
    }

    fn text(&mut self, key: &'static Key) -> Option<(&'a str, Range<usize>)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text, value.span())),
            other => {
                self.wrong_type(key, value.span(), "a text in quotes", other);
                None
            }
        }
    }

    fn wrong_type(
        &mut self,
        key: &'static Key,
        span: Range<usize>,
        expected: &'static str,
        found: &DeValue<'_>,
    ) {
        self.fault(span, FaultKind::Type { key, expected, found: kind_of(found) });
    }

    /// A text that is more than blanks.
    pub(super) fn filled(&mut self, key: &'static Key) -> Option<(&'a str, Range<usize>)> {
        let (text, span) = self.text(key)?;
        if text.trim().is_empty() {
            self.fault(span, FaultKind::Empty(key));
            return None;
        }
        Some((text, span))
    }

    pub(super) fn name<N: FromStr<Err = NameError>>(
        &mut self,
        key: &'static Key,
        most: usize,
    ) -> Option<N> {
        let (text, span) = self.text(key)?;
        let name = text.parse();
        name.map_err(|why| self.fault(span, FaultKind::Name { key: key.word, why, most })).ok()
    }

    pub(super) fn path(&mut self, key: &'static Key) -> Option<PathBuf> {
        let (text, span) = self.filled(key)?;
        let path = PathBuf::from(text);
        if path.is_absolute() {
            self.warn(span, WarningKind::AbsolutePath(key.word));
        }
        self.paths.push((key.word, path.clone()));
        Some(path)
    }

    pub(super) fn python_application(&mut self) -> Option<String> {
        let (text, span) = self.filled(&PYTHON_APPLICATION)?;
        let is_word = |word: &str| {
            let mut letters = word.chars();
            letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        let is_dotted = |words: &str| words.split('.').all(is_word);
        match text.split_once(':') {
            Some((module, variable)) if is_dotted(module) && is_dotted(variable) => {
                Some(text.to_owned())
            }
            _ => {
                self.fault(span, FaultKind::PythonApplication(text.to_owned()));
                None
            }
        }
    }

    pub(super) fn healthcheck(&mut self) -> Option<String> {
        let (path, span) = self.filled(&HEALTHCHECK_ENDPOINT)?;
        let why = if !path.starts_with('/') {
            "does not begin with \"/\""
        } else if path.contains(['?', '#', '{', '<']) {
            "has parameters"
        } else if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            "has characters that no path has (write them as %20 and the like)"
        } else {
            return Some(path.to_owned());
        };
        self.fault(span, FaultKind::Healthcheck { path: path.to_owned(), why });
        None
    }

    pub(super) fn tests_requirements(&mut self) -> Option<Vec<String>> {
        const EXPECTED: &str = "a list of texts in quotes";
        let key = &TESTS_REQUIREMENTS;
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value.span(), EXPECTED, value.get_ref());
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => texts.push(text.clone().into_owned()),
                other => self.wrong_type(key, item.span(), EXPECTED, other),
            }
        }
        Some(texts)
    }

    pub(super) fn docker(&mut self) -> Option<Image> {
        let (text, span) = self.filled(&DOCKER)?;
        let image = text.trim().parse();
        image.map_err(|why| self.fault(span, FaultKind::Image { image: text.to_owned(), why })).ok()
    }

    pub(super) fn expiration_date(&mut self) -> Option<Timestamp> {
        let value = self.value(&EXPIRATION_DATE)?;
        match date::read(value.get_ref(), self.now) {
            Ok(date) => {
                if date.is_without_offset {
                    self.warn(value.span(), WarningKind::NoOffset(date.instant));
                }
                Some(date.instant)
            }
            Err(why) => {
                self.fault(value.span(), FaultKind::Date(why));
                None
            }
        }
    }

    pub(super) fn domain_name(&mut self) -> Option<Pattern> {
        let (text, span) = self.filled(&DOMAIN_NAME)?;
        match text.trim().parse() {
            Ok(Pattern::AnyDepth(name)) => self.fault(span, FaultKind::AnyDepth(name)),
            Ok(pattern) => return Some(pattern),
            Err(why) => self.fault(span, FaultKind::Domain { domain: text.to_owned(), why }),
        }
        None
    }
}
