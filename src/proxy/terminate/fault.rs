//! What can be wrong with certificates, as texts and as files.

use std::io;

use rustix::io::Errno;

use crate::clock::Timestamp;

/// Why a certificate cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairFault {
    /// No certificate in the text.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No key in the text.
    #[error("there is no private key in it, nor in a .key file beside it")]
    NoKey,
    /// A key that only who knows its passphrase can read.
    #[error("its key is encrypted: write it without a passphrase (openssl pkey -in OLD -out NEW)")]
    EncryptedKey,
    /// A text that is no PEM.
    #[error("it is no PEM: {0}")]
    NotPem(String),
    /// One of the chain cannot be read.
    #[error("certificate {0} of it cannot be read")]
    Unreadable(usize),
    /// One of the chain did not issue the one before.
    #[error(
        "certificate {0} of it did not issue the one before: write the leaf first, then its issuer, and so on"
    )]
    Order(usize),
    /// The leaf names nobody.
    #[error("it has no DNS name (subjectAltName)")]
    NoNames,
    /// The key is of a kind that is not spoken.
    #[error("its key cannot be used: {0}")]
    UnusableKey(String),
    /// The key belongs to another certificate.
    #[error("its key is not that of the certificate")]
    OtherKey,
    /// It is not valid any more.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// It is not valid yet.
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
}

/// What is wrong with the files of a pair, or with the path of many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The file or folder cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(Errno),
    /// A file that is too large for a chain and a key.
    #[error("it has more than 1 MiB")]
    TooLarge,
    /// No certificates any more where there were some.
    #[error("it has no *.pem or *.crt any more, which looks like a missing mount")]
    Hollow,
    /// A pair that cannot answer.
    #[error(transparent)]
    Pair(#[from] PairFault),
}

impl From<Errno> for FaultKind {
    fn from(error: Errno) -> Self {
        Self::Unreadable(error)
    }
}

impl From<io::Error> for FaultKind {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}
