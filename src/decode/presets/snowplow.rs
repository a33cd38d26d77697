//! Snowplow's ecommerce tracking, in the JSON that its analytics SDKs and loaders write for enriched events.
//!
//! <https://docs.snowplow.io/docs/events/ootb-data/ecommerce-events>; entities by their schemas, such as
//! `com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-0-0` of Iglu Central. The action `transaction` is
//! an order, `refund` a refund with the event's id, a page view a session with the session's id. The `transaction`
//! event of the older ecommerce tracking is an order too.
//!
//! Loaders name the columns of entities differently
//! (<https://docs.snowplow.io/docs/destinations/warehouses-lakes/schemas-in-warehouse>): the name ends with the major
//! version of the schema, or with the full version (version 1 of the BigQuery loader), and Snowflake uses upper case.
//! Columns, and the paths in the options, are read as if the SDKs had named them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Common, in_utc, or_skip};
use crate::decode::fields::{Fields, Value};
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Rejection, Unknown};
use crate::event::EventType;

const PLACES: [&str; 17] = [
    "event_name",
    "event",
    "event_id",
    "user_id",
    "domain_userid",
    "derived_tstamp",
    "collector_tstamp",
    "domain_sessionid",
    "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1.type",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1.0.transaction_id",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1.0.revenue",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1.0.currency",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_refund_1.0.refund_amount",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_refund_1.0.currency",
    "tr_orderid",
    "tr_total",
    "tr_currency",
];
const NAME: usize = 0;
const EVENT: usize = 1;
const ID: usize = 2;
const USER: usize = 3;
const DOMAIN_USER: usize = 4;
const DERIVED: usize = 5;
const COLLECTED: usize = 6;
const SESSION: usize = 7;
const ACTION: usize = 8;
const TRANSACTION: usize = 9;
const REVENUE: usize = 10;
const CURRENCY: usize = 11;
const REFUND_AMOUNT: usize = 12;
const REFUND_CURRENCY: usize = 13;
const OLD_TRANSACTION: usize = 14;
const OLD_TOTAL: usize = 15;
const OLD_CURRENCY: usize = 16;

/// Reads Snowplow's events.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Snowplow {
    paths: Paths,
    common: Common,
    /// Slots of configured paths whose columns loaders may name differently.
    renamed: Vec<usize>,
}

impl Snowplow {
    /// The actions and events that are read.
    pub const KNOWN: [&str; 3] = ["transaction", "refund", "page_view"];

    pub fn new(options: &Options, dimensions: &[String]) -> Result<Snowplow, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| match name {
            "country" => Some("geo_country".to_owned()),
            "channel" => Some("mkt_medium".to_owned()),
            _ => None,
        };
        let mut options = options.clone();
        let mut renamed = Vec::new();
        for place in options.attributes.values_mut() {
            *place = usual_place(place, &mut renamed);
        }
        for (place, condition) in std::mem::take(&mut options.only) {
            let usual = usual_place(&place, &mut renamed);
            if options.only.insert(usual, condition).is_some() {
                let what = "is the same column as another place there; keep one of the two";
                return Err(OptionError::new(format!("where.{place:?}"), what));
            }
        }
        let common = Common::new(&options, dimensions, &mut paths, usual)?;
        let renamed = renamed.iter().filter_map(|place| paths.places().position(|known| known == place)).collect();
        Ok(Snowplow { paths, common, renamed })
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        // A loader may have named an entity, or all columns, differently.
        let may_differ = slots.raw(ACTION).is_none() && matches!(slots.value(EVENT).as_text(), None | Some("unstruct"))
            || self.renamed.iter().any(|slot| !slots.is_there(*slot));
        match may_differ.then(|| renamed(bytes)).flatten() {
            Some(renamed) => self.read(&self.paths.read(&renamed)?).map(Decoded::into_owned),
            None => self.read(&slots),
        }
    }

    fn read<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        or_skip!(self.common.chosen(slots));
        let action = slots.value(ACTION);
        let name = slots.first_of([NAME, EVENT]);
        let (event_type, [id, amount, currency]) = match (action.as_text(), name.as_text()) {
            (Some("transaction"), _) => (EventType::Order, [TRANSACTION, REVENUE, CURRENCY]),
            (Some("refund"), _) => (EventType::Refund, [TRANSACTION, REFUND_AMOUNT, REFUND_CURRENCY]),
            (Some(_), _) => return Ok(Decoded::Unknown(Unknown::of("action", action.into_text()))),
            (None, Some("transaction")) => (EventType::Order, [OLD_TRANSACTION, OLD_TOTAL, OLD_CURRENCY]),
            (None, Some("page_view")) => (EventType::Session, [TRANSACTION, REVENUE, CURRENCY]),
            (None, _) => return Ok(Decoded::Unknown(Unknown::of("event_name", name.into_text()))),
        };
        let (user, anonymous) = (slots.value(USER), slots.value(DOMAIN_USER));
        let customer = or_skip!(self.common.customer(user, anonymous, &Value::Absent));
        let fields = Fields {
            customer_id: customer,
            time: in_utc(slots.first_of([DERIVED, COLLECTED])),
            order_id: slots.first_of([id, ID]).into_id(),
            refund_id: slots.value(ID),
            session_id: slots.first_of([SESSION, ID]),
            amount: slots.value(amount),
            currency: self.common.currency(slots.value(currency)),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        self.common.decoded(fields, event_type)
    }
}

/// The event with the SDKs' column names; `None` if it has them already.
fn renamed(bytes: &[u8]) -> Option<Vec<u8>> {
    let columns: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).ok()?;
    if columns.keys().all(|name| usual(name) == *name) {
        return None;
    }
    let mut renamed = BTreeMap::<String, String>::new();
    for (name, value) in columns {
        let (name, value) = (usual(&name), value.get());
        // Several schema versions of an entity have separate columns, one of which has a value.
        if !matches!(value, "null" | "[]") || !renamed.contains_key(&name) {
            let is_bare = name.starts_with(CONTEXTS) && value.starts_with('{');
            renamed.insert(name, if is_bare { format!("[{value}]") } else { value.to_owned() });
        }
    }
    let columns = renamed.iter().map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name.as_str())));
    Some(format!("{{{}}}", columns.collect::<Vec<_>>().join(",")).into_bytes())
}

const CONTEXTS: &str = "contexts_";
const UNSTRUCT: &str = "unstruct_event_";

/// A path with the SDKs' name for its column; added to `renamed` if loaders may name the column differently.
fn usual_place(place: &str, renamed: &mut Vec<String>) -> String {
    let (slash, rest) = if place.starts_with('/') { place.split_at(1) } else { ("", place) };
    let end = rest.find(if slash.is_empty() { '.' } else { '/' }).unwrap_or(rest.len());
    let (column, inside) = rest.split_at(end);
    let column = usual(column);
    let found = format!("{slash}{column}{inside}");
    if found != place || column.starts_with(CONTEXTS) || column.starts_with(UNSTRUCT) {
        renamed.push(found.clone());
    }
    found
}

/// The SDKs' name for a column: lower case, with only the major version of the schema.
fn usual(column: &str) -> String {
    let column = column.to_ascii_lowercase();
    if !column.starts_with(CONTEXTS) && !column.starts_with(UNSTRUCT) {
        return column;
    }
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = column.split('_').collect();
    match parts.iter().rev().take_while(|part| is_number(part)).count() {
        3.. => parts[..parts.len() - 2].join("_"),
        _ => column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_all_loaders_get_the_names_of_the_sdks() {
        for (column, expected) in [
            ("EVENT_ID", "event_id"),
            ("contexts_com_acme_transaction_1", "contexts_com_acme_transaction_1"),
            ("CONTEXTS_COM_ACME_TRANSACTION_1", "contexts_com_acme_transaction_1"),
            ("contexts_com_acme_transaction_1_0_2", "contexts_com_acme_transaction_1"),
            ("unstruct_event_com_acme_v2_action_2_1_0", "unstruct_event_com_acme_v2_action_2"),
            ("mkt_term_1_0_0", "mkt_term_1_0_0"),
        ] {
            assert_eq!(usual(column), expected);
        }
    }

    #[test]
    fn of_several_versions_the_one_that_is_filled_counts() {
        let text = r#"{"contexts_a_1_0_0":null,"contexts_a_1_0_1":{"b":1},"contexts_a_1_0_2":[],"X":"y"}"#;
        let renamed = renamed(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(renamed).unwrap(), r#"{"contexts_a_1":[{"b":1}],"x":"y"}"#);
        assert_eq!(super::renamed(br#"{"contexts_a_1":[]}"#), None);
    }
}
