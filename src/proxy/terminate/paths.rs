//! Where certificates lie, as the configuration says it: one path, or a list of them.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Some paths; a single one may be written without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Paths(pub Vec<PathBuf>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMany)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Paths;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path or a list of paths")
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Paths, E> {
        Ok(Paths(if path.is_empty() { Vec::new() } else { vec![path.into()] }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, paths: A) -> Result<Paths, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(paths)).map(Paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Section {
        paths: Paths,
    }

    fn read(text: &str) -> Result<Vec<String>, String> {
        let section: Result<Section, _> = toml::from_str(text);
        let section = section.map_err(|error| error.message().to_owned())?;
        Ok(section.paths.0.iter().map(|path| path.display().to_string()).collect())
    }

    #[test]
    fn one_path_is_a_list_of_one() {
        assert_eq!(read("paths = \"/a,b\""), Ok(vec!["/a,b".to_owned()]));
        assert_eq!(read("paths = [\"/a\", \"/b\"]"), Ok(vec!["/a".to_owned(), "/b".to_owned()]));
        assert_eq!(read("paths = []"), Ok(vec![]));
        assert_eq!(read("paths = \"\""), Ok(vec![]));
        assert!(read("paths = 3").unwrap_err().contains("expected a path or a list of paths"));
        assert!(read("paths = [3]").is_err());
    }
}
