//! The input of a scrape, and how the values of metrics are computed from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rust_decimal::prelude::ToPrimitive;

use super::{Metric, Values, repartition};
use crate::decode::{Reason, Skip};
use crate::engine::axis::Pane;
use crate::engine::figures::MoneyParts;
use crate::engine::known::{CHURN, REPORTING, needs};
use crate::engine::rates::Rates;
use crate::engine::snapshot::{Period, last_pane};
use crate::engine::spec::{Spec, WindowId};
use crate::engine::{WindowParts, window_ids};
use crate::event::{Currency, EventType};
use crate::output::summary::{self, Background};
use crate::status::delivery::{CODES, Deliveries};
use crate::status::routing::RoutingStatus;
use crate::status::{AT_END_WITHIN, PartitionState, SourceStatus};
use crate::worker::pool::Overview;

/// The input of one response to `/metrics`.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// The specification of the engines.
    pub spec: &'a Spec,
    /// The source topics, in the order of the configuration.
    pub topics: &'a [String],
    /// The snapshot of the workers.
    pub overview: &'a Overview,
    /// The status of the poll loop.
    pub source: &'a SourceStatus,
    /// Facts about the dataset.
    pub background: &'a Background,
    /// The time of the scrape.
    pub now: Instant,
}

/// The values of one metric, with their label values.
#[derive(Debug, Default)]
pub(super) struct Samples(pub Vec<(Vec<String>, f64)>);

impl Samples {
    pub(super) fn add<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        self.0.push((labels.map(str::to_owned).into(), value));
    }
}

/// One value of the label `window`, with its figures.
#[derive(Debug)]
pub(super) struct WindowView<'a> {
    name: String,
    figures: &'a WindowParts,
    pub(super) complete: bool,
    pub(super) new_complete: bool,
    /// P in milliseconds, if it is the reference window of the lifetime value.
    reference: Option<i64>,
}

impl Scrape<'_> {
    /// The windows that can be computed: all except those whose history is no longer kept.
    pub(super) fn windows(&self) -> Vec<WindowView<'_>> {
        let Some(snapshot) = &self.overview.snapshot else { return Vec::new() };
        let mut windows = Vec::new();
        for (i, figures) in snapshot.rolling.iter().enumerate() {
            let Some(figures) = figures else { continue };
            let id = WindowId::Rolling(i);
            let p = self.spec.pane(id, snapshot.at);
            windows.push(WindowView::new(self.spec, self.background, id, p, figures));
        }
        for i in 0..self.spec.calendar.len() {
            let id = WindowId::Calendar(i);
            let unit = self.spec.name(id);
            let of_unit = || snapshot.periods.iter().filter(|period| period.window == i);
            let open = of_unit().rfind(|period| !period.closed).map(|period| (period, unit.to_owned()));
            let closed = of_unit().rfind(|period| period.closed && self.has_orders_by(period));
            let closed = closed.map(|period| (period, format!("{unit}_previous")));
            for (period, name) in [open, closed].into_iter().flatten() {
                let p = last_pane(self.spec, period, snapshot.at);
                let window = WindowView::new(self.spec, self.background, id, p, &period.figures);
                windows.push(WindowView { name, ..window });
            }
        }
        windows
    }

    /// Adds the values by dimension value, if the metric has any.
    pub(super) fn read_segments(&self, metric: &Metric, samples: &mut Samples) {
        let Some(snapshot) = &self.overview.snapshot else { return };
        if !matches!(metric.values, Values::SegmentCount(_) | Values::SegmentMoney(_)) {
            return;
        }
        for ((dimension, value), windows) in &snapshot.segments {
            let Some(dimension) = self.spec.dimensions.get(*dimension) else { continue };
            for (id, figures) in window_ids(self.spec).zip(windows) {
                let Some(figures) = figures else { continue };
                let p = self.spec.pane(id, snapshot.at);
                let window = WindowView::new(self.spec, self.background, id, p, figures);
                read_segment(metric, [self.spec.name(id), &dimension.name, value], &window, samples);
            }
        }
    }

    fn webhook(&self) -> Option<Deliveries> {
        self.source.webhook.as_ref().map(|webhook| webhook.read())
    }

    /// Whether the period is not before the first order; earlier periods do not exist.
    fn has_orders_by(&self, period: &Period) -> bool {
        let partitions = self.overview.status.partitions.iter();
        let first_order = partitions.filter_map(|partition| partition.first_order).min();
        first_order.is_some_and(|first| self.spec.zone.day(first) <= period.to)
    }
}

/// Adds the values of one window and dimension value, if the metric has any; `labels` are window, dimension and value.
pub(super) fn read_segment(metric: &Metric, labels: [&str; 3], view: &WindowView<'_>, samples: &mut Samples) {
    if !view.knows(metric) {
        return;
    }
    match metric.values {
        Values::SegmentCount(read) => samples.add(labels, count(read(&view.figures.parts))),
        Values::SegmentMoney(read) => {
            let [window, dimension, value] = labels;
            for (&currency, money) in view.money() {
                if let Some(amount) = read(view, currency, money) {
                    samples.add([window, dimension, value, currency.code()], amount);
                }
            }
        }
        _ => {}
    }
}

impl<'a> WindowView<'a> {
    /// The figures of a window that ends with pane `p`, labelled with its name.
    pub(super) fn new(
        spec: &Spec,
        background: &Background,
        id: WindowId,
        p: Pane,
        figures: &'a WindowParts,
    ) -> WindowView<'a> {
        let complete = spec.is_complete(id, p, background.data_begin) && figures.missing.knows(CHURN);
        let reference = match id {
            WindowId::Rolling(i) if background.clv_window == Some(i) => Some(spec.rolling[i].period),
            _ => None,
        };
        let new_complete = complete && background.history_whole && figures.missing.knows(needs("new_customers"));
        WindowView { name: spec.name(id).to_owned(), figures, complete, new_complete, reference }
    }

    /// Whether the figure of a metric is known; the metric is absent otherwise.
    fn knows(&self, metric: &Metric) -> bool {
        metric.window_figure().is_none_or(|figure| self.figures.missing.knows(needs(figure)))
    }

    /// Money by currency, as far as known.
    fn money(&self) -> impl Iterator<Item = (&Currency, &MoneyParts)> {
        let tells_reporting = self.figures.missing.knows(REPORTING);
        self.figures.money.iter().filter(move |(currency, _)| tells_reporting || !currency.is_reporting())
    }

    /// Adds the time from which all figures are known, if some are not.
    fn missing(&self, samples: &mut Samples) {
        if let Some(until) = self.figures.missing.last() {
            let reason = self.figures.change.map_or("the configuration was changed", |change| change.why.text());
            samples.add([&self.name, reason], until.seconds());
        }
    }

    /// Adds the values that this window has, if any.
    pub(super) fn read(&self, metric: &Metric, samples: &mut Samples) {
        if !self.knows(metric) {
            return;
        }
        let value = match &metric.values {
            Values::Count(read) => Some(count(read(&self.figures.parts))),
            Values::Ratio(read) => read(&self.figures.parts),
            Values::Flag(read) => Some(flag(read(self))),
            Values::Money(read) => {
                for (&currency, money) in self.money() {
                    if let Some(value) = read(self, currency, money) {
                        samples.add([&self.name, currency.code()], value);
                    }
                }
                None
            }
            Values::SegmentCount(_) | Values::SegmentMoney(_) | Values::Histograms { .. } | Values::Other { .. } => {
                None
            }
        };
        if let Some(value) = value {
            samples.add([&self.name], value);
        }
    }

    /// The lifetime value of the reference window, once it is complete, in currencies with bookings.
    pub(super) fn lifetime_value(&self, currency: Currency, money: &MoneyParts) -> Option<f64> {
        let period = self.reference.filter(|_| self.complete && !money.is_nothing())?;
        summary::lifetime_value(currency, money, self.figures, period)?.to_f64()
    }

    /// The lifetime value after costs of the reference window, once it is complete, in currencies with costs.
    pub(super) fn value_after_costs(&self, currency: Currency, money: &MoneyParts) -> Option<f64> {
        let period = self.reference.filter(|_| self.complete && !money.is_nothing())?;
        summary::value_after_costs(currency, money, self.figures, period)?.to_f64()
    }
}

/// Whether the replica has joined its group and has applied all it owns to the end, except for records in flight.
#[must_use]
pub fn is_caught_up(source: &SourceStatus, now: Instant) -> bool {
    let recently = |at: Instant| now.saturating_duration_since(at) <= AT_END_WITHIN;
    let is_routed = |router: &Arc<RoutingStatus>| {
        let router = router.read();
        !router.is_ours || router.last_at_end.is_some_and(recently)
    };
    source.joined
        && source.routers.iter().all(is_routed)
        && source.is_running()
        && source
            .positions
            .values()
            .all(|position| position.lag() == Some(0) || position.last_at_end.is_some_and(recently))
}

/// The windows with figures that are not known.
pub(super) fn missing(scrape: &Scrape<'_>, samples: &mut Samples) {
    scrape.windows().iter().for_each(|window| window.missing(samples));
}

pub(super) fn customers(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(snapshot) = &scrape.overview.snapshot {
        for stage in summary::known_stages(snapshot).into_iter().flatten() {
            samples.add([stage.stage, stage.status], count(stage.customers));
        }
    }
}

pub(super) fn transitions(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(snapshot) = &scrape.overview.snapshot {
        for transition in summary::transitions(&snapshot.lifecycle) {
            samples.add([transition.from, transition.to], count(transition.count));
        }
    }
}

pub(super) fn referrals(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(snapshot) = &scrape.overview.snapshot {
        samples.add([], count(snapshot.totals.referrals));
    }
}

/// All accepted events, including those after the instant of the figures: a counter counts what was processed.
pub(super) fn feedback(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(snapshot) = &scrape.overview.snapshot {
        for (kind, feedback) in &snapshot.totals.feedback {
            samples.add([kind], count(feedback.accepted));
        }
    }
}

pub(super) fn overflowed(scrape: &Scrape<'_>, samples: &mut Samples) {
    let Some(snapshot) = &scrape.overview.snapshot else { return };
    for (dimension, overflow) in scrape.spec.dimensions.iter().zip(&snapshot.segments_overflowed) {
        samples.add([&dimension.name], flag(overflow.is_any()));
    }
}

pub(super) fn incomplete(scrape: &Scrape<'_>, samples: &mut Samples) {
    let Some(snapshot) = &scrape.overview.snapshot else { return };
    for (dimension, value) in snapshot.segments.keys() {
        let is_incomplete = snapshot.segments_overflowed[*dimension].is_incomplete(value);
        samples.add([&scrape.spec.dimensions[*dimension].name, value], flag(is_incomplete));
    }
}

pub(super) fn as_of(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(snapshot) = &scrape.overview.snapshot {
        samples.add([], snapshot.at.seconds());
    }
}

pub(super) fn last_event(scrape: &Scrape<'_>, samples: &mut Samples) {
    for (i, topic) in scrape.topics.iter().enumerate() {
        let partitions = scrape.overview.status.partitions.iter();
        let marks = partitions.filter_map(|partition| *partition.topic_watermarks.get(i)?);
        if let Some(last) = marks.max() {
            samples.add([topic], last.seconds());
        }
    }
}

pub(super) fn history_start(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(begin) = scrape.background.data_begin {
        samples.add([], begin.seconds());
    }
}

pub(super) fn caught_up(scrape: &Scrape<'_>, samples: &mut Samples) {
    samples.add([], flag(is_caught_up(scrape.source, scrape.now)));
}

/// Every type of every topic, even at zero, so that the first one is an increase.
pub(super) fn events(scrape: &Scrape<'_>, samples: &mut Samples) {
    let counts = &scrape.overview.status.tally.events;
    for (i, topic) in scrape.topics.iter().enumerate() {
        for kind in EventType::ALL {
            let seen = counts.get(i).map_or(0, |of_topic| of_topic[kind as usize]);
            samples.add([topic, kind.name()], total(seen));
        }
    }
    repartition::unknown(scrape, samples);
}

/// Every reason of every topic, even at zero, so that the first one is an increase. Except [`Reason::TooLate`]: late
/// events are decoded, and counted as events and as late.
pub(super) fn rejected(scrape: &Scrape<'_>, samples: &mut Samples) {
    let counts = &scrape.overview.status.tally.rejected;
    for (i, topic) in scrape.topics.iter().enumerate() {
        for reason in Reason::ALL.into_iter().filter(|&reason| reason != Reason::TooLate) {
            let seen = counts.get(i).map_or(0, |of_topic| of_topic[reason as usize]);
            samples.add([topic, reason.label()], total(seen));
        }
    }
    repartition::rejected(scrape, samples);
}

/// Every reason of every topic, as for rejections.
pub(super) fn skipped(scrape: &Scrape<'_>, samples: &mut Samples) {
    let counts = &scrape.overview.status.tally.skipped;
    for (i, topic) in scrape.topics.iter().enumerate() {
        for skip in Skip::ALL {
            let seen = counts.get(i).map_or(0, |of_topic| of_topic[skip as usize]);
            samples.add([topic, skip.label()], total(seen));
        }
    }
    repartition::skipped(scrape, samples);
}

/// Every currency with a rate, even at zero, so that the first one is an increase; others once found.
pub(super) fn unconverted(scrape: &Scrape<'_>, samples: &mut Samples) {
    let known = scrape.spec.rates.iter().flat_map(Rates::currencies).map(|currency| (currency, 0));
    let mut counts: BTreeMap<Currency, u64> = known.collect();
    counts.extend(&scrape.overview.status.tally.unconverted);
    for (currency, amounts) in counts {
        samples.add([currency.code()], total(amounts));
    }
}

pub(super) fn lag_events(scrape: &Scrape<'_>, samples: &mut Samples) {
    for (at, position) in &scrape.source.positions {
        if let (Some(topic), Some(lag)) = (scrape.topics.get(usize::from(at.topic.0)), position.lag()) {
            samples.add([topic, &at.partition.0.to_string()], count(lag));
        }
    }
    repartition::lag_events(scrape, samples);
}

pub(super) fn lag_seconds(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(lag) = scrape.source.lag_seconds(scrape.now) {
        samples.add([], lag);
    }
}

/// Every state of every owned partition.
pub(super) fn partition_state(scrape: &Scrape<'_>, samples: &mut Samples) {
    for (partition, now) in &scrape.source.states {
        for state in PartitionState::NAMES {
            samples.add([&partition.0.to_string(), state], flag(state == now.name()));
        }
    }
}

pub(super) fn tracked_customers(scrape: &Scrape<'_>, samples: &mut Samples) {
    let partitions = scrape.overview.status.partitions.iter();
    samples.add([], size(partitions.map(|partition| partition.tracked_customers).sum()));
}

pub(super) fn state_bytes(scrape: &Scrape<'_>, samples: &mut Samples) {
    let partitions = scrape.overview.status.partitions.iter();
    samples.add([], size(partitions.map(|partition| partition.state_bytes).sum()));
}

pub(super) fn source_partitions(scrape: &Scrape<'_>, samples: &mut Samples) {
    for (topic, partitions) in scrape.topics.iter().zip(&scrape.source.partition_counts) {
        if let &Some(partitions) = partitions {
            samples.add([topic], f64::from(partitions));
        }
    }
}

/// Every topic, including the original topics of routed sources.
pub(super) fn unusable(scrape: &Scrape<'_>, samples: &mut Samples) {
    let routers: Vec<_> = scrape.source.routers.iter().map(|router| router.read()).collect();
    for (index, topic) in scrape.topics.iter().enumerate() {
        let router = routers.iter().find(|router| router.is_ours && usize::from(router.into.0) == index);
        let topic = router.map_or(topic, |router| &router.topic);
        let is_poor = scrape.source.poor_topics.iter().any(|poor| poor.topic == *topic);
        samples.add([topic], flag(is_poor));
    }
}

pub(super) fn webhook_deliveries(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(webhook) = scrape.webhook() {
        samples.add(["delivered"], total(webhook.delivered));
        samples.add(["given_up"], total(webhook.given_up));
    }
}

/// Every code, even at zero, so that the first one is an increase.
pub(super) fn webhook_attempts(scrape: &Scrape<'_>, samples: &mut Samples) {
    for (code, attempts) in scrape.webhook().iter().flat_map(|webhook| CODES.iter().zip(webhook.attempts)) {
        samples.add([code], total(attempts));
    }
}

pub(super) fn webhook_oldest(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(webhook) = scrape.webhook() {
        let age = webhook.oldest.map_or(0.0, |since| scrape.now.saturating_duration_since(since).as_secs_f64());
        samples.add([], age);
    }
}

pub(super) fn webhook_disabled(scrape: &Scrape<'_>, samples: &mut Samples) {
    if let Some(webhook) = scrape.webhook() {
        samples.add([], flag(webhook.is_disabled));
    }
}

pub(super) fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn count(count: i64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn total(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(super) fn size(size: usize) -> f64 {
    size as f64
}

/// Converts minor to major units. The only place where money becomes a float, because Prometheus has no other numbers.
#[expect(clippy::cast_precision_loss, reason = "the nearest float is what is wanted")]
pub(super) fn major(minor: i128, currency: Currency) -> f64 {
    minor as f64 / 10_f64.powi(currency.exponent().cast_signed())
}

/// Major units per order; `None` without orders.
pub(super) fn average(minor: i128, money: &MoneyParts, currency: Currency) -> Option<f64> {
    (money.orders != 0).then(|| major(minor, currency) / count(money.orders))
}
