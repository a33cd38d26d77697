//! The metrics of segments, and of figures that are not known.

use super::read;
use super::{Metric, Parts, Values, gauge, window};

/// Figures by dimension value, of rolling windows and open calendar periods. A customer belongs to the value of the
/// earliest order, or to `none` before the first order.
pub(super) static SEGMENT: &[Metric] = &[
    window(
        "retentiond_segment_start_customers",
        "As retentiond_window_start_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.start),
    ),
    window(
        "retentiond_segment_end_customers",
        "As retentiond_window_end_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.end),
    ),
    window(
        "retentiond_segment_new_customers",
        "As retentiond_window_new_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.new),
    ),
    window(
        "retentiond_segment_lost_customers",
        "As retentiond_window_lost_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.lost),
    ),
    window(
        "retentiond_segment_retained_customers",
        "As retentiond_window_retained_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(Parts::retained),
    ),
    window(
        "retentiond_segment_reactivated_customers",
        "As retentiond_window_reactivated_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(Parts::reactivated),
    ),
    window(
        "retentiond_segment_ordering_customers",
        "As retentiond_window_ordering_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.ordering),
    ),
    window(
        "retentiond_segment_repeat_customers",
        "As retentiond_window_repeat_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.repeat),
    ),
    window(
        "retentiond_segment_returning_customers",
        "As retentiond_window_returning_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.returning),
    ),
    window(
        "retentiond_segment_visiting_customers",
        "As retentiond_window_visiting_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.visiting),
    ),
    window(
        "retentiond_segment_referred_customers",
        "As retentiond_window_referred_customers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.referred),
    ),
    window(
        "retentiond_segment_lost_complainers",
        "As retentiond_window_lost_complainers, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.lost_complainers),
    ),
    window(
        "retentiond_segment_orders",
        "As retentiond_window_orders, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.orders),
    ),
    window(
        "retentiond_segment_sessions",
        "As retentiond_window_sessions, of the customers of one value of a dimension.",
        Values::SegmentCount(|parts| parts.sessions),
    ),
    window(
        "retentiond_segment_revenue",
        "As retentiond_window_revenue, of the customers of one value of a dimension.",
        Values::SegmentMoney(|_, currency, money| Some(read::major(money.revenue, currency))),
    ),
    window(
        "retentiond_segment_refunds",
        "As retentiond_window_refunds, of the customers of one value of a dimension.",
        Values::SegmentMoney(|_, currency, money| Some(read::major(money.refunds, currency))),
    ),
    window(
        "retentiond_segment_cancellations",
        "As retentiond_window_cancellations, of the customers of one value of a dimension.",
        Values::SegmentMoney(|_, currency, money| Some(read::major(money.cancellations, currency))),
    ),
    window(
        "retentiond_segment_currency_orders",
        "As retentiond_window_currency_orders, of the customers of one value of a dimension.",
        Values::SegmentMoney(|_, _, money| Some(read::count(money.orders))),
    ),
    window(
        "retentiond_segment_clv",
        "As retentiond_window_clv, of the customers of one value of a dimension.",
        Values::SegmentMoney(|window, currency, money| window.lifetime_value(currency, money)),
    ),
];

/// Figures and dimensions that are not known.
pub(super) static MISSING: &[Metric] = &[
    gauge(
        "retentiond_figures_missing_until_timestamp_seconds",
        &["window", "reason"],
        "When all figures of a window will be known, in epoch seconds of event time; present while some are absent \
         because the configuration was changed.",
        read::missing,
    ),
    gauge(
        "retentiond_dimension_value_incomplete",
        &["dimension", "value"],
        "1 if a partition found more values of the dimension than it keeps and counts customers of this value as other.",
        read::incomplete,
    ),
];
