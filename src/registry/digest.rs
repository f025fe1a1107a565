//! Digits that stand for something longer: the same for the same, and practically never for others.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256, digest};

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
    format!("sha256:{}", hexadecimal(digest(&SHA256, bytes).as_ref()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
