//! Routes files: what every key means, and what is told of everything that is wrong.

use std::fmt::Write as _;
use std::path::Path;

use mse_proxy::clock::Timestamp;
use mse_proxy::endpoint::Endpoint;
use mse_proxy::routing::route::{Mode, Route};
use mse_proxy::routing::termination::{BackendTls, Protocol, Termination, Trust};
use mse_proxy::source::Fault;
use mse_proxy::source::document::{Document, read};
use mse_proxy::wire::alert::Answer;
use proptest::prelude::*;

fn reading(text: &str) -> Document {
    read(&"r.toml".into(), text)
}

fn told(document: &Document) -> Vec<String> {
    let told = |fault: &Fault| format!("{}: {}", fault.place.origin, fault.kind);
    document.faults.iter().map(told).collect()
}

const FULL: &str = r#"# a comment
[[route]]
hosts      = ["Shop.Example.com", "*.shop.example.com", "**.bücher.example"]
backends   = ["10.1.2.3:27283", "[2001:db8::1]:443", "app.internal:8443", "unix:/run/app.sock"]
expires_at = 2026-12-24 01:00:00.5+01:00
not_before = "2026-11-24T00:00:00Z"
grace      = "1h 30m"
id         = "shop"
app        = "project/name"
mode       = "passthrough"
alpn       = ["acme-tls/1"]
refusal    = "close_notify"
max_connections = 1_000

[[route]]
backends = ["10.1.2.4:1"]
hosts = ["**.plain.test"]
"#;

#[test]
fn every_key_is_read() {
    let document = reading(FULL);
    assert_eq!(told(&document), Vec::<String>::new());
    assert!(document.parsed);
    let claims: Vec<_> = document.claims.iter().collect();
    let [full, plain] = claims.as_slice() else { panic!("{claims:?}") };
    assert_eq!(full.origin.to_string(), "r.toml:2:1");
    let Route { id, hosts, backends, .. } = &*full.route;
    let app = full.route.app().map(|app| &**app);
    assert_eq!((&**id, app, full.route.mode()), ("shop", Some("project/name"), &Mode::Passthrough));
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["shop.example.com", "*.shop.example.com", "**.xn--bcher-kva.example"]);
    let backends: Vec<_> = backends.iter().map(Endpoint::to_string).collect();
    let all = ["10.1.2.3:27283", "[2001:db8::1]:443", "app.internal:8443", "unix:/run/app.sock"];
    assert_eq!(backends, all);
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let lifetime = full.route.lifetime();
    assert_eq!(lifetime.expires_at, at("2026-12-24T00:00:00.5Z"));
    assert_eq!(lifetime.not_before, at("2026-11-24T00:00:00Z"));
    assert_eq!(lifetime.grace.as_secs(), 5400);
    assert_eq!(full.route.alpn().iter().map(|name| &**name).collect::<Vec<_>>(), [b"acme-tls/1"]);
    assert_eq!(full.route.refusal(), Some(Answer::CloseNotify));
    assert_eq!(full.route.max_connections(), 1000);
    assert_eq!(
        (&*plain.route.id, plain.origin.to_string()),
        ("**.plain.test", "r.toml:15:1".into())
    );
}

#[test]
fn other_spellings_of_the_same_table_are_read() {
    for (text, origins) in [
        ("route = [{ hosts = [\"a.test\"], backends = [\"127.0.0.1:1\"] }]", vec!["1:10"]),
        ("\u{feff}[[route]]\r\nhosts=['a.test']\r\nbackends=['127.0.0.1:1']\r\n", vec!["1:2"]),
        ("[[ \"route\" ]]\nhosts=['a.test']\nbackends=['127.0.0.1:1']", vec!["1:1"]),
        ("# nothing\n", vec![]),
        ("", vec![]),
        ("route = []", vec![]),
    ] {
        let document = reading(text);
        assert_eq!(told(&document), Vec::<String>::new(), "{text}");
        let found: Vec<_> = document.claims.iter().map(|claim| claim.origin.to_string()).collect();
        let origins: Vec<_> = origins.iter().map(|origin| format!("r.toml:{origin}")).collect();
        assert_eq!(found, origins);
        assert!(document.parsed);
    }
}

/// A line put into an otherwise good route (at line 4), and what is told of it.
const BAD_LINES: &[(&str, &str, &str)] = &[
    ("expire_at = 2026-12-24T00:00:00Z", "4:1", "not a key of a route; did you mean `expires_at`?"),
    ("\"HOSTS \" = []", "4:1", "`HOSTS ` is not a key of a route; did you mean `hosts`?"),
    ("colour = 1", "4:1", "`colour` is not a key of a route; allowed: hosts, backends, expires_at"),
    ("client_ca = \"/x\"", "4:1", "`client_ca` is only for a route with mode = \"terminate\""),
    ("protocol = \"tcp\"", "4:1", "`protocol` is only for a route with mode = \"terminate\""),
    ("mode = \"passtrough\"", "4:8", "`passtrough` is not a mode; did you mean `passthrough`?"),
    ("mode = \"tcp\"", "4:8", "`tcp` is not a mode; allowed: passthrough, terminate"),
    ("mode = passthrough", "4:8", "the value of `mode` is no TOML: string values must be quoted"),
    (
        "refusal = \"reset\"",
        "4:11",
        "`reset` is not a refusal; allowed: close, close_notify, alert",
    ),
    ("refusal = \"close-notify\"", "4:11", "did you mean `close_notify`?"),
    ("refusal = true", "4:11", "`refusal` must be a text in quotes, not true or false"),
    ("expires_at = 2026-12-24T00:00:00", "4:14", "write 2026-12-24T00:00:00Z for UTC"),
    ("expires_at = \"2026-12-24 00:00:00\"", "4:14", "the offset is missing"),
    ("expires_at = 2026-12-24", "4:14", "the time of day is missing"),
    ("expires_at = 18:00:00", "4:14", "the date is missing"),
    ("expires_at = 2026-13-24T00:00:00Z", "4:14", "the value of `expires_at` is no TOML: "),
    ("expires_at = 26-12-24T00:00:00Z", "4:14", "four-digit year"),
    ("expires_at = \"soon\"", "4:14", "write it as 2026-12-24T18:00:00Z"),
    (
        "expires_at = 1798135200",
        "4:14",
        "must be an instant, as 2026-12-24T18:00:00Z, not a number",
    ),
    ("expires_at = ", "4:14", "the value of `expires_at` is no TOML"),
    ("grace = \"5\"", "4:9", "`grace`: not a length of time"),
    ("grace = 5", "4:9", "`grace` must be a text in quotes, not a number"),
    ("id = \"\"", "4:6", "`id` must be 1 to 256 printable characters"),
    ("id = \"a\\nb\"", "4:6", "`id` must be 1 to 256 printable characters"),
    ("id = \"shop", "4:6", "the value of `id` is no TOML: invalid basic string"),
    ("app = [\"x\"]", "4:7", "`app` must be a text in quotes, not a list"),
    ("alpn = \"h2\"", "4:8", "`alpn` must be a list of texts in quotes"),
    ("alpn = []", "4:8", "`alpn` is empty; give at least one, as [\"acme-tls/1\"]"),
    ("alpn = [\"h2\", \"\"]", "4:15", "1 to 255 bytes"),
    ("max_connections = -1", "4:19", "must be a whole number from 0 to 4294967295"),
    ("max_connections = 4294967296", "4:19", "must be a whole number"),
    ("max_connections = 1.5", "4:19", "must be a whole number"),
    ("max_connections = \"5\"", "4:19", "must be a whole number"),
    ("[route.more]", "4:8", "`more` is not a key of a route; did you mean `mode`?"),
];

const PIN: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

#[test]
fn a_terminating_route_says_how_it_is_served() {
    let termination = |lines: &str| {
        let head = "[[route]]\nhosts = ['a.test']\nbackends = ['10.0.0.1:1']\n";
        let document = reading(&format!("{head}mode = 'terminate'\n{lines}\n"));
        let told: Vec<_> = told(&document).iter().map(|told| told[7..].to_owned()).collect();
        let route = document.claims.routes().next();
        (route.and_then(|route| route.termination().cloned()).map(|one| (*one).clone()), told)
    };
    let verified = |trust, name: Option<&str>| BackendTls::Verified {
        trust,
        name: name.map(|name| name.parse().unwrap()),
    };
    let good = |protocol, backend, client_ca: Option<&str>| {
        let client_ca = client_ca.map(|path| Path::new(path).into());
        (Some(Termination { protocol, backend, client_ca }), vec![])
    };
    let ca = Trust::Authorities(Path::new("/ca.pem").into());
    let pin = Trust::Key(PIN.parse().unwrap());
    let (http, tcp) = (Protocol::Http, Protocol::Tcp);
    for (lines, expected) in [
        ("", good(http, verified(Trust::Platform, None), None)),
        ("protocol = 'tcp'\nalpn = ['x']", good(tcp, verified(Trust::Platform, None), None)),
        ("alpn = ['h2', 'http/1.1']", good(http, verified(Trust::Platform, None), None)),
        ("backend_tls = 'off'", good(http, BackendTls::Off, None)),
        (
            "backend_ca = '/ca.pem'\nbackend_name = 'b.test'\nclient_ca = '/c.pem'",
            good(http, verified(ca, Some("b.test")), Some("/c.pem")),
        ),
        (&format!("backend_tls = 'verify'\npin = '{PIN}'"), good(http, verified(pin, None), None)),
    ] {
        assert_eq!(termination(lines), expected, "{lines}");
    }
    for (lines, expected) in [
        ("protocol = 'udp'", "5:12: `udp` is not a protocol; allowed: http, tcp"),
        ("backend_tls = 'no'", "5:15: `no` is not a backend_tls; allowed: verify, off"),
        ("backend_ca = 'ca.pem'", "5:14: `backend_ca` must be an absolute path"),
        ("backend_name = '*.b.test'", "5:16: `backend_name`: `*` is only allowed"),
        ("backend_name = 'b_!'", "5:16: `backend_name`: "),
        ("pin = 'sha256:00'", "5:7: `pin`: a key digest is written as sha256: and 64"),
        ("alpn = ['acme-tls/1']", "1:1: with protocol = \"http\", `alpn` may hold h2"),
        ("backend_tls = 'off'\nbackend_ca = '/x'", "6:1: `backend_ca` says nothing with"),
        (&format!("pin = '{PIN}'\nbackend_ca = '/x'"), "5:1: give `backend_ca` or `pin`"),
    ] {
        let (route, told) = termination(lines);
        assert_eq!(route, None, "{lines}");
        assert!(told.len() == 1 && told[0].starts_with(expected), "{lines}: {told:?}");
    }
    let sealed =
        format!("[[route]]\nhosts = ['a.test']\nbackends = ['10.0.0.1:1']\npin = '{PIN}'\n");
    let pinned = reading(&sealed);
    assert_eq!(told(&pinned), Vec::<String>::new());
    let route = pinned.claims.iter().next().unwrap().route;
    assert_eq!((route.mode(), route.pin()), (&Mode::Passthrough, Some(PIN.parse().unwrap())));
    let words = told(&reading(&(sealed + "backend_ca = '/x'\n")));
    assert_eq!(words, ["r.toml:5:1: `backend_ca` is only for a route with mode = \"terminate\""]);
}

#[test]
fn a_bad_key_or_value_is_told_at_its_place_and_costs_its_route_alone() {
    for (line, at, words) in BAD_LINES {
        let route = |name: &str, line: &str| {
            let known = "backends = [\"10.1.2.3:1\"]";
            format!("[[route]]\nhosts = [\"{name}.test\"]\n{known}\n{line}\n\n")
        };
        let document = reading(&(route("bad", line) + &route("good", "")));
        let told = told(&document);
        assert_eq!(told.len(), 1, "{line}: {told:?}");
        assert!(told[0].starts_with(&format!("r.toml:{at}: ")), "{line}: {told:?}");
        assert!(told[0].contains(words), "{line}: {told:?}");
        assert_eq!(document.faults[0].place.line_text, *line);
        let ids: Vec<_> = document.claims.routes().map(|route| &*route.id).collect();
        assert_eq!(ids, ["good.test"], "{line}");
        assert!(document.parsed);
    }
}

#[test]
fn bad_hosts_and_backends_are_told_each_at_its_place() {
    let text = r#"[[route]]
hosts = ["a.test", "a.*.test", 5, "10.1.2.3", "A.TEST.",
  "https://b.test", ""]
backends = ["10.1.2.3", "x:y:1", "0.0.0.0:1", "unix:rel"]
[[route]]
hosts = []
backends = []
[[route]]
hosts = "a.test"
backends = { a = 1 }
[[route]]
id = "neither"
"#;
    let document = reading(text);
    let expected = [
        "2:20: `a.*.test` is not a host: `*` is only allowed",
        "2:32: `hosts` must be a text in quotes, not a number",
        "2:35: `10.1.2.3` is not a host: an IP address",
        "2:47: `a.test` is already listed at r.toml:2:10",
        "3:3: `https://b.test` is not a host: `:` at offset 5",
        "3:21: `` is not a host: the name is empty",
        "4:13: `10.1.2.3` is not a backend: the port is missing",
        "4:25: `x:y:1` is not a backend: an IPv6 address needs brackets",
        "4:34: `0.0.0.0:1` is not a backend: 0.0.0.0 cannot be connected to",
        "4:47: `unix:rel` is not a backend: a socket path must be absolute",
        "6:9: `hosts` is empty; give at least one, as [\"app.example.com\"]",
        "7:12: `backends` is empty; give at least one",
        "9:9: `hosts` must be a list of texts in quotes, as [\"…\", \"…\"], not a text",
        "10:12: `backends` must be a list of texts in quotes, as [\"…\", \"…\"], not a table",
        "11:1: `hosts` is missing; write hosts = [\"app.example.com\"]",
        "11:1: `backends` is missing; write backends = [\"10.1.2.3:27283\"]",
    ];
    let told = told(&document);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(&format!("r.toml:{expected}")), "{told} / {expected}");
    }
    assert!(document.claims.is_empty());
}

#[test]
fn a_route_that_ends_before_it_begins_is_told_at_its_header() {
    let text = "\n[[route]]\nhosts = ['a.test']\nbackends = ['10.0.0.1:1']\n\
                    not_before = 2026-12-24T00:00:00Z\nexpires_at = 2026-12-24T01:00:00+01:00\n";
    let document = reading(text);
    assert_eq!(
        told(&document),
        ["r.toml:2:1: the route ends at 2026-12-24T00:00:00Z but only begins at \
              2026-12-24T00:00:00Z: it would never be live"]
    );
    assert_eq!(document.faults[0].place.width, 9);
}

#[test]
fn what_stands_beside_the_routes_is_told() {
    let text = "hosts = ['a.test']\nversion = 1\n[[routes]]\n[[route]]\nhosts = ['b.test']\n\
                    backends = ['10.0.0.1:1']\n";
    let document = reading(text);
    let expected = [
        "r.toml:1:1: `hosts` belongs to a route; write it below a line [[route]]",
        "r.toml:2:1: `version` is not known here; a routes file has nothing but [[route]] tables",
        "r.toml:3:3: `routes` is not known here; a routes file has nothing but [[route]] tables",
    ];
    assert_eq!(told(&document), expected);
    assert_eq!(document.claims.len(), 1);
    for text in ["[route]\nid = 'x'", "route = 5", "route = [5]"] {
        let document = reading(text);
        assert!(told(&document)[0].contains("write [[route]], in two pairs"), "{text}");
        assert!(document.parsed && document.claims.is_empty());
    }
}

#[test]
fn a_breach_of_toml_gives_no_routes_and_is_told_once() {
    let good = "[[route]]\nhosts = ['a.test']\nbackends = ['10.0.0.1:1']\n";
    for (breach, at, words) in [
        ("[[route]\nid = 1\n", "4:9", "unclosed array table"),
        ("[[route]]\nhosts = ['b.test'\n[[route]]\nhosts = ['c.test']\n", "6:1", "missing comma"),
        ("[[route]]\nid = 'a' junk\n", "5:10", "unexpected key or value"),
        ("[[route]]\nid = 'a'\nid = 'b'\n", "6:1", "duplicate key"),
        ("[[route]]\nid = \"\"\"a\n", "6:1", "invalid multi-line basic string"),
        ("<<<<<<< HEAD\n", "4:1", "invalid unquoted key"),
        // What stops in the middle of the last value may stop before many routes.
        ("[[route]]\nexpires_at = 2026-1", "5:14", ""),
        ("[[route]]\nhosts", "5:6", "key with no value"),
    ] {
        let document = reading(&format!("{good}{breach}"));
        let told = told(&document);
        assert_eq!(told.len(), 1, "{breach}: {told:?}");
        assert!(
            told[0].starts_with(&format!("r.toml:{at}: this is no TOML: ")),
            "{breach}: {told:?}"
        );
        assert!(told[0].contains(words), "{breach}: {told:?}");
        assert!(!document.parsed && document.claims.is_empty());
    }
}

#[test]
fn a_route_with_very_many_hosts_is_judged_in_time() {
    let hosts: String = (0..50_000).fold(String::new(), |mut all, id| {
        let _ = write!(all, "'h{id}.test', ");
        all
    });
    let text = format!("[[route]]\nbackends = ['10.0.0.1:1']\nhosts = [{hosts}'H7.test']\n");
    let document = reading(&text);
    assert_eq!(document.faults.len(), 1);
    assert!(told(&document)[0].ends_with("`h7.test` is already listed at r.toml:3:87"));
    assert_eq!(
        reading(&text.replace("H7", "new")).claims.routes().next().unwrap().hosts.len(),
        50_001
    );
}

/// What must hold of whatever is read.
fn hold(text: &str) {
    let document = reading(text);
    assert!(document.parsed || document.claims.is_empty());
    assert!(document.parsed || !document.faults.is_empty());
    let lines = u32::try_from(text.matches('\n').count()).unwrap() + 1;
    for fault in &document.faults {
        assert!((1..=lines).contains(&fault.place.origin.line), "{fault:?}");
        assert!(!fault.kind.to_string().contains(char::is_control), "{fault:?}");
        assert!(!fault.place.line_text.contains(|c: char| c.is_control() && c != '\t'));
    }
    for route in document.claims.routes() {
        assert!(!route.hosts.is_empty() && !route.backends.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
        hold(&text);
    }

    #[test]
    fn any_toml_like_text_is_read_without_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "[[route]]", "\n", "hosts", " = ", "[", "]", "'a.test'", ",", "backends", "'10.0.0.1:1'",
            "expires_at", "2026-12-24T00:00:00Z", "\"\"\"", "'", "\"", "{", "}", ".", "#", "mode",
            "99999999999999999999", "\u{0}", "\r", "ä", "\\", "grace", "'1h'", "\u{feff}",
        ]), 0..60),
    ) {
        hold(&parts.concat());
    }

    #[test]
    fn a_mutated_document_is_read_without_panic(
        at in 0..FULL.len(),
        length in 0..40_usize,
        put in "\\PC{0,8}",
    ) {
        let from = FULL.floor_char_boundary(at);
        let to = FULL.floor_char_boundary((at + length).min(FULL.len()));
        hold(&format!("{}{put}{}", &FULL[..from], &FULL[to..]));
        hold(&FULL[..from]);
    }
}
