//! Single changes of stored routes, many a second, over the API, while clients come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mse_proxy::control::client::Client;
use mse_proxy::control::dial::{Admin, Dialer};
use mse_proxy::control::proto::{Route, SetRequest};
use mse_proxy::registry::keys;
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Committed, Store, Transaction};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Setup;
use crate::bench::{Load, told};
use crate::subject::Subject;
use crate::world::{ask, backend, host, route};

/// How many changes are made, and how often one.
const CHANGES: u64 = 1_000;
const EVERY: Duration = Duration::from_millis(10);
/// Of so many changes one is watched until it is in force.
const WATCHED: u64 = 10;
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(2);
/// Until then a change must be in force.
const PATIENCE: Duration = Duration::from_mins(1);
/// How much one transaction fills into the store.
const AT_ONCE: u64 = 50_000;
/// How long it rests before and after.
const SETTLING: Duration = Duration::from_secs(2);

pub(crate) fn run(setup: &Setup, routes: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (store, socket) = (folder.path().join("store.db"), folder.path().join("admin.sock"));
    let (old, new) = (backend(b'o'), backend(b'n'));
    runtime.block_on(fill(&store, routes, old));
    println!("\n{routes} routes in the store");
    let grpc = format!("unix:{}", socket.display());
    let began = Instant::now();
    let proxy = Subject::start(
        setup,
        &[("MSE_PROXY_STORE_PATH", store.as_os_str()), ("MSE_PROXY_ADMIN_GRPC", grpc.as_ref())],
    );
    ask(proxy.address, &host(routes - 1)).expect("the first connection");
    println!("  first connection after      {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    std::thread::sleep(SETTLING);
    println!("  at rest                     {:7.1} MB", proxy.resident());

    let load = Load::start(proxy.address, routes);
    let (cpu, tables, began) = (proxy.cpu(), proxy.tables(), Instant::now());
    std::thread::sleep(CHANGES.try_into().map(|changes: u32| EVERY * changes).unwrap());
    let idle = share(proxy.cpu().saturating_sub(cpu), began.elapsed());
    let (cpu, began) = (proxy.cpu(), Instant::now());
    let client = Client::new(Dialer::new(Admin::Unix(socket), None));
    let (mut answered, mut in_force) =
        runtime.block_on(change(&client, proxy.address, routes, new));
    let took = began.elapsed();
    let busy = share(proxy.cpu().saturating_sub(cpu), took);
    let tables = proxy.tables() - tables;
    let (made, failed) = load.stop();
    println!(
        "  {CHANGES} routes changed one by one in {:.1} s: each answered after {}",
        took.as_secs_f64(),
        told(&mut answered)
    );
    println!("    in force after that         {}", told(&mut in_force));
    println!(
        "    {tables} tables made; CPU {busy:.0} % of a core, {idle:.0} % without changes; load: {made} \
         connections, {failed} failed"
    );
    std::thread::sleep(SETTLING);
    println!("    at rest after that        {:7.1} MB", proxy.resident());
}

fn share(cpu: Duration, of: Duration) -> f64 {
    cpu.as_secs_f64() / of.as_secs_f64() * 100.0
}

/// Writes all routes, as if the API had.
async fn fill(path: &std::path::Path, routes: u64, backend: SocketAddr) {
    let store = Embedded::open(path).unwrap();
    for first in (0..routes).step_by(AT_ONCE.try_into().unwrap()) {
        let of = first..routes.min(first + AT_ONCE);
        let changes = of.map(|number| Change {
            key: keys::route(&host(number)),
            value: Some(route(number, backend, false).into_bytes()),
        });
        let transaction = Transaction { checks: vec![], changes: changes.collect() };
        let committed = store.commit(transaction).await.unwrap();
        assert!(matches!(committed, Committed::Done(_)));
    }
}

/// Leads one route after the other elsewhere. Gives how long each answer took, and how long it took
/// from there, for some, until clients were led there.
async fn change(
    client: &Client,
    proxy: SocketAddr,
    routes: u64,
    to: SocketAddr,
) -> (Vec<Duration>, Vec<Duration>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changes = JoinSet::new();
    let backend: Arc<str> = to.to_string().into();
    for number in 0..CHANGES {
        ticks.tick().await;
        let (client, backend) = (client.clone(), Arc::clone(&backend));
        changes.spawn(async move {
            let host = host(number * 7_919 % routes);
            let (hosts, backends) = (vec![host.clone()], vec![backend.to_string()]);
            let route = Some(Route { hosts, backends, ..Route::default() });
            let began = Instant::now();
            client.set(SetRequest { route, ..SetRequest::default() }).await.unwrap();
            let answered = Instant::now();
            let watched = (number % WATCHED == 0).then(|| {
                tokio::task::spawn_blocking(move || {
                    while ask(proxy, &host).unwrap() != b'n' {
                        assert!(
                            answered.elapsed() < PATIENCE,
                            "the change does not come into force"
                        );
                        std::thread::sleep(LOOK);
                    }
                    answered.elapsed()
                })
            });
            let in_force = match watched {
                Some(watched) => Some(watched.await.unwrap()),
                None => None,
            };
            (answered - began, in_force)
        });
    }
    let all = changes.join_all().await;
    let in_force = all.iter().filter_map(|(_, in_force)| *in_force).collect();
    (all.into_iter().map(|(answered, _)| answered).collect(), in_force)
}
