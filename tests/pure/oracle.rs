//! Our hello parser against rustls's own, over real hellos and thousands of damaged ones.
//!
//! Whatever rustls accepts with a name, we must accept with the same name and protocols. Where we
//! accept and rustls does not, rustls must have one of the few reasons that are no concern of
//! routing. Where rustls waits for more, we wait too or have a reason of our own that says which
//! byte is wrong.

use std::collections::BTreeMap;

use mse_proxy::hostname::Hostname;
use mse_proxy::wire::client_hello::{Progress, Reject};
use rustls::server::Acceptor;

use crate::support::{Dice, parse, rustls_hello};

/// What rustls says of some bytes.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Waits,
    Accepts { name: Option<String>, alpn: Vec<Vec<u8>> },
    Refuses(String),
}

fn ask_rustls(bytes: &[u8]) -> Verdict {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        let before = rest.len();
        if acceptor.read_tls(&mut rest).is_err() {
            return Verdict::Refuses("its buffer is full".into());
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect());
                return Verdict::Accepts {
                    name: hello.server_name().map(str::to_owned),
                    alpn: alpn.unwrap_or_default(),
                };
            }
            Ok(None) if rest.len() == before || rest.is_empty() => return Verdict::Waits,
            Ok(None) => {}
            Err((error, _)) => return Verdict::Refuses(error.to_string()),
        }
    }
}

/// Why rustls refuses hellos that may be routed: each concerns the handshake, which is the
/// backend's business, and none concerns who the client wants to talk to.
const NOT_OUR_CONCERN: [&str; 9] = [
    // A TLS 1.0 or 1.1 client.
    "SignatureAlgorithmsExtensionRequired",
    "NullCompressionRequired",
    // Two extensions of a kind that routing does not look at (0 and 16 are refused by us too).
    "DuplicateExtension(",
    // The inside of extensions that routing does not look at.
    "IllegalEmptyList(",
    "IllegalEmptyValue",
    "MessageTooShort",
    "MissingData(",
    "TrailingData(\"ClientExtensions\")",
    "TrailingData(\"Empty\")",
];

fn compare(bytes: &[u8], tally: &mut BTreeMap<&'static str, usize>) {
    let (ours, theirs) = (parse(bytes), ask_rustls(bytes));
    let context = || format!("{ours:?}\n{theirs:?}\n{}", bytes.escape_ascii());
    let kind = match (&ours, &theirs) {
        (Progress::Hello(hello), Verdict::Accepts { name, alpn }) => {
            let our_name = hello.sni.as_ref().map(Hostname::as_str);
            // rustls gives the name as it came, and none for what it does not understand.
            let their_name = name.as_deref().map(|name| name.trim_end_matches('.').to_lowercase());
            if their_name.is_some() {
                assert_eq!(our_name, their_name.as_deref(), "{}", context());
            }
            let our_alpn: Vec<_> = hello.alpn.iter().map(<[u8]>::to_vec).collect();
            assert_eq!(&our_alpn, alpn, "{}", context());
            "both accept"
        }
        (Progress::Hello(_), Verdict::Refuses(reason)) => {
            assert!(NOT_OUR_CONCERN.iter().any(|known| reason.contains(known)), "{}", context());
            "we accept, rustls refuses"
        }
        (Progress::Reject(reject), Verdict::Accepts { .. }) => {
            // It takes the first of two names, drops a name that is none and goes on without, and
            // does not look at versions. A router that guesses may lead one client to another's app.
            let stricter = matches!(
                reject,
                Reject::SeveralNames
                    | Reject::NameType(_)
                    | Reject::Name(_)
                    | Reject::NotTls
                    | Reject::RecordVersion(..)
                    | Reject::Version(..)
                    | Reject::TrailingBytes
            );
            assert!(stricter, "{}", context());
            "we refuse, rustls accepts"
        }
        (Progress::Reject(_), Verdict::Waits) => "we refuse earlier",
        (Progress::Reject(_), Verdict::Refuses(_)) => "both refuse",
        (Progress::Incomplete, Verdict::Waits) => "both wait",
        (Progress::Incomplete, Verdict::Refuses(reason)) => {
            // It judges a record's header as a whole, and some contents before the rest is there.
            assert!(!reason.is_empty());
            "we wait, rustls refuses"
        }
        (Progress::Hello(_), Verdict::Waits) => {
            panic!("we accept what rustls finds short: {}", context())
        }
        (Progress::Incomplete, Verdict::Accepts { .. }) => {
            panic!("we wait for nothing: {}", context())
        }
    };
    *tally.entry(kind).or_insert(0) += 1;
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        rustls_hello(Some("app.enclave.test"), &[b"h2", b"http/1.1"], false),
        rustls_hello(Some("app.enclave.test"), &[], false),
        rustls_hello(Some("a.b"), &[b"acme-tls/1"], true),
        rustls_hello(None, &[b"h2"], false),
        rustls_hello(None, &[], true),
    ]
}

#[test]
fn real_hellos_are_read_alike() {
    let mut tally = BTreeMap::new();
    for bytes in seeds() {
        compare(&bytes, &mut tally);
        for cut in 0..bytes.len() {
            compare(&bytes[..cut], &mut tally);
        }
    }
    assert_eq!(tally["both accept"], 5);
    assert!(!tally.contains_key("we refuse, rustls accepts"), "{tally:?}");
}

#[test]
fn damaged_hellos_are_never_read_as_another_name() {
    let mut tally = BTreeMap::new();
    let mut dice = Dice::new(7);
    for bytes in seeds() {
        // Where lengths and names stand, every bit of every byte; elsewhere at random.
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                compare(&damaged, &mut tally);
            }
        }
        for _ in 0..4_000 {
            let mut damaged = bytes.clone();
            for _ in 0..=dice.roll(4) {
                let at = dice.roll(damaged.len());
                match dice.roll(4) {
                    0 => damaged[at] = u8::try_from(dice.roll(256)).unwrap(),
                    1 => damaged.insert(at, u8::try_from(dice.roll(256)).unwrap()),
                    2 => drop(damaged.remove(at)),
                    _ => damaged[at] = damaged[at].wrapping_add(1),
                }
            }
            compare(&damaged, &mut tally);
        }
    }
    eprintln!("{tally:?}");
    for kind in ["both accept", "both refuse", "both wait"] {
        assert!(tally[kind] > 100, "the comparison must see every side: {tally:?}");
    }
}
