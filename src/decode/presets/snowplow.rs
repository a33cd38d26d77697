//! Snowplow's ecommerce tracking, in the JSON that its analytics SDKs and loaders make of enriched events.
//!
//! <https://docs.snowplow.io/docs/events/ootb-data/ecommerce-events>; entities by their schemas, such as
//! `com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-0-0` of Iglu Central. The action `transaction` is an order, `refund` a
//! refund under the event's id, a page view a session under the session's id.

use super::{Common, event, in_utc, or_skip};
use crate::decode::fields::{Fields, Value};
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::Paths;
use crate::decode::{Decoded, Rejection};
use crate::event::EventType;

const PLACES: [&str; 14] = [
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

/// Reads Snowplow's events.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Snowplow {
    paths: Paths,
    common: Common,
}

impl Snowplow {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Snowplow, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| match name {
            "country" => Some("geo_country".to_owned()),
            "channel" => Some("mkt_medium".to_owned()),
            _ => None,
        };
        let common = Common::new(options, dimensions, &mut paths, usual)?;
        Ok(Snowplow { paths, common })
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let action = slots.value(ACTION);
        let event_type = match action.as_text() {
            Some("transaction") => EventType::Order,
            Some("refund") => EventType::Refund,
            Some(_) => return Ok(Decoded::Unknown),
            None if slots.first_of([NAME, EVENT]).as_text() == Some("page_view") => EventType::Session,
            None => return Ok(Decoded::Unknown),
        };
        let (user, anonymous) = (slots.value(USER), slots.value(DOMAIN_USER));
        let customer = or_skip!(self.common.customer(user, anonymous, &Value::Absent));
        let is_refund = event_type == EventType::Refund;
        let fields = Fields {
            customer_id: customer,
            time: in_utc(slots.first_of([DERIVED, COLLECTED])),
            order_id: slots.value(TRANSACTION).into_id(),
            refund_id: slots.value(ID),
            session_id: slots.first_of([SESSION, ID]),
            amount: slots.value(if is_refund { REFUND_AMOUNT } else { REVENUE }),
            currency: self.common.currency(slots.value(if is_refund { REFUND_CURRENCY } else { CURRENCY })),
            attributes: self.common.attributes(&slots),
            ..Fields::default()
        };
        event(fields, event_type)
    }
}
