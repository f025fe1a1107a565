//! What must hold for any bytes at all. The fuzz targets look for bytes for which it does not; the
//! tests replay the corpus through the same functions.

use std::sync::Arc;

use mse_proxy::admission::certificate::{Chain, Roots, end, match_key, torn};
use mse_proxy::admission::manifest;
use mse_proxy::hostname::{Hostname, Pattern};
use mse_proxy::source::document;
use mse_proxy::wire::client_hello::{Parser, Progress};

const MAX_SIZE: u32 = 64 * 1024;

/// The answer is the same however the bytes are cut, and the sizes that it tells are possible.
pub(crate) fn client_hello(bytes: &[u8]) {
    let whole = Parser::new(MAX_SIZE).feed(bytes);
    if let Progress::Hello(hello) = &whole {
        assert!(hello.wire_size <= bytes.len());
        assert!(usize::try_from(hello.size).is_ok_and(|size| size < hello.wire_size));
        let exactly = bytes.get(..hello.wire_size).map(|bytes| Parser::new(MAX_SIZE).feed(bytes));
        assert_eq!(exactly.as_ref(), Some(&whole));
        let short = bytes.get(..hello.wire_size - 1).map(|bytes| Parser::new(MAX_SIZE).feed(bytes));
        assert_eq!(short, Some(Progress::Incomplete));
    }
    // The first byte chooses the size of the pieces.
    let size = usize::from(bytes.first().copied().unwrap_or(0) % 7) + 1;
    let mut parser = Parser::new(MAX_SIZE);
    let pieces = bytes.chunks(size).map(|piece| parser.feed(piece));
    let mut answers = pieces.skip_while(|answer| *answer == Progress::Incomplete);
    assert_eq!(answers.next().unwrap_or(Progress::Incomplete), whole);
}

/// Whatever is accepted is canonical, and reads back as itself.
pub(crate) fn hostname(bytes: &[u8]) {
    if let Ok(name) = Hostname::from_wire(bytes) {
        assert_eq!(name.as_str().parse::<Hostname>().as_ref(), Ok(&name));
        assert!(
            name.parents().all(|parent| parent.parse::<Hostname>().is_ok() || parent.len() < 16)
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(pattern) = text.parse::<Pattern>()
    {
        assert_eq!(pattern.to_string().parse::<Pattern>().as_ref(), Ok(&pattern));
    }
}

/// Every text is judged, and a route that passed is whole.
pub(crate) fn document(bytes: &[u8]) {
    let source: Arc<str> = "fuzz".into();
    let document = document::read(&source, &String::from_utf8_lossy(bytes));
    assert!(document.parsed || !document.faults.is_empty());
    for route in document.claims.routes() {
        assert!(!route.hosts.is_empty() && !route.backends.is_empty());
    }
    for fault in &document.faults {
        assert!(!fault.kind.to_string().is_empty());
    }
}

/// Every text is a manifest, or is told why it is none.
pub(crate) fn manifest(bytes: &[u8]) {
    let source: Arc<str> = "fuzz".into();
    let now = "2026-06-01T12:00:00Z".parse().unwrap_or_default();
    let reading = manifest::read(&source, &String::from_utf8_lossy(bytes), now);
    assert_eq!(reading.manifest.is_some(), reading.faults.is_empty());
    for fault in &reading.faults {
        assert!(!fault.kind.to_string().contains(char::is_control));
    }
}

/// Whatever is read as certificates can be judged, as PEM and as one certificate.
pub(crate) fn certificate(bytes: &[u8]) {
    for chain in [Chain::from_pem(bytes), Chain::from_der([bytes], false)].into_iter().flatten() {
        let _ = (torn(&chain), end(&chain, &Roots::default()));
        let _ = match_key(bytes, &chain.leaf);
    }
}
