//! Whether a certificate carries the quote of an enclave, and whether that quote is for its key.
//!
//! RA-TLS puts a quote of SGX into an extension of the leaf, as it is:
//!
//! ```text
//! 0        48                                            432
//! | header | report body (384): … | report data (64) |    signature …
//!                                 368
//! ```
//!
//! The first half of the report data is the SHA-256 of the leaf's public key, as an uncompressed
//! point (X9.62). Who signed the quote, and what runs in the enclave, is for clients to judge.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::X509Certificate;

/// `id-sgx-quote`, 1.2.840.113741.1337.6, in DER.
const SGX_QUOTE: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x8a, 0x39, 0x06];
/// Where the digest of the key stands in a quote.
const KEY_DIGEST: std::ops::Range<usize> = 368..400;
/// Header and report body: a quote is longer.
const LEAST: usize = 432;

/// What a certificate says of an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quote {
    /// Nothing.
    Absent,
    /// It carries what is too short to be a quote.
    Malformed,
    /// It carries the quote of an enclave that holds another key.
    OtherKey,
    /// It carries the quote of an enclave that holds this certificate's key.
    ThisKey,
}

/// Looks for a quote.
pub(super) fn quote(certificate: &X509Certificate<'_>) -> Quote {
    let mut extensions = certificate.extensions().iter();
    let Some(found) = extensions.find(|extension| *extension.oid.as_bytes() == SGX_QUOTE) else {
        return Quote::Absent;
    };
    let (Some(shown), true) = (found.value.get(KEY_DIGEST), found.value.len() >= LEAST) else {
        return Quote::Malformed;
    };
    let key = &certificate.public_key().subject_public_key.data;
    if digest(&SHA256, key).as_ref() == shown { Quote::ThisKey } else { Quote::OtherKey }
}
