//! Tests of the shop, message by message.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::{Currency, Money};

fn settings(seed: u64) -> ShopSettings {
    ShopSettings { seed, ..ShopSettings::default() }
}

/// A shop without newcomers, so that one generation can be followed.
fn generation(seed: u64, customers: u64) -> ShopSettings {
    ShopSettings { initial_customers: customers, customers_per_day: 0.0, ..settings(seed) }
}

/// Messages that reach the bus within this many days of the opening.
fn for_days(settings: ShopSettings, days: i64) -> Vec<Published> {
    let end = settings.start.plus(days * DAY);
    Shop::new(settings).take_while(|message| message.emitted_at < end).collect()
}

/// A decoded message: its event, and the event's time (the emission time for an erasure).
struct Read {
    message: Published,
    event: Value,
    time: Time,
}

impl Read {
    fn new(message: Published) -> Read {
        let event: Value = message.payload.as_deref().map_or(Value::Null, |json| serde_json::from_str(json).unwrap());
        let time = event["time"].as_str().map_or(message.emitted_at, |text| Time::parse(text).unwrap());
        Read { message, event, time }
    }

    fn text(&self, field: &str) -> &str {
        self.event[field].as_str().unwrap_or_default()
    }

    fn is(&self, kind: &str) -> bool {
        self.text("type") == kind
    }

    fn money(&self) -> Money {
        Money::parse(self.text("amount"), Currency::from_code(self.text("currency")).unwrap()).unwrap()
    }

    fn delay(&self) -> i64 {
        self.message.emitted_at.millis() - self.time.millis()
    }
}

fn read(messages: Vec<Published>) -> Vec<Read> {
    messages.into_iter().map(Read::new).collect()
}

/// First copies of orders, by order id.
fn orders(events: &[Read]) -> BTreeMap<&str, &Read> {
    let mut orders = BTreeMap::new();
    for event in events.iter().filter(|event| event.is("order")) {
        orders.entry(event.text("order_id")).or_insert(event);
    }
    orders
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[test]
fn equal_settings_give_equal_messages_and_another_seed_others() {
    let first: Vec<_> = Shop::new(settings(3)).take(20_000).collect();
    assert!(Shop::new(settings(3)).take(20_000).eq(first.iter().cloned()));
    assert!(!Shop::new(settings(4)).take(20_000).eq(first));
}

#[test]
fn every_message_is_a_native_event_under_its_customers_key() {
    let events = read(for_days(ShopSettings { erasures: 0.2, ..settings(5) }, 120));
    let mut kinds = BTreeMap::new();
    for event in &events {
        let Some(kind) = event.event["type"].as_str() else {
            *kinds.entry("tombstone").or_insert(0) += 1;
            assert!(event.message.payload.is_none());
            continue;
        };
        *kinds.entry(kind).or_insert(0) += 1;
        assert_eq!(event.text("customer_id"), event.message.key);
        assert_eq!(event.message.stream == Stream::Sessions, kind == "session");
        let ids: &[&str] = match kind {
            "order" | "cancel" => &["order_id"],
            "refund" => &["order_id", "refund_id"],
            "session" => &["session_id"],
            "cost" | "feedback" => &["kind"],
            "customer" | "erase" => &[],
            other => panic!("unknown type {other}"),
        };
        assert!(ids.iter().all(|id| !event.text(id).is_empty()), "{}", event.event);
        assert!(event.event["time"].is_string());
        if matches!(kind, "order" | "customer") {
            assert!(
                event.event["attributes"]["channel"].is_string() && event.event["attributes"]["country"].is_string()
            );
        }
        if matches!(kind, "order" | "cancel" | "refund" | "cost") {
            let Money { minor, currency } = event.money();
            let decimals = event.text("amount").split_once('.').map_or(0, |(_, decimals)| decimals.len());
            assert_eq!(decimals, currency.exponent() as usize, "{}", event.event);
            assert!(minor > 0 || matches!(kind, "order" | "cancel" | "refund"), "{}", event.event);
        }
    }
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}

#[test]
fn messages_come_in_order_after_what_they_tell_of() {
    let start = settings(6).start;
    let mut last = start;
    for event in Shop::new(settings(6)).take(50_000).map(Read::new) {
        assert!(event.message.emitted_at >= last);
        assert!(event.message.payload.is_none() || event.is("erase") || event.delay() > 0);
        assert!(event.time >= start);
        last = event.message.emitted_at;
    }
}

#[test]
fn delays_and_copies_have_their_shares() {
    let told = ShopSettings { too_late: 0.002, ..settings(7) };
    let events = read(Shop::new(told.clone()).take(150_000).collect());
    let mut seen = BTreeMap::new();
    let (mut firsts, mut copies, mut late, mut too_late) = (0, 0, 0, 0);
    for event in &events {
        let id = ["refund_id", "order_id", "session_id"].iter().find_map(|id| event.event[id].as_str());
        let first = id.and_then(|id| seen.insert((event.text("type"), id), event));
        if let Some(first) = first {
            let gap = event.message.emitted_at.millis() - first.message.emitted_at.millis();
            assert_eq!(event.message.payload, first.message.payload);
            assert!((MINUTE..30 * MINUTE).contains(&gap), "copy after {gap} ms");
            copies += 1;
            continue;
        }
        firsts += 1;
        let delay = event.delay();
        assert!(delay < 20 * HOUR + 1_500 || (25 * HOUR..72 * HOUR + 1_500).contains(&delay));
        late += usize::from(delay > MINUTE && delay < DAY);
        too_late += usize::from(delay > DAY);
    }
    assert!((share(copies, firsts) - told.duplicates).abs() < 0.002, "{copies} of {firsts}");
    assert!((share(late, firsts) - told.late).abs() < 0.003, "{late} of {firsts}");
    assert!((share(too_late, firsts) - told.too_late).abs() < 0.0006, "{too_late} of {firsts}");
}

#[test]
fn money_back_never_exceeds_the_order() {
    let events = read(for_days(ShopSettings { refunds: 0.3, cancellations: 0.2, ..settings(8) }, 120));
    let orders = orders(&events);
    let mut back: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in events.iter().filter(|event| event.is("refund") || event.is("cancel")) {
        if !seen.insert(event.message.payload.as_deref()) {
            continue;
        }
        // An order that comes very late may follow its refund; those of the last days may not be here yet.
        let Some(order) = orders.get(event.text("order_id")) else { continue };
        assert_eq!(event.message.key, order.message.key);
        assert_eq!(event.money().currency, order.money().currency);
        assert!((order.time..=order.time.plus(14 * DAY)).contains(&event.time));
        let (sum, parts) = back.entry(event.text("order_id")).or_default();
        (*sum, *parts) = (*sum + event.money().minor, *parts + 1);
        assert!(*sum <= order.money().minor, "{}", order.event);
    }
    let partial = back.iter().filter(|(id, (sum, _))| *sum < orders[*id].money().minor).count();
    assert!(partial > 100 && back.values().filter(|(_, parts)| *parts == 2).count() > 100);
    assert!((share(back.len(), orders.len()) - 0.4).abs() < 0.1, "{} of {}", back.len(), orders.len());
}

#[test]
fn a_customer_keeps_currency_and_place_and_a_referrer_came_before() {
    let events = read(for_days(settings(9), 90));
    let (mut homes, mut currencies, mut referred) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for event in &events {
        let key = event.message.key.as_str();
        if event.event["attributes"].is_object() {
            assert_eq!(homes.entry(key).or_insert(&event.event["attributes"]), &&event.event["attributes"]);
        }
        if event.event["currency"].is_string() {
            assert_eq!(*currencies.entry(key).or_insert(event.text("currency")), event.text("currency"));
        }
        if let Some(referrer) = event.event["referred_by"].as_str() {
            assert!(referrer < key);
            referred.insert(key);
        }
    }
    let newcomers = share(referred.len(), homes.len() - 2_000);
    assert!((0.03..0.09).contains(&newcomers), "{newcomers}");
}

#[test]
fn one_to_three_sessions_lead_to_an_order() {
    let undisturbed = ShopSettings { late: 0.0, too_late: 0.0, duplicates: 0.0, ..generation(10, 3_000) };
    let events = read(for_days(undisturbed, 60));
    let mut last_session = BTreeMap::new();
    for event in &events {
        if event.is("session") {
            last_session.insert(&event.message.key, event.time);
        } else if event.is("order") {
            let session = last_session.get(&event.message.key).unwrap();
            assert!(event.time.millis() - session.millis() <= 25 * MINUTE, "{}", event.event);
        }
    }
    let sessions = events.iter().filter(|event| event.is("session")).count();
    assert!(sessions > 2 * orders(&events).len());
}

#[test]
fn customers_leave_and_some_come_back() {
    let events = read(for_days(generation(11, 3_000), 730));
    let start = settings(11).start;
    let mut times: BTreeMap<&str, Vec<Time>> = BTreeMap::new();
    for order in orders(&events).values() {
        times.entry(&order.message.key).or_default().push(order.time);
    }
    let silent =
        |times: &&Vec<Time>| times.iter().all(|time| !(275..365).contains(&((time.millis() - start.millis()) / DAY)));
    let gone: Vec<_> = times.values().filter(silent).collect();
    let gone_share = share(gone.len(), times.len());
    assert!((0.4..0.9).contains(&gone_share), "{gone_share} silent for 90 days after a year");
    let back = gone.iter().filter(|times| times.iter().any(|time| *time > start.plus(365 * DAY))).count();
    assert!((0.01..0.2).contains(&share(back, gone.len())), "{back} of {}", gone.len());
    assert!(times.len() < 2_900, "window shoppers never order");
}

#[test]
fn a_crisis_costs_the_share_of_orders_it_says() {
    let at = settings(12).start.plus(60 * DAY);
    let calm = generation(12, 10_000);
    let crisis = |channel| ShopSettings { crises: vec![Crisis { at, share: 0.6, channel }], ..calm.clone() };
    let count = |settings, from: i64, channel: &str| {
        let events = read(for_days(settings, 82));
        let within = at.plus(from * DAY)..at.plus((from + 20) * DAY);
        let wanted = |order: &&&Read| {
            within.contains(&order.time) && order.event["attributes"]["channel"].as_str().unwrap().contains(channel)
        };
        orders(&events).values().filter(wanted).count()
    };
    let kept = share(count(crisis(None), 0, ""), count(calm.clone(), 0, ""));
    assert!((0.3..0.5).contains(&kept), "{kept} of the orders kept");
    assert_eq!(count(crisis(None), -20, ""), count(calm.clone(), -20, ""));
    let app = Some(Channel::App);
    let kept = share(count(crisis(app), 0, "app"), count(calm.clone(), 0, "app"));
    assert!((0.25..0.55).contains(&kept), "{kept} of the app's orders kept");
    let kept = share(count(crisis(app), 0, "web"), count(calm.clone(), 0, "web"));
    assert!((0.8..1.2).contains(&kept), "{kept} of the web's orders kept");
}

#[test]
fn nothing_follows_an_erasure() {
    let events = read(for_days(ShopSettings { erasures: 0.5, ..generation(13, 2_000) }, 300));
    let mut erased = BTreeSet::new();
    for event in &events {
        assert!(!erased.contains(&event.message.key), "{} after its erasure", event.event);
        if event.message.payload.is_none() || event.is("erase") {
            erased.insert(&event.message.key);
        }
    }
    assert!(erased.len() > 300);
}

#[test]
fn the_initial_customers_arrive_in_two_weeks_and_the_last_one_ends_the_shop() {
    let mut shop = Shop::new(ShopSettings { late: 0.0, too_late: 0.0, win_backs: 0.0, ..generation(14, 500) });
    let opening = settings(14).start.plus(OPENING);
    assert!(shop.by_ref().any(|message| message.emitted_at > opening));
    assert_eq!((shop.arrivals, shop.founders_left), (500, 0));
    let last = shop.by_ref().last().unwrap();
    assert!(last.emitted_at < Time::MAX.plus(-365 * DAY));
    assert!(shop.people.slots() <= 500);
    assert!(shop.next().is_none());
}

#[test]
fn memory_follows_the_customers_still_expected() {
    let mut shop = Shop::new(ShopSettings { initial_customers: 0, customers_per_day: 30.0, ..settings(15) });
    let end = settings(15).start.plus(5 * 365 * DAY);
    assert!(shop.by_ref().any(|message| message.emitted_at > end));
    assert!(shop.arrivals > 50_000);
    assert!(shop.people.slots() < 15_000, "{} slots", shop.people.slots());
    assert!(shop.agenda.len() < 15_000 && shop.outbox.len() < 3_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// With any settings, a shop does not panic, stop its clock or break the order.
    #[test]
    fn any_settings_make_an_orderly_shop(
        seed: u64,
        start in 0_i64..7_258_118_399_999,
        shares in prop::array::uniform8(prop_oneof![4 => 0.0..1.0, 1 => Just(f64::NAN), 1 => Just(-1.0), 1 => Just(2.0)]),
        days in prop::array::uniform4(prop_oneof![4 => 0.1..100.0, 1 => Just(f64::NAN), 1 => Just(0.0), 1 => Just(f64::INFINITY)]),
        customers_per_day in prop_oneof![4 => 0.1..1_000.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)],
    ) {
        let start = Time::clamped(start);
        let buying = Buying {
            days_between_orders: days[0],
            rate_shape: days[1],
            dropout_alpha: days[2],
            dropout_beta: days[3],
            ..Buying::default()
        };
        let shop = Shop::new(ShopSettings {
            seed,
            start,
            customers_per_day,
            initial_customers: 100,
            buying,
            window_shoppers: shares[0],
            referrals: shares[1],
            refunds: shares[2],
            cancellations: shares[3],
            win_backs: shares[4],
            duplicates: shares[5],
            late: shares[6],
            too_late: shares[7],
            crises: vec![Crisis { at: start.plus(DAY), share: shares[0], channel: None }],
            ..ShopSettings::default()
        });
        let mut last = start;
        for event in shop.take(500).map(Read::new) {
            prop_assert!(event.message.emitted_at >= last);
            prop_assert!(event.time <= event.message.emitted_at);
            last = event.message.emitted_at;
        }
    }
}

#[test]
fn a_steady_shop_keeps_its_customers() {
    let settings = ShopSettings { initial_customers: 300, ..settings(11) }.steady();
    let start = settings.start;
    let events = read(for_days(settings, 1_600));
    let within = |from: i64, to: i64| {
        let orders = events.iter().filter(|event| event.is("order"));
        let of = orders.filter(|event| (start.plus(from * DAY)..start.plus(to * DAY)).contains(&event.time));
        of.map(|event| event.text("customer_id").to_owned()).collect::<BTreeSet<_>>()
    };
    let all: BTreeSet<_> = events.iter().map(|event| event.message.key.clone()).collect();
    assert_eq!(all.len(), 300);
    // Customers who left come back within 400 days; a gap of two years between orders also ends a customer's stay.
    assert!(within(1_000, 1_600).len() > 295, "{}", within(1_000, 1_600).len());
    let (early, late) = (within(400, 700).len(), within(1_300, 1_600).len());
    assert!(early.abs_diff(late) < 60, "{early} and {late}");
    // benches/soak relies on that.
    let later = events.iter().filter(|event| event.message.emitted_at >= start.plus(800 * DAY)).count();
    let a_day = share(later, 300 * 800);
    assert!((0.06..0.09).contains(&a_day), "{a_day} messages a customer and day");
}
