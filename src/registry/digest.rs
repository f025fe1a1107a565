//! Digits that stand for something longer: the same for the same, and practically never for others.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256, digest as hash};

/// The SHA-256 of some bytes, in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hexadecimal(hash(&SHA256, bytes).as_ref())
}

/// The SHA-256 of some texts as 64 hexadecimal digits. Their lengths count too, so that `a` and
/// `bc` are not `ab` and `c`.
#[must_use]
pub fn digits(parts: &[&str]) -> String {
    let mut digest = Context::new(&SHA256);
    for part in parts {
        digest.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part.as_bytes());
    }
    hexadecimal(digest.finish().as_ref())
}

/// The SHA-256 of some bytes as pins are written: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn pin(bytes: &[u8]) -> String {
    format!("sha256:{}", digest(bytes))
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_fips_180() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), abc);
        assert_eq!(pin(b"abc"), format!("sha256:{abc}"));
        assert_ne!(digits(&["a", "bc"]), digits(&["ab", "c"]));
    }
}
