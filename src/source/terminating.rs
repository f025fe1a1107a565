//! The keys of a route that say how TLS is ended: what they mean together.
//!
//! Keys come in the order of the alphabet, so that none can be judged by another before all are
//! read. One that says nothing for this route is a fault: whoever wrote it expects it to do
//! something.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::hostname::Hostname;
use crate::routing::termination::{BackendTls, KeyDigest, Protocol, Termination, Trust};
use crate::source::fault::FaultKind;

/// What was written, as far as it was good.
#[derive(Debug, Default)]
pub(super) struct Terminating {
    pub(super) protocol: Said<Protocol>,
    /// Whether the backend is spoken to over TLS.
    pub(super) backend_tls: Said<bool>,
    pub(super) backend_ca: Said<Arc<Path>>,
    pub(super) backend_name: Said<Hostname>,
    pub(super) pin: Said<KeyDigest>,
    pub(super) client_ca: Said<Arc<Path>>,
}

/// What a key says, and where it stands.
#[derive(Debug)]
pub(super) struct Said<T> {
    key: Option<(&'static str, Range<usize>)>,
    value: Option<T>,
}

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self { key: None, value: None }
    }
}

impl<T> Said<T> {
    /// Keeps what a key says; none, if its value is faulty.
    pub(super) fn note(&mut self, key: &'static str, span: &Range<usize>, value: Option<T>) {
        *self = Self { key: Some((key, span.clone())), value };
    }
}

type Keys<'a> = Vec<&'a (&'static str, Range<usize>)>;

impl Terminating {
    /// What is wrong with the keys together.
    pub(super) fn judge(
        &self,
        is_terminating: bool,
        alpn: &[Box<[u8]>],
        header: &Range<usize>,
    ) -> Vec<(Range<usize>, FaultKind)> {
        let proofs: Keys<'_> = [&self.backend_ca.key, &self.backend_name.key, &self.pin.key]
            .into_iter()
            .flatten()
            .collect();
        if !is_terminating {
            let others = [&self.protocol.key, &self.backend_tls.key, &self.client_ca.key];
            let all = proofs.into_iter().chain(others.into_iter().flatten());
            // A sealed route may be pinned: its backends are looked at beside its connections.
            let strange = all.filter(|(key, _)| *key != "pin");
            let fault = |(key, span): &(&'static str, Range<usize>)| {
                (span.clone(), FaultKind::OnlyTerminating(key))
            };
            return strange.map(fault).collect();
        }
        let mut faults = Vec::new();
        if self.backend_tls.value == Some(false) {
            let silent = |(key, span): &(&'static str, Range<usize>)| {
                (span.clone(), FaultKind::OnlyVerified(key))
            };
            faults.extend(proofs.into_iter().map(silent));
        } else if let (Some(_), Some((_, span))) = (&self.backend_ca.key, &self.pin.key) {
            faults.push((span.clone(), FaultKind::TwoProofs));
        }
        let is_http = self.protocol.value.unwrap_or_default() == Protocol::Http;
        if is_http && !alpn.iter().all(|name| [b"h2".as_slice(), b"http/1.1"].contains(&&**name)) {
            faults.push((header.clone(), FaultKind::NotHttp));
        }
        faults
    }

    /// The only key that the backends of a sealed route may have.
    pub(super) fn sealed_pin(&self) -> Option<KeyDigest> {
        self.pin.value
    }

    /// What they say together. None, if two of them contradict each other.
    pub(super) fn finish(self) -> Option<Termination> {
        let trust = match (self.backend_ca.value, self.pin.value) {
            (Some(_), Some(_)) => return None,
            (Some(path), None) => Trust::Authorities(path),
            (None, Some(digest)) => Trust::Key(digest),
            (None, None) => Trust::Platform,
        };
        let backend = match self.backend_tls.value {
            Some(false) => BackendTls::Off,
            Some(true) | None => BackendTls::Verified { trust, name: self.backend_name.value },
        };
        let protocol = self.protocol.value.unwrap_or_default();
        Some(Termination { protocol, backend, client_ca: self.client_ca.value })
    }
}
