//! Families of samples, as the text encoder wants them.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::clock::Timestamp;
use crate::telemetry::metrics::histogram::Sum;

/// Labels and a value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

pub(super) fn counter<'a>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = Sample<'a>>,
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| {
        let mut metric = labelled(&labels);
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

pub(super) fn gauge<'a>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = Sample<'a>>,
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| {
        let mut metric = labelled(&labels);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

pub(super) fn histogram(name: &str, help: &str, sum: Sum) -> MetricFamily {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(sum.count);
    histogram.set_sample_sum(sum.total);
    let buckets = sum.buckets.into_iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    family(name, help, MetricType::HISTOGRAM, vec![metric])
}

/// An instant as Prometheus counts it.
pub(super) fn unix(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

fn labelled(labels: &[(&'static str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
