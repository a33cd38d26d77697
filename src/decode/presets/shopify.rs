//! Shopify's webhooks `orders/*` and `refunds/create`, in the JSON of the REST Admin API.
//!
//! <https://shopify.dev/docs/api/admin-rest/latest/resources/order>. `processed_at` is the time that Shopify's own reports
//! use, and may lie in the past of an order that is imported. Every message about an order holds all that ever happened to
//! it: the order, its refunds, its cancellation. Each is an event with an id of its own, so a second message tells what is
//! new and repeats the rest. The order is what the first message says; later edits change nothing.
//!
//! Checkouts and draft orders look like orders and are none: what they become is an order of its own. So an order is
//! recognised by its global id, or by a field that only orders have.
//!
//! A cancellation returns what the refunds before it have not, and refunds from then on carry that out: they are no
//! events of their own. The refund webhook does not name a customer, so the key of its message must; where the order
//! messages arrive anyway it is not needed.

use std::borrow::Cow;

use super::refunds::{Rate, Refund, moved};
use super::{Common, told};
use crate::decode::batch::Part;
use crate::decode::fields::{Fields, Value, time};
use crate::decode::json::scalar;
use crate::decode::options::{OptionError, Options, TestOrders};
use crate::decode::paths::{Paths, Slots};
use crate::decode::presets::or_skip;
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown};
use crate::event::{Event, EventType, Kind, Money, Time};

const PLACES: [&str; 30] = [
    "id",
    "customer.id",
    "processed_at",
    "created_at",
    "updated_at",
    "total_price",
    "currency",
    "test",
    "cancelled_at",
    "refunds",
    "order_id",
    "transactions",
    "email",
    "contact_email",
    "customer.email",
    "refund_line_items",
    "admin_graphql_api_id",
    "financial_status",
    "order_number",
    "order_status_url",
    "total_price_set",
    "abandoned_checkout_url",
    "invoice_sent_at",
    "invoice_url",
    "initial_value",
    "order_edit",
    "orders_to_redact",
    "shop_domain",
    "orders_count",
    "myshopify_domain",
];
const ID: usize = 0;
const CUSTOMER: usize = 1;
const PROCESSED: usize = 2;
const CREATED: usize = 3;
const UPDATED: usize = 4;
const TOTAL: usize = 5;
const CURRENCY: usize = 6;
const TEST: usize = 7;
const CANCELLED: usize = 8;
const REFUNDS: usize = 9;
const ORDER: usize = 10;
const TRANSACTIONS: usize = 11;
const EMAILS: [usize; 3] = [12, 13, 14];
const REFUND_LINES: usize = 15;
const GLOBAL_ID: usize = 16;
/// What only orders have, though not in every version of the API.
const ORDERS_OWN: [usize; 5] = [PROCESSED, CANCELLED, 17, 18, 19];
const TOTAL_SET: usize = 20;

type Sign = (usize, &'static str, Option<&'static str>);

/// What the resources have, even where it is null, that look like orders; what they are called, and what to do about them.
const LOOKALIKES: [Sign; 3] = [
    (21, "Checkout", Some("a checkout that is completed becomes an order; send orders/create and orders/updated")),
    (22, "DraftOrder", Some(DRAFT)),
    (23, "DraftOrder", Some(DRAFT)),
];
/// What others have that are no orders.
const OTHERS: [Sign; 6] = [
    (24, "GiftCard", None),
    (25, "OrderEdit", Some("an order stays what the first message said, and edits change nothing")),
    (26, "customers/redact", Some(ERASE)),
    (27, "customers/data_request or shop/redact", Some(ERASE)),
    (28, "Customer", None),
    (29, "Shop", None),
];
const DRAFT: &str = "a draft that is completed becomes an order of its own; send orders/create and orders/updated";
const ERASE: &str =
    "requests of the privacy webhooks erase nobody by themselves; send {\"type\":\"erase\"} in a native source";
const UNCLEAR: &str =
    "an order has one of processed_at, financial_status, order_number and order_status_url; keep one of them";

/// What a message is about.
enum Resource<'a> {
    Order,
    Refund,
    Other(Unknown<'a>),
}

/// The amounts of an order that may be the one that counts. Those whose names begin with `current_` reflect refunds too,
/// which are events of their own: they would be taken off twice.
const AMOUNTS: [&str; 3] = ["total_price", "subtotal_price", "total_line_items_price"];

fn wrong_shape(place: &str) -> Rejection {
    Rejection::new(Reason::WrongType, format!("{place} has another shape than Shopify documents"))
}

/// Reads Shopify's orders and refunds.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Shopify {
    paths: Paths,
    common: Common,
    test_orders: TestOrders,
    amount: usize,
}

impl Shopify {
    /// The resources that are events.
    pub const KNOWN: [&str; 2] = ["order", "refund"];

    pub fn new(options: &Options, dimensions: &[String]) -> Result<Shopify, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| match name {
            "channel" => Some("source_name".to_owned()),
            "country" => Some("shipping_address.country_code".to_owned()),
            _ => None,
        };
        let common = Common::new(options, dimensions, &mut paths, usual)?;
        let amount = match options.amount.as_deref() {
            None => TOTAL,
            Some(name) if AMOUNTS.contains(&name) => super::slot(&mut paths, "amount", name)?,
            Some(name) => {
                let why = if name.starts_with("current_") {
                    "is less refunds, which are events of their own and would be taken off twice"
                } else {
                    "is no amount of an order"
                };
                let what = format!("{name:?} {why}; write one of {}", AMOUNTS.join(", "));
                return Err(OptionError::new("amount", what));
            }
        };
        Ok(Shopify { paths, common, test_orders: options.test_orders, amount })
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let resource = self.resource(&slots);
        if let Resource::Other(unknown) = resource {
            return Ok(Decoded::Unknown(unknown));
        }
        or_skip!(self.common.chosen(&slots));
        if slots.is_true(TEST) && self.test_orders == TestOrders::Skip {
            return Ok(Decoded::Skipped(Skip::Test));
        }
        match resource {
            Resource::Refund => refund_alone(message, bytes),
            _ => self.order(&slots, bytes),
        }
    }

    /// What the message is about: what its global id says, else what only such a resource has.
    fn resource<'a>(&self, slots: &Slots<'a>) -> Resource<'a> {
        let other = |(_, name, hint): &Sign| {
            Resource::Other(Unknown { hint: *hint, ..Unknown::of("resource", Some(Cow::Borrowed(*name))) })
        };
        let shows = |(slot, ..): &&Sign| slots.is_there(*slot);
        let global_id = slots.value(GLOBAL_ID);
        if let Some(name) = global_id.as_text().and_then(|id| id.strip_prefix("gid://shopify/")?.split('/').next()) {
            let known = LOOKALIKES.iter().chain(&OTHERS).find(|(_, known, _)| *known == name);
            return match name {
                "Order" => Resource::Order,
                "Refund" => Resource::Refund,
                _ => known.map_or_else(|| named(name), other),
            };
        }
        if let Some(lookalike) = LOOKALIKES.iter().find(shows) {
            return other(lookalike);
        }
        let lists = [TRANSACTIONS, REFUND_LINES].into_iter().any(|slot| slots.raw(slot).is_some());
        match slots.raw(ORDER) {
            // What belongs to an order is none itself: transactions and fulfilments besides refunds.
            Some(_) if lists && slots.raw(self.amount).is_none() => Resource::Refund,
            None if ORDERS_OWN.into_iter().any(|slot| slots.raw(slot).is_some()) => Resource::Order,
            _ => match OTHERS.iter().find(shows) {
                Some(found) => other(found),
                None if slots.is_there(TOTAL) => Resource::Other(Unknown::of("resource", None).with_hint(UNCLEAR)),
                None => Resource::Other(Unknown::of("resource", None)),
            },
        }
    }

    fn order<'a>(&self, slots: &Slots<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let id = || slots.value(ID).into_id();
        let customer = || self.common.customer(slots.value(CUSTOMER), Value::Absent, &slots.first_of(EMAILS));
        let order = Fields {
            customer_id: or_skip!(customer()),
            time: slots.first_of([PROCESSED, CREATED]),
            order_id: id(),
            amount: slots.value(self.amount),
            currency: slots.value(CURRENCY),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        let order = self.common.event(order, EventType::Order)?;
        let Kind::Order { amount: total, .. } = order.kind else { return Ok(Decoded::Event(order)) };
        let mut events = vec![order];
        let mut rejected = Vec::new();
        let cancelled = slots.raw(CANCELLED).map(|_| time(slots.value(CANCELLED))).transpose()?;
        let rate = slots.raw(TOTAL_SET).and_then(|set| Rate::of_total(set, total.currency));
        let mut returned = 0;
        for refund in slots.raw(REFUNDS).map_or(Ok(Vec::new()), refunds)? {
            let paid_back = match moved(&refund, Some(total.currency), rate.as_ref()) {
                Ok(Some(paid_back)) => paid_back,
                Ok(None) => continue,
                Err(rejection) => {
                    rejected.push(rejection);
                    continue;
                }
            };
            if cancelled.is_some_and(|cancelled| paid_back.made >= cancelled) {
                continue;
            }
            if paid_back.money.currency == total.currency {
                returned += paid_back.money.minor;
            }
            match refund_event(or_skip!(customer()), &refund, paid_back.at, paid_back.money) {
                Ok(event) => events.push(event),
                Err(rejection) => rejected.push(rejection),
            }
        }
        // What is left to return is known only once every refund is.
        if let Some(cancelled) = cancelled.filter(|_| rejected.is_empty()) {
            let rest = Money { minor: (total.minor - returned).max(0), currency: total.currency };
            let fields = Fields {
                customer_id: or_skip!(customer()),
                time: Value::Millis(cancelled.millis()),
                order_id: id(),
                amount: Value::Units { units: rest.minor, exponent: None },
                currency: slots.value(CURRENCY),
                ..Fields::default()
            };
            events.push(self.common.event(fields, EventType::Cancel)?);
        }
        let sent = slots.raw(UPDATED).and_then(|_| time(slots.value(UPDATED)).ok());
        let events = told(events, sent);
        if rejected.is_empty() { Ok(events) } else { Ok(partly(events, rejected, bytes)) }
    }
}

fn named<'a>(name: &str) -> Resource<'a> {
    Resource::Other(Unknown::of("resource", Some(Cow::Owned(name.to_owned()))))
}

/// An order some of whose refunds are rejected. Replaying the whole message repeats nothing, for everything has an id.
fn partly<'a>(events: Decoded<'a>, rejected: Vec<Rejection>, bytes: &'a [u8]) -> Decoded<'a> {
    let count = rejected.len() + 1;
    let all = std::iter::once(Ok(events)).chain(rejected.into_iter().map(Err));
    let part = |(place, decoded)| Part { decoded, message: Cow::Borrowed(bytes), place: (place, count) };
    Decoded::Batch((1..).zip(all).map(part).collect())
}

fn refunds(json: &str) -> Result<Vec<Refund<'_>>, Rejection> {
    serde_json::from_str(json).map_err(|_| wrong_shape("refunds"))
}

/// A refund webhook.
fn refund_alone<'a>(message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
    let refund: Refund<'a> = serde_json::from_slice(bytes).map_err(|_| wrong_shape("the refund"))?;
    let Some(paid_back) = moved(&refund, None, None)? else { return Ok(Decoded::Skipped(Skip::NoMoney)) };
    let customer = message.key_as_customer("a refund webhook does not name its customer")?;
    refund_event(customer, &refund, paid_back.at, paid_back.money).map(Decoded::Event)
}

fn refund_event<'a>(
    customer: Value<'a>,
    refund: &Refund<'a>,
    at: Time,
    paid_back: Money,
) -> Result<Event<'a>, Rejection> {
    let fields = Fields {
        customer_id: customer,
        time: Value::Millis(at.millis()),
        refund_id: scalar(refund.id).into_id(),
        amount: Value::Units { units: paid_back.minor, exponent: None },
        currency: Value::Text(paid_back.currency.code().into()),
        ..Fields::default()
    };
    fields.into_event(EventType::Refund)
}
