//! The tables, and the same figures as JSON. They show the spread, mark what the spread leaves
//! undecided, and say when the machine was busy with other things.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::load::{Sample, Work};
use crate::stats::{Spread, percentile};

/// From this share of the machine on, others disturb.
const BUSY: f64 = 0.05;
/// With fewer rounds a spread says nothing.
const FEWEST: usize = 3;

/// What one contestant showed in one load, a sample for each round.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) is_ours: bool,
    pub(crate) samples: Vec<Sample>,
}

/// One line of a load's table.
#[derive(Debug)]
struct Line<'a> {
    row: &'a Row,
    /// Microseconds of processor time for one unit, in each round.
    rounds: Vec<f64>,
    cpu: Spread,
    /// Units a second.
    rate: Spread,
    /// Microseconds: median, 99 %, 99.9 %.
    latency: Option<[f64; 3]>,
    errors: u64,
    others: f64,
    steal: f64,
}

impl Row {
    fn line(&self, unit: f64) -> Line<'_> {
        let units = |sample: &Sample| sample.units as f64 / unit;
        let samples = || self.samples.iter();
        let most = |share: fn(&Sample) -> f64| samples().map(share).fold(0.0, f64::max);
        let at = |per_mille| {
            let one = |sample: &Sample| percentile(&sample.latencies, per_mille);
            Spread::of(samples().filter_map(one)).median / 1e3
        };
        let has_latency = samples().any(|sample| !sample.latencies.is_empty());
        let cpu = |one: &Sample| one.spent.cpu.as_secs_f64() * 1e6 / units(one);
        let rounds: Vec<f64> = samples().map(cpu).collect();
        Line {
            row: self,
            cpu: Spread::of(rounds.iter().copied()),
            rounds,
            rate: Spread::of(samples().map(|one| units(one) / one.spent.wall.as_secs_f64())),
            latency: has_latency.then(|| [500, 990, 999].map(at)),
            errors: samples().map(|sample| sample.errors).sum(),
            others: most(|sample| sample.spent.others),
            steal: most(|sample| sample.spent.steal),
        }
    }
}

impl Line<'_> {
    /// The ratio to another, round by round: both ran within the same second or two, so that what
    /// a busy machine does to one it mostly does to the other.
    fn ratio(&self, to: &Self) -> Spread {
        Spread::of(self.rounds.iter().zip(&to.rounds).map(|(one, other)| one / other))
    }

    /// Whether the rounds disagree on which of the two is cheaper, or are too few to disagree.
    fn is_undecided(&self, ratio: &Spread) -> bool {
        self.rounds.len() < FEWEST || ratio.spans(1.0)
    }

    fn notes(&self, ratio: &Spread, is_best: bool) -> String {
        let mut notes = String::new();
        if !is_best && self.is_undecided(ratio) {
            notes.push_str("  ~ undecided");
        }
        for (share, what) in [(self.others, "others took"), (self.steal, "steal")] {
            if share > BUSY {
                // Writing to a string cannot fail.
                let _ = write!(notes, "  ! {what} up to {:.0} %", share * 100.0);
            }
        }
        notes
    }
}

/// Prints a load's table and gives it as JSON. Ratios are to the first peer (default HAProxy, if
/// it takes part) and to the peer with the lowest median.
pub(crate) fn tell_load(name: &str, work: Work, rows: &[Row]) -> Value {
    let (unit, size) = work.unit();
    let lines: Vec<_> = rows.iter().map(|row| row.line(size)).collect();
    let is_among_ours = rows.iter().all(|row| row.is_ours);
    let peers = || lines.iter().filter(|line| is_among_ours || !line.row.is_ours);
    let best = peers().min_by(|one, other| one.cpu.median.total_cmp(&other.cpu.median));
    let (Some(first), Some(best)) = (peers().next(), best) else { return Value::Null };
    println!("\n{name}: CPU µs of the proxy per {unit}");
    println!(
        "  {:<22} {:>8} {:>17} {:>7} {:>7} {:>13}  {:>9}  {:>20} {:>6}",
        "",
        "CPU µs",
        "min … max",
        "×first",
        "×best",
        "min … max",
        "per s",
        "µs p50/p99/p99.9",
        "errors"
    );
    let tell = |line: &Line<'_>| {
        let (to_first, to_best) = (line.ratio(first), line.ratio(best));
        let is_best = std::ptr::eq(line.row, best.row);
        let notes = line.notes(&to_best, is_best);
        let latency = line.latency.map_or_else(String::new, |[median, high, highest]| {
            format!("{median:.0}/{high:.0}/{highest:.0}")
        });
        println!(
            "  {:<22} {:>8.2} {:>17} {:>7.2} {:>7.2} {:>13}  {:>9.0}  {:>20} {:>6}{notes}",
            line.row.name,
            line.cpu.median,
            line.cpu.range(),
            to_first.median,
            to_best.median,
            to_best.range(),
            line.rate.median,
            latency,
            line.errors,
        );
        json!({
            "proxy": line.row.name,
            "cpu_us_per_unit": line.cpu.json(),
            "units_per_s": line.rate.json(),
            "ratio_to_first_peer": to_first.json(),
            "ratio_to_best_peer": to_best.json(),
            "is_undecided": !is_best && line.is_undecided(&to_best),
            "latency_us": line.latency.map(|[median, high, highest]| {
                json!({ "p50": median, "p99": high, "p99.9": highest })
            }),
            "errors": line.errors,
            "others_share_max": line.others,
            "steal_share_max": line.steal,
            "cpu_us_per_unit_by_round": line.rounds,
        })
    };
    let told: Vec<_> = lines.iter().map(tell).collect();
    json!({ "job": name, "unit": unit, "first": first.row.name, "best": best.row.name, "proxies": told })
}

/// A column of a table of plain facts.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) spread: Spread,
}

/// Prints a table of facts, a line for each proxy, and gives it as JSON. `busy` is the largest
/// share of the machine that others took.
pub(crate) fn tell_facts(name: &str, rows: &[(String, Vec<Fact>)], busy: f64) -> Value {
    println!("\n{name}{}", if busy > BUSY { busy_words(busy) } else { String::new() });
    let heads = rows.first().map_or(&[][..], |row| &row.1);
    let heads: Vec<_> = heads.iter().map(|fact| format!("{:>24}", fact.name)).collect();
    println!("  {:<22} {}", "", heads.join(" "));
    let tell = |(proxy, facts): &(String, Vec<Fact>)| {
        let cell = |fact: &Fact| {
            let spread = fact.spread;
            let places = usize::from(spread.max < 100.0 && spread.max.fract() > 0.0);
            let [median, min, max] =
                [spread.median, spread.min, spread.max].map(|value| format!("{value:.places$}"));
            let range = if min == max { median } else { format!("{median} ({min} … {max})") };
            format!("{range:>24}")
        };
        println!("  {:<22} {}", proxy, facts.iter().map(cell).collect::<Vec<_>>().join(" "));
        let mut object = Map::new();
        object.insert("proxy".into(), json!(proxy));
        object.extend(facts.iter().map(|fact| (fact.name.to_owned(), fact.spread.json())));
        Value::Object(object)
    };
    let told: Vec<_> = rows.iter().map(tell).collect();
    json!({ "job": name, "proxies": told, "others_share_max": busy })
}

fn busy_words(busy: f64) -> String {
    format!("  ! others took up to {:.0} % of the machine", busy * 100.0)
}

/// Seconds as milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
