//! The names that people give: to apps, to projects, to kinds of hardware.
//!
//! Each has its bounds and one form (without blanks around it), so that two names are the same
//! exactly if their letters are. They are shown on terminals, hence no control characters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but blanks.
    #[error("it is empty")]
    Empty,
    /// Longer than allowed.
    #[error("it has {characters} characters, {most} are allowed")]
    TooLong {
        /// How many it has.
        characters: usize,
        /// The limit.
        most: usize,
    },
    /// A line break, an escape or another character that cannot be printed.
    #[error("it has a character that cannot be printed")]
    Control,
}

fn read(text: &str, most: usize) -> Result<Arc<str>, NameError> {
    let text = text.trim();
    let characters = text.chars().count();
    if text.is_empty() {
        Err(NameError::Empty)
    } else if characters > most {
        Err(NameError::TooLong { characters, most })
    } else if text.contains(char::is_control) {
        Err(NameError::Control)
    } else {
        Ok(text.into())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $most:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest, in characters.
            pub const MOST: usize = $most;

            /// The letters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                read(text, Self::MOST).map(Self)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// What an app is called within its project.
    AppName, 255
}
name! {
    /// What a project is called.
    ProjectName, 255
}
name! {
    /// A kind of hardware, as `4g-eu-001`.
    HardwareName, 16
}

/// The kind of hardware that every project has one of, for nothing.
pub const FREE_HARDWARE: &str = "4g-eu-001";

impl HardwareName {
    /// What every project has one of, for nothing.
    #[must_use]
    pub fn free() -> Self {
        Self(FREE_HARDWARE.into())
    }

    /// Whether this is what every project has one of, for nothing.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.as_str() == FREE_HARDWARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds_and_one_form() {
        assert_eq!("  test ".parse::<AppName>().unwrap().as_str(), "test");
        assert_eq!("ä".repeat(255).parse::<ProjectName>().unwrap().as_str().chars().count(), 255);
        let too_long = |characters, most| NameError::TooLong { characters, most };
        assert_eq!("ä".repeat(256).parse::<AppName>(), Err(too_long(256, 255)));
        assert_eq!("x".repeat(17).parse::<HardwareName>(), Err(too_long(17, 16)));
        for text in ["", " ", "\t\n"] {
            assert_eq!(text.parse::<ProjectName>(), Err(NameError::Empty));
        }
        assert_eq!("a\u{1b}[0m".parse::<AppName>(), Err(NameError::Control));
    }

    #[test]
    fn a_written_name_is_judged_when_it_is_read() {
        let name: AppName = "my app".parse().unwrap();
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(json, "\"my app\"");
        assert_eq!(serde_json::from_str::<AppName>(&json).unwrap(), name);
        assert!(serde_json::from_str::<HardwareName>("\"seventeen letters\"").is_err());
    }
}
