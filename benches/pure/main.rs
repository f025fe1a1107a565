//! What parsing a hello and finding its route cost, with 1, 100,000 and 1,000,000 hosts, alone and
//! while the table is replaced again and again: `cargo bench --bench pure`.

mod subjects;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use mse_proxy::routing::table::{Reader, table};

use crate::subjects::{Claims, HELLOS, Subject, finds, parse};

const SIZES: [usize; 3] = [1, 100_000, 1_000_000];
/// Between two publications of the writer.
const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    measure_parsing(&mut criterion);
    for claims in [Claims::Exact, Claims::Wildcard] {
        for hosts in SIZES {
            measure_lookup(&mut criterion, claims, hosts);
        }
    }
    criterion.final_summary();
}

fn measure_parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, hello) in HELLOS {
        let (first, second) = hello.split_at(hello.len() * 3 / 4);
        group.bench_function(name, |bench| bench.iter(|| parse(black_box(hello), &[])));
        group.bench_function(format!("{name}-in-two"), |bench| {
            bench.iter(|| parse(black_box(first), black_box(second)));
        });
    }
    group.finish();
}

fn measure_lookup(criterion: &mut Criterion, claims: Claims, hosts: usize) {
    let subject = Subject::new(claims, hosts);
    let (mut publisher, table) = table();
    publisher.publish(subject.snapshot());
    let mut group = criterion.benchmark_group(format!("lookup-{claims:?}").to_lowercase());
    let reader = table.reader();
    group.bench_function(BenchmarkId::new("alone", hosts), |bench| {
        look_up(bench, &reader, &subject);
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                publisher.publish(subject.snapshot());
                std::thread::sleep(PAUSE);
            }
        });
        group.bench_function(BenchmarkId::new("under-a-writer", hosts), |bench| {
            look_up(bench, &reader, &subject);
        });
        is_over.store(true, Ordering::Relaxed);
    });
    group.finish();
}

/// As a session does: the newest snapshot, then the name.
fn look_up(bench: &mut criterion::Bencher<'_>, reader: &Reader, subject: &Subject) {
    let Some(hello) = HELLOS.first().and_then(|(_, hello)| parse(hello, &[])) else { return };
    let mut names = subject.names.iter().cycle();
    bench.iter(|| {
        let name = names.next();
        name.is_some_and(|name| finds(&reader.current().snapshot, &hello, black_box(name)))
    });
}
