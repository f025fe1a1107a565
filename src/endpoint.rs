//! One address of a backend: `ip:port`, `[v6]:port`, `name:port` or `unix:/path`.
//!
//! An [`Endpoint`] is only the words of an address. Who resolves a name, and when, is not known
//! here; a name is never resolved on the path of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::hostname::{Hostname, HostnameError};

/// `sun_path` holds 108 bytes with its terminating NUL (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// One address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IP address and a TCP port.
    Ip(SocketAddr),
    /// A name that DNS knows and a TCP port.
    Name(Hostname, u16),
    /// The absolute path of a Unix stream socket.
    Unix(PathBuf),
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No `:port` at the end.
    #[error("the port is missing; write \"{0}:443\", for example")]
    NoPort(String),
    /// A port that is no number from 1 to 65535.
    #[error("`{0}` is not a port; write a number from 1 to 65535")]
    Port(String),
    /// An IPv6 address without its brackets.
    #[error("an IPv6 address needs brackets: \"[{address}]:{port}\"")]
    Brackets {
        /// What was taken for the address.
        address: String,
        /// What was taken for the port.
        port: String,
    },
    /// Between the brackets stands no IPv6 address.
    #[error("`{0}` is not an IPv6 address")]
    Ipv6(String),
    /// The name before the port is no hostname.
    #[error("`{name}` is not a name: {why}")]
    Name {
        /// What was written.
        name: String,
        /// What is wrong with it.
        why: HostnameError,
    },
    /// A Unix path that is not absolute, or longer than the kernel takes.
    #[error(
        "a socket path must be absolute and at most {MAX_UNIX_PATH} bytes: \"unix:/run/app.sock\""
    )]
    UnixPath,
    /// An address that no connection can go to.
    #[error("{0} cannot be connected to")]
    Unspecified(IpAddr),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.len() <= MAX_UNIX_PATH && !path.contains('\0');
            return if fits && Path::new(path).is_absolute() {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(EndpointError::UnixPath)
            };
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| EndpointError::NoPort(text.to_owned()))?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(EndpointError::Brackets { address: host.into(), port: port.into() });
        }
        let number = match port.parse::<u16>() {
            Ok(number) if number > 0 && !port.starts_with('+') => number,
            _ => return Err(EndpointError::Port(port.to_owned())),
        };
        let ip = match bracketed {
            Some(v6) => {
                Some(IpAddr::V6(v6.parse().map_err(|_| EndpointError::Ipv6(v6.to_owned()))?))
            }
            None => host.parse::<IpAddr>().ok(),
        };
        match ip {
            Some(ip) if ip.is_unspecified() => Err(EndpointError::Unspecified(ip)),
            Some(ip) => Ok(Self::Ip(SocketAddr::new(ip, number))),
            None => match host.parse() {
                Ok(name) => Ok(Self::Name(name, number)),
                Err(why) => Err(EndpointError::Name { name: host.to_owned(), why }),
            },
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints_back() {
        for text in
            ["10.1.2.3:27283", "[2001:db8::1]:443", "app.example.com:8443", "unix:/run/a.sock"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(
            "App.Example.COM.:1".parse::<Endpoint>().unwrap().to_string(),
            "app.example.com:1"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_told_why() {
        for (text, words) in [
            ("10.1.2.3", "the port is missing; write \"10.1.2.3:443\""),
            ("10.1.2.3:0", "`0` is not a port"),
            ("10.1.2.3:65536", "`65536` is not a port"),
            ("10.1.2.3:+1", "`+1` is not a port"),
            ("2001:db8::1:443", "\"[2001:db8::1]:443\""),
            ("[10.1.2.3]:443", "not an IPv6 address"),
            ("a b:443", "`a b` is not a name"),
            (":443", "the name is empty"),
            ("0.0.0.0:443", "cannot be connected to"),
            ("[::]:443", "cannot be connected to"),
            ("unix:run/a.sock", "must be absolute"),
            ("unix:", "must be absolute"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
