//! Where domains lead, step by step, and what the rules say to that.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use mse_proxy::admission::dns::{Astray, Leads, leads, seen};
use mse_proxy::admission::evidence::{DomainEvidence, LookupEnd, Tokens};
use mse_proxy::hostname::Hostname;
use mse_proxy::probe::domain::gather;
use mse_proxy::registry::domain::Seen;
use mse_proxy::resolve::dns::Dns;

use crate::named::Named;

pub(crate) const PROXY: &str = "proxy.platform.test";

/// The platform's zone: the proxy is itself an alias of what balances its load.
const PLATFORM: &str = "
proxy   CNAME balancer
balancer A    203.0.113.9
balancer AAAA 2001:db8::9
";

/// A customer's zone.
const CUSTOMER: &str = "
@       A     203.0.113.9
@       TXT   \"v=spf1 -all\"
app     CNAME proxy.platform.test.
_mse-proxy.app TXT \"t0k\" \"3n\"
_mse-proxy.app TXT \"another\"
Upper   CNAME PROXY.Platform.TEST.
www     CNAME @
both    A     203.0.113.9
both    AAAA  2001:db8::9
half    A     203.0.113.9
half    AAAA  2001:db8::66
other   A     192.0.2.1
lb      CNAME other
dead    CNAME nowhere
away    CNAME app.elsewhere.test.
fails   CNAME x.broken.test.
empty   TXT   \"nothing else\"
self    CNAME self
one     CNAME two
two     CNAME three
three   CNAME one
late    CNAME one
h1      CNAME h2
h2      CNAME h3
h3      CNAME h4
h4      CNAME h5
h5      CNAME h6
h6      CNAME h7
h7      CNAME h8
h8      CNAME proxy.platform.test.
h0      CNAME h1
*.wild  CNAME proxy.platform.test.
odd     CNAME a\\032b.platform.test.
";

pub(crate) fn serve() -> Named {
    Named::serve(&[("platform.test", PLATFORM), ("customer.test", CUSTOMER), ("broken.test", "")])
}

fn name(text: &str) -> Hostname {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn ask(server: SocketAddr, domain: &str) -> DomainEvidence {
    let dns = Dns::new(&[server]).unwrap();
    gather(&dns, &domain.parse().unwrap(), &name(PROXY)).await
}

/// Domains, by their first labels, and where they lead.
fn expected() -> Vec<(&'static str, Leads)> {
    let own = vec![address("203.0.113.9"), address("2001:db8::9")];
    let customers = |label: &str| name(&format!("{label}.customer.test"));
    let stray = Leads::Elsewhere;
    let all = |labels: &[&str]| labels.iter().map(|label| customers(label)).collect::<Vec<_>>();
    vec![
        ("app", Leads::Here),
        ("upper", Leads::Here),
        ("both", Leads::Here),
        // An alias of the apex, which has the proxy's address.
        ("www", Leads::Here),
        ("", Leads::Here),
        ("*.wild", Leads::Here),
        ("h1", Leads::Here),
        (
            "h0",
            stray(Astray::TooMany(
                [all(&["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"]), vec![name(PROXY)]]
                    .concat(),
            )),
        ),
        (
            "half",
            stray(Astray::Addresses {
                found: vec![address("203.0.113.9"), address("2001:db8::66")],
                own: own.clone(),
            }),
        ),
        ("other", stray(Astray::Addresses { found: vec![address("192.0.2.1")], own })),
        ("lb", stray(Astray::Alias { of: customers("other"), found: vec![address("192.0.2.1")] })),
        ("dead", stray(Astray::DeadAlias(customers("nowhere")))),
        ("missing", stray(Astray::NoSuchName)),
        ("*.missing", stray(Astray::NoSuchName)),
        ("empty", stray(Astray::NoRecord)),
        ("self", stray(Astray::Loop(all(&["self"])))),
        ("one", stray(Astray::Loop(all(&["two", "three", "one"])))),
        ("late", stray(Astray::Loop(all(&["one", "two", "three", "one"])))),
    ]
}

#[tokio::test]
async fn every_way_of_leading_somewhere_is_seen() {
    let named = serve();
    for (label, leading) in expected() {
        let domain = format!("{label}.customer.test");
        let domain = domain.trim_start_matches('.');
        let evidence = ask(named.address, domain).await;
        assert_eq!(leads(&evidence), leading, "{domain}: {evidence:?}");
    }
    // A zone whose server fails, and one that this server is not asked for.
    for (label, code) in [("fails", "Server Failure"), ("away", "Query refused")] {
        let evidence = ask(named.address, &format!("{label}.customer.test")).await;
        let Leads::Unknown(why) = leads(&evidence) else {
            panic!("{label}: {evidence:?}");
        };
        assert!(why.to_lowercase().contains(&code.to_lowercase()), "{label}: {why}");
        assert_eq!(seen(&evidence, None), Seen::Nothing);
    }
    let evidence = ask(named.address, "odd.customer.test").await;
    assert!(matches!(leads(&evidence), Leads::Unknown(_)), "{evidence:?}");
}

#[tokio::test]
async fn tokens_are_read_whole() {
    let named = serve();
    let evidence = ask(named.address, "app.customer.test").await;
    let Tokens::Found(mut texts) = evidence.tokens.clone() else { panic!("{evidence:?}") };
    texts.sort();
    assert_eq!(texts, ["another", "t0k3n"]);
    let seen = |token| seen(&evidence, token);
    assert_eq!(
        (seen(None), seen(Some("t0k3n")), seen(Some("x"))),
        (Seen::Here, Seen::Here, Seen::Elsewhere)
    );
    let evidence = ask(named.address, "both.customer.test").await;
    assert_eq!(evidence.tokens, Tokens::Found(vec![]));
    let evidence = ask(named.address, "x.broken.test").await;
    assert!(matches!(evidence.tokens, Tokens::Unanswered(_)), "{evidence:?}");
}

#[tokio::test]
async fn a_silent_server_says_nothing() {
    // It takes questions and answers none; over TCP nobody is there.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let evidence = ask(silent.local_addr().unwrap(), "app.customer.test").await;
    assert!(matches!(evidence.lookup.end, LookupEnd::Unanswered(_)), "{evidence:?}");
    assert_eq!(seen(&evidence, None), Seen::Nothing);
    assert_eq!(evidence.proxy_addresses, Vec::<IpAddr>::new());
}
