//! Distributions, counted in whole units and told in base units.
//!
//! One of the crate's histograms costs four atomic operations an observation on lines that all
//! workers write; this one costs two on a line of the worker's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds and what one base unit is.
#[derive(Debug)]
pub(super) struct Scale {
    bounds: &'static [u64],
    unit: f64,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// A classic hello has 200 to 600 bytes, a post-quantum one 1.7 KiB, a resumption with large
/// tickets up to 8; whatever is beyond 16 KiB is more than one record carries.
pub(super) const HELLO_SIZES: Scale =
    Scale { bounds: &[256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536], unit: 1.0 };

/// From a neighbour's half millisecond, over the 20 ms of the first retry and the 100 ms of an
/// intercontinental round trip, to the 5 s at which both `hello.timeout` and
/// `backend.connect_timeout` stand; 10 s are for whoever has set more.
pub(super) const TIMES: Scale = Scale {
    bounds: &[
        500 * US,
        MS,
        2_500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2_500 * MS,
        5 * S,
        10 * S,
    ],
    unit: 1e9,
};

/// One worker's distribution.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: Scale,
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Distributions of several workers, added up.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) total: f64,
    /// Upper bounds, and how many are not above.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn new(scale: Scale) -> Self {
        let counts = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { scale, counts, sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: u64) {
        let place = self.scale.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn observe_time(&self, time: Duration) {
        // 584 years fit.
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Adds up distributions of one scale.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floating point")]
pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Histogram>) -> Sum {
    let all: Vec<_> = all.collect();
    let Some(first) = all.first() else { return Sum::default() };
    let count_at = |place: usize| {
        let counts = all.iter().filter_map(|one| one.counts.get(place));
        counts.map(|count| count.load(Ordering::Relaxed)).sum::<u64>()
    };
    let mut below = 0;
    let buckets = first.scale.bounds.iter().enumerate().map(|(place, bound)| {
        below += count_at(place);
        (*bound as f64 / first.scale.unit, below)
    });
    let buckets = buckets.collect();
    let whole: u64 = all.iter().map(|one| one.sum.load(Ordering::Relaxed)).sum();
    Sum {
        count: below + count_at(first.scale.bounds.len()),
        total: whole as f64 / first.scale.unit,
        buckets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_workers_are_added_up() {
        let (one, other) = (Histogram::new(HELLO_SIZES), Histogram::new(HELLO_SIZES));
        for value in [256, 257, 1 << 20] {
            one.observe(value);
        }
        other.observe(1);
        let sum = sum([&one, &other].into_iter());
        assert_eq!((sum.count, sum.total), (4, 1_049_090.0));
        assert_eq!(sum.buckets[..2], [(256.0, 2), (512.0, 3)]);
        assert_eq!(sum.buckets.last(), Some(&(65_536.0, 3)));
    }

    #[test]
    fn times_are_told_in_seconds() {
        let histogram = Histogram::new(TIMES);
        histogram.observe_time(Duration::from_micros(2_500));
        let sum = sum(std::iter::once(&histogram));
        assert_eq!(sum.buckets[2], (0.0025, 1));
        assert_eq!(sum.buckets[1], (0.001, 0));
        assert!((sum.total - 0.0025).abs() < 1e-12);
    }

    #[test]
    fn bounds_rise() {
        for scale in [HELLO_SIZES, TIMES] {
            assert!(scale.bounds.is_sorted_by(|one, other| one < other));
        }
    }
}
