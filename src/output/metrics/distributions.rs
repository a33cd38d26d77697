//! The metrics that are histograms.

use prometheus::proto;

use super::read::major;
use super::{Kind, Metric, Scrape, Values};
use crate::engine::distribution::{Distribution, GAPS, Scale, order_values};
use crate::status::latency::BOUNDS;

/// One histogram of a family.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Label values.
    pub labels: Vec<String>,
    count: u64,
    sum: f64,
    /// Upper bounds, and the number of values up to each.
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    fn new(labels: Vec<String>, of: &Distribution, scale: Scale, unit: impl Fn(i128) -> f64) -> Histogram {
        let bounds = scale.iter().map(|&bound| unit(i128::from(bound)));
        Histogram {
            labels,
            count: whole(of.count),
            sum: unit(of.sum),
            buckets: bounds.zip(of.cumulative(scale).into_iter().map(whole)).collect(),
        }
    }

    /// The form for the encoder, which adds the bucket without a bound.
    pub fn encode(&self) -> proto::Histogram {
        let bucket = |&(bound, count): &(f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum);
        histogram.set_bucket(self.buckets.iter().map(bucket).collect());
        histogram
    }
}

/// Counts of a distribution are never negative.
fn whole(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape<'_>) -> Vec<Histogram>,
) -> Metric {
    Metric { name, help, kind: Kind::Histogram, values: Values::Histograms { labels, read } }
}

/// Distributions of gaps, order values and latencies.
pub(super) static DISTRIBUTIONS: &[Metric] = &[
    histogram(
        "retentiond_interpurchase_seconds",
        &[],
        "Gaps between successive orders of a customer, counted once the horizon has passed the later order.",
        |scrape| gaps(scrape, |snapshot| snapshot.interpurchase.as_ref()),
    ),
    histogram(
        "retentiond_time_to_second_order_seconds",
        &[],
        "Time from the first order of a customer to the second, counted once the horizon has passed the second.",
        |scrape| gaps(scrape, |snapshot| snapshot.second_order.as_ref()),
    ),
    histogram("retentiond_order_value", &["currency"], "Amount of every order, in major units.", order_value),
    histogram(
        "retentiond_event_latency_seconds",
        &[],
        "Time from reading a message to applying it, wall clock, since the process started.",
        latency,
    ),
];

type Parts = crate::engine::distribution::DistributionParts;

fn gaps(scrape: &Scrape<'_>, which: fn(&Parts) -> Option<&Distribution>) -> Vec<Histogram> {
    let snapshot = scrape.overview.snapshot.as_ref();
    let known = snapshot.and_then(|snapshot| which(&snapshot.distributions));
    known.map(|gaps| Histogram::new(Vec::new(), gaps, GAPS, seconds)).into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "the nearest float is good enough")]
fn seconds(millis: i128) -> f64 {
    millis as f64 / 1e3
}

fn order_value(scrape: &Scrape<'_>) -> Vec<Histogram> {
    let snapshot = scrape.overview.snapshot.iter();
    let values = snapshot.flat_map(|snapshot| &snapshot.distributions.order_value);
    let histogram = |(&currency, values): (&crate::event::Currency, &Distribution)| {
        let labels = vec![currency.code().to_owned()];
        Histogram::new(labels, values, order_values(currency), |minor| major(minor, currency))
    };
    values.map(histogram).collect()
}

/// Present before the first record, so that the first one is an increase.
fn latency(scrape: &Scrape<'_>) -> Vec<Histogram> {
    let latency = &scrape.source.latency;
    let bounds = BOUNDS.map(|bound| bound.as_secs_f64());
    vec![Histogram {
        labels: Vec::new(),
        count: latency.count(),
        sum: latency.sum().as_secs_f64(),
        buckets: bounds.into_iter().zip(latency.cumulative()).collect(),
    }]
}
