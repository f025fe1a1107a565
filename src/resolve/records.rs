//! Asking DNS for single records, one step at a time.
//!
//! Whoever judges where a name leads must see each step of it: what is an alias of what, and
//! whether a name does not exist, has no such record, or nobody answered. A seam, so that
//! whoever needs an answer can be given a fixed one.

use std::future::Future;
use std::net::IpAddr;

use crate::hostname::Hostname;

/// What DNS says to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// The records; at least one.
    Found(Vec<T>),
    /// There is no such name.
    NoSuchName,
    /// There is such a name, without such a record.
    NoRecord,
    /// Nothing that says anything: a server that fails, refuses or is silent.
    Unanswered(String),
}

/// Who knows the records of names.
pub trait Records: Send + Sync + 'static {
    /// What a name is an alias of (CNAME).
    fn alias(&self, name: &Hostname) -> impl Future<Output = Answer<Hostname>> + Send;

    /// The addresses of a name (A, AAAA), without following aliases.
    fn addresses(&self, name: &Hostname) -> impl Future<Output = Answer<IpAddr>> + Send;

    /// The texts of a name (TXT), each put together.
    fn texts(&self, name: &Hostname) -> impl Future<Output = Answer<String>> + Send;
}
