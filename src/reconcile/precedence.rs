//! Which source goes before which, where two routes claim the same.

use serde::{Deserialize, Serialize};

use crate::nearest::nearest;
use crate::source::{file, stored};

/// The sources by their names, the first of which goes before the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Precedence([&'static str; 2]);

const SOURCES: [&str; 2] = [file::NAME, stored::NAME];

/// Why some names are no [`Precedence`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPrecedence {
    /// No such source.
    #[error(
        "`{name}` is not a source of routes{}",
        nearest.map_or(String::new(), |word| format!("; did you mean `{word}`?"))
    )]
    Unknown {
        /// What was written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// One that is not named, or named twice.
    #[error("name each source once: [\"file\", \"store\"] or [\"store\", \"file\"]")]
    NotEach,
}

impl Precedence {
    /// How far behind a source stands. One that is not named stands behind all others.
    #[must_use]
    pub fn rank(&self, source: &str) -> usize {
        self.0.iter().position(|name| *name == source).unwrap_or(self.0.len())
    }

    /// Whether stored routes stand behind those of files.
    #[must_use]
    pub fn store_yields(&self) -> bool {
        self.rank(stored::NAME) > self.rank(file::NAME)
    }
}

impl Default for Precedence {
    /// What somebody wrote into a file by hand goes before what programs do.
    fn default() -> Self {
        Self(SOURCES)
    }
}

impl TryFrom<Vec<String>> for Precedence {
    type Error = NoPrecedence;

    fn try_from(names: Vec<String>) -> Result<Self, NoPrecedence> {
        let mut known = Vec::new();
        for name in names {
            let Some(source) = SOURCES.into_iter().find(|known| *known == name) else {
                let nearest = nearest(&name, SOURCES);
                return Err(NoPrecedence::Unknown { name, nearest });
            };
            known.push(source);
        }
        match known.as_slice() {
            [first, second] if first != second => Ok(Self([first, second])),
            _ => Err(NoPrecedence::NotEach),
        }
    }
}

impl From<Precedence> for Vec<String> {
    fn from(precedence: Precedence) -> Self {
        precedence.0.map(str::to_owned).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_named_once() {
        let read = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            Precedence::try_from(names)
        };
        let store_first = read(&["store", "file"]).unwrap();
        assert!(!store_first.store_yields() && Precedence::default().store_yields());
        assert_eq!(read(&["file", "store"]), Ok(Precedence::default()));
        assert_eq!([store_first.rank("store"), store_first.rank("demo")], [0, 2]);
        for names in [&[] as &[&str], &["file"], &["file", "file"], &["file", "store", "file"]] {
            assert_eq!(read(names), Err(NoPrecedence::NotEach));
        }
        let why = read(&["files", "store"]).unwrap_err().to_string();
        assert_eq!(why, "`files` is not a source of routes; did you mean `file`?");
    }
}
