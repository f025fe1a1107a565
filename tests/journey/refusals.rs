//! Bad hellos: outcome, reason and bytes on the wire, for each way of refusing; and never a byte
//! to any backend.

use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::wire::alert::Answer;
use tokio::io::AsyncWriteExt;

use crate::support::{Proxy, RawBackend, hello, rest, route};

/// A hello with this body in its `server_name` extension, and perhaps more extensions.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(extensions);
    let mut message = vec![1];
    message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend_from_slice(&body);
    record(&message)
}

fn record(payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0x16, 3, 1];
    record.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    record.extend_from_slice(payload);
    record
}

fn sni(name: &[u8]) -> Vec<u8> {
    let size = u16::try_from(name.len()).unwrap();
    let mut extension = vec![0, 0];
    extension.extend_from_slice(&(size + 5).to_be_bytes());
    extension.extend_from_slice(&(size + 3).to_be_bytes());
    extension.push(0);
    extension.extend_from_slice(&size.to_be_bytes());
    extension.extend_from_slice(name);
    extension
}

/// Bytes, outcome, reason, and the number of the alert that fits.
type Case = (Vec<u8>, &'static str, Option<&'static str>, Option<u8>);

fn cases() -> Vec<Case> {
    let good = hello("app.test", &[]);
    let two_names = {
        let mut list = vec![0, 0, 0, 20, 0, 18];
        for _ in 0..2 {
            list.extend_from_slice(&[0, 0, 6]);
            list.extend_from_slice(b"a.test");
        }
        list
    };
    let mut trailing = good.clone();
    let size = u16::from_be_bytes([trailing[3], trailing[4]]) + 1;
    trailing[3..5].copy_from_slice(&size.to_be_bytes());
    trailing.push(0);
    let name = |name: &[u8]| with_extensions(&sni(name));
    let twice = [sni(b"app.test"), sni(b"b.test")].concat();
    vec![
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not_tls", Some("not_tls"), None),
        (vec![0x80, 0x2e, 1, 0, 2, 0, 0x15], "sslv2", Some("sslv2"), Some(70)),
        (vec![0x15, 3, 1, 0, 2, 1, 0], "malformed_hello", Some("record_type"), Some(50)),
        (vec![0x16, 3, 1, 0x40, 1], "malformed_hello", Some("record_too_large"), Some(50)),
        (vec![0x16, 3, 1, 0, 0], "malformed_hello", Some("empty_record"), Some(50)),
        (record(&[2, 0, 0, 60]), "malformed_hello", Some("handshake_type"), Some(50)),
        (record(&[1, 1, 0, 1]), "hello_too_large", Some("hello_too_large"), Some(47)),
        (record(&[1, 0, 0, 4]), "malformed_hello", Some("length"), Some(50)),
        (trailing, "malformed_hello", Some("trailing_bytes"), Some(50)),
        (with_extensions(&twice), "malformed_hello", Some("duplicate_extension"), Some(50)),
        (with_extensions(&two_names), "invalid_sni", Some("several_names"), Some(112)),
        (with_extensions(&[]), "no_sni", None, Some(109)),
        (name(b"a.test\0.evil"), "invalid_sni", Some("name_forbidden_byte"), Some(112)),
        (name(b"*.app.test"), "invalid_sni", Some("name_forbidden_byte"), Some(112)),
        (name(b"192.0.2.1"), "invalid_sni", Some("name_ip_literal"), Some(112)),
        (name(&[b'a'; 64]), "invalid_sni", Some("label_too_long"), Some(112)),
        (name(b"unknown.test"), "unknown_name", None, Some(112)),
        (name(b"over.test"), "expired_name", None, Some(112)),
        (name(b"later.test"), "not_yet_valid", None, Some(112)),
    ]
}

#[tokio::test]
async fn every_bad_hello_has_its_outcome_and_its_answer() {
    let backend = RawBackend::start().await;
    let routes = route("app.test", backend.address, "")
        + &route("over.test", backend.address, "expires_at = 2020-01-01T00:00:00Z")
        + &route("later.test", backend.address, "not_before = 2999-01-01T00:00:00Z");
    for answer in [Answer::Close, Answer::CloseNotify, Answer::Alert] {
        let proxy = Proxy::with(&routes, Arc::new(SystemClock), |config| {
            config.refusal.answer = answer;
        })
        .await;
        for (index, (bytes, outcome, reason, alert)) in cases().into_iter().enumerate() {
            let mut client = proxy.dial().await;
            client.write_all(&bytes).await.unwrap();
            // More than the proxy wanted to know: unread bytes must not turn its FIN into a reset.
            client.write_all(&[0; 5000]).await.unwrap();
            let (answered, end) = rest(&mut client).await;
            let wanted: Vec<u8> = match (answer, alert) {
                (Answer::Close, _) | (_, None) => Vec::new(),
                (Answer::CloseNotify, Some(_)) => vec![0x15, 3, 3, 0, 2, 1, 0],
                (Answer::Alert, Some(alert)) => vec![0x15, 3, 3, 0, 2, 2, alert],
            };
            assert_eq!(answered, wanted, "{outcome} {reason:?} {answer:?}");
            assert!(end.is_ok(), "{outcome} {reason:?}: a clean end, not {end:?}");
            drop(client);
            let record = &proxy.records(index + 1).await[index];
            assert_eq!(record["outcome"], outcome, "{record}");
            assert_eq!(record["reason"].as_str(), reason, "{record}");
            assert_eq!(record["to_backend_bytes"], 0);
        }
    }
    let nobody = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(backend.listener.poll_accept(cx).is_pending())
    });
    assert!(nobody.await, "no backend was dialled");
}

#[tokio::test]
async fn a_route_may_refuse_in_its_own_way() {
    let more = "expires_at = 2020-01-01T00:00:00Z\nrefusal = \"alert\"";
    let proxy = Proxy::start(&route("over.test", "127.0.0.1:1", more)).await;
    let mut client = proxy.dial().await;
    client.write_all(&hello("over.test", &[])).await.unwrap();
    let (answered, end) = rest(&mut client).await;
    assert_eq!(answered, [0x15, 3, 3, 0, 2, 2, 112]);
    end.unwrap();
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_told_by_its_outcome() {
    let dead = RawBackend::start().await.address;
    let routes = route("dead.test", dead, "refusal = \"alert\"")
        + &route("nowhere.test", "no-such-name.invalid:443", "");
    let proxy = Proxy::with(&routes, Arc::new(SystemClock), |config| {
        config.backend.connect_timeout = "300ms".parse().unwrap();
    })
    .await;
    for (index, (host, outcome, answer)) in [
        ("dead.test", "backend_refused", &[0x15, 3, 3, 0, 2, 2, 80][..]),
        ("nowhere.test", "backend_unreachable", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = proxy.dial().await;
        client.write_all(&hello(host, &[])).await.unwrap();
        let (answered, end) = rest(&mut client).await;
        assert_eq!(answered, answer);
        end.unwrap();
        drop(client);
        assert_eq!(proxy.records(index + 1).await[index]["outcome"], outcome);
    }
}

#[tokio::test]
async fn a_client_that_leaves_early_is_recorded_as_such() {
    let proxy = Proxy::start("# no routes\n").await;
    let bytes = hello("app.test", &[]);
    for (index, cut) in [0, 1, 100].into_iter().enumerate() {
        let mut client = proxy.dial().await;
        client.write_all(&bytes[..cut]).await.unwrap();
        drop(client);
        assert_eq!(proxy.records(index + 1).await[index]["outcome"], "client_left");
    }
}
