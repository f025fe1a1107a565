//! The section `store.etcd` of the configuration.
//!
//! The password itself is never in it, only the path of a file that holds it: what is dumped,
//! logged or inherited cannot give it away.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::units::Period;

/// The section `store.etcd`. Without endpoints, no etcd is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The members, in the order in which they are tried.
    pub endpoints: Vec<Address>,
    /// What stands before every key. Proxies of one fleet share it.
    pub prefix: Prefix,
    /// Who we are, where etcd asks for a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the user's password; read at each login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// PEM: who may vouch for the members. The system's roots, if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM: our certificate, leaf first, where etcd asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// For one request, all members that are tried included.
    pub timeout: Timeout,
    /// Changes in one transaction: etcd's `--max-txn-ops`.
    pub max_changes: MaxChanges,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: Prefix("mse-proxy/".into()),
            user: None,
            password_file: None,
            ca: None,
            certificate: None,
            key: None,
            timeout: Timeout(Period(Duration::from_secs(5))),
            max_changes: MaxChanges(128),
        }
    }
}

/// Where a member of etcd listens for clients: `http://etcd-1:2379`, `https://10.0.0.1:2379`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    pub(super) is_tls: bool,
    pub(super) endpoint: Endpoint,
}

impl Address {
    /// Whether what is sent there crosses a network as it is.
    pub(super) fn is_readable_by_others(&self) -> bool {
        let is_local = match &self.endpoint {
            Endpoint::Ip(address) => address.ip().is_loopback(),
            Endpoint::Name(name, _) => name.as_str() == "localhost",
            Endpoint::Unix(_) => true,
        };
        !self.is_tls && !is_local
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (is_tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(format!(
                "`{text}`: write \"https://etcd-1:2379\", or \"http://127.0.0.1:2379\" without TLS"
            ));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        match rest.parse() {
            Ok(Endpoint::Unix(_)) => Err(format!("`{text}`: a host and a port are needed")),
            Ok(endpoint) => Ok(Self { is_tls, endpoint }),
            Err(why) => Err(format!("`{text}`: {why}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.is_tls { "s" } else { "" }, self.endpoint)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// What stands before every key: nothing, or printable text that ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl Prefix {
    /// With a key behind it.
    pub(super) fn with(&self, key: &str) -> Vec<u8> {
        [self.0.as_bytes(), key.as_bytes()].concat()
    }

    /// A key of ours in etcd without it.
    pub(super) fn strip(&self, key: &[u8]) -> Option<String> {
        let key = key.strip_prefix(self.0.as_bytes())?;
        String::from_utf8(key.to_vec()).ok()
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Without the `/`, "a" would also mean what stands under "ab".
        let is_good = text.is_empty() || text.ends_with('/');
        if is_good && text.len() <= 256 && text.chars().all(|letter| letter.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}`: write up to 256 printable letters that end with \"/\""))
        }
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From 1 s, which an election takes, to a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Period")]
pub struct Timeout(pub(super) Period);

impl TryFrom<Period> for Timeout {
    type Error = String;

    fn try_from(period: Period) -> Result<Self, String> {
        if (Duration::from_secs(1)..=Duration::from_mins(1)).contains(&period.0) {
            Ok(Self(period))
        } else {
            Err(format!("must be between 1s and 1m (it is {period})"))
        }
    }
}

/// From 16, what one change of a route with its history needs, to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct MaxChanges(pub(super) u32);

impl TryFrom<u32> for MaxChanges {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        if (16..=10_000).contains(&count) {
            Ok(Self(count))
        } else {
            Err(format!("must be between 16 and 10000, as etcd's --max-txn-ops (it is {count})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_urls_with_a_port() {
        let read = |text: &str| Address::try_from(text.to_owned());
        for text in ["http://127.0.0.1:2379", "https://etcd-1.example:2379", "https://[::1]:1"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("http://127.0.0.1:2379/").unwrap().to_string(), "http://127.0.0.1:2379");
        for (text, words) in [
            ("127.0.0.1:2379", "https://etcd-1:2379"),
            ("https://etcd-1", "the port is missing"),
            ("http://unix:/run/etcd.sock", "a host and a port"),
            ("https://user:secret@etcd-1:2379", ""),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn a_section_reads_and_prints_back() {
        let text = "endpoints = [\"https://etcd-1:2379\"]\nprefix = \"a/\"\nuser = \"proxy\"\n\
                    password_file = \"/etc/p\"\ntimeout = \"2s\"\nmax_changes = 1000\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&settings).unwrap(), text);
        let default: Settings = toml::from_str("").unwrap();
        assert_eq!(default, Settings::default());
        for wrong in [
            "prefix = \"a\"",
            "prefix = \"ä/\"",
            "timeout = \"10ms\"",
            "timeout = \"2m\"",
            "max_changes = 1",
            "password = \"secret\"",
        ] {
            assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_stand_behind_the_prefix() {
        let prefix = Prefix("p/".into());
        assert_eq!(prefix.with("routes/a"), b"p/routes/a");
        assert_eq!(prefix.strip(b"p/routes/a").as_deref(), Some("routes/a"));
        assert_eq!(prefix.strip(b"q/routes/a"), None);
        assert_eq!(prefix.strip(b"p/\xff"), None);
    }
}
