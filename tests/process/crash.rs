//! `kill -9` of the real proxy while several clients write to its store, again and again on one file:
//! what was acknowledged is there, what was not is there wholly or not at all, a repetition under the
//! same request id is done once, the history's chain is whole, and clients are served again.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use mse_proxy::control::proto::{
    ApplyRequest, HistoryRecord, HistoryRequest, ListRequest, RemoveRequest,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use crate::control::{Client, route, set, unix};
use crate::journey::soon;
use crate::route_support::Controlled;
use crate::support::{ask, echo, hello, until};

/// Clients that write at the same time, each on a connection of its own.
const WRITERS: usize = 6;
/// Routes of a writer.
const ROUTES: u64 = 5;
/// A proxy has acknowledged at most about so many writes when it is killed.
const MOST_ACKNOWLEDGED: usize = 80;

/// It is killed then at the latest.
const LONGEST_LIFE: Duration = Duration::from_secs(5);

/// A number below a bound that nobody foresees.
fn random(bound: usize) -> usize {
    let number = RandomState::new().hash_one(0_u8);
    usize::try_from(number % u64::try_from(bound).unwrap()).unwrap()
}

/// What a writer's routes lead to: ports by ids.
type Ports = BTreeMap<String, u16>;

/// One write: all of it happens, or nothing.
#[derive(Debug, Clone)]
struct Write {
    request_id: String,
    /// What each route shall lead to; none: it is removed.
    changes: Vec<(String, Option<u16>)>,
}

impl Write {
    /// The next one of a writer, by its number.
    fn of(writer: usize, number: u64, known: &Ports) -> Self {
        let request_id = format!("{writer}-{number}");
        let port = Some(u16::try_from(number % 60_000 + 1).unwrap());
        let id = |at: u64| format!("w{writer}-r{}", at % ROUTES);
        let one = id(number);
        let changes = match number % 7 {
            // Several at once.
            0 | 3 => vec![(one, port), (id(number + 1), port), (id(number + 2), port)],
            5 if known.contains_key(&one) => vec![(one, None)],
            _ => vec![(one, port)],
        };
        Self { request_id, changes }
    }

    async fn ask(&self, client: &Client) -> Result<u64, tonic::Status> {
        let (request_id, mut client) = (self.request_id.clone(), client.clone());
        let wanted =
            |id: &String, port: u16| route(id, &format!("{id}.test"), format!("127.0.0.1:{port}"));
        let answer = match &self.changes[..] {
            [(id, Some(port))] => {
                let mut request = set(wanted(id, *port));
                request.request_id = request_id;
                client.set(request).await?.into_inner().revision
            }
            [(id, None)] => {
                let id = id.clone();
                let request = RemoveRequest { id, request_id, ..RemoveRequest::default() };
                client.remove(request).await?.into_inner().revision
            }
            many => {
                let routes = many.iter().map(|(id, port)| wanted(id, port.unwrap())).collect();
                let request = ApplyRequest {
                    routes,
                    request_id,
                    keep_others: true,
                    ..ApplyRequest::default()
                };
                client.apply(request).await?.into_inner().revision
            }
        };
        Ok(answer)
    }

    fn carry_out(&self, ports: &mut Ports) {
        for (id, port) in &self.changes {
            match port {
                Some(port) => ports.insert(id.clone(), *port),
                None => ports.remove(id),
            };
        }
    }
}

/// A writer between two lives of its proxy.
#[derive(Debug, Default)]
struct Writer {
    name: usize,
    number: u64,
    /// After all that was acknowledged.
    ports: Ports,
    /// The last one that was acknowledged, and under which revision.
    last: Option<(Write, u64)>,
    /// The one that was not.
    open: Option<Write>,
}

impl Writer {
    /// Writes until the proxy is gone.
    async fn write(mut self, client: Client, acknowledged: watch::Sender<usize>) -> Self {
        loop {
            self.number += 1;
            let write = Write::of(self.name, self.number, &self.ports);
            match write.ask(&client).await {
                Ok(revision) => {
                    write.carry_out(&mut self.ports);
                    self.last = Some((write, revision));
                    acknowledged.send_modify(|count| *count += 1);
                }
                Err(status) => {
                    // The connection broke; the proxy itself has nothing against it.
                    let broke = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
                    assert!(broke.contains(&status.code()), "{status:?}");
                    self.open = Some(write);
                    return self;
                }
            }
        }
    }

    /// Looks at what is there now, and brings the open write to its end. Tells whether that had happened
    /// before.
    async fn judge(&mut self, client: &Client, found: &Ports) -> bool {
        let prefix = format!("w{}-", self.name);
        let own: Ports = found
            .iter()
            .filter(|(id, _)| id.starts_with(&prefix))
            .map(|(id, port)| (id.clone(), *port))
            .collect();
        let mut with_open = self.ports.clone();
        let open = self.open.take();
        if let Some(open) = &open {
            open.carry_out(&mut with_open);
        }
        let is_done = own == with_open;
        assert!(
            is_done || own == self.ports,
            "found {own:?}\nacknowledged {:?}\nopen {open:?}",
            self.ports
        );
        // What was acknowledged is answered as it was then, and changes nothing.
        if let Some((last, revision)) = &self.last {
            assert_eq!(last.ask(client).await.unwrap(), *revision, "{last:?}");
        }
        if let Some(open) = open {
            let revision = open.ask(client).await.unwrap();
            assert_eq!(open.ask(client).await.unwrap(), revision, "{open:?}");
            self.ports = with_open;
            self.last = Some((open, revision));
        }
        is_done
    }
}

fn client(proxy: &Controlled) -> Client {
    Client::new(unix(&proxy.socket())).max_decoding_message_size(usize::MAX)
}

/// What all routes of writers lead to, as of a revision or later.
async fn found(client: &Client, revision: u64) -> Ports {
    let request = ListRequest { contains: "w".into(), ..ListRequest::default() };
    let list = soon("a list", async {
        loop {
            let list = client.clone().list(request.clone()).await.unwrap().into_inner();
            if list.revision >= revision {
                return list;
            }
        }
    })
    .await;
    let routes = list.routes.into_iter().map(|state| {
        let route = state.route.unwrap();
        (route.id, route.backends[0].rsplit_once(':').unwrap().1.parse().unwrap())
    });
    routes.collect()
}

/// The revision of the newest write that was acknowledged.
fn newest(writers: &[Writer]) -> u64 {
    writers.iter().filter_map(|writer| Some(writer.last.as_ref()?.1)).max().unwrap_or(0)
}

/// The whole history.
async fn history(client: &Client) -> Vec<HistoryRecord> {
    let mut records: Vec<HistoryRecord> = Vec::new();
    loop {
        let after = records.last().map_or(0, |record| record.number);
        let request = HistoryRequest { after, ..HistoryRequest::default() };
        let page = client.clone().history(request).await.unwrap().into_inner();
        records.extend(page.records);
        if !page.more {
            return records;
        }
    }
}

/// Lets them write until so many writes were acknowledged and a moment more, then kills the proxy.
async fn write_until_killed(proxy: &mut Controlled, writers: Vec<Writer>) -> (Vec<Writer>, usize) {
    let (acknowledged, mut told) = watch::channel(0);
    let mut writing = JoinSet::new();
    for writer in writers {
        writing.spawn(writer.write(client(proxy), acknowledged.clone()));
    }
    let enough = random(MOST_ACKNOWLEDGED);
    // Or fewer, where a busy machine writes slowly: it is killed all the same.
    let _ = timeout(LONGEST_LIFE, told.wait_for(|count| *count >= enough)).await;
    // At any point of the next write.
    tokio::time::sleep(Duration::from_micros(u64::try_from(random(5_000)).unwrap())).await;
    proxy.kill();
    let mut writers = soon("all writers notice", writing.join_all()).await;
    writers.sort_by_key(|writer| writer.name);
    let acknowledged = *told.borrow();
    (writers, acknowledged)
}

async fn crash(rounds: u32) {
    let mut proxy = Controlled::storing("");
    let served = hello("served.test");
    let backend = echo(served.len()).to_string();
    proxy.told(&["route", "set", "served.test", "--backend", &backend]);
    let mut writers: Vec<_> =
        (0..WRITERS).map(|name| Writer { name, ..Writer::default() }).collect();
    let (mut all, mut done, mut longest) = (0, 0, Duration::ZERO);
    for round in 0..rounds {
        let acknowledged;
        (writers, acknowledged) = write_until_killed(&mut proxy, writers).await;
        all += acknowledged;
        if round % 4 == 3 {
            // Killed again while it starts: while it opens the file, or just after.
            let starting = crate::support::Daemon::spawn(proxy.starting());
            tokio::time::sleep(Duration::from_millis(u64::try_from(random(60)).unwrap())).await;
            drop(starting);
        }
        let began = Instant::now();
        proxy.restart();
        assert_eq!(ask(proxy.daemon.address, "served.test").unwrap(), served, "it serves at once");
        longest = longest.max(began.elapsed());

        let client = client(&proxy);
        let there = found(&client, newest(&writers)).await;
        for writer in &mut writers {
            done += usize::from(writer.judge(&client, &there).await);
        }
        let expected: Ports = writers.iter().flat_map(|writer| writer.ports.clone()).collect();
        assert_eq!(found(&client, newest(&writers)).await, expected);
        let told = proxy.told(&["route", "history", "--verify"]);
        assert!(told.starts_with("verified: "), "{told}");
    }
    // Each write has left its records at one revision: it was done once.
    let mut revisions: BTreeMap<String, u64> = BTreeMap::new();
    for record in history(&client(&proxy)).await {
        let revision = *revisions.entry(record.request_id.clone()).or_insert(record.revision);
        assert_eq!(revision, record.revision, "{} was done twice", record.request_id);
    }
    for writer in &writers {
        for number in 1..=writer.number {
            let id = format!("{}-{number}", writer.name);
            assert!(revisions.contains_key(&id), "the write {id} is in the history");
        }
    }
    // What is stored is what is in force.
    let explained = |id: &str| proxy.json(&["explain", &format!("{id}.test")])["route"].clone();
    for (id, port) in writers.iter().flat_map(|writer| &writer.ports) {
        let backend = format!("127.0.0.1:{port}");
        until("it is in force", || explained(id)["backends"][0] == backend);
    }
    eprintln!(
        "{rounds} deaths: {all} writes acknowledged, {done} of {} open ones had been done; \
         serving again after {longest:?} at the most",
        rounds as usize * WRITERS
    );
    assert!(all > 0);
}

/// More deaths, for whoever has changed the store, the writer or the registry:
/// `DEATHS=300 cargo test --test process -- --nocapture outlives_any_death`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_any_death() {
    let deaths = std::env::var("DEATHS").map_or(12, |text| text.parse().unwrap());
    crash(deaths).await;
}
