//! Asking DNS.
//!
//! A seam, so that whoever needs an answer can be given a fixed one. Never used on the path of a
//! connection.

pub mod dns;
pub mod records;

use std::future::Future;
use std::io;
use std::net::IpAddr;

use crate::hostname::Hostname;

/// Who knows the addresses of names.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name, in the order of preference; at least one.
    ///
    /// # Errors
    /// Whatever kept the answer away.
    fn addresses(&self, name: &Hostname) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The system's resolver (`getaddrinfo`), which also reads `/etc/hosts`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    async fn addresses(&self, name: &Hostname) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        if addresses.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(addresses)
    }
}
