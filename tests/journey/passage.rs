//! Getting through: the client sees the backend's own certificate, whatever its hello looks like.

use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::support::{Identity, Proxy, RawBackend, handshake, hello, rest, route, soon};

#[tokio::test]
async fn each_name_shows_its_own_backends_certificate() {
    let (one, two) = (Identity::of("one.test"), Identity::of("*.two.test"));
    let routes = route("one.test", one.serve_page("first").await, "")
        + &route("*.two.test", two.serve_page("second").await, "app = \"project/two\"");
    let proxy = Proxy::start(&routes).await;
    for (host, identity, page) in
        [("one.test", &one, "first"), ("a.two.test", &two, "second"), ("ONE.test", &one, "first")]
    {
        let stream = proxy.dial().await;
        let (mut tls, shown) =
            soon("the handshake", handshake(stream, host, identity.trusting())).await.unwrap();
        assert_eq!(shown, identity.certificate, "{host}: the backend's own, byte for byte");
        tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        soon("the page", tls.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with(page), "{answer}");
    }
    let records = proxy.records(3).await;
    assert!(records.iter().all(|record| record["outcome"] == "closed"), "{records:?}");
    let second = records.iter().find(|record| record["sni"] == "a.two.test").unwrap();
    assert_eq!(second["app"], "project/two");
    assert_eq!(second["route"], "*.two.test");
    assert!(second["to_client_bytes"].as_u64().unwrap() > 500);
}

#[tokio::test]
async fn a_hello_may_come_byte_by_byte_and_in_records_of_one_byte() {
    let backend = RawBackend::start().await;
    let proxy = Proxy::start(&route("app.test", backend.address, "")).await;
    let whole = hello("app.test", &[b"h2"]);
    let payload = &whole[5..];
    let tiny: Vec<u8> = payload.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    for bytes in [whole.clone(), tiny] {
        let mut client = proxy.dial().await;
        for byte in &bytes {
            client.write_all(std::slice::from_ref(byte)).await.unwrap();
        }
        let mut reached = backend.accept(&bytes).await;
        reached.write_all(b"welcome").await.unwrap();
        let mut answer = [0; 7];
        soon("the answer", client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"welcome");
    }
}

#[tokio::test]
async fn what_comes_behind_the_hello_in_the_same_burst_goes_along_even_with_a_fin() {
    let backend = RawBackend::start().await;
    let proxy = Proxy::start(&route("app.test", backend.address, "")).await;
    for _ in 0..50 {
        let mut burst = hello("app.test", &[]);
        burst.extend_from_slice(b"early data");
        let mut client = proxy.dial().await;
        client.write_all(&burst).await.unwrap();
        client.shutdown().await.unwrap();
        let mut reached = backend.accept(&burst).await;
        let (more, end) = rest(&mut reached).await;
        assert!(more.is_empty() && end.is_ok(), "the FIN comes through: {more:?} {end:?}");
        reached.write_all(b"late answer").await.unwrap();
        drop(reached);
        let (answer, end) = rest(&mut client).await;
        assert_eq!(answer, b"late answer");
        end.unwrap();
    }
}

#[tokio::test]
async fn a_hello_of_sixty_kib_passes_and_one_over_the_limit_does_not() {
    let backend = RawBackend::start().await;
    let proxy = Proxy::start(&route("app.test", backend.address, "")).await;
    let protocol = vec![b'p'; 200];
    let long = |count: usize| hello("app.test", &vec![protocol.as_slice(); count]);
    for count in [80, 300] {
        let bytes = long(count);
        assert!(bytes.len() > 16_000);
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        let reached = backend.accept(&bytes).await;
        drop((client, reached));
    }
    // rustls cannot make one over 64 KiB: the length field of a handcrafted one says it all.
    let mut client = proxy.dial().await;
    client.write_all(&[0x16, 3, 1, 0x40, 0, 1, 1, 0, 0]).await.unwrap();
    let (answer, end) = rest(&mut client).await;
    assert!(answer.is_empty() && end.is_ok());
    let records = proxy.records(3).await;
    assert_eq!(records[2]["outcome"], "hello_too_large");
}

#[tokio::test]
async fn alpn_chooses_between_routes_of_one_name() {
    let (app, acme) = (RawBackend::start().await, RawBackend::start().await);
    let routes = route("app.test", app.address, "id = \"app\"")
        + &route("app.test", acme.address, "id = \"acme\"\nalpn = [\"acme-tls/1\"]");
    let proxy = Proxy::start(&routes).await;
    for (alpn, backend) in [(&b"acme-tls/1"[..], &acme), (b"h2", &app)] {
        let bytes = hello("app.test", &[alpn]);
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        drop(backend.accept(&bytes).await);
    }
}

#[tokio::test]
async fn backends_are_reached_over_ipv6_unix_sockets_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let v6 = TcpListener::bind("[::1]:0").await.unwrap();
    let named = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = named.local_addr().unwrap().port();
    let routes = route("unix.test", format!("unix:{}", path.display()), "")
        + &route("v6.test", v6.local_addr().unwrap(), "")
        + &route("named.test", format!("localhost:{port}"), "");
    let proxy = Proxy::start(&routes).await;

    let ask = async |host: &str| {
        let bytes = hello(host, &[]);
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        (client, bytes.len())
    };
    let (mut client, size) = ask("unix.test").await;
    let (mut reached, _) = soon("the Unix socket is dialled", unix.accept()).await.unwrap();
    reached.read_exact(&mut vec![0; size]).await.unwrap();
    reached.write_all(b"by unix").await.unwrap();
    drop(reached);
    assert_eq!(rest(&mut client).await.0, b"by unix");
    for (host, listener) in [("v6.test", &v6), ("named.test", &named)] {
        let (mut client, size) = ask(host).await;
        let (mut reached, _) = soon("the backend is dialled", listener.accept()).await.unwrap();
        reached.read_exact(&mut vec![0; size]).await.unwrap();
        reached.write_all(host.as_bytes()).await.unwrap();
        drop(reached);
        assert_eq!(rest(&mut client).await.0, host.as_bytes());
    }
}

#[tokio::test]
async fn clients_come_in_over_ipv6_and_ipv4_on_one_listener() {
    let backend = RawBackend::start().await;
    let proxy =
        Proxy::with(&route("app.test", backend.address, ""), Arc::new(SystemClock), |config| {
            config.listen.addresses = vec!["[::]:0".parse().unwrap()];
        })
        .await;
    let port = proxy.address.port();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let bytes = hello("app.test", &[]);
        let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        drop(backend.accept(&bytes).await);
    }
}

#[tokio::test]
async fn a_backend_that_is_not_up_yet_is_tried_again() {
    // A port that was free a moment ago refuses until the backend comes up.
    let held = RawBackend::start().await;
    let address = held.address;
    drop(held);
    let proxy = Proxy::start(&route("app.test", address, "")).await;
    let bytes = hello("app.test", &[]);
    let mut client = proxy.dial().await;
    client.write_all(&bytes).await.unwrap();
    soon("the proxy has begun to try", async {
        while proxy.open_sessions() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let listener = TcpListener::bind(address).await.unwrap();
    let backend = RawBackend { listener, address };
    drop(backend.accept(&bytes).await);
    drop(client);
    let record = proxy.record().await;
    assert_eq!(record["endpoint"], address.to_string());
}

#[tokio::test]
async fn the_second_backend_answers_for_one_that_refuses() {
    let dead = RawBackend::start().await.address;
    let alive = RawBackend::start().await;
    let routes = format!(
        "[[route]]\nhosts = [\"app.test\"]\nbackends = [\"{dead}\", \"{}\"]\n",
        alive.address
    );
    let proxy = Proxy::start(&routes).await;
    let bytes = hello("app.test", &[]);
    let mut client = proxy.dial().await;
    client.write_all(&bytes).await.unwrap();
    drop(alive.accept(&bytes).await);
}

#[tokio::test]
async fn a_client_that_only_connects_never_reaches_the_backend() {
    let backend = RawBackend::start().await;
    let proxy =
        Proxy::with(&route("app.test", backend.address, ""), Arc::new(SystemClock), |config| {
            config.hello.timeout = "200ms".parse().unwrap();
        })
        .await;
    let bytes = hello("app.test", &[]);
    let silent = proxy.dial().await;
    let mut halfway = proxy.dial().await;
    halfway.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    // A trickle: the deadline is absolute, so a byte every 20 ms changes nothing.
    let mut trickle = proxy.dial().await;
    for byte in &bytes[..bytes.len() - 1] {
        if trickle.write_all(std::slice::from_ref(byte)).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if trickle.try_read(&mut [0; 1]).is_ok_and(|count| count == 0) {
            break;
        }
    }
    let records = proxy.records(3).await;
    assert!(records.iter().all(|record| record["outcome"] == "hello_timeout"), "{records:?}");
    for record in &records {
        let seconds = record["duration_s"].as_f64().unwrap();
        assert!((0.2..3.0).contains(&seconds), "{seconds}");
    }
    let nobody = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(backend.listener.poll_accept(cx).is_pending())
    });
    assert!(nobody.await, "nothing was dialled");
    drop((silent, halfway));
}
