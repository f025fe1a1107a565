//! Whether a private key is that of a certificate. The key is looked at for this alone; nothing
//! of it is kept, told or shown.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::admission::certificate::Certificate;

/// What a private key was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFinding {
    /// The certificate's own.
    Matches,
    /// Another one's.
    Differs,
    /// Locked by a passphrase.
    Encrypted,
    /// No private key in PEM.
    Missing,
    /// A key that cannot be read, or of a kind that TLS does not use.
    Unusable,
}

impl KeyFinding {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Matches, Self::Differs, Self::Encrypted, Self::Missing, Self::Unusable];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Differs => "differs",
            Self::Encrypted => "encrypted",
            Self::Missing => "missing",
            Self::Unusable => "unusable",
        }
    }
}

/// Compares a private key in PEM with a certificate.
#[must_use]
pub fn match_key(pem: &[u8], certificate: &Certificate) -> KeyFinding {
    let is_there = |marker: &[u8]| pem.windows(marker.len()).any(|window| window == marker);
    // PKCS #8 and the older way of RFC 1421.
    if is_there(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || is_there(b"Proc-Type: 4,ENCRYPTED") {
        return KeyFinding::Encrypted;
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem) else { return KeyFinding::Missing };
    let public = any_supported_type(&key).ok().and_then(|key| {
        let public = key.public_key()?;
        Some(public.as_ref() == certificate.key)
    });
    match public {
        Some(true) => KeyFinding::Matches,
        Some(false) => KeyFinding::Differs,
        None => KeyFinding::Unusable,
    }
}
