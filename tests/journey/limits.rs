//! Limits: refused cleanly, counted exactly, given back.

use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use mse_proxy::config::Config;
use tokio::io::AsyncWriteExt;

use crate::support::{Proxy, RawBackend, hello, rest, route, until};

async fn limited(backend: &RawBackend, text: &str) -> Proxy {
    let limits: Config = toml_config(text);
    Proxy::with(&route("app.test", backend.address, ""), Arc::new(SystemClock), |config| {
        config.limits = limits.limits;
        config.hello.timeout = "20s".parse().unwrap();
    })
    .await
}

fn toml_config(text: &str) -> Config {
    let name: Arc<str> = "test".into();
    Config::read(&Config::default(), Some((&name, text)), []).unwrap()
}

#[tokio::test]
async fn connections_over_a_limit_are_refused_and_others_go_on() {
    for (text, outcome) in [
        ("[limits]\nconnections = 2", "limit_connections"),
        ("[limits]\nconnections_per_source = 2", "limit_source"),
        ("[limits]\nconnections_per_route = 2", "limit_route"),
    ] {
        let backend = RawBackend::start().await;
        let proxy = limited(&backend, text).await;
        let bytes = hello("app.test", &[]);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = proxy.dial().await;
            client.write_all(&bytes).await.unwrap();
            held.push((client, backend.accept(&bytes).await));
        }
        let mut third = proxy.dial().await;
        third.write_all(&bytes).await.unwrap();
        let (answer, end) = rest(&mut third).await;
        assert!(answer.is_empty() && end.is_ok(), "{outcome}: {end:?}");
        drop(third);
        assert_eq!(proxy.record().await["outcome"], outcome);
        // One leaves, one may come.
        drop(held.pop());
        proxy.records(2).await;
        let mut client = proxy.dial().await;
        client.write_all(&bytes).await.unwrap();
        drop(backend.accept(&bytes).await);
    }
}

#[tokio::test]
async fn pending_hellos_are_limited_in_all_and_for_each_source() {
    for (text, outcome) in [
        ("[limits]\npending_hellos = 3", "limit_pending"),
        ("[limits]\npending_hellos_per_source = 3", "limit_source"),
    ] {
        let backend = RawBackend::start().await;
        let proxy = limited(&backend, text).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(proxy.dial().await);
        }
        until("three are pending", || proxy.open_sessions() == 3).await;
        let mut fourth = proxy.dial().await;
        let (_, end) = rest(&mut fourth).await;
        end.unwrap();
        drop(fourth);
        assert_eq!(proxy.record().await["outcome"], outcome);
        // Showing a name gives the place back though the connection lives on.
        let bytes = hello("app.test", &[]);
        let mut named = silent.pop().unwrap();
        named.write_all(&bytes).await.unwrap();
        let _reached = backend.accept(&bytes).await;
        let mut next = proxy.dial().await;
        next.write_all(&bytes).await.unwrap();
        drop(backend.accept(&bytes).await);
    }
}
