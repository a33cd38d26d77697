//! `[customers]`, `[[windows]]`, `[[calendar]]`, `[time]` and `[clv]`: which figures are computed over which spans.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::millis::Millis;
use super::value::{Zone, choice, instant};
use crate::event::{DAY, HOUR, MINUTE, Time};

/// `[customers]`: how customers are counted, and how late or early their events may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Customers {
    /// Attributes that segment the figures.
    pub dimensions: Dimensions,
    /// How long an order keeps a customer active, for stage and status.
    pub active_for: Millis,
    /// A customer is at risk after this multiple of their mean gap between orders.
    pub at_risk_cadence: f64,
    /// Minimum silence of a customer at risk.
    pub at_risk_min: Millis,
    /// Orders that make an active customer loyal.
    pub loyal_orders: u32,
    /// How far an event may be behind the watermark of its partition.
    pub allowed_lateness: Millis,
    /// How long duplicates are recognised.
    pub dedup_for: Millis,
    /// How far an event may be ahead of the wall clock.
    pub max_future: Millis,
    /// Orders of one customer within this time are one order; a civil day or not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_orders_within: Option<Millis>,
}

impl Default for Customers {
    fn default() -> Customers {
        Customers {
            dimensions: Dimensions::default(),
            active_for: Millis::days(90),
            at_risk_cadence: 2.0,
            at_risk_min: Millis::days(7),
            loyal_orders: 5,
            allowed_lateness: Millis::days(1),
            dedup_for: Millis::days(7),
            max_future: Millis::clamped(10 * MINUTE),
            merge_orders_within: None,
        }
    }
}

/// A customer attribute that segments the figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Name of the attribute in the events.
    pub name: String,
    /// The values to keep; others count as "other". If empty, the first 50 found are kept.
    pub values: Vec<String>,
}

/// The dimensions, in the order of [`crate::event::Attributes`].
///
/// Written as a list of names, `["channel"]`, or with values, `{ channel = ["web", "app"], country = [] }`;
/// the latter is in alphabetical order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dimensions(pub Vec<Dimension>);

impl Serialize for Dimensions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.iter().all(|dimension| dimension.values.is_empty()) {
            return serializer.collect_seq(self.0.iter().map(|dimension| &dimension.name));
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for dimension in &self.0 {
            map.serialize_entry(&dimension.name, &dimension.values)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dimensions, D::Error> {
        deserializer.deserialize_any(DimensionsVisitor)
    }
}

struct DimensionsVisitor;

impl<'de> Visitor<'de> for DimensionsVisitor {
    type Value = Dimensions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list such as [\"channel\"] or a table such as { channel = [\"web\", \"app\"] }")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Dimensions, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = list.next_element()? {
            found.push(Dimension { name, values: Vec::new() });
        }
        Ok(Dimensions(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dimensions, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((name, values)) = map.next_entry()? {
            found.insert(name, values);
        }
        Ok(Dimensions(found.into_iter().map(|(name, values)| Dimension { name, values }).collect()))
    }
}

/// The limit of the engine, which stores the days of ids in 16 bits.
const MOST_DEDUP_DAYS: u16 = 7_000;

impl Customers {
    pub(super) fn check_merging(&self, problems: &mut Problems) {
        if let Some(within) = self.merge_orders_within.filter(|within| *within != Millis::days(1)) {
            let what = format!(
                "\"{within}\" is not supported; write \"1d\": orders of one civil day in time.zone are one order"
            );
            problems.add("customers.merge_orders_within", what);
        }
    }

    pub(super) fn check_dedup(&self, problems: &mut Problems) {
        let longest = Millis::days(MOST_DEDUP_DAYS);
        if self.dedup_for > longest {
            let what = format!("\"{}\" is too long; write \"{longest}\" or less", self.dedup_for);
            problems.add("customers.dedup_for", what);
        }
    }
}

/// A rolling window with its defaults filled in; all lengths in milliseconds, whole multiples of `resolution`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "WindowTable")]
pub struct WindowSettings {
    /// Value of the label `window`.
    pub name: String,
    /// P: the length of the window, in milliseconds.
    pub period: i64,
    /// A: how long an order keeps a customer active, in milliseconds; at least P.
    pub active_for: i64,
    /// r: the length of one pane, in milliseconds, whole minutes.
    pub resolution: i64,
}

/// `[[windows]]` as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WindowTable {
    pub(super) name: String,
    pub(super) period: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) active_for: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolution: Option<Millis>,
}

impl WindowTable {
    fn days(days: u16) -> WindowTable {
        WindowTable { name: format!("{days}d"), period: Some(Millis::days(days)), ..WindowTable::default() }
    }

    /// The default windows.
    pub(super) fn usual() -> Vec<WindowTable> {
        [7, 30, 90, 365].map(WindowTable::days).into()
    }

    /// With defaults filled in; `customers` is `customers.active_for`.
    pub(super) fn settings(&self, customers: Millis) -> WindowSettings {
        let period = self.period.unwrap_or(Millis::ZERO);
        let active_for = self.active_for.unwrap_or(period.max(customers));
        let resolution = self.resolution.unwrap_or_else(|| default_resolution(period));
        WindowSettings {
            name: self.name.clone(),
            period: period.get(),
            active_for: active_for.get(),
            resolution: resolution.get(),
        }
    }
}

impl From<WindowSettings> for WindowTable {
    fn from(window: WindowSettings) -> WindowTable {
        WindowTable {
            name: window.name,
            period: Some(Millis::clamped(window.period)),
            active_for: Some(Millis::clamped(window.active_for)),
            resolution: Some(Millis::clamped(window.resolution)),
        }
    }
}

/// Default resolutions in milliseconds.
pub(super) const RESOLUTIONS: [i64; 7] = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR, DAY];

/// The largest of [`RESOLUTIONS`] that is at most a 360th of the period; the smallest if none is.
fn default_resolution(period: Millis) -> Millis {
    let fitting = RESOLUTIONS.iter().rfind(|resolution| **resolution <= period.get() / 360);
    Millis::clamped(*fitting.unwrap_or(&MINUTE))
}

choice! {
    /// The unit of a calendar window.
    Unit {
        /// An ISO week, from Monday to Sunday.
        Week = "week",
        /// A calendar month.
        Month = "month",
        /// Three calendar months from January, April, July or October.
        Quarter = "quarter",
        /// A calendar year.
        Year = "year",
    }
}

impl Unit {
    /// The length of the longest such period in days, the minimum of `active_for`.
    #[must_use]
    pub const fn longest_days(self) -> u16 {
        match self {
            Unit::Week => 7,
            Unit::Month => 31,
            Unit::Quarter => 92,
            Unit::Year => 366,
        }
    }

    /// The default of `active_for` in days.
    #[must_use]
    pub const fn default_active_days(self) -> u16 {
        match self {
            Unit::Week | Unit::Month => 90,
            Unit::Quarter => 180,
            Unit::Year => 366,
        }
    }
}

/// A calendar window with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "CalendarTable")]
pub struct CalendarSettings {
    /// Value of the label `window`; the name of the unit.
    pub name: String,
    /// Week, month, quarter or year.
    pub unit: Unit,
    /// A: how many civil days an order keeps a customer active; `None`: to the end of its period.
    pub active_for_days: Option<u32>,
}

/// How long an order keeps a customer active in a calendar window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalendarActiveFor {
    /// This long.
    For(Millis),
    /// To the end of the order's calendar period.
    Period,
}

/// How [`CalendarActiveFor::Period`] is written.
const PERIOD: &str = "period";

impl Serialize for CalendarActiveFor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            CalendarActiveFor::For(millis) => millis.serialize(serializer),
            CalendarActiveFor::Period => serializer.serialize_str(PERIOD),
        }
    }
}

impl<'de> Deserialize<'de> for CalendarActiveFor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<CalendarActiveFor, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = CalendarActiveFor;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration, or \"period\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CalendarActiveFor, E> {
                if text.trim() == PERIOD {
                    return Ok(CalendarActiveFor::Period);
                }
                Millis::parse(text).map(CalendarActiveFor::For).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<CalendarActiveFor, E> {
                Err(E::custom(format!("{number} is no duration; write \"{}d\"", number.unsigned_abs())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// `[[calendar]]` as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CalendarTable {
    pub(super) name: Option<Unit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) active_for: Option<CalendarActiveFor>,
}

impl CalendarTable {
    /// The default calendar windows.
    pub(super) fn usual() -> Vec<CalendarTable> {
        [Unit::Month, Unit::Quarter, Unit::Year].map(|unit| CalendarTable { name: Some(unit), active_for: None }).into()
    }

    /// With defaults filled in; `None` without a unit.
    pub(super) fn settings(&self) -> Option<CalendarSettings> {
        let unit = self.name?;
        let usual = CalendarActiveFor::For(Millis::days(unit.default_active_days()));
        let active_for_days = match self.active_for.unwrap_or(usual) {
            CalendarActiveFor::For(active_for) => Some(u32::try_from(active_for.get() / DAY).ok()?),
            CalendarActiveFor::Period => None,
        };
        Some(CalendarSettings { name: unit.name().to_owned(), unit, active_for_days })
    }
}

impl From<CalendarSettings> for CalendarTable {
    fn from(calendar: CalendarSettings) -> CalendarTable {
        let days = |days: u32| CalendarActiveFor::For(Millis::clamped(i64::from(days) * DAY));
        let active_for = calendar.active_for_days.map_or(CalendarActiveFor::Period, days);
        CalendarTable { name: Some(calendar.unit), active_for: Some(active_for) }
    }
}

/// `[time]`: how time advances, and how far back the figures reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeSettings {
    /// Zone of the calendar windows and cohorts.
    pub zone: Zone,
    /// How long a caught-up partition must be silent before it no longer holds back time.
    pub idle_after: Millis,
    /// How far back the series reach.
    pub history: Millis,
    /// When the data are known to begin; found from the events when absent.
    #[serde(deserialize_with = "instant", skip_serializing_if = "Option::is_none")]
    pub data_begin: Option<Time>,
    /// Whether the data contain every order ever made, so that new customers are truly new.
    pub history_whole: bool,
}

impl Default for TimeSettings {
    fn default() -> TimeSettings {
        TimeSettings {
            zone: Zone::utc(),
            idle_after: Millis::clamped(10 * MINUTE),
            history: Millis::days(1100),
            data_begin: None,
            history_whole: false,
        }
    }
}

/// `[clv]`: customer lifetime value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clv {
    /// Name of the rolling window that it is computed over. Defaults to `365d` if that window exists; otherwise there
    /// is no lifetime value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
}

impl Default for Clv {
    fn default() -> Clv {
        Clv { window: Some("365d".to_owned()) }
    }
}
