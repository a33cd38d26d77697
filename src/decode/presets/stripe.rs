//! Stripe's events about charges, refunds and disputes.
//!
//! <https://docs.stripe.com/api/events/types>, <https://docs.stripe.com/currencies>. A captured charge is an order with
//! the id of its payment intent, or its own id if it has none. Payment intents, invoices and checkout sessions report
//! the same purchase again, so they are not events. `charge.refunded` contains the total refunded so far: the refund is
//! its difference to `data.previous_attributes.amount_refunded`, with the event's id. If the message contains the list
//! of refunds instead (API versions before 2022-11-15), each of them is an event. A refund that fails after it
//! succeeded is reversed, and so is a dispute whose money comes back. Refund and dispute objects do not name the
//! customer, so the message key must.
//!
//! A cancelled authorization, and the rest of a partially captured one, look like refunds of the charge, but the
//! customer never paid that money: they are skipped.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Common, in_capitals, or_skip, told};
use crate::decode::fields::{Fields, Value};
use crate::decode::json::scalar;
use crate::decode::options::{Disputes, OptionError, Options, StripeRefunds, TestOrders};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown};
use crate::event::{EventType, Time};

const PLACES: [&str; 24] = [
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
    "object",
    "data.object.object",
    "data.previous_attributes",
    "data.previous_attributes.status",
    "data.object.charge.customer",
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
const ENVELOPE: usize = 19;
const OBJECT: usize = 20;
const PREVIOUS: usize = 21;
const STATUS_BEFORE: usize = 22;
/// Customer of a dispute whose charge is expanded.
const CHARGED: usize = 23;

/// Currencies that Stripe writes without decimals.
const WHOLE: [&str; 15] =
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"];
/// Currencies without decimals that Stripe writes with two (<https://docs.stripe.com/currencies#special-cases>). In
/// charges the decimals are zero, but part of a charge, such as a partial refund, need not be whole.
const HUNDREDFOLD: [&str; 2] = ["ISK", "UGX"];
/// Currencies that Stripe writes in thousandths.
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

/// Previous values in an event about a capture.
#[derive(Deserialize)]
struct Capture<'a> {
    #[serde(borrow, default)]
    captured: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount_captured: Option<&'a RawValue>,
}

/// An expanded object, in place of its id.
#[derive(Deserialize)]
struct Expanded<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// If a charge succeeds later than this after its creation, in seconds, as bank debits do, the success dates the order.
const AT_ONCE: i64 = 3_600;

/// Reads Stripe's events.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Stripe {
    paths: Paths,
    common: Common,
    test_orders: TestOrders,
    refunds: StripeRefunds,
    disputes: Disputes,
}

const OF_CHARGE: &str = "the charge of the same purchase is the order; send charge.succeeded";

/// Events about purchases that are not read, and what to send instead.
const HINTS: [(&str, &str); 9] = [
    ("payment_intent.succeeded", OF_CHARGE),
    ("invoice.paid", OF_CHARGE),
    ("invoice.payment_succeeded", OF_CHARGE),
    ("invoice_payment.paid", OF_CHARGE),
    ("checkout.session.completed", OF_CHARGE),
    ("checkout.session.async_payment_succeeded", OF_CHARGE),
    ("order.payment_succeeded", OF_CHARGE),
    ("payment_intent.amount_capturable_updated", "the money is not taken yet; send charge.captured"),
    ("charge.pending", "the money is not there yet; send charge.succeeded"),
];

/// The subject of an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Charge,
    Refund,
    Dispute,
}

impl About {
    fn of(called: &str) -> Option<About> {
        match called {
            "charge.succeeded" | "charge.captured" | "charge.refunded" => Some(About::Charge),
            "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => Some(About::Refund),
            _ if called.starts_with("charge.dispute.") => Some(About::Dispute),
            _ => None,
        }
    }

    /// The value of `data.object.object`.
    fn object(self) -> &'static str {
        match self {
            About::Charge => "charge",
            About::Refund => "refund",
            About::Dispute => "dispute",
        }
    }
}

impl Stripe {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Stripe, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| Some(format!("data.object.metadata.{name}"));
        let common = Common::new(options, dimensions, &mut paths, usual)?;
        let Options { test_orders, refunds, disputes, .. } = *options;
        Ok(Stripe { paths, common, test_orders, refunds, disputes })
    }

    /// The event types that are read.
    pub fn known(&self) -> Vec<&str> {
        let mut known = vec!["charge.succeeded", "charge.captured"];
        match self.refunds {
            StripeRefunds::Charges => known.push("charge.refunded"),
            StripeRefunds::RefundObjects => {
                known.extend(["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"]);
            }
        }
        if self.disputes == Disputes::Count {
            known.extend(["charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated"]);
        }
        known
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        or_skip!(self.common.chosen(&slots));
        let event = slots.value(TYPE);
        let called = event.as_text().unwrap_or_default();
        let object = slots.value(OBJECT);
        let about = About::of(called).filter(|about| object.as_text().is_none_or(|named| named == about.object()));
        let Some(about) = about else { return Ok(Decoded::Unknown(unknown(&slots))) };
        if slots.is_false(LIVE) && self.test_orders == TestOrders::Skip {
            return Ok(Decoded::Skipped(Skip::Test));
        }
        match (about, called) {
            (About::Charge, "charge.succeeded") if slots.is_false(CAPTURED) || slots.is_false(PAID) => {
                Ok(Decoded::Skipped(Skip::Unpaid))
            }
            (About::Charge, "charge.succeeded") => self.order(&slots, succeeded_at(&slots)),
            // The order is dated by the capture.
            (About::Charge, "charge.captured") => self.order(&slots, SENT),
            (About::Charge, _) if self.refunds == StripeRefunds::Charges => self.refunded(&slots),
            (About::Charge, _) => Ok(Decoded::Skipped(Skip::ToldElsewhere)),
            (About::Refund, _) if self.refunds == StripeRefunds::RefundObjects => refund_object(message, &slots, called),
            (About::Refund, _) if has_failed(&slots, called) => Ok(Decoded::Unknown(unknown(&slots).with_hint(
                "a refund failed: set mapping.refunds = \"refund_objects\", with customer ids as message keys, to count it",
            ))),
            (About::Refund, _) => Ok(Decoded::Skipped(Skip::ToldElsewhere)),
            (About::Dispute, _) if self.disputes == Disputes::Ignore => Ok(Decoded::Unknown(unknown(&slots).with_hint(
                "set mapping.disputes = \"count\", with customer ids as message keys, to count the money as a refund",
            ))),
            (About::Dispute, "charge.dispute.funds_withdrawn" | "charge.dispute.funds_reinstated") => {
                dispute(message, &slots, called)
            }
            // The other two events report the movements of money.
            (About::Dispute, _) => Ok(Decoded::Skipped(Skip::NoMoney)),
        }
    }

    fn order<'a>(&self, slots: &Slots<'a>, time: usize) -> Result<Decoded<'a>, Rejection> {
        let fields = Fields {
            customer_id: or_skip!(self.customer(slots)),
            time: seconds(slots.value(time)),
            order_id: id_at(slots, INTENT).or(slots.value(ID)),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        let fields = with_amount(fields, slots.first_of([AMOUNT_CAPTURED, AMOUNT]), slots);
        self.common.event(fields, EventType::Order).map(Decoded::Event)
    }

    fn customer<'a>(&self, slots: &Slots<'a>) -> Result<Value<'a>, Skip> {
        self.common.customer(id_at(slots, CUSTOMER), Value::Absent, &self.common.email(slots, EMAILS))
    }

    fn refunded<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        if slots.is_false(CAPTURED) || captures(slots) {
            return Ok(Decoded::Skipped(Skip::NoMoney));
        }
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
            return self.common.event(fields, EventType::Refund).map(Decoded::Event);
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
        // Stripe lists the newest first.
        let succeeded = list.iter().rev().filter(|refund| has_succeeded(&refund.status.map_or(Value::Absent, scalar)));
        let succeeded: Vec<_> = succeeded.collect();
        for refund in &succeeded[usize::from(begins_with_release(slots, &succeeded))..] {
            let fields = Fields {
                customer_id: or_skip!(customer()),
                time: seconds(scalar(refund.created)),
                refund_id: scalar(refund.id),
                ..Fields::default()
            };
            events.push(with_amount(fields, scalar(refund.amount), slots).into_event(EventType::Refund)?);
        }
        Ok(if events.is_empty() { Decoded::Skipped(Skip::NoMoney) } else { told(events, sent_at(slots)) })
    }
}

/// The slot of the time that dates a successful charge.
fn succeeded_at(slots: &Slots<'_>) -> usize {
    match (slots.value(CREATED).as_integer(), slots.value(SENT).as_integer()) {
        (Some(created), Some(sent)) if sent.saturating_sub(created) > AT_ONCE => SENT,
        _ => CREATED,
    }
}

/// An id, also that of an expanded object.
fn id_at<'a>(slots: &Slots<'a>, slot: usize) -> Value<'a> {
    let object = slots.raw(slot).filter(|json| json.starts_with('{'));
    match object.and_then(|json| serde_json::from_str::<Expanded<'a>>(json).ok()) {
        Some(expanded) => scalar(expanded.id),
        None => slots.value(slot),
    }
}

/// Whether the change is a capture, which releases the rest of the authorization.
fn captures(slots: &Slots<'_>) -> bool {
    let previous = slots.raw(PREVIOUS).and_then(|json| serde_json::from_str::<Capture<'_>>(json).ok());
    previous.is_some_and(|previous| {
        previous.captured.is_some_and(|captured| matches!(captured.get(), "false" | "\"false\""))
            || previous.amount_captured.is_some()
    })
}

/// Whether the first of all refunds is the rest that a partial capture released. If the amounts of the list do not add
/// up to the refunded total, the list lacks the oldest refunds.
fn begins_with_release(slots: &Slots<'_>, succeeded: &[&Refund<'_>]) -> bool {
    let whole = |slot| slots.value(slot).as_integer();
    let (Some(amount), Some(captured)) = (whole(AMOUNT), whole(AMOUNT_CAPTURED)) else { return false };
    let amounts = || succeeded.iter().map(|refund| scalar(refund.amount).as_integer().unwrap_or_default());
    let is_complete = whole(AMOUNT_REFUNDED).is_none_or(|refunded| amounts().fold(0, i64::saturating_add) == refunded);
    captured < amount && is_complete && amounts().next() == Some(amount.saturating_sub(captured))
}

/// An event that is not read, identified by its type, or by the object if it has no event around it.
fn unknown<'a>(slots: &Slots<'a>) -> Unknown<'a> {
    let (event, envelope) = (slots.value(TYPE), slots.value(ENVELOPE));
    if envelope != Value::Absent && envelope.as_text() != Some("event") {
        let unknown = Unknown::of("object", envelope.into_text());
        return unknown.with_hint("send Stripe's events, which hold the object under data.object");
    }
    let hint = HINTS.iter().find(|(known, _)| Some(*known) == event.as_text()).map(|(_, hint)| *hint);
    Unknown { hint, ..Unknown::of("type", event.into_text()) }
}

/// Whether a refund failed after it had succeeded, so that its money came back.
fn has_failed(slots: &Slots<'_>, called: &str) -> bool {
    let (status, before) = (slots.value(STATUS), slots.value(STATUS_BEFORE));
    // A refund that is created as failed never succeeded.
    let is_new = called == "refund.created";
    let has_ended = called == "refund.failed" || matches!(status.as_text(), Some("failed" | "canceled"));
    // If the previous attributes lack the status, something else changed.
    let did_succeed = match before.as_text() {
        Some(before) => before == "succeeded",
        None => slots.raw(PREVIOUS).is_none(),
    };
    has_ended && did_succeed && !is_new
}

fn refund_object<'a>(message: &Message<'a>, slots: &Slots<'a>, called: &str) -> Result<Decoded<'a>, Rejection> {
    let failed = has_failed(slots, called);
    if !failed && (called == "refund.failed" || !has_succeeded(&slots.value(STATUS))) {
        return Ok(Decoded::Skipped(Skip::NoMoney));
    }
    let was_pending = slots.value(STATUS_BEFORE).as_text().is_some_and(|before| before != "succeeded");
    let fields = Fields {
        customer_id: message.key_as_customer("a refund object does not name its customer")?,
        time: seconds(slots.value(if failed || was_pending { SENT } else { CREATED })),
        refund_id: slots.value(ID),
        reversed: failed.into(),
        ..Fields::default()
    };
    let event = with_amount(fields, slots.value(AMOUNT), slots).into_event(EventType::Refund)?;
    // An update of another attribute repeats the refund, possibly much later.
    Ok(told(vec![event], sent_at(slots)))
}

/// The money that a dispute withdrew, or reinstated.
fn dispute<'a>(message: &Message<'a>, slots: &Slots<'a>, called: &str) -> Result<Decoded<'a>, Rejection> {
    let customer_id = match id_at(slots, CHARGED) {
        Value::Absent => message.key_as_customer("a dispute does not name its customer")?,
        customer => customer,
    };
    let fields = Fields {
        customer_id,
        time: seconds(slots.value(SENT)),
        refund_id: slots.value(ID),
        reversed: (called == "charge.dispute.funds_reinstated").into(),
        ..Fields::default()
    };
    with_amount(fields, slots.value(AMOUNT), slots).into_event(EventType::Refund).map(Decoded::Event)
}

/// Old API versions lack the status.
fn has_succeeded(status: &Value<'_>) -> bool {
    matches!(status.as_text(), None | Some("succeeded"))
}

/// When the event was sent.
fn sent_at(slots: &Slots<'_>) -> Option<Time> {
    let sent = slots.value(SENT).as_integer()?;
    Time::from_millis(sent.saturating_mul(1000)).ok()
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
        // Not a whole number: the rejection shows the value.
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
    let code = currency.as_text();
    let units = match code {
        // Halves are rounded away from zero, as everywhere; negative amounts are rejected later.
        Some(code) if HUNDREDFOLD.contains(&code) && units >= 0 => units.saturating_add(50) / 100,
        _ => units,
    };
    let exponent = match code {
        Some(code) if WHOLE.contains(&code) || HUNDREDFOLD.contains(&code) => 0,
        Some(code) if THOUSANDTHS.contains(&code) => 3,
        _ => 2,
    };
    Fields { amount: Value::Units { units, exponent: Some(exponent) }, currency, ..fields }
}
