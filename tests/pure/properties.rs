//! What must hold for all inputs: parsers, names, units.

use mse_proxy::hostname::{Hostname, Pattern};
use mse_proxy::source::document;
use mse_proxy::units::{Period, Size};
use mse_proxy::wire::client_hello::Progress;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{in_records, parse, parse_in, payload, rustls_hello};

fn name() -> impl Strategy<Value = String> {
    vec("[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", 1..5).prop_filter_map("no address", |labels| {
        let name = labels.join(".");
        name.parse::<Hostname>().ok().map(|_| name)
    })
}

/// Names that both rustls and we understand.
fn plain_name() -> impl Strategy<Value = String> {
    vec("[a-z][a-z0-9]{0,10}", 1..5).prop_map(|labels| labels.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_hello_reads_the_same_however_it_is_cut(
        name in plain_name(),
        protocols in vec("[a-z0-9/.]{1,20}", 0..4),
        segments in vec(1usize..2000, 1..8),
        records in vec(1usize..2000, 1..8),
        behind in vec(any::<u8>(), 0..50),
    ) {
        let protocols: Vec<&[u8]> = protocols.iter().map(String::as_bytes).collect();
        let bytes = rustls_hello(Some(&name), &protocols, false);
        let bytes = in_records(&payload(&bytes), &records);
        let Progress::Hello(hello) = parse(&bytes) else { panic!("{name}") };
        prop_assert_eq!(hello.sni.as_ref().map(Hostname::as_str), Some(name.as_str()));
        prop_assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), protocols);
        prop_assert_eq!(hello.wire_size, bytes.len());
        let followed = [bytes.as_slice(), &behind].concat();
        prop_assert_eq!(parse_in(&followed, &segments), Progress::Hello(hello));
        let cut = segments[0] % bytes.len();
        prop_assert_eq!(parse(&bytes[..cut]), Progress::Incomplete);
    }

    #[test]
    fn whatever_comes_nothing_panics_and_cutting_changes_nothing(
        start in prop_oneof![Just(vec![]), Just(vec![0x16, 3, 1]), Just(vec![0x16, 3, 1, 0, 90, 1, 0, 0, 86, 3, 3])],
        noise in vec(any::<u8>(), 0..300),
        segments in vec(1usize..40, 1..8),
    ) {
        let bytes = [start, noise].concat();
        let whole = parse(&bytes);
        prop_assert_eq!(&parse_in(&bytes, &[1]), &whole);
        prop_assert_eq!(&parse_in(&bytes, &segments), &whole);
    }

    #[test]
    fn a_damaged_hello_is_told_at_the_same_byte_however_it_is_cut(
        name in plain_name(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        segments in vec(1usize..400, 1..8),
    ) {
        let mut bytes = rustls_hello(Some(&name), &[b"h2"], true);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(parse_in(&bytes, &segments), parse(&bytes));
    }

    #[test]
    fn a_name_is_canonical_once_and_for_all(name in name()) {
        let host: Hostname = name.parse().unwrap();
        let shouted = Hostname::from_wire(format!("{}.", name.to_uppercase()).as_bytes()).unwrap();
        prop_assert_eq!(&host, &shouted);
        prop_assert_eq!(host.as_str().parse::<Hostname>().unwrap(), host);
    }

    #[test]
    fn whatever_is_accepted_as_a_name_is_one(bytes in vec(any::<u8>(), 0..80)) {
        if let Ok(host) = Hostname::from_wire(&bytes) {
            let text = host.as_str();
            prop_assert!(text.len() <= 253 && !text.is_empty());
            prop_assert!(text.split('.').all(|label| (1..=63).contains(&label.len())));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)));
        }
    }

    #[test]
    fn patterns_and_units_print_what_reads_back(
        name in name(),
        wildcard in prop_oneof![Just(""), Just("*."), Just("**.")],
        millis in any::<u32>(),
        size in any::<u32>(),
    ) {
        let pattern: Pattern = format!("{wildcard}{name}").parse().unwrap();
        prop_assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
        let period = Period(std::time::Duration::from_millis(millis.into()));
        prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        let size = Size(size.into());
        prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
    }

    #[test]
    fn a_routes_file_is_judged_without_a_panic(text in "\\PC{0,200}", at in 0usize..400, damage in "\\PC{0,5}") {
        let source = "routes.toml".into();
        let _ = document::read(&source, &text);
        let good = include_str!("../../config/routes.toml");
        let cut = (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap();
        let _ = document::read(&source, &format!("{}{damage}{}", &good[..cut], &good[cut..]));
    }
}

#[test]
fn deep_nesting_is_a_fault_and_not_a_crash() {
    let source = "routes.toml".into();
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000)]
    {
        let document = document::read(&source, &text);
        assert!(!document.parsed && !document.faults.is_empty());
    }
}
