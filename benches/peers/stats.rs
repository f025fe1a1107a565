//! Medians, ends and percentiles.

use serde_json::{Value, json};

/// Median and ends of some values; of none, all are NaN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// What is not finite (a run without any unit) is left out.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => at(middle),
            _ => f64::midpoint(at(middle - 1), at(middle)),
        };
        let max = values.last().copied().unwrap_or(f64::NAN);
        Self { median, min: at(0), max }
    }

    /// Whether a value lies between the ends.
    pub(crate) fn spans(&self, value: f64) -> bool {
        self.min <= value && value <= self.max
    }

    /// The ends, as a table shows them.
    pub(crate) fn range(&self) -> String {
        format!("{:.2} … {:.2}", self.min, self.max)
    }

    pub(crate) fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// The value below which so many thousandths of the sorted values lie.
pub(crate) fn percentile(sorted: &[u64], per_mille: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * per_mille / 1000).map(|&value| value as f64)
}
