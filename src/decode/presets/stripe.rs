//! Stripe's events about charges, and about refunds.
//!
//! <https://docs.stripe.com/api/events>, <https://docs.stripe.com/currencies>. A captured charge is an order; its id is
//! the payment intent's, or else its own. `charge.refunded` says how much went back so far: what is new is the difference
//! to `data.previous_attributes.amount_refunded`, under the event's id; where the message holds the list of refunds instead
//! (API versions before 2022-11-15), each of them is an event. Refund objects name no customer, so the message key must.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Common, in_capitals, or_skip, told};
use crate::decode::fields::{Fields, Value};
use crate::decode::json::scalar;
use crate::decode::options::{OptionError, Options, StripeRefunds, TestOrders};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Message, Reason, Rejection, Skip};
use crate::event::{EventType, Time};

const PLACES: [&str; 19] = [
    "type",
    "id",
    "created",
    "livemode",
    "data.object.id",
    "data.object.payment_intent",
    "data.object.customer",
    "data.object.created",
    "data.object.amount",
    "data.object.amount_captured",
    "data.object.amount_refunded",
    "data.object.currency",
    "data.object.captured",
    "data.object.paid",
    "data.object.status",
    "data.object.refunds.data",
    "data.previous_attributes.amount_refunded",
    "data.object.billing_details.email",
    "data.object.receipt_email",
];
const TYPE: usize = 0;
const EVENT: usize = 1;
const SENT: usize = 2;
const LIVE: usize = 3;
const ID: usize = 4;
const INTENT: usize = 5;
const CUSTOMER: usize = 6;
const CREATED: usize = 7;
const AMOUNT: usize = 8;
const AMOUNT_CAPTURED: usize = 9;
const AMOUNT_REFUNDED: usize = 10;
const CURRENCY: usize = 11;
const CAPTURED: usize = 12;
const PAID: usize = 13;
const STATUS: usize = 14;
const REFUNDS: usize = 15;
const REFUNDED_BEFORE: usize = 16;
const EMAILS: [usize; 2] = [17, 18];

/// Currencies whose amounts Stripe writes without decimals. ISK and UGX are not among them: of these it says that amounts
/// keep two decimals, which are always zeros (<https://docs.stripe.com/currencies#special-cases>).
const WHOLE: [&str; 15] =
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"];
/// Currencies whose amounts it writes in thousandths.
const THOUSANDTHS: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];

#[derive(Deserialize)]
struct Refund<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    amount: &'a RawValue,
    #[serde(borrow)]
    created: &'a RawValue,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

/// Reads Stripe's events.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Stripe {
    paths: Paths,
    common: Common,
    test_orders: TestOrders,
    refunds: StripeRefunds,
}

impl Stripe {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Stripe, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| Some(format!("data.object.metadata.{name}"));
        let common = Common::new(options, dimensions, &mut paths, usual)?;
        Ok(Stripe { paths, common, test_orders: options.test_orders, refunds: options.refunds })
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let called = slots.value(TYPE);
        let called = called.as_text().unwrap_or_default();
        let is_refund_object = matches!(called, "refund.created" | "refund.updated" | "charge.refund.updated");
        let is_charge = matches!(called, "charge.succeeded" | "charge.captured" | "charge.refunded");
        if !is_charge && !is_refund_object {
            return Ok(Decoded::Unknown);
        }
        if slots.is_false(LIVE) && self.test_orders == TestOrders::Skip {
            return Ok(Decoded::Skipped(Skip::Test));
        }
        match (called, self.refunds) {
            ("charge.succeeded", _) if slots.is_false(CAPTURED) || slots.is_false(PAID) => {
                Ok(Decoded::Skipped(Skip::Unpaid))
            }
            ("charge.succeeded", _) => self.order(&slots, CREATED),
            // It counts from when the money was taken.
            ("charge.captured", _) => self.order(&slots, SENT),
            ("charge.refunded", StripeRefunds::Charges) => self.refunded(&slots),
            (_, StripeRefunds::RefundObjects) if is_refund_object => refund_object(message, &slots),
            _ => Ok(Decoded::Skipped(Skip::ToldElsewhere)),
        }
    }

    fn order<'a>(&self, slots: &Slots<'a>, time: usize) -> Result<Decoded<'a>, Rejection> {
        let fields = Fields {
            customer_id: or_skip!(self.customer(slots)),
            time: seconds(slots.value(time)),
            order_id: slots.first_of([INTENT, ID]),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        let fields = with_amount(fields, slots.first_of([AMOUNT_CAPTURED, AMOUNT]), slots);
        fields.into_event(EventType::Order).map(Decoded::Event)
    }

    fn customer<'a>(&self, slots: &Slots<'a>) -> Result<Value<'a>, Skip> {
        self.common.customer(slots.value(CUSTOMER), Value::Absent, &slots.first_of(EMAILS))
    }

    fn refunded<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        let customer = || self.customer(slots);
        let before = slots.value(REFUNDED_BEFORE).as_integer();
        if let (Some(before), Some(now)) = (before, slots.value(AMOUNT_REFUNDED).as_integer()) {
            let fields = Fields {
                customer_id: or_skip!(customer()),
                time: seconds(slots.value(SENT)),
                refund_id: slots.value(EVENT),
                ..Fields::default()
            };
            let fields = with_units(fields, now.saturating_sub(before), slots);
            return fields.into_event(EventType::Refund).map(Decoded::Event);
        }
        let Some(list) = slots.raw(REFUNDS) else {
            let what = "a refunded charge without data.previous_attributes.amount_refunded does not say how much went back \
                        this time; send refund events and set mapping.refunds = \"refund_objects\"";
            return Err(Rejection::new(Reason::MissingField, what));
        };
        let wrong =
            |_| Rejection::new(Reason::WrongType, "data.object.refunds has another shape than Stripe documents");
        let list: Vec<Refund<'a>> = serde_json::from_str(list).map_err(wrong)?;
        let mut events = Vec::new();
        // The newest stands first.
        for refund in list.iter().rev().filter(|refund| has_succeeded(&refund.status.map_or(Value::Absent, scalar))) {
            let fields = Fields {
                customer_id: or_skip!(customer()),
                time: seconds(scalar(refund.created)),
                refund_id: scalar(refund.id),
                ..Fields::default()
            };
            events.push(with_amount(fields, scalar(refund.amount), slots).into_event(EventType::Refund)?);
        }
        let sent = slots.value(SENT).as_integer().and_then(|sent| Time::from_millis(sent.saturating_mul(1000)).ok());
        Ok(if events.is_empty() { Decoded::Skipped(Skip::NoMoney) } else { told(events, sent) })
    }
}

fn refund_object<'a>(message: &Message<'a>, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
    if !has_succeeded(&slots.value(STATUS)) {
        return Ok(Decoded::Skipped(Skip::NoMoney));
    }
    let fields = Fields {
        customer_id: message.key_as_customer("a refund object does not name its customer")?,
        time: seconds(slots.value(CREATED)),
        refund_id: slots.value(ID),
        ..Fields::default()
    };
    with_amount(fields, slots.value(AMOUNT), slots).into_event(EventType::Refund).map(Decoded::Event)
}

/// Old API versions leave the status out.
fn has_succeeded(status: &Value<'_>) -> bool {
    matches!(status.as_text(), None | Some("succeeded"))
}

fn seconds(value: Value<'_>) -> Value<'_> {
    match value.as_integer() {
        Some(seconds) => Value::Millis(seconds.saturating_mul(1000)),
        None => value,
    }
}

fn with_amount<'a>(fields: Fields<'a>, amount: Value<'a>, slots: &Slots<'a>) -> Fields<'a> {
    match amount.as_integer() {
        Some(units) => with_units(fields, units, slots),
        // Something else than a whole number; the refusal names it.
        None => Fields {
            amount: match amount {
                Value::Absent | Value::Other(_) => amount,
                _ => Value::Other("a fraction of the smallest unit"),
            },
            currency: in_capitals(slots.value(CURRENCY)),
            ..fields
        },
    }
}

fn with_units<'a>(fields: Fields<'a>, units: i64, slots: &Slots<'a>) -> Fields<'a> {
    let currency = in_capitals(slots.value(CURRENCY));
    let exponent = match currency.as_text() {
        Some(code) if WHOLE.contains(&code) => 0,
        Some(code) if THOUSANDTHS.contains(&code) => 3,
        _ => 2,
    };
    Fields { amount: Value::Units { units, exponent: Some(exponent) }, currency, ..fields }
}
