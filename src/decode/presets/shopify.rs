//! Shopify's webhooks `orders/*` and `refunds/create`, in the JSON of the REST Admin API.
//!
//! <https://shopify.dev/docs/api/admin-rest/latest/resources/order>. `processed_at` is the time that Shopify's own reports
//! use, and may lie in the past of an order that is imported. `currency` is the shop's; a transaction's is that of the
//! payment, so a refund in another currency counts in that one. Every message about an order holds all that ever
//! happened to it: the order, its refunds, its cancellation. Each is an event with an id of its own, so a second message
//! tells what is new and repeats the rest. The order is what the first message says; later edits change nothing.
//!
//! A cancellation returns what the refunds before it have not, and refunds from then on carry that out: they are no
//! events of their own. The refund webhook does not name a customer, so the key of its message must; where the order
//! messages arrive anyway it is not needed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Common, told};
use crate::decode::fields::{Fields, Value, money, time};
use crate::decode::json::scalar;
use crate::decode::options::{OptionError, Options, TestOrders};
use crate::decode::paths::{Paths, Slots};
use crate::decode::presets::or_skip;
use crate::decode::{Decoded, Message, Reason, Rejection, Skip};
use crate::event::{Event, EventType, Money, Time};

const PLACES: [&str; 16] = [
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

/// The amounts of an order that may be the one that counts. Those whose names begin with `current_` reflect refunds too,
/// which are events of their own: they would be taken off twice.
const AMOUNTS: [&str; 3] = ["total_price", "subtotal_price", "total_line_items_price"];

/// A refund, inside an order or alone.
#[derive(Deserialize)]
struct Refund<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default)]
    processed_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transactions: Vec<Transaction<'a>>,
}

/// A movement of money.
#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
}

fn value(raw: Option<&RawValue>) -> Value<'_> {
    raw.map_or(Value::Absent, scalar)
}

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
        if slots.is_true(TEST) && self.test_orders == TestOrders::Skip {
            return Ok(Decoded::Skipped(Skip::Test));
        }
        let is_refund = slots.raw(ORDER).is_some()
            && (slots.raw(TRANSACTIONS).is_some() || slots.raw(REFUND_LINES).is_some())
            && slots.raw(self.amount).is_none();
        if is_refund {
            return refund_alone(message, bytes);
        }
        if slots.raw(self.amount).is_none() && slots.raw(CANCELLED).is_none() && slots.raw(CURRENCY).is_none() {
            // Another resource: a product, a customer.
            return Ok(Decoded::Unknown);
        }
        self.order(&slots)
    }

    fn order<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        let id = || slots.value(ID).into_id();
        let customer = || self.common.customer(slots.value(CUSTOMER), Value::Absent, &slots.first_of(EMAILS));
        let total = money(slots.value(self.amount), slots.value(CURRENCY))?;
        let order = Fields {
            customer_id: or_skip!(customer()),
            time: slots.first_of([PROCESSED, CREATED]),
            order_id: id(),
            amount: slots.value(self.amount),
            currency: slots.value(CURRENCY),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        let mut events = vec![order.into_event(EventType::Order)?];
        let cancelled = slots.raw(CANCELLED).map(|_| time(slots.value(CANCELLED))).transpose()?;
        let mut returned = 0;
        for refund in slots.raw(REFUNDS).map_or(Ok(Vec::new()), refunds)? {
            let Some((at, paid_back)) = moved(&refund)? else { continue };
            if cancelled.is_some_and(|cancelled| at >= cancelled) {
                continue;
            }
            if paid_back.currency == total.currency {
                returned += paid_back.minor;
            }
            events.push(refund_event(or_skip!(customer()), &refund, at, paid_back)?);
        }
        if let Some(cancelled) = cancelled {
            let rest = Money { minor: (total.minor - returned).max(0), currency: total.currency };
            let fields = Fields {
                customer_id: or_skip!(customer()),
                time: Value::Millis(cancelled.millis()),
                order_id: id(),
                amount: Value::Units { units: rest.minor, exponent: None },
                currency: slots.value(CURRENCY),
                ..Fields::default()
            };
            events.push(fields.into_event(EventType::Cancel)?);
        }
        let sent = slots.raw(UPDATED).and_then(|_| time(slots.value(UPDATED)).ok());
        Ok(told(events, sent))
    }
}

fn refunds(json: &str) -> Result<Vec<Refund<'_>>, Rejection> {
    serde_json::from_str(json).map_err(|_| wrong_shape("refunds"))
}

/// A refund webhook.
fn refund_alone<'a>(message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
    let refund: Refund<'a> = serde_json::from_slice(bytes).map_err(|_| wrong_shape("the refund"))?;
    let Some((at, paid_back)) = moved(&refund)? else { return Ok(Decoded::Skipped(Skip::NoMoney)) };
    let customer = message.key_as_customer("a refund webhook does not name its customer")?;
    refund_event(customer, &refund, at, paid_back).map(Decoded::Event)
}

/// When money went back and how much, if any did: the successful transactions of kind refund.
fn moved(refund: &Refund<'_>) -> Result<Option<(Time, Money)>, Rejection> {
    let mut sum: Option<Money> = None;
    for transaction in &refund.transactions {
        let is = |raw, text| value(raw).as_text() == Some(text);
        if !is(transaction.kind, "refund") || !is(transaction.status, "success") {
            continue;
        }
        let part = money(value(transaction.amount), value(transaction.currency))?;
        match &mut sum {
            Some(sum) if sum.currency != part.currency => {
                return Err(Rejection::new(
                    Reason::InvalidAmount,
                    "the transactions of one refund are in several currencies",
                ));
            }
            Some(sum) => sum.minor = sum.minor.saturating_add(part.minor),
            None => sum = Some(part),
        }
    }
    let Some(sum) = sum.filter(|sum| sum.minor > 0) else { return Ok(None) };
    let at = time(value(refund.processed_at).or(value(refund.created_at)))?;
    Ok(Some((at, sum)))
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
