//! What fuzzing found or began with, replayed: `fuzz/corpus` through the very functions that the
//! fuzz targets call.

use std::path::Path;

#[path = "../../fuzz/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() >= 3, "the corpus of {target} is there");
    for path in entries {
        let bytes = std::fs::read(&path).unwrap();
        // Cut short at every length: what a fuzzer would try first.
        let step = bytes.len() / 500 + 1;
        for end in (0..=bytes.len()).step_by(step) {
            check(&bytes[..end]);
        }
        check(&bytes);
    }
}

#[test]
fn the_corpus_of_every_fuzz_target_holds() {
    replay("client_hello", checks::client_hello);
    replay("hostname", checks::hostname);
    replay("document", checks::document);
    replay("manifest", checks::manifest);
    replay("certificate", checks::certificate);
}
