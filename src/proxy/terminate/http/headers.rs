//! Which headers may pass from one side to the other, and what is said of the way.
//!
//! What concerns one connection alone does not pass (RFC 9110 §7.6.1). Who the client is, is said by
//! us and never taken over: `Forwarded` (RFC 7239), `X-Forwarded-*`, and `Via`. Pure.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    CONNECTION, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use crate::hostname::Hostname;

/// Our name in `Proxy-Status`, and in `Via` below.
pub(crate) const PSEUDONYM: &str = "mse-proxy";

/// Headers of one connection, whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What others say of who a client is, beside what we say ourselves. Only we know.
const WHO: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
];

/// Takes out what concerns one connection alone.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = items(headers, &CONNECTION)
        .filter_map(|name| name.parse().ok())
        // What a message is made of, no option of a connection can take out of it.
        .filter(|name| ![HOST, TE, TRAILER].contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The items of a header that is a list, however many lines it takes (RFC 9110 §5.6.1).
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The protocol that a request would change to, if it asks for that.
pub(crate) fn upgrade(request: &HeaderMap) -> Option<HeaderValue> {
    let is_asked = items(request, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    request.get(UPGRADE).filter(|_| is_asked).cloned()
}

/// From whom requests come, and by which way: what is told of it to the backend. Most requests of a
/// connection have the same.
#[derive(Debug)]
pub(crate) struct Way {
    forwarded: HeaderValue,
    client: HeaderValue,
    host: HeaderValue,
    port: HeaderValue,
}

impl Way {
    /// The way of a client that asks this authority at this port of ours.
    pub(crate) fn new(client: SocketAddr, authority: &str, port: u16) -> Self {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let ip = client.ip().to_canonical();
        let node = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        // An authority has no letter that a header could not have.
        let value = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self {
            forwarded: value(&format!("for={node};host=\"{authority}\";proto=https")),
            client: value(&ip.to_string()),
            host: value(host),
            port: value(&port.to_string()),
        }
    }
}

/// Makes the headers of a request fit for the backend.
pub(crate) fn to_backend(headers: &mut HeaderMap, version: Version, way: &Way) {
    let takes_trailers = items(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(headers);
    headers.remove(TE);
    // We have told the client to go on, or will when its body is asked for.
    headers.remove(EXPECT);
    for name in &WHO {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(FORWARDED, way.forwarded.clone());
    headers.insert(X_FORWARDED_FOR, way.client.clone());
    headers.insert(X_FORWARDED_HOST, way.host.clone());
    headers.insert(X_FORWARDED_PORT, way.port.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    add_via(headers, version);
}

/// Makes the headers of a response fit for the client.
pub(crate) fn to_client(headers: &mut HeaderMap, version: Version) {
    strip_hop_by_hop(headers);
    // It tells of ways that do not lead through here.
    headers.remove("alt-svc");
    add_via(headers, version);
}

fn add_via(headers: &mut HeaderMap, version: Version) {
    let received = match version {
        Version::HTTP_10 => "1.0 mse-proxy",
        Version::HTTP_2 => "2.0 mse-proxy",
        _ => "1.1 mse-proxy",
    };
    headers.append(VIA, HeaderValue::from_static(received));
}

/// Why a request is not for the name whose certificate was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misaddressed {
    /// It names nobody, or several, or nobody who could be.
    Malformed,
    /// It names somebody else.
    Elsewhere,
}

/// The authority that a request names, which must be the name of its connection.
pub(crate) fn authority<B>(
    request: &Request<B>,
    name: &Hostname,
) -> Result<Authority, Misaddressed> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Misaddressed::Malformed);
    }
    let host = host.map(|host| Authority::try_from(host.as_bytes()));
    let host = host.transpose().map_err(|_| Misaddressed::Malformed)?;
    let authority = match (request.uri().authority(), host) {
        (Some(target), Some(host)) if *target != host => return Err(Misaddressed::Malformed),
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => host,
        (None, None) => return Err(Misaddressed::Malformed),
    };
    if authority.as_str().contains('@') {
        return Err(Misaddressed::Malformed);
    }
    match Hostname::from_wire(authority.host().as_bytes()) {
        Ok(asked) if asked == *name => Ok(authority),
        _ => Err(Misaddressed::Elsewhere),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients claim about themselves.
    const CLAIMS: [&str; 9] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-real-ip",
        "x-client-ip",
    ];

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pairs = lines.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn told(headers: &HeaderMap) -> Vec<(String, String)> {
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn what_concerns_one_connection_does_not_pass() {
        let mut headers = map(&[
            ("connection", "close, X-Own , host, \u{7f}"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "secret"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-own", "1"),
            ("host", "a.test"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("authorization", "x"),
        ]
        .map(|(name, value)| (name, value.trim_end_matches(", \u{7f}"))));
        let way = Way::new("192.0.2.1:5".parse().unwrap(), "a.test", 443);
        to_backend(&mut headers, Version::HTTP_11, &way);
        for name in CLAIMS.into_iter().chain(["via"]) {
            headers.remove(name);
        }
        let left = [("authorization", "x"), ("cookie", "a=b"), ("host", "a.test")];
        assert_eq!(told(&headers), left.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn nobody_else_says_who_the_client_is() {
        let lies = CLAIMS.map(|name| (name, "10.0.0.1"));
        for (client, ip, node) in [
            ("192.0.2.1:5", "192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:5", "192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]:5", "2001:db8::1", "\"[2001:db8::1]\""),
        ] {
            let mut headers = map(&lies);
            headers.insert("via", HeaderValue::from_static("1.0 other"));
            headers.insert(TE, HeaderValue::from_static("gzip, Trailers"));
            let way = Way::new(client.parse().unwrap(), "a.test:8443", 443);
            to_backend(&mut headers, Version::HTTP_2, &way);
            let expected = [
                ("forwarded", format!("for={node};host=\"a.test:8443\";proto=https")),
                ("te", "trailers".into()),
                ("via", "1.0 other".into()),
                ("via", "2.0 mse-proxy".into()),
                ("x-forwarded-for", ip.into()),
                ("x-forwarded-host", "a.test".into()),
                ("x-forwarded-port", "443".into()),
                ("x-forwarded-proto", "https".into()),
            ];
            assert_eq!(told(&headers), expected.map(|(name, value)| (name.to_owned(), value)));
        }
    }

    #[test]
    fn a_request_names_the_name_of_its_connection() {
        let name = "a.test".parse().unwrap();
        let ask = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            authority(&request.body(()).unwrap(), &name)
        };
        for (uri, hosts) in [
            ("/", &["a.test"][..]),
            ("/", &["A.TEST:8443"]),
            ("/", &["a.test."]),
            ("https://a.test/", &[]),
            ("https://a.test:1/", &["a.test:1"]),
        ] {
            assert!(ask(uri, hosts).is_ok(), "{uri} {hosts:?}");
        }
        for (uri, hosts, why) in [
            ("/", &[][..], Misaddressed::Malformed),
            ("/", &["a.test", "a.test"], Misaddressed::Malformed),
            ("/", &["a.test/x"], Misaddressed::Malformed),
            ("/", &["u@a.test"], Misaddressed::Malformed),
            ("/", &["a b"], Misaddressed::Malformed),
            ("https://a.test/", &["b.test"], Misaddressed::Malformed),
            ("/", &["b.test"], Misaddressed::Elsewhere),
            ("https://b.test/", &["b.test"], Misaddressed::Elsewhere),
            ("/", &["127.0.0.1"], Misaddressed::Elsewhere),
            ("/", &["[::1]:443"], Misaddressed::Elsewhere),
        ] {
            assert_eq!(ask(uri, hosts).err(), Some(why), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_headers() {
        let websocket = Some(HeaderValue::from_static("websocket"));
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(upgrade(&map(&asked)), websocket);
        assert_eq!(upgrade(&map(&asked[1..])), None);
        assert_eq!(upgrade(&map(&asked[..1])), None);
    }
}
