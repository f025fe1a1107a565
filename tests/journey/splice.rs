//! The same ends as on the copying path, for pairs whose bytes are spliced: each test first makes
//! both directions bulky and sees by the counter that splicing was taken.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Pair, Proxy, pattern, reset, rest, soon};

const MIB: usize = 1024 * 1024;
/// Far more than what must be copied before a direction counts as bulky.
const BULK: usize = 16 * MIB;

/// Sends bytes from one side to the other and compares them.
async fn carry(from: &mut TcpStream, to: &mut TcpStream, size: usize, seed: u64) {
    let bytes = pattern(size, seed);
    let mut received = vec![0; size];
    let (sent, read) = soon("the bytes arrive", async {
        tokio::join!(from.write_all(&bytes), to.read_exact(&mut received))
    })
    .await;
    sent.unwrap();
    read.unwrap();
    assert!(received == bytes, "{size} bytes arrive unchanged");
}

async fn spliced(proxy: &Proxy) -> u64 {
    proxy.metric("mse_proxy_splice_bytes_total").await
}

/// A pair both of whose directions are spliced.
async fn bulky() -> Pair {
    let mut pair = Pair::new().await;
    carry(&mut pair.client, &mut pair.backend, BULK, 1).await;
    let upward = spliced(&pair.proxy).await;
    assert!(upward > 0 && upward <= BULK as u64, "{upward} bytes were spliced to the backend");
    carry(&mut pair.backend, &mut pair.client, BULK, 2).await;
    assert!(spliced(&pair.proxy).await > upward, "and some to the client");
    pair
}

#[tokio::test]
async fn either_side_finishes_first_with_bytes_still_to_come() {
    for client_first in [true, false] {
        let Pair { proxy, client, backend, hello_size } = bulky().await;
        let (mut first, mut second) =
            if client_first { (client, backend) } else { (backend, client) };
        let last = pattern(3 * MIB, 3);
        let words = last.clone();
        let speaker = tokio::spawn(async move {
            first.write_all(&words).await.unwrap();
            first.shutdown().await.unwrap();
            first
        });
        let (received, end) = rest(&mut second).await;
        end.unwrap();
        assert!(received == last, "the last words arrive whole, then the end");
        let mut first = speaker.await.unwrap();
        let answer = pattern(10 * MIB, 4);
        let words = answer.clone();
        let speaker = tokio::spawn(async move {
            second.write_all(&words).await.unwrap();
            second.shutdown().await.unwrap();
        });
        let (received, end) = rest(&mut first).await;
        end.unwrap();
        assert!(received == answer, "so does what came after it from the other side");
        speaker.await.unwrap();
        let record = proxy.record().await;
        assert_eq!(record["outcome"], "closed");
        let (upward, downward) =
            if client_first { (3 * MIB, 10 * MIB) } else { (10 * MIB, 3 * MIB) };
        assert_eq!(record["to_backend_bytes"], hello_size + (BULK + upward) as u64);
        assert_eq!(record["to_client_bytes"], BULK + downward);
    }
}

#[tokio::test]
async fn a_reset_stays_a_reset_on_either_side_with_bytes_in_flight() {
    for (client_breaks, outcome) in [(true, "client_reset"), (false, "backend_reset")] {
        let Pair { proxy, client, backend, .. } = bulky().await;
        let (mut breaking, mut other) =
            if client_breaks { (client, backend) } else { (backend, client) };
        // Nobody reads these: they fill the pipe and all sockets, for which the kernel may take more
        // than 70 MiB.
        let bytes = vec![5; 256 * MIB];
        let full = tokio::time::timeout(Duration::from_millis(500), other.write_all(&bytes)).await;
        assert!(full.is_err(), "a reader that stands still holds up the writer");
        breaking.write_all(b"last words").await.unwrap();
        let mut words = [0; 10];
        soon("the last words arrive", other.read_exact(&mut words)).await.unwrap();
        assert_eq!(&words, b"last words");
        reset(breaking);
        let (_, end) = rest(&mut other).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(proxy.outcome().await, outcome);
    }
}

#[tokio::test]
async fn a_pair_that_stands_still_is_ended_and_one_that_is_cut_is_reset() {
    let mut pair = Pair::with(|config| {
        config.relay.half_close_timeout = "1s".parse().unwrap();
    })
    .await;
    carry(&mut pair.client, &mut pair.backend, BULK, 1).await;
    assert!(spliced(&pair.proxy).await > 0);
    pair.client.shutdown().await.unwrap();
    let (_, end) = rest(&mut pair.client).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(pair.proxy.outcome().await, "half_close_timeout");

    let Pair { mut proxy, mut client, mut backend, .. } = bulky().await;
    proxy.stop().await;
    for stream in [&mut client, &mut backend] {
        let (_, end) = rest(stream).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.outcome().await, "drained");
}

#[tokio::test]
async fn a_pair_that_is_bulky_no_more_goes_back_to_copying() {
    let Pair { proxy, mut client, mut backend, .. } = bulky().await;
    for seed in 0..20 {
        carry(&mut client, &mut backend, 100, seed).await;
        carry(&mut backend, &mut client, 5000, seed).await;
    }
    let before = spliced(&proxy).await;
    for seed in 20..40 {
        carry(&mut client, &mut backend, 100, seed).await;
        carry(&mut backend, &mut client, 5000, seed).await;
    }
    assert_eq!(spliced(&proxy).await, before, "small messages are copied");
    carry(&mut client, &mut backend, BULK, 50).await;
    assert!(spliced(&proxy).await > before, "and what is bulky again is spliced again");
}
