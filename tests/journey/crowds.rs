//! Many at once: nothing is mixed up, lost or leaked.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use mse_proxy::clock::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Proxy, RawBackend, hello, pattern, rest, route, soon, tally, until};

/// Both sides of a connection are in this process, and the proxy's two as well.
fn room_for_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// A backend that sends back whatever comes, to any number of clients.
fn echo(backend: RawBackend) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = backend.listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    context.finish().as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_flows_side_by_side_are_not_mixed_up() {
    let backend = RawBackend::start().await;
    let proxy = Arc::new(Proxy::start(&route("app.test", backend.address, "")).await);
    echo(backend);
    let mut flows = JoinSet::new();
    for seed in 0..64 {
        let mut client = proxy.dial().await;
        flows.spawn(async move {
            let hello = hello("app.test", &[]);
            let bytes = [hello, pattern(1 << 20, seed)].concat();
            let wanted = digest(&bytes);
            let (mut read, mut write) = client.split();
            let mut received = Vec::new();
            let send = async {
                write.write_all(&bytes).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let ((), end) = tokio::join!(send, read.read_to_end(&mut received));
            end.unwrap();
            assert_eq!(digest(&received), wanted, "flow {seed}");
        });
    }
    soon("all flows end", flows.join_all()).await;
    let counts = tally(&proxy.records(64).await);
    assert_eq!(counts["closed"], 64, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_live_at_once() {
    room_for_descriptors();
    let backend = RawBackend::start().await;
    let proxy = Proxy::start(&route("app.test", backend.address, "")).await;
    echo(backend);
    let bytes = hello("app.test", &[]);
    let mut clients = Vec::new();
    for _ in 0..2_000 {
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        let mut echoed = vec![0; bytes.len()];
        soon("the echo", client.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed, bytes);
    }
    assert_eq!(proxy.open_sessions(), 2_000);
    drop(clients);
    let counts = tally(&proxy.records(2_000).await);
    assert_eq!(counts["closed"], 2_000, "{counts:?}");
    until("no session is left", || proxy.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_stalled_hellos_do_not_hold_up_good_clients() {
    room_for_descriptors();
    let backend = RawBackend::start().await;
    let proxy =
        Proxy::with(&route("app.test", backend.address, ""), Arc::new(SystemClock), |config| {
            config.limits.pending_hellos_per_source = 0;
            config.hello.timeout = "60s".parse().unwrap();
        })
        .await;
    echo(backend);
    let bytes = hello("app.test", &[]);
    let mut stalled: Vec<TcpStream> = Vec::new();
    for index in 0..500 {
        let mut client = proxy.dial().await;
        client.write_all(&bytes[..index % bytes.len()]).await.unwrap();
        stalled.push(client);
    }
    for _ in 0..200 {
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let (echoed, end) = rest(&mut client).await;
        end.unwrap();
        assert_eq!(echoed, bytes);
    }
    assert!(proxy.open_sessions() >= 500);
}
