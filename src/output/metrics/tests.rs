use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::{Shop, topics};
use super::*;
use crate::bus::{Partition, TopicIndex, TopicPartition};
use crate::decode::Reason;
use crate::engine::rates::{Rate, Rates};
use crate::engine::spec::Spec;
use crate::event::Time;
use crate::output::summary::Background;
use crate::status::latency::Latency;
use crate::status::routing::RoutingStatus;
use crate::status::{Checkpoints, PartitionState, ReadPosition, SourceStatus};
use crate::worker::WorkerStatus;
use crate::worker::pool::Overview;

/// The metrics of section 10 of the design.
const PROMISED: &str = "start_customers end_customers new_customers lost_customers retained_customers \
    reactivated_customers ordering_customers repeat_customers returning_customers visiting_customers orders sessions \
    complete new_complete revenue refunds cancellations currency_orders churn_ratio retention_ratio crr_ratio \
    repeat_ratio returning_ratio conversion_ratio purchase_frequency average_order_value net_average_order_value clv \
    referred_customers referral_ratio lost_complainers lost_complainer_ratio acquisition_costs retention_costs \
    customers_to_date costed_customers cost_coverage_ratio clv_after_costs";
const PROMISED_OF_SEGMENTS: &str = "start_customers end_customers new_customers lost_customers retained_customers \
    reactivated_customers ordering_customers repeat_customers returning_customers visiting_customers orders sessions \
    revenue refunds cancellations currency_orders referred_customers lost_complainers clv";

const PROMISED_OF_OPERATION: &str = "inactivity_due_total inactivity_alerts_total winbacks_total winback_revenue_total
    inactivity_alerts_waiting interpurchase_seconds time_to_second_order_seconds order_value event_latency_seconds \
    customers transitions_total referrals_total feedback_total dimension_overflowed dimension_value_incomplete \
    figures_missing_until_timestamp_seconds as_of_timestamp_seconds last_event_timestamp_seconds \
    history_start_timestamp_seconds caught_up events_total events_rejected_total events_skipped_total \
    events_duplicate_total events_late_total unconverted_total lag_events lag_seconds tracked_customers state_bytes \
    partition_state checkpoint_bytes_total checkpoint_duration_seconds checkpoint_last_success_timestamp_seconds \
    checkpoint_uncommitted_seconds checkpoint_stale topic_unusable group_faults dead_letters_total partitions_assigned \
    source_partitions rebalances_total build_info webhook_deliveries_total webhook_attempts_total \
    webhook_oldest_undelivered_seconds webhook_disabled repartitioned_events_total split_customers_total";

fn source() -> SourceStatus {
    let position = |topic, partition, position| {
        (TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }, position)
    };
    let now = Instant::now();
    let mut latency = Latency::default();
    latency.record(Duration::from_millis(20), 9);
    latency.record(Duration::from_secs(90), 1);
    SourceStatus {
        webhook: Some(Arc::default()),
        partition_counts: vec![Some(2), None],
        joined: true,
        owned: vec![Partition(0), Partition(1)],
        states: BTreeMap::from([(Partition(0), PartitionState::Running), (Partition(1), PartitionState::Running)]),
        checkpoints: Checkpoints {
            bytes: 4_096,
            committed: 7,
            dead_letters: 2,
            last_success: Some(Time::clamped(1_780_000_000_000)),
            took: Some(Duration::from_millis(250)),
            uncommitted_since: now.checked_sub(Duration::from_secs(120)),
            stale_after: Some(Duration::from_secs(100)),
        },
        positions: BTreeMap::from([
            position(0, 0, ReadPosition { applied: Some(9), end: Some(12), last_at_end: Some(now) }),
            position(0, 11, ReadPosition { applied: Some(4), end: Some(4), last_at_end: Some(now) }),
            position(1, 1, ReadPosition { applied: None, end: None, last_at_end: Some(now) }),
        ]),
        rebalances: 3,
        latency,
        ..SourceStatus::default()
    }
}

fn known() -> Background {
    Background {
        data_begin: Some(Time::parse("2024-01-01T00:00:00Z").unwrap()),
        history_whole: true,
        clv_window: Some(1),
    }
}

fn encode_shop(overview: &Overview, background: &Background) -> BTreeMap<String, f64> {
    encode_with(overview, &source(), background, &topics())
}

fn encode_with(
    overview: &Overview,
    source: &SourceStatus,
    background: &Background,
    topics: &[String],
) -> BTreeMap<String, f64> {
    let spec = &fixture::worker_config().spec;
    parse(&encode(&Scrape { spec, topics, overview, source, background, now: Instant::now() }).unwrap())
}

/// Parses series and values of the text format; every line must be valid and every series unique.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let (mut typed, mut histograms) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(_, help)| help.ends_with('.') || help.contains(". ")), "{line}");
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            histograms.extend((kind == "histogram").then(|| name.to_owned()));
            assert!(typed.insert(name.to_owned()), "{line} twice");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let sample = name.split('{').next().unwrap();
            let family = family_of(sample);
            assert!(typed.contains(family), "{line} before its type");
            assert_eq!(histograms.contains(family), sample.len() != family.len(), "{line}");
            assert!(name.len() == sample.len() || name.ends_with("\"}"), "{line}");
            assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    series
}

/// The family of a sample: the name without the suffix of histogram samples.
fn family_of(sample: &str) -> &str {
    let ends = ["_bucket", "_sum", "_count"].into_iter();
    let family = ends.filter_map(|end| sample.strip_suffix(end)).next();
    family.filter(|family| definitions().any(|metric| metric.name == *family)).unwrap_or(sample)
}

#[track_caller]
fn assert_values(series: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for &(name, value) in expected {
        assert_eq!(series.get(name), Some(&value), "{name}");
    }
}

#[test]
fn defines_what_the_design_promises() {
    let defined: Vec<&str> = definitions().map(|metric| metric.name).collect();
    let windows = PROMISED.split_whitespace().map(|name| format!("retentiond_window_{name}"));
    let operation = PROMISED_OF_OPERATION.split_whitespace().map(|name| format!("retentiond_{name}"));
    let segments = PROMISED_OF_SEGMENTS.split_whitespace().map(|name| format!("retentiond_segment_{name}"));
    let promised: BTreeSet<String> = windows.chain(segments).chain(operation).collect();
    assert_eq!(defined.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>(), promised);
    assert_eq!(defined.len(), promised.len(), "one name, one definition");
    for metric in definitions() {
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(metric.labels().iter().all(|label| !label.contains("customer")), "{}", metric.name);
        assert_eq!(
            metric.labels().contains(&"value"),
            ["retentiond_segment_", "retentiond_dimension_value_"].iter().any(|prefix| metric.name.starts_with(prefix)),
            "{}",
            metric.name
        );
    }
}

#[test]
fn every_metric_has_a_value_once_there_are_orders() {
    let mut overview = Shop::new().overview();
    // Without a reporting currency there is nothing to count.
    overview.status.tally.unconverted.insert(Currency::from_code("JPY").unwrap(), 1);
    let source = SourceStatus { routers: vec![Arc::default()], ..source() };
    let series = encode_with(&overview, &source, &known(), &topics());
    let shown: BTreeSet<&str> = series.keys().map(|name| family_of(name.split('{').next().unwrap())).collect();
    // It appears only after a change of the configuration.
    let always = |name: &&str| *name != "retentiond_figures_missing_until_timestamp_seconds";
    assert_eq!(shown, definitions().map(|metric| metric.name).filter(always).collect());
    assert!(series.keys().all(|name| !["anna", "bert", "cora", "dora"].iter().any(|id| name.contains(id))));
}

#[test]
fn figures_of_the_windows() {
    let series = encode_shop(&Shop::new().overview(), &known());
    for (figure, value) in [
        ("start_customers", 2.0),
        ("end_customers", 2.0),
        ("new_customers", 1.0),
        ("lost_customers", 1.0),
        ("retained_customers", 1.0),
        ("reactivated_customers", 0.0),
        ("ordering_customers", 2.0),
        ("repeat_customers", 1.0),
        ("returning_customers", 2.0),
        ("visiting_customers", 2.0),
        ("orders", 3.0),
        ("sessions", 3.0),
        ("churn_ratio", 0.5),
        ("retention_ratio", 0.5),
        ("crr_ratio", 0.5),
        ("repeat_ratio", 0.5),
        ("returning_ratio", 1.0),
        ("conversion_ratio", 1.0),
        ("purchase_frequency", 1.5),
        ("referred_customers", 1.0),
        ("referral_ratio", 1.0),
        ("lost_complainers", 1.0),
        ("lost_complainer_ratio", 1.0),
        ("customers_to_date", 3.0),
        ("costed_customers", 2.0),
        ("cost_coverage_ratio", 2.0 / 3.0),
        ("complete", 1.0),
        ("new_complete", 1.0),
    ] {
        assert_values(&series, &[(&format!("retentiond_window_{figure}{{window=\"30d\"}}"), value)]);
    }
    assert_values(
        &series,
        &[
            ("retentiond_window_orders{window=\"month\"}", 2.0),
            ("retentiond_window_orders{window=\"month_previous\"}", 1.0),
            ("retentiond_window_orders{window=\"year\"}", 5.0),
            ("retentiond_window_orders{window=\"year_previous\"}", 1.0),
            ("retentiond_window_revenue{window=\"30d\",currency=\"EUR\"}", 40.5),
            ("retentiond_window_revenue{window=\"30d\",currency=\"JPY\"}", 1500.0),
            ("retentiond_window_revenue{window=\"month\",currency=\"EUR\"}", 0.0),
            ("retentiond_window_currency_orders{window=\"30d\",currency=\"JPY\"}", 2.0),
            ("retentiond_window_average_order_value{window=\"30d\",currency=\"JPY\"}", 750.0),
            ("retentiond_window_acquisition_costs{window=\"30d\",currency=\"JPY\"}", 90.0),
            ("retentiond_window_retention_costs{window=\"30d\",currency=\"EUR\"}", 1.5),
            ("retentiond_window_retention_costs{window=\"month_previous\",currency=\"EUR\"}", 0.0),
            ("retentiond_referrals_total", 1.0),
            ("retentiond_feedback_total{kind=\"complaint\"}", 1.0),
        ],
    );
    // (10 + 20 + 30 + 40.50) / 3 ordering customers x ((126 + 1.5) / 2 days) / 365 days.
    let clv = series["retentiond_window_clv{window=\"365d\",currency=\"EUR\"}"];
    assert!((clv - 100.5 / 3.0 * 63.75 / 365.0).abs() < 1e-9, "{clv}");
    assert!(!series.contains_key("retentiond_window_clv{window=\"30d\",currency=\"EUR\"}"));
    // All customers belong to the only channel, `unknown`.
    let of_segment = "window=\"365d\",dimension=\"channel\",value=\"unknown\",currency=\"EUR\"";
    assert_values(&series, &[(&format!("retentiond_segment_clv{{{of_segment}}}"), clv)]);
    let after_costs = series["retentiond_window_clv_after_costs{window=\"365d\",currency=\"EUR\"}"];
    assert!((after_costs - (clv - 1.5 / 3.0)).abs() < 1e-9, "{after_costs}");
}

#[test]
fn histograms_count_up_to_their_bounds() {
    let mut overview = Shop::new().overview();
    let series = encode_shop(&overview, &known());
    // Anna's gaps of 85 and 41 days; Cora's second order is not settled yet.
    assert_values(
        &series,
        &[
            ("retentiond_interpurchase_seconds_bucket{le=\"2592000\"}", 0.0),
            ("retentiond_interpurchase_seconds_bucket{le=\"3888000\"}", 1.0),
            ("retentiond_interpurchase_seconds_bucket{le=\"5184000\"}", 1.0),
            ("retentiond_interpurchase_seconds_bucket{le=\"7776000\"}", 2.0),
            ("retentiond_interpurchase_seconds_bucket{le=\"+Inf\"}", 2.0),
            ("retentiond_interpurchase_seconds_sum", 126.0 * 86_400.0),
            ("retentiond_interpurchase_seconds_count", 2.0),
            ("retentiond_time_to_second_order_seconds_count", 1.0),
            ("retentiond_time_to_second_order_seconds_sum", 85.0 * 86_400.0),
            ("retentiond_order_value_bucket{currency=\"EUR\",le=\"5\"}", 0.0),
            ("retentiond_order_value_bucket{currency=\"EUR\",le=\"10\"}", 1.0),
            ("retentiond_order_value_bucket{currency=\"EUR\",le=\"50\"}", 4.0),
            ("retentiond_order_value_sum{currency=\"EUR\"}", 100.5),
            ("retentiond_order_value_bucket{currency=\"JPY\",le=\"500\"}", 0.0),
            ("retentiond_order_value_bucket{currency=\"JPY\",le=\"1000\"}", 2.0),
            ("retentiond_order_value_count{currency=\"JPY\"}", 2.0),
            ("retentiond_event_latency_seconds_bucket{le=\"0.01\"}", 0.0),
            ("retentiond_event_latency_seconds_bucket{le=\"0.025\"}", 9.0),
            ("retentiond_event_latency_seconds_bucket{le=\"60\"}", 9.0),
            ("retentiond_event_latency_seconds_count", 10.0),
            ("retentiond_event_latency_seconds_sum", 90.18),
        ],
    );
    overview.snapshot.as_mut().unwrap().distributions.interpurchase = None;
    let series = encode_shop(&overview, &known());
    assert!(!series.keys().any(|name| name.starts_with("retentiond_interpurchase")), "no longer known");
}

#[test]
fn ratios_without_a_denominator_and_windows_without_history_are_absent() {
    let mut overview = Shop::new().overview();
    overview.snapshot.as_mut().unwrap().rolling[0] = None;
    let series = encode_shop(&overview, &Background { data_begin: None, ..known() });
    let of_windows = |name: &&String| name.starts_with("retentiond_window_");
    assert!(series.keys().filter(of_windows).all(|name| !name.contains("window=\"30d\"")));
    assert!(!series.contains_key("retentiond_window_average_order_value{window=\"month\",currency=\"EUR\"}"));
    // Nobody was active before 2025.
    assert!(!series.contains_key("retentiond_window_churn_ratio{window=\"year_previous\"}"));
    assert!(!series.keys().any(|name| name.starts_with("retentiond_window_clv")), "the window is incomplete");
    assert_values(
        &series,
        &[
            ("retentiond_window_complete{window=\"365d\"}", 0.0),
            ("retentiond_window_new_complete{window=\"365d\"}", 0.0),
        ],
    );
}

#[test]
fn periods_before_the_first_order_are_absent() {
    let mut overview = Shop::new().overview();
    overview.status.partitions[0].first_order = Some(Time::parse("2026-04-30T23:00:00Z").unwrap());
    let series = encode_shop(&overview, &known());
    assert!(series.contains_key("retentiond_window_orders{window=\"month_previous\"}"));
    assert!(!series.contains_key("retentiond_window_orders{window=\"year_previous\"}"));
}

#[test]
fn counters_and_the_state_of_the_source() {
    let series = encode_shop(&Shop::new().overview(), &known());
    assert_values(
        &series,
        &[
            ("retentiond_as_of_timestamp_seconds", 1_777_723_200.0),
            ("retentiond_last_event_timestamp_seconds{topic=\"orders\"}", 1_777_723_200.0),
            ("retentiond_last_event_timestamp_seconds{topic=\"sessions\"}", 1_777_680_000.0),
            ("retentiond_history_start_timestamp_seconds", 1_704_067_200.0),
            ("retentiond_events_total{topic=\"orders\",type=\"order\"}", 8.0),
            ("retentiond_events_total{topic=\"orders\",type=\"session\"}", 0.0),
            ("retentiond_events_total{topic=\"sessions\",type=\"session\"}", 3.0),
            ("retentiond_events_rejected_total{topic=\"orders\",reason=\"invalid_json\"}", 1.0),
            ("retentiond_events_rejected_total{topic=\"sessions\",reason=\"invalid_json\"}", 0.0),
            ("retentiond_events_duplicate_total", 1.0),
            ("retentiond_events_late_total", 1.0),
            ("retentiond_lag_events{topic=\"orders\",partition=\"0\"}", 3.0),
            ("retentiond_tracked_customers", 4.0),
            // Anna came back before the decision, Bert did not; Anna's order of 30 euros ended her silence.
            ("retentiond_inactivity_due_total{rule=\"lapsing\",group=\"treated\"}", 2.0),
            ("retentiond_inactivity_due_total{rule=\"lapsing\",group=\"holdout\"}", 0.0),
            ("retentiond_inactivity_alerts_total{rule=\"lapsing\"}", 1.0),
            ("retentiond_winbacks_total{rule=\"lapsing\",group=\"treated\"}", 1.0),
            ("retentiond_winback_revenue_total{rule=\"lapsing\",group=\"treated\",currency=\"EUR\"}", 30.0),
            ("retentiond_inactivity_alerts_waiting", 0.0),
            ("retentiond_partitions_assigned", 2.0),
            ("retentiond_source_partitions{topic=\"orders\"}", 2.0),
            ("retentiond_rebalances_total", 3.0),
            ("retentiond_caught_up", 1.0),
            (concat!("retentiond_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ],
    );
    assert!(series["retentiond_state_bytes"] > 0.0);
    assert!(!series.contains_key("retentiond_source_partitions{topic=\"sessions\"}"), "unknown");
    assert!(!series.contains_key("retentiond_lag_events{topic=\"sessions\",partition=\"1\"}"), "unknown");
    assert!(!series.keys().any(|name| name.contains("too_late")), "late events are not rejected ones");
}

#[test]
fn label_values_that_look_alike_in_a_row_stay_apart() {
    let mut source = source();
    let other = TopicPartition { topic: TopicIndex(1), partition: Partition(1) };
    source.positions.insert(other, ReadPosition { applied: Some(1), end: Some(8), last_at_end: None });
    let topics = ["orders".to_owned(), "orders1".to_owned()];
    assert_values(
        &encode_with(&Shop::new().overview(), &source, &known(), &topics),
        &[
            ("retentiond_lag_events{topic=\"orders\",partition=\"11\"}", 0.0),
            ("retentiond_lag_events{topic=\"orders1\",partition=\"1\"}", 7.0),
        ],
    );
}

#[test]
fn amounts_without_a_rate_are_counted_and_the_others_shown_converted() {
    let mut config = Arc::into_inner(fixture::worker_config()).unwrap();
    let code = |code| Currency::from_code(code).unwrap();
    let day = |time| config.spec.zone.day(Time::parse(time).unwrap());
    let second_of_may = (day("2026-05-02T00:00:00Z"), code("JPY"), Rate::new(5, 3).unwrap());
    let rates = Rates::new(code("EUR"), [second_of_may, (0, code("GBP"), Rate::new(2, 0).unwrap())]);
    let mut spec = Spec::clone(&config.spec);
    spec.rates = Some(rates);
    config.spec = Arc::new(spec);
    let mut shop = Shop::of(&Arc::new(config));
    let overview = shop.overview();
    let (topics, source, background) = (topics(), source(), known());
    let scrape = Scrape {
        spec: &shop.spec,
        topics: &topics,
        overview: &overview,
        source: &source,
        background: &background,
        now: Instant::now(),
    };
    // Cora's first order in JPY and the cost are a day before the first rate; the duplicate does not count.
    assert_values(
        &parse(&encode(&scrape).unwrap()),
        &[
            ("retentiond_unconverted_total{currency=\"JPY\"}", 2.0),
            ("retentiond_unconverted_total{currency=\"GBP\"}", 0.0),
            ("retentiond_window_currency_orders{window=\"30d\",currency=\"JPY\"}", 2.0),
            ("retentiond_window_currency_orders{window=\"30d\",currency=\"reporting\"}", 2.0),
            ("retentiond_window_revenue{window=\"30d\",currency=\"reporting\"}", 43.5),
        ],
    );
}

#[test]
fn before_any_event_only_the_daemon_itself_is_shown() {
    let overview = Overview { status: WorkerStatus::default(), snapshot: None };
    let series = encode_shop(&overview, &Background::default());
    let of_events = |name: &String| name.starts_with("retentiond_window_") || name.contains("event_timestamp");
    assert!(!series.keys().any(of_events));
    assert_values(
        &series,
        &[
            ("retentiond_events_total{topic=\"sessions\",type=\"unknown\"}", 0.0),
            ("retentiond_events_rejected_total{topic=\"orders\",reason=\"in_the_future\"}", 0.0),
            ("retentiond_tracked_customers", 0.0),
        ],
    );
}

#[test]
fn is_caught_up_while_it_was_at_the_end_a_moment_ago() {
    let now = Instant::now();
    let mut source = source();
    assert!(is_caught_up(&source, now));
    assert!(is_caught_up(&source, now + Duration::from_secs(9)));
    assert!(!is_caught_up(&source, now + Duration::from_secs(11)), "lags by 3");
    for position in source.positions.values_mut() {
        (position.applied, position.end) = (Some(12), Some(12));
    }
    assert!(is_caught_up(&source, now + Duration::from_secs(11)));
    source.joined = false;
    assert!(!is_caught_up(&source, now));
}

#[test]
fn a_router_shows_what_it_reads_beside_what_the_engines_read() {
    let router = Arc::new(RoutingStatus::new("shop".into(), TopicIndex(0)));
    let now = Instant::now();
    let mut source = source();
    for position in source.positions.values_mut() {
        (position.applied, position.end) = (Some(12), Some(12));
    }
    source.routers.push(Arc::clone(&router));
    source.split_customers = vec![0, 4];
    router.change(|router| {
        router.is_ours = true;
        (router.events, router.dead_letters, router.unknown) = (40, 3, 2);
        router.rejected = vec![0; Reason::ALL.len()];
        router.rejected[Reason::InvalidJson as usize] = 3;
        router.positions.insert(Partition(5), ReadPosition { applied: Some(10), end: Some(17), last_at_end: None });
    });
    assert!(!is_caught_up(&source, now), "7 records are not routed yet");
    let series = encode_with(&Shop::new().overview(), &source, &known(), &topics());
    assert_values(
        &series,
        &[
            ("retentiond_repartitioned_events_total{topic=\"shop\"}", 40.0),
            ("retentiond_events_total{topic=\"shop\",type=\"unknown\"}", 2.0),
            ("retentiond_events_rejected_total{topic=\"shop\",reason=\"invalid_json\"}", 3.0),
            ("retentiond_events_skipped_total{topic=\"shop\",reason=\"test\"}", 0.0),
            ("retentiond_lag_events{topic=\"shop\",partition=\"5\"}", 7.0),
            ("retentiond_dead_letters_total", 5.0),
            ("retentiond_split_customers_total{topic=\"orders\"}", 0.0),
            ("retentiond_split_customers_total{topic=\"sessions\"}", 4.0),
        ],
    );
    assert!(!series.contains_key("retentiond_lag_seconds"), "it was never at its end");
    router.change(|router| router.last_at_end = Some(now));
    assert!(is_caught_up(&source, now));
    router.change(|router| router.is_ours = false);
    assert!(is_caught_up(&source, now + Duration::from_secs(60)), "another replica routes");
}
