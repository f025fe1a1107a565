//! The platform's rules as one table: what somebody wants, what was found, what the store holds;
//! and the verdict in its words.

use std::net::IpAddr;

use jiff::Timestamp;
use mse_proxy::admission::Settings;
use mse_proxy::admission::certificate::{ChainError, KeyFinding};
use mse_proxy::admission::evidence::{
    DomainEvidence, Evidence, FileFact, Found, Lookup, LookupEnd, Registered, Tokens,
};
use mse_proxy::admission::rules::{Verdict, Wish, judge};
use mse_proxy::hostname::Pattern;
use mse_proxy::registry::app::{App, AppHost, CertificateOrigin, Phase, Role};
use mse_proxy::registry::domain::{Domain, Gate};
use mse_proxy::registry::hardware::Seats;
use mse_proxy::registry::project::Project;
use mse_proxy::routing::zones::Zones;

use crate::certs::{Leaf, World, chain};
use crate::support::{at, edited, now, reading};

/// Everything that a verdict depends on.
struct Facts<'w> {
    world: &'w World,
    edits: Vec<&'static str>,
    operator_tls: bool,
    evidence: Evidence,
    registered: Option<Registered>,
    platform: Settings,
    now: Timestamp,
}

/// A deployment to which nothing can be objected: an app with its own domain on booked hardware.
fn good(world: &World) -> Facts<'_> {
    let leaf = world.issuer.issue(&Leaf::default());
    let project = Project::new("default".parse().unwrap(), "t0k3n".to_owned(), now());
    let booked = |kind: &str, count| {
        let seats = Seats::none(project.name.clone(), kind.parse().unwrap());
        seats.book(count).unwrap()
    };
    Facts {
        world,
        edits: vec!["hardware = \"8g-eu-001\""],
        operator_tls: false,
        evidence: Evidence {
            files: Some(vec![file("code", Found::Folder), file("secrets", Found::File)]),
            certificate: Some(Ok(chain(&[&leaf.pem, &world.issuer.pem]))),
            key: Some(KeyFinding::Matches),
            roots: world.roots(),
            domain: Some(DomainEvidence {
                lookup: Lookup {
                    aliases: vec!["proxy.mse.cosmian.com".parse().unwrap()],
                    end: LookupEnd::Proxy,
                },
                proxy_addresses: addresses(&["203.0.113.9", "2001:db8::9"]),
                tokens: Tokens::Found(vec![]),
            }),
            zones: ["*.cosmian.dev".parse::<Pattern>().unwrap()].into_iter().collect(),
        },
        registered: Some(Registered {
            seats: vec![booked("8g-eu-001", 2), booked("16g-eu-001", 1)],
            project: Some(project),
            app: None,
            domains: vec![],
        }),
        platform: Settings::default(),
        now: now(),
    }
}

impl Facts<'_> {
    fn edit(&mut self, edits: &[&'static str]) {
        self.edits.extend(edits);
    }

    /// An app without a domain of its own.
    fn sealed(&mut self) {
        self.edit(&["-domain_name", "-private_key", "-certificate", "-[cloud.ssl]"]);
        (self.evidence.certificate, self.evidence.key, self.evidence.domain) = (None, None, None);
    }

    fn leaf(&mut self, leaf: &Leaf<'_>) {
        let made = self.world.issuer.issue(leaf);
        self.chain(&[&made.pem, &self.world.issuer.pem]);
    }

    fn chain(&mut self, pems: &[&str]) {
        self.evidence.certificate = Some(Ok(chain(pems)));
    }

    fn dns(&mut self, aliases: &[&str], end: LookupEnd) {
        let aliases = aliases.iter().map(|name| name.parse().unwrap()).collect();
        self.evidence.domain.as_mut().unwrap().lookup = Lookup { aliases, end };
    }

    fn tokens(&mut self, tokens: &[&str]) {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        self.evidence.domain.as_mut().unwrap().tokens = Tokens::Found(tokens);
    }

    fn project(&mut self) -> &mut Project {
        self.registered.as_mut().unwrap().project.as_mut().unwrap()
    }

    /// An app of the same project on the same hardware, which ends in an hour.
    fn seated(&mut self, name: &str) {
        let seats = &mut self.registered.as_mut().unwrap().seats;
        let until = at("2026-06-01T13:00:00Z");
        let mine = seats.remove(0);
        let before = at("2026-06-01T00:00:00Z");
        seats.insert(0, mine.seat(&name.parse().unwrap(), until, before).unwrap());
    }

    /// The last deployment of the same name.
    fn deployed(&mut self, phase: Phase) {
        self.registered.as_mut().unwrap().app = Some(App {
            project: "default".parse().unwrap(),
            name: "test".parse().unwrap(),
            hardware: "8g-eu-001".parse().unwrap(),
            docker: "r.example/i:1".to_owned(),
            healthcheck_endpoint: "/".to_owned(),
            origin: CertificateOrigin::Enclave,
            leaf: None,
            hosts: vec![AppHost { host: "x.cosmian.io".parse().unwrap(), role: Role::Own }],
            phase,
            backend: None,
            key: None,
            deployed_at: at("2026-05-01T00:00:00Z"),
            ends_at: at("2026-06-01T13:00:00Z"),
            ended_at: None,
        });
    }

    /// A domain that somebody has, or had until a while ago.
    fn domain(&mut self, host: &str, project: &str, app: &str, until: &str) {
        self.registered.as_mut().unwrap().domains.push(Domain {
            host: host.parse().unwrap(),
            project: project.parse().unwrap(),
            app: app.parse().unwrap(),
            until: at(until),
            gate: Gate::Open,
            failures: 0,
        });
    }

    fn verdict(&self) -> Verdict {
        let text = edited(&self.edits);
        let manifest = reading(&text).manifest.unwrap_or_else(|| panic!("no manifest: {text}"));
        let wish = Wish { manifest: &manifest, operator_tls: self.operator_tls };
        judge(wish, &self.evidence, self.registered.as_ref(), &self.platform, self.now)
    }
}

fn file(key: &'static str, found: Found) -> FileFact {
    FileFact { key, path: key.into(), found }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A verdict in lines: reasons with their keys, `+` what is odd, `?` what is open, `=` the terms.
fn lines(verdict: &Verdict) -> Vec<String> {
    let refusals = verdict.refusals.iter().map(|one| format!("{} {one}", one.key().unwrap_or("-")));
    let odd = verdict.warnings.iter().map(|one| format!("+{} {one}", one.key()));
    let open = verdict.open.iter().map(|one| format!("?{one:?}"));
    let terms = verdict.terms.iter().map(|terms| {
        let host = |host: &AppHost| {
            let name = host.host.to_string();
            let (first, rest) = name.split_once('.').unwrap();
            let is_generated = first.len() == 16 && first.bytes().all(|b| b.is_ascii_hexdigit());
            let first = if is_generated { "16 digits" } else { first };
            format!("{:?} {first}.{rest}", host.role)
        };
        let hosts: Vec<_> = terms.hosts.iter().map(host).collect();
        let gate = terms.gate.map_or(String::new(), |gate| format!(", {gate:?}"));
        format!("={} until {}: {}{gate}", terms.origin.word(), terms.ends_at, hosts.join(", "))
    });
    refusals.chain(odd).chain(open).chain(terms).collect()
}

/// What is different from the good deployment, and what is told of it, each line by its beginning.
type Case = (fn(&mut Facts<'_>), &'static [&'static str]);

const OWNED: &str = "=owner until 2026-06-29T00:00:00Z: Configuration 16 digits.cosmian.io, \
                     Custom app.example.com, Open";

/// Judges each case, and tells all that differ at once.
fn hold(cases: &[Case]) {
    let world = World::new();
    let mut wrong = Vec::new();
    for (number, (change, expected)) in cases.iter().enumerate() {
        let mut facts = good(&world);
        change(&mut facts);
        let told = lines(&facts.verdict());
        let is_told = |line: &&&str| told.iter().any(|told| told.starts_with(**line));
        if told.len() != expected.len() || expected.iter().filter(is_told).count() != told.len() {
            wrong.push(format!("case {number}\n  expected {expected:#?}\n  told {told:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ends_of_life() {
    hold(&[
        (|_| {}, &[OWNED]),
        // Free hardware: four hours, whatever is asked.
        (
            |facts| {
                facts.sealed();
                facts.edit(&["hardware = \"4g-eu-001\"", "-expiration_date"]);
            },
            &["=self until 2026-06-01T16:00:00Z: Own 16 digits.cosmian.io"],
        ),
        (
            |facts| {
                facts.sealed();
                facts.edit(&["hardware = \"4g-eu-001\""]);
            },
            &[
                "+expiration_date free hardware runs for 4 hours whatever is asked: the end is \
                 2026-06-01T16:00:00Z, not 2026-06-29T00:00:00Z",
                "=self until 2026-06-01T16:00:00Z",
            ],
        ),
        (
            |facts| {
                facts.sealed();
                facts.edit(&[
                    "hardware = \"4g-eu-001\"",
                    "expiration_date = \"2026-06-01T13:00:00Z\"",
                ]);
            },
            &["+expiration_date free hardware", "=self until 2026-06-01T16:00:00Z"],
        ),
        (
            |facts| facts.edit(&["hardware = \"4g-eu-001\"", "-expiration_date"]),
            &["=owner until 2026-06-01T16:00:00Z: Configuration"],
        ),
        // An owner's certificate.
        (|facts| facts.edit(&["-expiration_date"]), &["=owner until 2026-08-01T00:00:00Z"]),
        (
            |facts| facts.edit(&["expiration_date = \"2026-08-01T00:00:00Z\""]),
            &["=owner until 2026-08-01T00:00:00Z"],
        ),
        (
            |facts| facts.edit(&["expiration_date = \"2026-08-01T00:00:01Z\""]),
            &[
                "expiration_date `expiration_date` is 2026-08-01T00:00:01Z, but the certificate ends \
               at 2026-08-01T00:00:00Z; give that or an earlier end, or leave it out",
            ],
        ),
        (
            |facts| {
                facts.leaf(&Leaf { to: (2026, 6, 2), ..Leaf::default() });
                facts.edit(&["hardware = \"4g-eu-001\"", "-expiration_date"]);
                facts.now = at("2026-06-01T22:00:00Z");
            },
            &["+certificate the certificate ends", "=owner until 2026-06-02T00:00:00Z"],
        ),
        // The enclave's own.
        (|facts| facts.sealed(), &["=self until 2026-06-29T00:00:00Z: Own 16 digits.cosmian.io"]),
        (
            |facts| {
                facts.sealed();
                facts.edit(&["-expiration_date"]);
            },
            &["=self until 2027-06-01T12:00:00Z"],
        ),
        (
            |facts| {
                facts.sealed();
                facts.edit(&["expiration_date = \"2031-01-01T00:00:00Z\""]);
            },
            &["=self until 2031-01-01T00:00:00Z"],
        ),
    ]);
}

#[test]
fn the_operators_certificates() {
    hold(&[
        (
            |facts| {
                facts.sealed();
                facts.operator_tls = true;
            },
            &["=operator until 2026-06-29T00:00:00Z: Configuration 16 digits.cosmian.io, \
               Terminated 16 digits.cosmian.dev"],
        ),
        (
            |facts| {
                facts.sealed();
                facts.operator_tls = true;
                facts.evidence.zones =
                    ["*.b.cosmian.dev".parse::<Pattern>().unwrap()].into_iter().collect();
            },
            &[
                "- this proxy may not end TLS for 5615fe86b52faed7.cosmian.dev: ask its operator to list \
               \"*.cosmian.dev\" in terminate.zones, or deploy without --operator-tls",
            ],
        ),
        (
            |facts| {
                facts.sealed();
                facts.edit(&["-expiration_date"]);
                facts.evidence.zones = Zones::default();
            },
            &["=self until 2027-06-01T12:00:00Z"],
        ),
        (
            |facts| facts.operator_tls = true,
            &[
                "domain_name an app with its own certificate ([cloud.ssl]) cannot have the operator's",
            ],
        ),
    ]);
}

const OWNERS_CERTIFICATES: &[Case] = &[
    (|facts| facts.leaf(&Leaf { names: &["APP.Example.COM"], ..Leaf::default() }), &[OWNED]),
    (
        |facts| facts.leaf(&Leaf { names: &["a.test", "*.example.com"], ..Leaf::default() }),
        &[OWNED],
    ),
    (
        |facts| facts.leaf(&Leaf { names: &["example.com", "b.test"], ..Leaf::default() }),
        &["certificate the certificate does not cover app.example.com, only example.com, \
               b.test; have one issued for it"],
    ),
    (
        |facts| facts.leaf(&Leaf { names: &["*.app.example.com"], ..Leaf::default() }),
        &["certificate the certificate does not cover app.example.com, only *.app"],
    ),
    (
        |facts| {
            facts.edit(&["domain_name = \"a.b.example.com\""]);
            facts.leaf(&Leaf { names: &["*.example.com"], ..Leaf::default() });
        },
        &["certificate the certificate does not cover a.b.example.com, only *.example.com"],
    ),
    (
        |facts| facts.leaf(&Leaf { names: &["*.com", "ap*.example.com"], ..Leaf::default() }),
        &["certificate the certificate does not cover app.example.com"],
    ),
    (
        |facts| facts.leaf(&Leaf { names: &[], ..Leaf::default() }),
        &["certificate the certificate is for no DNS name; have one issued with \
               app.example.com as subjectAltName"],
    ),
    (
        |facts| facts.leaf(&Leaf { names: &["203.0.113.9"], ..Leaf::default() }),
        &["certificate the certificate is for no DNS name (its IP addresses do not count);"],
    ),
    (
        |facts| facts.leaf(&Leaf { common_name: None, ..Leaf::default() }),
        &["+certificate the certificate's common name is absent, not app.example.com", OWNED],
    ),
    (
        |facts| facts.leaf(&Leaf { common_name: Some("b.test"), ..Leaf::default() }),
        &["+certificate the certificate's common name is `b.test`, not app.example.com", OWNED],
    ),
    (|facts| facts.leaf(&Leaf { common_name: Some("*.example.com"), ..Leaf::default() }), &[OWNED]),
    // Validity.
    (
        |facts| {
            facts.leaf(&Leaf { from: (2026, 6, 1), ..Leaf::default() });
            facts.now = at("2026-06-01T00:00:00Z");
        },
        &[OWNED],
    ),
    (
        |facts| facts.leaf(&Leaf { from: (2026, 6, 2), ..Leaf::default() }),
        &["certificate the certificate is not valid before 2026-06-02T00:00:00Z; wait"],
    ),
    (
        |facts| {
            facts.leaf(&Leaf { to: (2026, 6, 1), ..Leaf::default() });
            facts.edit(&["-expiration_date"]);
        },
        &["certificate certificate 1 of the file ended at 2026-06-01T00:00:00Z; have it"],
    ),
    (
        |facts| {
            facts.leaf(&Leaf { to: (2026, 6, 8), ..Leaf::default() });
            facts.edit(&["-expiration_date"]);
        },
        &[
            "+certificate the certificate ends at 2026-06-08T00:00:00Z, in less than 7 days",
            "=owner until 2026-06-08T00:00:00Z",
        ],
    ),
    (
        |facts| {
            facts.leaf(&Leaf { to: (2026, 6, 9), ..Leaf::default() });
            facts.edit(&["-expiration_date"]);
        },
        &["=owner until 2026-06-09T00:00:00Z"],
    ),
    (
        |facts| {
            let made = facts.world.expired.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.expired.pem]);
        },
        &["certificate certificate 2 of the file ended at 2026-01-01T00:00:00Z"],
    ),
    // Chains.
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.issuer.pem, &facts.world.root.pem]);
        },
        &[OWNED],
    ),
    (
        |facts| {
            let made = facts.world.root.issue(&Leaf::default());
            facts.chain(&[&made.pem]);
        },
        &[OWNED],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem]);
        },
        &["certificate the chain is incomplete: append the certificate of `CN=Issuer`, which \
               issued the last one"],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.root.pem]);
        },
        &["certificate certificate 1 was issued by `CN=Issuer`, but `CN=Root` follows it"],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.root.pem, &facts.world.issuer.pem]);
        },
        &["certificate certificate 1 was issued by `CN=Issuer`, but `CN=Root` follows it"],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&facts.world.issuer.pem, &made.pem]);
        },
        &[
            "certificate certificate 2 of the file is the one for app.example.com; write it",
            "certificate certificate 1 was issued by `CN=Root`, but `CN=app.example.com`",
        ],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.impostor.pem]);
        },
        &["certificate certificate 1 was not signed by the one behind it, though that has"],
    ),
    (
        |facts| {
            let made = facts.world.elsewhere.issue(&Leaf::default());
            facts.chain(&[&made.pem, &facts.world.elsewhere.pem]);
        },
        &["+certificate `CN=Nobody Knows`, which issued the last certificate", OWNED],
    ),
    (
        |facts| {
            let made = Leaf::default().self_signed();
            facts.chain(&[&made.pem]);
        },
        &["+certificate the certificate is its own issuer", OWNED],
    ),
    (
        |facts| {
            let made = facts.world.issuer.issue(&Leaf::default());
            facts.chain(&[&made.pem, &made.key, &facts.world.issuer.pem]);
        },
        &["+certificate the certificate's file holds a private key too", OWNED],
    ),
    (
        |facts| facts.evidence.certificate = Some(Err(ChainError::Empty)),
        &["certificate the certificate: there is no certificate in it; it must be PEM"],
    ),
    // Keys.
    (
        |facts| facts.evidence.key = Some(KeyFinding::Differs),
        &["private_key the private key is not that of the certificate"],
    ),
    (
        |facts| facts.evidence.key = Some(KeyFinding::Encrypted),
        &["private_key the private key is locked by a passphrase; unlock it: openssl pkey"],
    ),
    (
        |facts| facts.evidence.key = Some(KeyFinding::Missing),
        &["private_key there is no private key in the file"],
    ),
    (
        |facts| facts.evidence.key = Some(KeyFinding::Unusable),
        &["private_key the private key cannot be used for TLS"],
    ),
];

#[test]
fn owners_certificates() {
    hold(OWNERS_CERTIFICATES);
}

#[test]
fn files_and_images() {
    hold(&[
        (
            |facts| {
                facts.evidence.files = Some(vec![
                    file("code", Found::Nothing),
                    file("tests", Found::File),
                    file("secrets", Found::Folder),
                    file("certificate", Found::Unreadable),
                ]);
            },
            &[
                "code `code`: code does not exist",
                "tests `tests`: tests is a file; a folder is needed",
                "secrets `secrets`: secrets is a folder; a file is needed",
                "certificate `certificate`: certificate cannot be read; look at its permissions",
            ],
        ),
        (
            |facts| facts.edit(&["docker = \"image:1\""]),
            &["docker the image `image:1` is local; push it to a registry and write that \
               registry's name before it, as \"registry.example/image:1\""],
        ),
        (
            |facts| facts.edit(&["docker = \"localhost:5000/image:1\""]),
            &["docker the image `localhost:5000/image:1` is local"],
        ),
        (
            |facts| facts.edit(&["docker = \"r.test/image:latest\""]),
            &["docker the image `r.test/image:latest` may change at any time; write a tag other"],
        ),
        (
            |facts| facts.edit(&["docker = \"r.test/image\""]),
            &["docker the image `r.test/image` may change at any time"],
        ),
        (|facts| facts.platform.images = vec!["registry.example/*".to_owned()], &[OWNED]),
        (
            |facts| facts.platform.images = vec!["r.test/a:*".to_owned(), "r.test/b:*".to_owned()],
            &[
                "docker the image `registry.example/image:20230710` is not approved here; approved: \
               r.test/a:*, r.test/b:*",
            ],
        ),
        // All reasons are told at once.
        (
            |facts| {
                facts.edit(&["docker = \"image\"", "hardware = \"2g\""]);
                facts.platform.images = vec!["r.test/*".to_owned()];
                facts.evidence.key = Some(KeyFinding::Differs);
                facts.dns(&[], LookupEnd::NoSuchName);
            },
            &[
                "docker the image `image` is local",
                "docker the image `image` may change",
                "docker the image `image` is not approved",
                "hardware `2g` is not booked",
                "private_key the private key is not",
                "domain_name app.example.com does not exist",
            ],
        ),
    ]);
}

#[test]
fn projects_names_and_hardware() {
    hold(&[
        (
            |facts| facts.registered.as_mut().unwrap().project = None,
            &["project there is no project `default`; create it: mse-proxy project create default"],
        ),
        (
            |facts| *facts.project() = facts.project().clone().suspend(at("2026-05-01T00:00:00Z")),
            &["project the project `default` is suspended since 2026-05-01T00:00:00Z"],
        ),
        (
            |facts| {
                let since = at("2026-05-30T00:00:00Z");
                *facts.project() = facts.project().clone().unpaid(since, since).unwrap();
            },
            &[OWNED],
        ),
        (
            |facts| facts.deployed(Phase::Running),
            &["name `default/test` is running already at x.cosmian.io; stop it"],
        ),
        (
            |facts| facts.deployed(Phase::Spawning),
            &["name `default/test` is spawning already at x.cosmian.io"],
        ),
        (
            |facts| facts.deployed(Phase::Initializing),
            &["name `default/test` is initializing already"],
        ),
        (|facts| facts.deployed(Phase::Stopped), &[OWNED]),
        (|facts| facts.deployed(Phase::OnError), &[OWNED]),
        (
            // Nobody has noted its end yet.
            |facts| {
                facts.deployed(Phase::Running);
                facts.now = at("2026-06-01T13:00:00Z");
            },
            &[OWNED],
        ),
        (|facts| facts.seated("other"), &[OWNED]),
        (
            |facts| {
                facts.seated("one");
                facts.seated("two");
            },
            &["hardware all 2 of `8g-eu-001` are in use, by one, two; stop one of these, or book"],
        ),
        (
            |facts| {
                facts.seated("one");
                facts.seated("two");
                facts.now = at("2026-06-01T13:00:00Z");
            },
            &[OWNED],
        ),
        (
            |facts| {
                facts.seated("one");
                facts.seated("test");
            },
            &[OWNED],
        ),
        (
            |facts| facts.edit(&["hardware = \"32g-eu-001\""]),
            &["hardware `32g-eu-001` is not booked; booked: 8g-eu-001, 16g-eu-001, 4g-eu-001; \
               book it: mse-proxy hardware book 32g-eu-001"],
        ),
    ]);
}

#[test]
fn custom_domains_in_dns() {
    use LookupEnd::{Addresses, Loop, NoAddress, NoSuchName, TooMany, Unanswered};
    hold(&[
        (|facts| facts.dns(&["a.test", "proxy.mse.cosmian.com"], LookupEnd::Proxy), &[OWNED]),
        (|facts| facts.dns(&[], Addresses(addresses(&["203.0.113.9"]))), &[OWNED]),
        (|facts| facts.dns(&[], Addresses(addresses(&["203.0.113.9", "2001:db8::9"]))), &[OWNED]),
        (|facts| facts.dns(&["apex.test"], Addresses(addresses(&["203.0.113.9"]))), &[OWNED]),
        (
            |facts| facts.dns(&[], Addresses(addresses(&["203.0.113.9", "192.0.2.1"]))),
            &["domain_name app.example.com has the address 203.0.113.9, 192.0.2.1, the proxy has \
               203.0.113.9, 2001:db8::9; create app.example.com. CNAME proxy.mse.cosmian.com. (or, \
               for an apex, A 203.0.113.9, AAAA 2001:db8::9)"],
        ),
        (
            |facts| {
                facts.dns(&[], Addresses(addresses(&["192.0.2.1"])));
                facts.evidence.domain.as_mut().unwrap().proxy_addresses.clear();
            },
            &["domain_name app.example.com has the address 192.0.2.1, and nobody knows the \
               proxy's own; create app.example.com. CNAME proxy.mse.cosmian.com."],
        ),
        (
            |facts| facts.dns(&[], NoSuchName),
            &["domain_name app.example.com does not exist in DNS; create app.example.com. CNAME"],
        ),
        (
            |facts| facts.dns(&[], NoAddress),
            &["domain_name app.example.com has neither a CNAME nor an address in DNS; create"],
        ),
        (
            |facts| facts.dns(&["a.test", "b.test"], NoSuchName),
            &["domain_name app.example.com is a CNAME of b.test, which leads nowhere; create"],
        ),
        (
            |facts| facts.dns(&["lb.test"], Addresses(addresses(&["192.0.2.1"]))),
            &["domain_name app.example.com is a CNAME of lb.test (192.0.2.1), which is not this"],
        ),
        (
            |facts| facts.dns(&["a.test", "b.test", "a.test"], Loop),
            &["domain_name app.example.com leads in a circle: a.test, b.test, a.test; create"],
        ),
        (
            |facts| facts.dns(&["a.test"], TooMany),
            &["domain_name app.example.com has more than 8 CNAMEs in a row; create"],
        ),
        (
            |facts| facts.dns(&[], Unanswered("timed out".to_owned())),
            &[
                "+domain_name DNS does not answer for app.example.com: timed out; nothing is",
                "=owner until 2026-06-29T00:00:00Z: Configuration 16 digits.cosmian.io, Custom \
                 app.example.com, Pending",
            ],
        ),
    ]);
}

const OWNERS_OF_DOMAINS: &[Case] = &[
    (
        |facts| {
            facts.edit(&["domain_name = \"086b0dfd7bd2ea37.cosmian.io\""]);
            facts.leaf(&Leaf { names: &["*.cosmian.io"], ..Leaf::default() });
        },
        &[
            "domain_name 086b0dfd7bd2ea37.cosmian.io belongs to the platform; use a domain of",
            "+certificate the certificate's common name",
        ],
    ),
    (
        |facts| {
            facts.edit(&["domain_name = \"proxy.mse.cosmian.com\""]);
            facts.leaf(&Leaf { names: &["proxy.mse.cosmian.com"], ..Leaf::default() });
        },
        &["domain_name proxy.mse.cosmian.com belongs to the platform", "+certificate the"],
    ),
    // A wildcard that would take the proxy's own name along.
    (
        |facts| {
            facts.edit(&["domain_name = \"*.mse.cosmian.com\""]);
            let common_name = Some("*.mse.cosmian.com");
            facts.leaf(&Leaf { names: &["*.mse.cosmian.com"], common_name, ..Leaf::default() });
            facts.platform.allow_wildcard_domains = true;
        },
        &["domain_name *.mse.cosmian.com belongs to the platform"],
    ),
    (
        |facts| {
            facts.edit(&["domain_name = \"*.example.com\""]);
            facts.leaf(&Leaf { names: &["*.example.com"], ..Leaf::default() });
        },
        &[
            "domain_name *.example.com is a wildcard, which this platform does not allow",
            "+certificate the certificate's common name",
        ],
    ),
    (
        |facts| {
            facts.edit(&["domain_name = \"*.example.com\""]);
            let common_name = Some("*.example.com");
            facts.leaf(&Leaf { names: &["*.example.com"], common_name, ..Leaf::default() });
            facts.platform.allow_wildcard_domains = true;
        },
        &["=owner until 2026-06-29T00:00:00Z: Configuration 16 digits.cosmian.io, Custom \
               *.example.com, Open"],
    ),
    (
        |facts| facts.domain("app.example.com", "other", "x", "2026-07-01T00:00:00Z"),
        &["domain_name app.example.com is used by another project; stop it, or use another"],
    ),
    (
        |facts| facts.domain("app.example.com", "default", "x", "2026-07-01T00:00:00Z"),
        &["domain_name app.example.com is used by `x` of this project; stop it"],
    ),
    // Its own project may take a reserved domain again.
    (|facts| facts.domain("app.example.com", "default", "x", "2026-05-30T00:00:00Z"), &[OWNED]),
    (
        |facts| facts.domain("app.example.com", "other", "x", "2026-05-30T00:00:00Z"),
        &["domain_name app.example.com was another project's until not long ago, and shows \
               nothing; create _mse-proxy.app.example.com. TXT \"t0k3n\", or wait until \
               2026-06-06T00:00:00Z"],
    ),
    (
        |facts| {
            facts.domain("app.example.com", "other", "x", "2026-05-30T00:00:00Z");
            facts.tokens(&["v=spf1 -all", "t0k3n"]);
        },
        &[OWNED],
    ),
    (|facts| facts.domain("app.example.com", "other", "x", "2026-05-25T12:00:00Z"), &[OWNED]),
    (
        |facts| facts.platform.require_ownership = true,
        &["domain_name app.example.com must show whose it is, and shows nothing; create \
               _mse-proxy.app.example.com. TXT \"t0k3n\""],
    ),
    (
        |facts| {
            facts.platform.require_ownership = true;
            facts.tokens(&["stale"]);
        },
        &["domain_name app.example.com must show whose it is, and shows \"stale\"; create"],
    ),
    (
        |facts| {
            facts.platform.require_ownership = true;
            facts.tokens(&["t0k3n"]);
        },
        &[OWNED],
    ),
    (
        |facts| {
            facts.platform.require_ownership = true;
            facts.evidence.domain.as_mut().unwrap().tokens =
                Tokens::Unanswered("SERVFAIL".to_owned());
        },
        &["domain_name DNS does not answer for _mse-proxy.app.example.com: SERVFAIL; try again"],
    ),
    // A name that somebody's wildcard leads here need not be that somebody's.
    (
        |facts| facts.domain("*.example.com", "other", "x", "2026-07-01T00:00:00Z"),
        &["domain_name app.example.com overlaps with *.example.com of another project, and \
               shows nothing; create _mse-proxy.app.example.com. TXT \"t0k3n\""],
    ),
    (|facts| facts.domain("*.example.com", "default", "x", "2026-07-01T00:00:00Z"), &[OWNED]),
];

#[test]
fn custom_domains_of_whom() {
    hold(OWNERS_OF_DOMAINS);
}

#[test]
fn what_nobody_has_asked_is_told_as_open() {
    hold(&[
        (
            |facts| {
                facts.evidence = Evidence::default();
                facts.registered = None;
            },
            &["?Files", "?Certificate", "?Key", "?Domain", "?Registry"],
        ),
        (
            |facts| {
                facts.evidence.domain = None;
                facts.registered = None;
            },
            &["?Domain", "?Registry", "=owner until 2026-06-29T00:00:00Z"],
        ),
        (
            |facts| {
                facts.sealed();
                facts.registered = None;
            },
            &["?Registry", "=self until 2026-06-29T00:00:00Z"],
        ),
    ]);
}

#[test]
fn an_admitted_app_is_deployed_on_its_terms() {
    let world = World::new();
    let facts = good(&world);
    let manifest = reading(&edited(&facts.edits)).manifest.unwrap();
    let terms = facts.verdict().terms.unwrap();
    let backend = "10.0.0.1:443".parse().ok();
    let app = terms.app(&manifest, backend.clone(), facts.now);
    assert_eq!(
        (app.project.as_str(), app.name.as_str(), app.hardware.as_str()),
        ("default", "test", "8g-eu-001")
    );
    assert_eq!(
        (app.phase, app.backend.clone(), app.deployed_at),
        (Phase::Spawning, backend, now())
    );
    assert_eq!(
        (app.ends_at, app.hosts.clone(), app.origin),
        (terms.ends_at, terms.hosts, terms.origin)
    );
    assert_eq!(app.custom_domain().map(ToString::to_string).as_deref(), Some("app.example.com"));
    // What is stored is read back the same.
    let json = serde_json::to_string(&app).unwrap();
    assert_eq!(serde_json::from_str::<App>(&json).unwrap(), app);
}
