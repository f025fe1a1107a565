//! Where the control service is: the value of `admin.grpc`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The socket where nothing else is configured.
pub const USUAL: &str = "/run/mse-proxy/admin.sock";
/// `sun_path` holds 108 bytes with its terminating NUL (unix(7)).
const MAX_PATH: usize = 107;

/// Where the control service is, if anywhere. Written as `unix:/path`, `tcp:ip:port`, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
    /// TCP, for clients with a certificate; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// Nowhere.
    Off,
}

impl Default for Address {
    fn default() -> Self {
        Self::Unix(PathBuf::from(USUAL))
    }
}

impl Address {
    /// Whether it is where it is if nobody asked for a place.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.len() <= MAX_PATH && !path.contains('\0') && !path.ends_with('/');
            if fits && Path::new(path).is_absolute() {
                return Ok(Self::Unix(path.into()));
            }
            return Err(format!(
                "a socket's path is absolute and has at most {MAX_PATH} bytes: \"unix:{USUAL}\""
            ));
        }
        let address = text.strip_prefix("tcp:").and_then(|address| address.parse().ok());
        address.map(Self::Tcp).ok_or_else(|| {
            format!(
                "`{text}` is no place; write \"unix:{USUAL}\", \"tcp:192.0.2.1:9443\", or \"\" to turn it off"
            )
        })
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        match address {
            Address::Off => Self::new(),
            there => there.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Off => f.write_str("nowhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_or_nothing() {
        let read = |text: &str| Address::try_from(text.to_owned());
        for text in ["", "unix:/run/x.sock", "tcp:127.0.0.1:0", "tcp:[::1]:9443"] {
            assert_eq!(read(text).map(String::from), Ok(text.to_owned()));
        }
        assert!(read("unix:/run/mse-proxy/admin.sock").unwrap().is_usual());
        let long = format!("unix:/{}", "x".repeat(107));
        for wrong in ["unix:x.sock", "unix:", "unix:/run/", "tcp:9443", "127.0.0.1:1", &long] {
            assert!(read(wrong).unwrap_err().contains(USUAL), "{wrong}");
        }
    }
}
