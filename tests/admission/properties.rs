//! Whatever is written, it is read without a panic, and what is told of it has a place.

use mse_proxy::admission::certificate::{Chain, Roots, end, match_key, torn};
use proptest::prelude::*;

use crate::certs::{Leaf, World};
use crate::support::{edited, reading};

/// What must hold of whatever is read.
fn hold(text: &str) {
    let reading = reading(text);
    assert_eq!(reading.manifest.is_some(), reading.faults.is_empty());
    let lines = u32::try_from(text.matches('\n').count()).unwrap() + 1;
    let faults = reading.faults.iter().map(|fault| (&fault.place, fault.kind.to_string()));
    let warnings = reading.warnings.iter().map(|odd| (&odd.place, odd.kind.to_string()));
    for (place, words) in faults.chain(warnings) {
        assert!((1..=lines).contains(&place.origin.line), "{place:?}");
        assert!(!words.is_empty() && !words.contains(char::is_control), "{words:?}");
    }
}

/// A chain of two with its key, in PEM.
fn pem() -> String {
    let world = World::new();
    let leaf = world.issuer.issue(&Leaf::default());
    leaf.pem + &world.issuer.pem + &leaf.key
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read(text in "\\PC{0,200}") {
        hold(&text);
    }

    #[test]
    fn any_toml_like_text_is_read(
        parts in prop::collection::vec(prop::sample::select(vec![
            "[cloud]", "[cloud.ssl]", "[ssl]", "[code]", "\n", "name", " = ", "[", "]", "\"a\"", ",",
            "docker", "tests", "hardware", "expiration_date", "2026-12-24T00:00:00Z", "-1", "1e400",
            "nan", "\"\"\"", "'", "{", "}", ".", "#", "true", "\u{0}", "\r", "ä", "\\", "\u{feff}",
            "99999999999999999999", "domain_name", "\"**.\"", "location", "private_key", "resource",
        ]), 0..60),
    ) {
        hold(&parts.concat());
    }

    #[test]
    fn a_mutated_manifest_is_read(at in 0..600_usize, length in 0..40_usize, put in "\\PC{0,8}") {
        let good = edited(&[]);
        let from = good.floor_char_boundary(at.min(good.len()));
        let to = good.floor_char_boundary((at + length).min(good.len()));
        hold(&format!("{}{put}{}", &good[..from], &good[to..]));
        hold(&good[..from]);
    }

    #[test]
    fn any_date_is_read(date in "[-0-9TZ:.+ a-z]{0,30}") {
        hold(&edited(&[&format!("expiration_date = \"{date}\"")]));
        hold(&edited(&[&format!("expiration_date = {date}")]));
    }
}

#[test]
fn mutated_certificates_and_keys_are_read() {
    let pem = pem();
    let good = Chain::from_pem(pem.as_bytes()).unwrap();
    let algorithm = [0x30, 0x0a, 0x06, 0x08];
    let unsigned = good.leaf.der.windows(4).rposition(|four| four == algorithm).unwrap();
    let unsigned = unsigned..unsigned + 12;
    for index in 0..good.leaf.der.len() {
        for byte in [0x00, 0x7f, 0x80, 0xff, good.leaf.der[index] ^ 1] {
            let mut der = good.leaf.der.clone();
            der[index] = byte;
            let ders = [der.as_slice(), &good.above[0].der];
            if let Ok(chain) = Chain::from_der(ders, false) {
                let _ = end(&chain, &Roots::default());
                // A change of what was signed, or of the signature, is seen. Between them its
                // algorithm is named once more, which nobody signs.
                if chain.leaf.der != good.leaf.der && !unsigned.contains(&index) {
                    assert!(torn(&chain).is_some(), "byte {index} as {byte}");
                }
            }
        }
        assert!(Chain::from_der([&good.leaf.der[..index]], false).is_err());
    }
    for index in 0..pem.len() {
        let cut = &pem.as_bytes()[..index];
        let _ = Chain::from_pem(cut);
        let _ = match_key(cut, &good.leaf);
    }
}
