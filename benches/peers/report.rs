//! The table, and the same figures as JSON. It shows the spread, marks what the spread makes
//! doubtful, and says when the machine was busy with other things.

use serde_json::{Value, json};

use crate::load::Sample;
use crate::plan::Job;

/// From this share of the machine on, others disturb.
const BUSY: f64 = 0.05;

/// What one contestant showed in one job.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) is_ours: bool,
    pub(crate) samples: Vec<Sample>,
}

/// Median and ends of some values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of no values, all is NaN.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            at(middle)
        } else {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        };
        Self { median, min: at(0), max: at(values.len().wrapping_sub(1)) }
    }

    /// Whether two could be the same: they overlap.
    fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// One line of figures.
#[derive(Debug)]
struct Figures {
    /// Microseconds of processor time for one unit.
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
    fn figures(&self, job: &Job) -> Figures {
        let size = job.unit().1;
        let units = |sample: &Sample| sample.units as f64 / size;
        let seconds = |time: std::time::Duration| time.as_secs_f64();
        let samples = || self.samples.iter();
        let share = |share: fn(&Sample) -> f64| samples().map(share).fold(0.0, f64::max);
        let percentile = |share| Spread::of(samples().filter_map(|one| percentile(one, share))).median;
        let has_latency = samples().any(|sample| !sample.latencies.is_empty());
        Figures {
            cpu: Spread::of(samples().map(|one| seconds(one.spent.cpu) * 1e6 / units(one))),
            rate: Spread::of(samples().map(|one| units(one) / seconds(one.spent.wall))),
            latency: has_latency.then(|| [0.5, 0.99, 0.999].map(percentile)),
            errors: samples().map(|sample| sample.errors).sum(),
            others: share(|sample| sample.spent.others),
            steal: share(|sample| sample.spent.steal),
        }
    }
}

fn percentile(sample: &Sample, share: f64) -> Option<f64> {
    let last = sample.latencies.len().checked_sub(1)?;
    let index = (last as f64 * share).round() as usize;
    sample.latencies.get(index).map(|&nanoseconds| nanoseconds as f64 / 1e3)
}

/// Prints one job's rows and gives them as JSON. The last columns compare the medians of the
/// processor time with the first peer (default HAProxy, if it takes part) and the best one.
pub(crate) fn tell(job: &Job, rows: &[Row]) -> Value {
    let figures: Vec<_> = rows.iter().map(|row| (row, row.figures(job))).collect();
    let peers = || figures.iter().filter(|(row, _)| !row.is_ours || rows.iter().all(|row| row.is_ours));
    let first = peers().next().map(|(_, figures)| figures.cpu);
    let best = peers().map(|(_, figures)| figures.cpu);
    let best = best.min_by(|one, other| one.median.total_cmp(&other.median));
    println!("\n{} (CPU µs of the proxy per {}; a lower figure is better)", job.name, job.unit().0);
    println!(
        "  {:<22} {:>8} {:>17} {:>7} {:>7}  {:>10}  {:>23} {:>6}",
        "", "CPU µs", "min … max", "×first", "×best", "per second", "p50/p99/p99.9 µs", "errors"
    );
    let mut lines = Vec::new();
    for (row, line) in &figures {
        let ratio = |to: Option<Spread>| to.map_or(f64::NAN, |to| line.cpu.median / to.median);
        // A difference that is smaller than the spread proves nothing.
        let is_doubtful = best.is_some_and(|best| {
            best.overlaps(&line.cpu) && (best.median - line.cpu.median).abs() > 0.0
        });
        let mut notes = String::new();
        if is_doubtful {
            notes.push_str("  ~ overlaps the best peer");
        }
        if line.others > BUSY {
            notes.push_str(&format!("  ! others took up to {:.0} % of the machine", line.others * 100.0));
        }
        if line.steal > BUSY {
            notes.push_str(&format!("  ! steal up to {:.0} %", line.steal * 100.0));
        }
        let latency = line.latency.map_or_else(String::new, |[median, high, highest]| {
            format!("{median:.0}/{high:.0}/{highest:.0}")
        });
        println!(
            "  {:<22} {:>8.2} {:>17} {:>7.2} {:>7.2}  {:>10.0}  {:>23} {:>6}{notes}",
            row.name,
            line.cpu.median,
            format!("{:.2} … {:.2}", line.cpu.min, line.cpu.max),
            ratio(first),
            ratio(best),
            line.rate.median,
            latency,
            line.errors,
        );
        lines.push(json!({
            "proxy": row.name,
            "cpu_us_per_unit": line.cpu.json(),
            "units_per_s": line.rate.json(),
            "to_first_peer": ratio(first),
            "to_best_peer": ratio(best),
            "overlaps_best_peer": is_doubtful,
            "latency_us": line.latency.map(|[median, high, highest]| {
                json!({ "p50": median, "p99": high, "p99.9": highest })
            }),
            "errors": line.errors,
            "others_share": line.others,
            "steal_share": line.steal,
            "runs": row.samples.len(),
        }));
    }
    json!({ "job": job.name, "unit": job.unit().0, "proxies": lines })
}
