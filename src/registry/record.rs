//! How projects, apps, hardware and domains lie in the store: under which keys, in which form.
//!
//! ```text
//! projects/<project>           JSON
//! apps/<project>/<app>         JSON; the last deployment of that name
//! hardware/<project>/<kind>    JSON: how many are booked, who uses them
//! domains/<domain>             JSON; a customer's own one
//! turns/<what>                 JSON; when the fleet, or anybody, last did it ([`super::turn`])
//! ```
//!
//! Names may hold any letter, so what could be taken for something else in a key is escaped.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hostname::Pattern;
use crate::registry::app::App;
use crate::registry::digest::digits;
use crate::registry::domain::Domain;
use crate::registry::hardware::Seats;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::registry::project::Project;
use crate::store::{Change, Check, Entry, Revision};

/// All projects.
pub const PROJECTS: &str = "projects/";
/// All apps.
pub const APPS: &str = "apps/";
/// All booked hardware.
pub const HARDWARE: &str = "hardware/";
/// All customers' own domains.
pub const DOMAINS: &str = "domains/";

/// The longest part of a key that stands for a name, in bytes. Two of them fit well into a key.
const MAX_PART: usize = 300;

/// Something that lies in the store under a key of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Its key.
    fn key(&self) -> String;
}

impl Record for Project {
    fn key(&self) -> String {
        project_key(&self.name)
    }
}

impl Record for App {
    fn key(&self) -> String {
        app_key(&self.project, &self.name)
    }
}

impl Record for Seats {
    fn key(&self) -> String {
        seats_key(&self.project, &self.kind)
    }
}

impl Record for Domain {
    fn key(&self) -> String {
        domain_key(&self.host)
    }
}

/// The key of a project.
#[must_use]
pub fn project_key(name: &ProjectName) -> String {
    format!("{PROJECTS}{}", part(name.as_str()))
}

/// The key of an app.
#[must_use]
pub fn app_key(project: &ProjectName, name: &AppName) -> String {
    format!("{}{}", apps_of(project), part(name.as_str()))
}

/// What the keys of a project's apps begin with.
#[must_use]
pub fn apps_of(project: &ProjectName) -> String {
    format!("{APPS}{}/", part(project.as_str()))
}

/// The same for whoever knows only the project's key.
#[must_use]
pub fn apps_of_key(project: &str) -> Option<String> {
    project.strip_prefix(PROJECTS).map(|part| format!("{APPS}{part}/"))
}

/// The key of a project's seats of one kind.
#[must_use]
pub fn seats_key(project: &ProjectName, kind: &HardwareName) -> String {
    format!("{}{}", seats_of(project), part(kind.as_str()))
}

/// What the keys of a project's seats begin with.
#[must_use]
pub fn seats_of(project: &ProjectName) -> String {
    format!("{HARDWARE}{}/", part(project.as_str()))
}

/// The key of a domain.
#[must_use]
pub fn domain_key(host: &Pattern) -> String {
    format!("{DOMAINS}{host}")
}

/// Something as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<T> {
    /// What it says.
    pub record: T,
    /// Which transaction wrote it.
    pub revision: Revision,
}

/// A value that is not what its key promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what is stored under `{key}` cannot be read: {why}")]
pub struct Unreadable {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

impl<T: Record> Held<T> {
    /// Reads what was stored.
    ///
    /// # Errors
    /// It is no such record, or that of another key.
    pub fn read(entry: &Entry) -> Result<Self, Unreadable> {
        let unreadable = |why: String| Unreadable { key: entry.key.clone(), why };
        let record: T =
            serde_json::from_slice(&entry.value).map_err(|error| unreadable(error.to_string()))?;
        if record.key() != entry.key {
            return Err(unreadable(format!("it belongs under `{}`", record.key())));
        }
        Ok(Self { record, revision: entry.revision })
    }

    /// That nobody has changed it since.
    #[must_use]
    pub fn check(&self) -> Check {
        Check { key: self.record.key(), revision: self.revision }
    }
}

/// The change that writes a record.
#[must_use]
pub fn write<T: Record>(record: &T) -> Change {
    // Records are plain structs of texts and numbers, which JSON can always hold.
    Change { key: record.key(), value: Some(serde_json::to_vec(record).unwrap_or_default()) }
}

/// The change that takes a record away.
#[must_use]
pub fn remove<T: Record>(record: &T) -> Change {
    Change { key: record.key(), value: None }
}

/// That a record is still as it was read, or still absent.
#[must_use]
pub fn check<T: Record>(held: Option<&Held<T>>, key: impl FnOnce() -> String) -> Check {
    held.map_or_else(|| Check { key: key(), revision: 0 }, Held::check)
}

/// A name as a part of a key: letters, digits and `-._~` stand for themselves, all other bytes are
/// escaped; what becomes too long ends in its digest.
fn part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(part, "%{byte:02X}");
        }
    }
    if part.len() > MAX_PART {
        let digits = digits(&[name]);
        part.truncate(MAX_PART - "%-".len() - digits.len());
        // `%-` cannot come out of an escape, so no other name looks like this.
        part.push_str("%-");
        part.push_str(&digits);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MAX_KEY;

    fn project(name: &str) -> Project {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        Project::new(name.parse().unwrap(), "t".to_owned(), now)
    }

    #[test]
    fn keys_are_printable_short_and_of_one_name_alone() {
        assert_eq!(project("default").key(), "projects/default");
        let odd = project("my project/ä");
        assert_eq!(odd.key(), "projects/my%20project%2F%C3%A4");
        assert_eq!(apps_of_key(&odd.key()), Some(apps_of(&odd.name)));
        let long = ["x".repeat(255), "ä".repeat(255), "ä".repeat(254) + "b", "%".repeat(255)];
        let mut keys = Vec::new();
        for one in &long {
            for other in &long {
                let key = app_key(&one.parse().unwrap(), &other.parse().unwrap());
                assert!(key.len() < MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic()));
                assert_eq!(key.matches('/').count(), 2);
                keys.push(key);
            }
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 16);
        assert_eq!(domain_key(&"*.a.test".parse().unwrap()), "domains/*.a.test");
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is() {
        let project = project("a b");
        let Change { key, value } = write(&project);
        let mut entry = Entry { key, value: value.unwrap(), revision: 7 };
        let held = Held::<Project>::read(&entry).unwrap();
        assert_eq!((held.record.clone(), held.revision), (project, 7));
        assert_eq!(held.check(), Check { key: "projects/a%20b".to_owned(), revision: 7 });
        entry.key = "projects/other".to_owned();
        let error = Held::<Project>::read(&entry).unwrap_err().to_string();
        assert!(error.ends_with("it belongs under `projects/a%20b`"), "{error}");
        entry.value = b"{}".to_vec();
        let error = Held::<Project>::read(&entry).unwrap_err().to_string();
        assert!(error.starts_with("what is stored under `projects/other` cannot be read: missing"));
    }
}
