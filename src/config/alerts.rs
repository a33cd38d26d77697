//! `[[inactivity]]`, `[alerts]` and `[alerts.webhook]`: alerts about silent customers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::millis::Millis;
use super::options::{REDACTED, Secret};
use super::value::{choice, instant};
use crate::event::{Currency, Money, SECOND, Time};

choice! {
    /// The stage of a customer.
    Stage {
        /// No order yet.
        Prospect = "prospect",
        /// One order.
        New = "new",
        /// At least two orders.
        Repeat = "repeat",
        /// At least `customers.loyal_orders`, and active.
        Loyal = "loyal",
    }
}

/// A rule that says when a customer counts as silent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "RuleTable")]
pub struct InactivityRule {
    /// Value of the label `rule`.
    pub name: String,
    /// The definition of silence.
    pub silence: SilenceSetting,
    /// The customers that the rule applies to.
    pub filter: Filter,
}

/// When a customer is silent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SilenceSetting {
    /// No order for this long.
    After(Millis),
    /// No order for `factor` times the customer's mean gap between orders, within `min` and `max`; from the third order
    /// on.
    Cadence {
        /// Multiple of the customer's mean gap.
        factor: f64,
        /// Lower bound.
        min: Millis,
        /// Upper bound.
        max: Millis,
    },
    /// No session for this long.
    NoSessionFor(Millis),
}

/// Selects customers; an empty filter selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these stages; all if empty.
    pub stages: Vec<Stage>,
    /// At least this many orders.
    pub min_orders: u32,
    /// At least this revenue, in its currency.
    pub min_revenue: Option<Money>,
    /// Required values of dimensions.
    pub segment: BTreeMap<String, String>,
}

/// `[[inactivity]]` as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RuleTable {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cadence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_session_for: Option<Millis>,
    #[serde(deserialize_with = "stages", skip_serializing_if = "Vec::is_empty")]
    pub(super) stage: Vec<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_orders: Option<u32>,
    #[serde(with = "revenue", skip_serializing_if = "Option::is_none")]
    pub(super) min_revenue: Option<Money>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) segment: BTreeMap<String, String>,
}

impl RuleTable {
    /// The definitions of silence that the rule contains.
    pub(super) fn silences(&self) -> Vec<&'static str> {
        let named = [
            ("after", self.after.is_some()),
            ("cadence", self.cadence.is_some()),
            ("no_session_for", self.no_session_for.is_some()),
        ];
        named.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The rule; `None` unless it defines silence completely.
    pub(super) fn rule(&self) -> Option<InactivityRule> {
        let silence = match (self.after, self.cadence, self.no_session_for) {
            (Some(after), None, None) => SilenceSetting::After(after),
            (None, Some(factor), None) => SilenceSetting::Cadence { factor, min: self.min?, max: self.max? },
            (None, None, Some(length)) => SilenceSetting::NoSessionFor(length),
            _ => return None,
        };
        let filter = Filter {
            stages: self.stage.clone(),
            min_orders: self.min_orders.unwrap_or(0),
            min_revenue: self.min_revenue,
            segment: self.segment.clone(),
        };
        Some(InactivityRule { name: self.name.clone(), silence, filter })
    }
}

impl From<InactivityRule> for RuleTable {
    fn from(rule: InactivityRule) -> RuleTable {
        let mut table = RuleTable {
            name: rule.name,
            stage: rule.filter.stages,
            min_orders: Some(rule.filter.min_orders).filter(|orders| *orders > 0),
            min_revenue: rule.filter.min_revenue,
            segment: rule.filter.segment,
            ..RuleTable::default()
        };
        match rule.silence {
            SilenceSetting::After(after) => table.after = Some(after),
            SilenceSetting::NoSessionFor(length) => table.no_session_for = Some(length),
            SilenceSetting::Cadence { factor, min, max } => {
                (table.cadence, table.min, table.max) = (Some(factor), Some(min), Some(max));
            }
        }
        table
    }
}

/// Parses one stage or a list of them.
fn stages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Stage>, D::Error> {
    struct Stages;
    impl<'de> Visitor<'de> for Stages {
        type Value = Vec<Stage>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a stage such as \"loyal\" or a list such as [\"repeat\", \"loyal\"]")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Stage>, E> {
            Stage::deserialize(serde::de::value::StrDeserializer::new(text)).map(|stage| vec![stage])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Stage>, A::Error> {
            let mut found = Vec::new();
            while let Some(stage) = list.next_element()? {
                found.push(stage);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_any(Stages)
}

/// An amount with its currency, `"100.00 EUR"`.
mod revenue {
    use super::{Currency, Deserialize, Deserializer, Error, Money};
    use serde::Serializer;

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(super) fn serialize<S: Serializer>(money: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
        match money {
            Some(money) => serializer.collect_str(money),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Money>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let example = "write an amount and a currency, such as \"100.00 EUR\"";
        let Some((amount, code)) = text.trim().split_once(' ') else {
            return Err(D::Error::custom(format!("{text:?} is no amount; {example}")));
        };
        Currency::from_code(code.trim())
            .and_then(|currency| Money::parse(amount, currency))
            .map(Some)
            .map_err(|error| D::Error::custom(format!("{text:?} is no amount ({error}); {example}")))
    }
}

/// `[alerts]`: what happens when a customer falls silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// Topic of the alerts.
    pub topic: String,
    /// Whether to alert on silences that were due before the first start.
    pub backfill: bool,
    /// Silences due before this time are not alerted; defaults to the wall clock at the very first start.
    #[serde(deserialize_with = "instant", skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// How long a due silence waits for late events; `customers.allowed_lateness` by default.
    pub settle: Millis,
    /// The share of customers without alerts, for comparison; in [0, 1).
    pub holdout: f64,
    /// Determines which customers are in the holdout.
    pub salt: String,
    /// How long after the due time an order counts as a win-back.
    pub winback_within: Millis,
    /// Maximum alerts per minute; others wait. No limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_minute: Option<u32>,
    /// The time of day, in `time.zone`, in which no alerts are sent; they are sent afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// Where alerts are sent in addition to the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts {
            topic: "retention-alerts".to_owned(),
            backfill: false,
            since: None,
            settle: Millis::days(1),
            holdout: 0.0,
            salt: "retentiond".to_owned(),
            winback_within: Millis::days(30),
            max_per_minute: None,
            quiet_hours: None,
            webhook: None,
        }
    }
}

/// A range of the day such as `21:00-08:00` in minutes, end exclusive; may span midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    from: u16,
    until: u16,
}

impl QuietHours {
    /// Parses `21:00-08:00`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<QuietHours, String> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let times = text.split_once('-').and_then(|(from, until)| Some((minute(from)?, minute(until)?)));
        match times {
            Some((from, until)) if from != until => Ok(QuietHours { from, until }),
            Some(_) => Err(format!("{text:?} is no time at all, or all day; write such as \"21:00-08:00\"")),
            None => Err(format!("{text:?} is no time of day; write such as \"21:00-08:00\"")),
        }
    }

    /// Whether the range contains a minute of the day.
    #[must_use]
    pub fn hold(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuietHours { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Serialize for QuietHours {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QuietHours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<QuietHours, D::Error> {
        QuietHours::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `[alerts.webhook]`: an HTTP endpoint that receives every alert, signed as Standard Webhooks require.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Where alerts are posted; printed without its query, which may contain a key.
    #[serde(serialize_with = "without_query")]
    pub url: String,
    /// File with the signing secret.
    pub secret_file: PathBuf,
    /// Timeout of one attempt.
    pub timeout: Millis,
    /// Whether to permit addresses of private networks.
    pub allow_private: bool,
    /// The content of `secret_file`; `None` if secrets were not loaded.
    #[serde(skip)]
    pub secret: Option<Secret>,
}

impl Default for Webhook {
    fn default() -> Webhook {
        Webhook {
            url: String::new(),
            secret_file: PathBuf::new(),
            timeout: Millis::clamped(10 * SECOND),
            allow_private: false,
            secret: None,
        }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &shown_url(&self.url))
            .field("secret_file", &self.secret_file)
            .field("timeout", &self.timeout)
            .field("allow_private", &self.allow_private)
            .field("secret", &self.secret)
            .finish()
    }
}

fn without_query<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown_url(url))
}

fn shown_url(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(before, _)| format!("{before}?{REDACTED}"))
}
