//! How a relay ends: FIN as FIN, reset as reset, back-pressure, idle.

use std::io::ErrorKind;
use std::time::Duration;

use mse_proxy::units::Period;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Pair, pattern, reset, rest, soon};

const TEN_MIB: usize = 10 * 1024 * 1024;

#[tokio::test]
async fn the_client_finishes_first_with_ten_mib_still_to_come() {
    let Pair { proxy, mut client, mut backend, hello_size } = Pair::new().await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let (words, end) = rest(&mut backend).await;
    assert_eq!(words, b"last words");
    end.unwrap();
    let bytes = pattern(TEN_MIB, 1);
    let sent = bytes.clone();
    let sender = tokio::spawn(async move {
        backend.write_all(&sent).await.unwrap();
        backend.shutdown().await.unwrap();
    });
    let (received, end) = rest(&mut client).await;
    end.unwrap();
    assert!(received == bytes, "ten MiB arrive whole after the client's FIN");
    sender.await.unwrap();
    let record = proxy.record().await;
    assert_eq!(record["outcome"], "closed");
    assert_eq!(record["to_backend_bytes"], hello_size + 10);
    assert_eq!(record["to_client_bytes"], TEN_MIB);
}

#[tokio::test]
async fn the_backend_finishes_first_with_ten_mib_still_to_come() {
    let Pair { proxy, mut client, mut backend, hello_size } = Pair::new().await;
    backend.write_all(b"bye").await.unwrap();
    backend.shutdown().await.unwrap();
    let (words, end) = rest(&mut client).await;
    assert_eq!(words, b"bye");
    end.unwrap();
    let bytes = pattern(TEN_MIB, 2);
    let sent = bytes.clone();
    let sender = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    });
    let (received, end) = rest(&mut backend).await;
    end.unwrap();
    assert!(received == bytes, "ten MiB arrive whole after the backend's FIN");
    sender.await.unwrap();
    let record = proxy.record().await;
    assert_eq!(record["outcome"], "closed");
    assert_eq!(record["to_backend_bytes"], hello_size + TEN_MIB as u64);
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_on_either_side() {
    let Pair { proxy, mut client, backend, .. } = Pair::new().await;
    reset(backend);
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.outcome().await, "backend_reset");

    let Pair { proxy, client, mut backend, .. } = Pair::new().await;
    reset(client);
    let (_, end) = rest(&mut backend).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.outcome().await, "client_reset");
}

#[tokio::test]
async fn what_was_sent_before_a_reset_arrives_before_it() {
    let Pair { proxy, mut client, mut backend, .. } = Pair::new().await;
    let bytes = pattern(40_000, 3);
    backend.write_all(&bytes).await.unwrap();
    // Until the client has it all, so that the kernel has nothing left to throw away.
    let mut received = vec![0; bytes.len()];
    soon("the bytes arrive", client.read_exact(&mut received)).await.unwrap();
    assert!(received == bytes);
    reset(backend);
    let (more, end) = rest(&mut client).await;
    assert!(more.is_empty());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.record().await["to_client_bytes"], bytes.len());
}

#[tokio::test]
async fn a_half_closed_pair_is_reset_by_a_reset_too() {
    let Pair { proxy, mut client, mut backend, .. } = Pair::new().await;
    client.shutdown().await.unwrap();
    let (_, end) = rest(&mut backend).await;
    end.unwrap();
    reset(backend);
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.outcome().await, "backend_reset");
}

#[tokio::test]
async fn a_backend_that_says_nothing_and_closes_is_to_blame() {
    let Pair { proxy, mut client, backend, .. } = Pair::new().await;
    drop(backend);
    let (nothing, end) = rest(&mut client).await;
    assert!(nothing.is_empty());
    end.unwrap();
    drop(client);
    let record = proxy.record().await;
    assert_eq!(record["outcome"], "backend_closed_early");
    assert_eq!(record["blame"], "backend");
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_the_sender() {
    let Pair { proxy, mut client, mut backend, .. } = Pair::new().await;
    let chunk = pattern(1 << 20, 4);
    // Fill every buffer on the way: the sender is stopped when a whole chunk does not go out any
    // more, long before 100 MiB are in.
    let mut sent = 0;
    let stopped = loop {
        match tokio::time::timeout(Duration::from_millis(500), backend.write(&chunk)).await {
            Ok(count) => sent += count.unwrap(),
            Err(_) => break true,
        }
        if sent > 100 << 20 {
            break false;
        }
    };
    assert!(stopped, "{sent} bytes went into a proxy whose client reads nothing");
    let reader = tokio::spawn(async move {
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match client.read(&mut buffer).await.unwrap() {
                0 => return count,
                more => count += more,
            }
        }
    });
    backend.shutdown().await.unwrap();
    let received = soon("the rest is delivered", reader).await.unwrap();
    assert_eq!(received, sent);
    drop(backend);
    assert_eq!(proxy.outcome().await, "closed");
}

#[tokio::test]
async fn a_half_closed_pair_that_stands_still_is_ended() {
    let Pair { proxy, mut client, mut backend, .. } = Pair::with(|config| {
        config.relay.half_close_timeout = Period(Duration::from_millis(200));
    })
    .await;
    client.shutdown().await.unwrap();
    let (_, end) = rest(&mut backend).await;
    end.unwrap();
    let (_, end) = rest(&mut client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.outcome().await, "half_close_timeout");
}
