//! What `explain` tells is what the data path does: thousands of random names, protocols, times
//! and tables, asked of the one and sent through the real session of the other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mse_proxy::clock::{Clock, Timestamp};
use mse_proxy::outcome::{Outcome, Stage};
use mse_proxy::routing::explain::{Explanation, explain};
use mse_proxy::routing::route::{Claim, Lifetime, Origin, Route, Terms};
use mse_proxy::routing::snapshot::Snapshot;
use mse_proxy::wire::client_hello::Alpn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::support::{Dice, START, Told, World, at, simulate, unlimited};

const SEEDS: u64 = 3;
const TABLES: u32 = 25;
/// Clients that come while a table is in force.
const ASKED: u32 = 80;
/// Routes begin and end, and clients come, at multiples of this.
const STEP: Duration = Duration::from_millis(500);
const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "acme-tls/1"];

/// A name as a person types it, and as a client sends it.
struct Name {
    typed: String,
    sent: Vec<u8>,
}

fn pick<'a, T>(dice: &mut Dice, among: &'a [T]) -> &'a T {
    &among[usize::try_from(dice.roll(among.len() as u64)).unwrap()]
}

fn labels(dice: &mut Dice) -> String {
    // Few, so that names and patterns meet.
    let known = ["a", "b", "c", "xn--bcher-kva"];
    let count = 1 + dice.roll(3);
    let labels: Vec<&str> = (0..count).map(|_| *pick(dice, &known)).collect();
    labels.join(".")
}

impl Name {
    fn roll(dice: &mut Dice) -> Self {
        let plain = labels(dice);
        let typed = match dice.roll(8) {
            0 => plain.to_uppercase(),
            1 => format!("{plain}."),
            2 => plain.replace("xn--bcher-kva", "bücher"),
            3 => {
                let bad = ["", ".", "a..b", "-a.b", "127.0.0.1", "a.b.c.1", "a b", "*.a", "a/b"];
                (*pick(dice, &bad)).to_owned()
            }
            4 => format!("{}.{plain}", "x".repeat(*pick(dice, &[62, 63, 64]))),
            _ => plain,
        };
        let sent = typed.replace("bücher", "xn--bcher-kva").into_bytes();
        Self { typed, sent }
    }
}

fn protocols(dice: &mut Dice) -> Vec<&'static str> {
    (0..dice.roll(3)).map(|_| *pick(dice, &PROTOCOLS)).collect()
}

fn alpn(names: &[&str]) -> Alpn {
    Alpn::from_names(names.iter().map(|name| name.as_bytes()))
}

/// Routes that stand beside each other, each with a life in the stretch that begins at `from`.
fn routes(dice: &mut Dice, from: Duration) -> Vec<Arc<Route>> {
    let mut time = || {
        let step = u32::try_from(dice.roll(2 * u64::from(ASKED))).unwrap();
        (step < ASKED).then(|| at(from + STEP * step))
    };
    let lives: Vec<_> = (0..40).map(|_| (time(), time())).collect();
    let claims = lives.into_iter().enumerate().map(|(number, (not_before, expires_at))| {
        let lifetime = Lifetime { not_before, expires_at, grace: SignedDuration::ZERO };
        let asked = protocols(dice).into_iter().map(|name| name.as_bytes().into()).collect();
        let terms = Terms { lifetime, alpn: asked, ..Terms::default() };
        let host = format!("{}{}", pick(dice, &["", "", "*.", "**."]), labels(dice));
        let (hosts, backends) = (vec![host.parse().unwrap()], vec!["127.0.0.1:1".parse().unwrap()]);
        let route = Arc::new(Route::new(format!("r{number}").into(), hosts, backends, terms));
        Claim { route, origin: Origin { source: "random".into(), line: 0, column: 0 } }
    });
    let claims: Vec<Claim> = claims.collect();
    let (_, conflicts) = Snapshot::build(claims.iter().cloned());
    let stands = |claim: &Claim| !conflicts.iter().any(|(out, _)| out.route.id == claim.route.id);
    claims.iter().filter(|claim| stands(claim)).map(|claim| Arc::clone(&claim.route)).collect()
}

/// A ClientHello that asks for these bytes and offers these protocols.
fn hello(name: &[u8], protocols: &[&str]) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let entry = [&[0][..], &long(name)].concat();
    let mut extensions = [&[0, 0][..], &long(&long(&entry))].concat();
    if !protocols.is_empty() {
        let names = protocols
            .iter()
            .map(|name| [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat());
        let names: Vec<u8> = names.flatten().collect();
        extensions.extend([&[0, 16][..], &long(&long(&names))].concat());
    }
    let fixed = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let body = [fixed, long(&extensions)].concat();
    let message = [&[1, 0][..], &long(&body)].concat();
    [&[0x16, 3, 1][..], &long(&message)].concat()
}

/// What was told of one client before it came.
struct Prediction {
    name: Name,
    protocols: Vec<&'static str>,
    at: Timestamp,
    told: Explanation,
    /// What rules would tell that look less closely.
    careless: [Explanation; 3],
}

/// What becomes of a client, as far as both sides can say: how it is refused, if it is, and which
/// route covers its name.
type Fate = (Option<String>, Option<String>);

fn told(explanation: &Explanation) -> Fate {
    let route = explanation.verdict.route().map(|route| route.id.to_string());
    (explanation.verdict.refusal().map(|outcome| outcome.word().to_owned()), route)
}

fn done(record: &Told) -> Fate {
    let outcome = Outcome::ALL.into_iter().find(|one| one.word() == record.outcome).unwrap();
    let refusal = (outcome.stage() != Stage::Relay).then(|| record.outcome.clone());
    (refusal, record.route.clone())
}

async fn story(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(unlimited());
    let mut predictions = Vec::new();
    let began = Instant::now();
    for table in 0..TABLES {
        let from = STEP * ASKED * table;
        // Those who came before have looked by then.
        sleep_until(began + from).await;
        let before = Arc::clone(&world.house.table.current().snapshot);
        world.publish(&routes(&mut dice, from));
        for asked in 0..ASKED {
            // Half of them at the last moment, when what ends then is still live.
            let early = Duration::from_millis(dice.roll(2));
            sleep_until(began + (from + STEP * asked).saturating_sub(early)).await;
            let (name, protocols) = (Name::roll(&mut dice), protocols(&mut dice));
            let (offered, now) = (alpn(&protocols), world.clock.now());
            let snapshot = Arc::clone(&world.house.table.current().snapshot);
            let told = explain(&snapshot, &name.typed, &offered, now);
            let careless = [
                explain(&snapshot, &name.typed, &Alpn::default(), now),
                explain(&snapshot, &name.typed, &offered, now + SignedDuration::from_millis(1)),
                explain(&before, &name.typed, &offered, now),
            ];
            let mut client = world.arrive(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            client.write_all(&hello(&name.sent, &protocols)).await.unwrap();
            tokio::task::spawn_local(async move {
                let _ = client.shutdown().await;
                let _ = client.read_to_end(&mut Vec::new()).await;
            });
            predictions.push(Prediction { name, protocols, at: now, told, careless });
        }
    }
    judge(&predictions, &world.records().await);
}

fn judge(predictions: &[Prediction], records: &[Told]) {
    let mut met: HashMap<Option<String>, usize> = HashMap::new();
    let mut careless = [0; 3];
    for record in records {
        let prediction = &predictions[usize::try_from(record.session).unwrap()];
        let fate = done(record);
        let Prediction { name, protocols, at, .. } = prediction;
        assert_eq!(told(&prediction.told), fate, "{} {protocols:?} at {at}", name.typed);
        if let Some(named) = record.named {
            let start: Timestamp = START.parse().unwrap();
            let asked = Duration::try_from(at.duration_since(start)).unwrap();
            assert!(named.abs_diff(asked) < Duration::from_micros(2), "both had the same moment");
        }
        for (count, other) in careless.iter_mut().zip(&prediction.careless) {
            *count += usize::from(told(other) != fate);
        }
        *met.entry(fate.0).or_default() += 1;
    }
    eprintln!("{met:?}; caught {careless:?}");
    // The comparison means something only where all of it comes up, and a difference would show.
    for refusal in [None, Some("unknown_name"), Some("not_yet_valid"), Some("expired_name")] {
        assert!(met[&refusal.map(str::to_owned)] > 50, "{met:?}");
    }
    assert!(met[&Some("invalid_sni".to_owned())] > 50, "{met:?}");
    assert!(careless.iter().all(|caught| *caught > 3), "{careless:?}");
}

#[test]
fn explain_tells_what_the_data_path_does() {
    simulate(SEEDS, story);
}
