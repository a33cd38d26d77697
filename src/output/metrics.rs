//! The only place that names metrics, each with its help text, its labels and the source of its values.
//!
//! [`encode`] evaluates every definition on a [`Scrape`], so a metric must be defined here to be exported. No label
//! ever contains a customer id.

mod distributions;
mod faults;
#[cfg(test)]
pub(crate) mod fixture;
mod inactivity;
pub mod openmetrics;
mod read;
mod repartition;
mod segments;
#[cfg(test)]
mod tests;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use crate::engine::figures::{MoneyParts, Parts};
use crate::event::Currency;

use distributions::{DISTRIBUTIONS, Histogram};
use faults::FAULTS;
use inactivity::INACTIVITY;
use read::{Samples, WindowView};
pub use read::{Scrape, is_caught_up};
use repartition::REPARTITION;
use segments::{MISSING, SEGMENT};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only increases while the process lives.
    Counter,
    /// Counts values by size.
    Histogram,
}

/// The definition of one metric.
#[derive(Debug)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// Help text, with the unit unless it is a count.
    pub help: &'static str,
    /// Gauge, counter or histogram.
    pub kind: Kind,
    values: Values,
}

/// The source of the values.
#[derive(Debug)]
enum Values {
    /// A count of each window.
    Count(fn(&Parts) -> i64),
    /// A ratio of each window; absent if its denominator is zero.
    Ratio(fn(&Parts) -> Option<f64>),
    /// A flag of each window.
    Flag(fn(&WindowView<'_>) -> bool),
    /// A figure of each window and currency.
    Money(fn(&WindowView<'_>, Currency, &MoneyParts) -> Option<f64>),
    /// A count of each window and dimension value.
    SegmentCount(fn(&Parts) -> i64),
    /// Money of each window, dimension value and currency.
    SegmentMoney(fn(&WindowView<'_>, Currency, &MoneyParts) -> Option<f64>),
    /// Histograms with any labels.
    Histograms { labels: &'static [&'static str], read: fn(&Scrape<'_>) -> Vec<Histogram> },
    /// Anything else.
    Other { labels: &'static [&'static str], read: fn(&Scrape<'_>, &mut Samples) },
}

impl Metric {
    /// Label names, in the order of their values.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.values {
            Values::Count(_) | Values::Ratio(_) | Values::Flag(_) => &["window"],
            Values::Money(_) => &["window", "currency"],
            Values::SegmentCount(_) => &["window", "dimension", "value"],
            Values::SegmentMoney(_) => &["window", "dimension", "value", "currency"],
            Values::Histograms { labels, .. } | Values::Other { labels, .. } => labels,
        }
    }

    /// The figure of a window that it shows, if any: the name without `retentiond_window_`.
    #[must_use]
    pub fn figure(&self) -> Option<&'static str> {
        self.name.strip_prefix("retentiond_window_")
    }

    /// The figure of a window or segment that it shows, if any.
    fn window_figure(&self) -> Option<&'static str> {
        self.figure().or_else(|| self.name.strip_prefix("retentiond_segment_"))
    }

    /// The distribution of the summary that it shows, if any: all histograms except the latency of the process itself.
    #[must_use]
    pub fn distribution(&self) -> Option<&'static str> {
        let name = self.name.strip_prefix("retentiond_").filter(|_| self.kind == Kind::Histogram)?;
        (name != "event_latency_seconds").then_some(name)
    }
}

/// All metrics.
pub fn definitions() -> impl Iterator<Item = &'static Metric> {
    WINDOW
        .iter()
        .chain(SEGMENT)
        .chain(MISSING)
        .chain(PEOPLE)
        .chain(INACTIVITY)
        .chain(DISTRIBUTIONS)
        .chain(OPERATION)
        .chain(FAULTS)
        .chain(REPARTITION)
}

/// Encodes all metrics in the text format. Omits families without a value, such as ratios before the first order.
///
/// # Errors
/// When the encoder rejects a family, which would be a bug in this module.
pub fn encode(scrape: &Scrape<'_>) -> Result<String, prometheus::Error> {
    let windows = scrape.windows();
    let families = definitions().map(|metric| family(metric, scrape, &windows));
    let families: Vec<MetricFamily> = families.filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families)
}

/// The values of one metric. Does not use [`prometheus::GaugeVec`]: it identifies label values by a hash of their
/// concatenation, which confuses partition 11 of `orders` with partition 1 of `orders1`.
fn family(metric: &Metric, scrape: &Scrape<'_>, windows: &[WindowView<'_>]) -> MetricFamily {
    let mut samples = Samples::default();
    if let Values::Other { read, .. } = metric.values {
        read(scrape, &mut samples);
    }
    for window in windows {
        window.read(metric, &mut samples);
    }
    scrape.read_segments(metric, &mut samples);
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    let values = samples.0.into_iter().map(|(labels, value)| sample(metric, labels, value));
    let histograms = match metric.values {
        Values::Histograms { read, .. } => read(scrape),
        _ => Vec::new(),
    };
    let histograms = histograms.into_iter().map(|histogram| {
        let encoded = histogram.encode();
        let mut sample = labelled(metric, histogram.labels);
        sample.set_histogram(encoded);
        sample
    });
    family.set_metric(values.chain(histograms).collect());
    family
}

fn labelled(metric: &Metric, labels: Vec<String>) -> proto::Metric {
    let labels = metric.labels().iter().zip(labels).map(|(&name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    });
    proto::Metric::from_label(labels.collect())
}

fn sample(metric: &Metric, labels: Vec<String>, value: f64) -> proto::Metric {
    let mut sample = labelled(metric, labels);
    match metric.kind {
        Kind::Histogram => {}
        Kind::Gauge => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        }
    }
    sample
}

const fn window(name: &'static str, help: &'static str, values: Values) -> Metric {
    Metric { name, help, kind: Kind::Gauge, values }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape<'_>, &mut Samples),
) -> Metric {
    Metric { name, help, kind: Kind::Gauge, values: Values::Other { labels, read } }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape<'_>, &mut Samples),
) -> Metric {
    Metric { name, help, kind: Kind::Counter, values: Values::Other { labels, read } }
}

/// The figures of the windows, label `window`: rolling windows by name; `month`, `quarter` and `year` for the open
/// calendar period, `month_previous` and so on for the last closed one.
static WINDOW: &[Metric] = &[
    window(
        "retentiond_window_start_customers",
        "S = active(p-P), for a calendar window active(from-1): customers with an order in the active_for before the \
         window opened.",
        Values::Count(|parts| parts.start),
    ),
    window(
        "retentiond_window_end_customers",
        "E = active(p): customers with an order in the active_for up to the window's end, panes (p-A, p].",
        Values::Count(|parts| parts.end),
    ),
    window(
        "retentiond_window_new_customers",
        "N: customers whose first order ever lies in the window, panes (p-P, p].",
        Values::Count(|parts| parts.new),
    ),
    window(
        "retentiond_window_lost_customers",
        "L: customers active at the start of the window and not active at its end.",
        Values::Count(|parts| parts.lost),
    ),
    window(
        "retentiond_window_retained_customers",
        "Retained = S - L: customers active at the start of the window and at its end.",
        Values::Count(Parts::retained),
    ),
    window(
        "retentiond_window_reactivated_customers",
        "Reactivated = E - N - retained: customers who came back after having been inactive at the start.",
        Values::Count(Parts::reactivated),
    ),
    window(
        "retentiond_window_ordering_customers",
        "Ordering: customers with at least 1 order in the window, panes (p-P, p].",
        Values::Count(|parts| parts.ordering),
    ),
    window(
        "retentiond_window_repeat_customers",
        "Repeat: customers with at least 2 orders in the window, panes (p-P, p].",
        Values::Count(|parts| parts.repeat),
    ),
    window(
        "retentiond_window_returning_customers",
        "Returning: ordering customers with at least 2 orders in panes <= p, as shop platforms define it.",
        Values::Count(|parts| parts.returning),
    ),
    window(
        "retentiond_window_visiting_customers",
        "Visiting: customers with a session in the window, panes (p-P, p].",
        Values::Count(|parts| parts.visiting),
    ),
    window(
        "retentiond_window_orders",
        "Orders in the window, cancelled ones included.",
        Values::Count(|parts| parts.orders),
    ),
    window(
        "retentiond_window_referred_customers",
        "Referred: new customers whose first order, or whose profile in panes <= p, names a referrer.",
        Values::Count(|parts| parts.referred),
    ),
    window(
        "retentiond_window_lost_complainers",
        "Lost customers with a complaint in panes <= p.",
        Values::Count(|parts| parts.lost_complainers),
    ),
    window(
        "retentiond_window_customers_to_date",
        "Customers with an order in panes <= p.",
        Values::Count(|parts| parts.to_date),
    ),
    window(
        "retentiond_window_costed_customers",
        "Customers with an order and a cost in panes <= p.",
        Values::Count(|parts| parts.costed),
    ),
    window("retentiond_window_sessions", "Sessions in the window.", Values::Count(|parts| parts.sessions)),
    window(
        "retentiond_window_churn_ratio",
        "L / S (attrition), of this replica: the share of the customers at the start who are lost.",
        Values::Ratio(Parts::churn_ratio),
    ),
    window(
        "retentiond_window_retention_ratio",
        "Retained / S, of this replica: the share of the customers at the start who are still active.",
        Values::Ratio(Parts::retention_ratio),
    ),
    window(
        "retentiond_window_crr_ratio",
        "(E - N) / S, of this replica: the classic customer retention rate, which counts win-backs as kept and may \
         exceed 1.",
        Values::Ratio(Parts::crr_ratio),
    ),
    window("retentiond_window_repeat_ratio", "Repeat / ordering, of this replica.", Values::Ratio(Parts::repeat_ratio)),
    window(
        "retentiond_window_returning_ratio",
        "Returning / ordering, of this replica.",
        Values::Ratio(Parts::returning_ratio),
    ),
    window(
        "retentiond_window_conversion_ratio",
        "Ordering / visiting, of this replica; may exceed 1.",
        Values::Ratio(Parts::conversion_ratio),
    ),
    window("retentiond_window_referral_ratio", "Referred / N, of this replica.", Values::Ratio(Parts::referral_ratio)),
    window(
        "retentiond_window_lost_complainer_ratio",
        "Lost complainers / L, of this replica.",
        Values::Ratio(Parts::lost_complainer_ratio),
    ),
    window(
        "retentiond_window_cost_coverage_ratio",
        "Costed customers / customers to date, of this replica.",
        Values::Ratio(Parts::cost_coverage_ratio),
    ),
    window(
        "retentiond_window_purchase_frequency",
        "Orders / ordering customers, of this replica.",
        Values::Ratio(Parts::purchase_frequency),
    ),
    window(
        "retentiond_window_complete",
        "1 if the data begin no later than the first instant of pane p-P-A+1; until then churn is meaningless.",
        Values::Flag(|window| window.complete),
    ),
    window(
        "retentiond_window_new_complete",
        "1 if the window is complete and the data hold the whole history; until then new, reactivated, \
         returning and crr are meaningless.",
        Values::Flag(|window| window.new_complete),
    ),
    window(
        "retentiond_window_currency_orders",
        "Orders of the currency in the window.",
        Values::Money(|_, _, money| Some(read::count(money.orders))),
    ),
    window(
        "retentiond_window_revenue",
        "Revenue of the orders of the currency in the window, in major units.",
        Values::Money(|_, currency, money| Some(read::major(money.revenue, currency))),
    ),
    window(
        "retentiond_window_refunds",
        "Refunds in the window, in major units; booked when they happen.",
        Values::Money(|_, currency, money| Some(read::major(money.refunds, currency))),
    ),
    window(
        "retentiond_window_cancellations",
        "Cancelled amounts in the window, in major units; booked when they happen.",
        Values::Money(|_, currency, money| Some(read::major(money.cancellations, currency))),
    ),
    window(
        "retentiond_window_acquisition_costs",
        "Costs of acquiring customers in the window, in major units.",
        Values::Money(|_, currency, money| Some(read::major(money.costs.acquisition, currency))),
    ),
    window(
        "retentiond_window_retention_costs",
        "Costs of retaining customers in the window, in major units.",
        Values::Money(|_, currency, money| Some(read::major(money.costs.retention, currency))),
    ),
    window(
        "retentiond_window_average_order_value",
        "Revenue / orders of the currency, in major units, of this replica.",
        Values::Money(|_, currency, money| read::average(money.revenue, money, currency)),
    ),
    window(
        "retentiond_window_net_average_order_value",
        "(Revenue - refunds - cancellations) / orders of the currency, in major units, of this replica.",
        Values::Money(|_, currency, money| read::average(money.net(), money, currency)),
    ),
    window(
        "retentiond_window_clv",
        "Customer lifetime value, of this replica: (net revenue of the currency / ordering customers) x \
         (lifespan / P), in major units; only for the window clv.window, once it is complete.",
        Values::Money(|window, currency, money| window.lifetime_value(currency, money)),
    ),
    window(
        "retentiond_window_clv_after_costs",
        "clv - (costs of the currency in panes <= p / customers to date), of this replica, in major units; only if \
         there are such costs.",
        Values::Money(|window, currency, money| window.value_after_costs(currency, money)),
    ),
];

/// Current customers.
static PEOPLE: &[Metric] = &[
    gauge(
        "retentiond_customers",
        &["stage", "status"],
        "Customers by stage (prospect, new, repeat, loyal) and status (active, at_risk, lapsed; none for prospects).",
        read::customers,
    ),
    counter(
        "retentiond_transitions_total",
        &["from", "to"],
        "Transitions of customers from one status or stage to another, counted once the horizon has passed them.",
        read::transitions,
    ),
    counter(
        "retentiond_referrals_total",
        &[],
        "Customers with an order and a referrer, counted once the horizon has passed both.",
        read::referrals,
    ),
    counter(
        "retentiond_feedback_total",
        &["kind"],
        "Accepted feedback; kinds after the first 50 found count as other.",
        read::feedback,
    ),
    gauge(
        "retentiond_dimension_overflowed",
        &["dimension"],
        "1 if more values of the dimension were found than are kept; the rest counts as other.",
        read::overflowed,
    ),
];

/// The daemon itself.
static OPERATION: &[Metric] = &[
    gauge(
        "retentiond_as_of_timestamp_seconds",
        &[],
        "The instant at which all windows are evaluated, event time: the smallest watermark over the partitions that \
         hold events.",
        read::as_of,
    ),
    gauge(
        "retentiond_last_event_timestamp_seconds",
        &["topic"],
        "The largest watermark of the topic over the partitions of this replica: its latest accepted event, event time.",
        read::last_event,
    ),
    gauge(
        "retentiond_history_start_timestamp_seconds",
        &[],
        "When the data begin, event time: time.data_begin, or the latest first event over the non-empty partitions.",
        read::history_start,
    ),
    gauge(
        "retentiond_caught_up",
        &[],
        "1 if this replica has joined its group and was at the end of all its topic-partitions in the last 10 s.",
        read::caught_up,
    ),
    counter(
        "retentiond_events_total",
        &["topic", "type"],
        "Decoded messages, including duplicates and late ones, without rejected ones; type unknown for ignored types.",
        read::events,
    ),
    counter(
        "retentiond_events_rejected_total",
        &["topic", "reason"],
        "Messages that could not be decoded or are in the future; for late ones see retentiond_events_late_total.",
        read::rejected,
    ),
    counter(
        "retentiond_events_skipped_total",
        &["topic", "reason"],
        "Messages that are deliberately not events, such as test orders, and repeated events.",
        read::skipped,
    ),
    counter(
        "retentiond_events_duplicate_total",
        &[],
        "Duplicates of events that were counted before.",
        |scrape, samples| samples.add([], read::total(scrape.overview.status.tally.duplicates)),
    ),
    counter(
        "retentiond_events_late_total",
        &[],
        "Events more than customers.allowed_lateness behind the watermark of their topic-partition; rejected.",
        |scrape, samples| samples.add([], read::total(scrape.overview.status.tally.late)),
    ),
    counter(
        "retentiond_unconverted_total",
        &["currency"],
        "Amounts without a rate into the reporting currency on their day; they are excluded from the currency reporting.",
        read::unconverted,
    ),
    gauge(
        "retentiond_lag_events",
        &["topic", "partition"],
        "Records of the topic-partition that have not been applied yet.",
        read::lag_events,
    ),
    gauge(
        "retentiond_lag_seconds",
        &[],
        "Seconds since the topic-partition furthest behind was at its end; absent until each has been once.",
        read::lag_seconds,
    ),
    gauge("retentiond_tracked_customers", &[], "Customers with a record on this replica.", read::tracked_customers),
    gauge(
        "retentiond_state_bytes",
        &[],
        "Approximate memory of the state of this replica, in bytes.",
        read::state_bytes,
    ),
    gauge(
        "retentiond_partition_state",
        &["partition", "state"],
        "1 for the current state of an owned partition (restoring, running, draining, failed), 0 for the others.",
        read::partition_state,
    ),
    counter("retentiond_checkpoint_bytes_total", &[], "Bytes written to the checkpoint store.", |scrape, samples| {
        samples.add([], read::total(scrape.source.checkpoints.bytes))
    }),
    gauge(
        "retentiond_checkpoint_duration_seconds",
        &[],
        "Duration of the last checkpoint, from copying the state to the commit.",
        |scrape, samples| {
            if let Some(took) = scrape.source.checkpoints.took {
                samples.add([], took.as_secs_f64());
            }
        },
    ),
    gauge(
        "retentiond_checkpoint_last_success_timestamp_seconds",
        &[],
        "When the last checkpoint of this replica was committed, wall clock.",
        |scrape, samples| {
            if let Some(last) = scrape.source.checkpoints.last_success {
                samples.add([], last.seconds());
            }
        },
    ),
    counter("retentiond_dead_letters_total", &[], "Committed dead letters.", |scrape, samples| {
        samples.add([], read::total(scrape.source.checkpoints.dead_letters + repartition::dead_letters(scrape)))
    }),
    counter(
        "retentiond_webhook_deliveries_total",
        &["outcome"],
        "Alerts that the webhook has delivered, or given_up and sent to the dead-letter topic.",
        read::webhook_deliveries,
    ),
    counter(
        "retentiond_webhook_attempts_total",
        &["code"],
        "Attempts to deliver an alert, by result: 2xx, 3xx, 4xx, 5xx, timeout, forbidden (not a public address) or \
         failed (no connection).",
        read::webhook_attempts,
    ),
    gauge(
        "retentiond_webhook_oldest_undelivered_seconds",
        &[],
        "Age of the oldest alert that this replica has read but not delivered, in seconds; 0 if there is none.",
        read::webhook_oldest,
    ),
    gauge(
        "retentiond_webhook_disabled",
        &[],
        "1 after the endpoint answered 410, until the next restart.",
        read::webhook_disabled,
    ),
    gauge(
        "retentiond_partitions_assigned",
        &[],
        "Partitions that this replica owns: every source topic's is assigned to it.",
        |scrape, samples| samples.add([], read::size(scrape.source.owned.len())),
    ),
    gauge(
        "retentiond_source_partitions",
        &["topic"],
        "Partitions of the topic; absent while the topic is missing or the broker has not answered.",
        read::source_partitions,
    ),
    counter(
        "retentiond_rebalances_total",
        &[],
        "Rebalances of the consumer group that this replica took part in.",
        |scrape, samples| samples.add([], read::total(scrape.source.rebalances)),
    ),
    gauge("retentiond_build_info", &["version"], "Always 1; the label names the version.", |_, samples| {
        samples.add([env!("CARGO_PKG_VERSION")], 1.0);
    }),
];
