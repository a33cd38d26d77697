//! `[[inactivity]]`, `[alerts]` and `[alerts.webhook]`: who is told of silent customers.

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
    /// How far a customer has come.
    Stage {
        /// Seen, no order.
        Prospect = "prospect",
        /// One order.
        New = "new",
        /// Two orders or more.
        Repeat = "repeat",
        /// `customers.loyal_orders` or more, and active.
        Loyal = "loyal",
    }
}

/// A rule that says when a customer counts as silent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "RuleTable")]
pub struct InactivityRule {
    /// Value of the label `rule`.
    pub name: String,
    /// What silence is.
    pub silence: SilenceSetting,
    /// Whose silence counts.
    pub filter: Filter,
}

/// When a customer is silent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SilenceSetting {
    /// No order for this long.
    After(Millis),
    /// No order for `factor` times the own mean gap between orders, within `min` and `max`; from the third order on.
    Cadence {
        /// Multiple of the customer's own mean gap.
        factor: f64,
        /// Never due earlier than this.
        min: Millis,
        /// Always due by then.
        max: Millis,
    },
    /// No session for this long.
    NoSessionFor(Millis),
}

/// Whose silence counts; an empty filter lets everybody through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Stages, any of which will do; when empty all do.
    pub stages: Vec<Stage>,
    /// At least this many orders.
    pub min_orders: u32,
    /// At least this revenue, in its currency.
    pub min_revenue: Option<Money>,
    /// The value that each of these dimensions must have.
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
    /// The kinds of silence that the rule names.
    pub(super) fn silences(&self) -> Vec<&'static str> {
        let named = [
            ("after", self.after.is_some()),
            ("cadence", self.cadence.is_some()),
            ("no_session_for", self.no_session_for.is_some()),
        ];
        named.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The rule; nothing unless it names its silence in full.
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

/// Reads one stage or a list of them.
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
    /// Whether silences that were due before the first start are alerted as well.
    pub backfill: bool,
    /// Silences due before this are not alerted; the wall clock of the very first start when absent.
    #[serde(deserialize_with = "instant", skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// How long a due silence waits for late events; `customers.allowed_lateness` by default.
    pub settle: Millis,
    /// The share of customers that is never alerted, for comparison: at least 0, below 1.
    pub holdout: f64,
    /// Chooses which customers are held out.
    pub salt: String,
    /// How long after the silence was due an order counts as a win-back.
    pub winback_within: Millis,
    /// The most alerts in a minute, later ones wait; no limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_minute: Option<u32>,
    /// The time of day, in `time.zone`, in which no alert leaves; those of that time leave afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// Where alerts are sent besides the topic.
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

/// A time of day, `21:00-08:00`, the end excluded; it may pass midnight. In minutes of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    from: u16,
    until: u16,
}

impl QuietHours {
    /// Reads `21:00-08:00`.
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

    /// Whether a minute of the day lies within.
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

/// `[alerts.webhook]`: an HTTP endpoint that receives every alert, signed as Standard Webhooks prescribe.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Where alerts are posted; shown without its query, which may hold a key.
    #[serde(serialize_with = "without_query")]
    pub url: String,
    /// File with the signing secret.
    pub secret_file: PathBuf,
    /// How long one attempt may take.
    pub timeout: Millis,
    /// Whether addresses of private networks are permitted.
    pub allow_private: bool,
    /// The content of `secret_file`; none where secrets were not asked for.
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
