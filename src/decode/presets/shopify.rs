//! Shopify's webhooks `orders/*` and `refunds/create`, in the JSON of the REST Admin API.
//!
//! <https://shopify.dev/docs/api/admin-rest/latest/resources/order>. `processed_at` is the time that Shopify's own
//! reports use; it may be long ago if the order was imported. Every message about an order contains its whole history:
//! the order, its refunds, its cancellation. Each is an event with an id of its own, so later messages add what is new
//! and repeat the rest. The first message defines the order; later edits change nothing.
//!
//! Checkouts and draft orders look like orders but are not: they become separate orders. So an order is recognized by
//! its global id, or by a field that only orders have.
//!
//! A cancellation returns what earlier refunds have not. Pending refunds count as returned, and become events once they
//! succeed. Refunds from then on carry out the cancellation and are not events. A refund webhook does not name the
//! customer, so its message key must; it is not needed where the order messages arrive anyway.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::refunds::{Order, PaidBack, Rate, Refund, Share, elements, moved};
use super::{Common, told};
use crate::decode::batch::Part;
use crate::decode::fields::{Fields, Value, time};
use crate::decode::json::scalar;
use crate::decode::options::{OptionError, Options, TestOrders};
use crate::decode::paths::{Paths, Slots};
use crate::decode::presets::or_skip;
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown};
use crate::event::{Currency, Event, EventType, Kind, Money, Time};

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
/// Fields that only orders have, though not in every API version.
const ORDERS_OWN: [usize; 5] = [PROCESSED, CANCELLED, 17, 18, 19];
const TOTAL_SET: usize = 20;

type Sign = (usize, &'static str, Option<&'static str>);

/// Resources that look like orders: a field that only they have, even if it is null, their name, and what to send
/// instead.
const LOOKALIKES: [Sign; 3] = [
    (21, "Checkout", Some("a checkout that is completed becomes an order; send orders/create and orders/updated")),
    (22, "DraftOrder", Some(DRAFT)),
    (23, "DraftOrder", Some(DRAFT)),
];
/// Other resources, in the same way.
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

/// The subject of a message.
enum Resource<'a> {
    Order,
    Refund,
    Other(Unknown<'a>),
}

/// Amounts of an order that can be selected. Those named `current_*` are already reduced by refunds, which are events
/// of their own, so refunds would be subtracted twice.
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
    /// The resources that are read.
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

    /// The subject of a message, by its global id, otherwise by fields that only one resource has.
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
            // Parts of an order name their order: refunds, but also transactions and fulfillments.
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
        let email = self.common.email(slots, EMAILS);
        let customer = self.common.customer(slots.value(CUSTOMER), Value::Absent, &email);
        let order = Fields {
            customer_id: or_skip!(customer),
            time: slots.first_of([PROCESSED, CREATED]),
            order_id: id(),
            amount: slots.value(self.amount),
            currency: slots.value(CURRENCY),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        let order = self.common.event(order, EventType::Order)?;
        let Kind::Order { amount: total, .. } = order.kind else { return Ok(Decoded::Event(order)) };
        let cancelled = slots.raw(CANCELLED).map(|_| time(slots.value(CANCELLED))).transpose()?;
        let customer = Value::Text(order.customer.clone());
        let mut history = History { returned: 0, foreign: None, events: vec![order], rejected: Vec::new() };
        if let Some(list) = slots.raw(REFUNDS) {
            history.add_refunds(list, &around(slots, bytes, total), &customer, cancelled);
        }
        // The rest can be computed only if every refund was read.
        if let Some(cancelled) = cancelled.filter(|_| history.rejected.is_empty()) {
            match history.rest(total) {
                Ok(rest) => {
                    let fields = Fields {
                        customer_id: customer,
                        time: Value::Millis(cancelled.millis()),
                        order_id: id(),
                        amount: Value::Units { units: rest.minor, exponent: None },
                        currency: slots.value(CURRENCY),
                        ..Fields::default()
                    };
                    history.events.push(self.common.event(fields, EventType::Cancel)?);
                }
                Err(rejection) => history.rejected.push(rejection),
            }
        }
        let sent = slots.raw(UPDATED).and_then(|_| time(slots.value(UPDATED)).ok());
        let events = told(history.events, sent);
        if history.rejected.is_empty() { Ok(events) } else { Ok(partly(events, history.rejected, bytes)) }
    }
}

/// The history of an order.
struct History<'a> {
    events: Vec<Event<'a>>,
    rejected: Vec<Rejection>,
    /// Amount of the refunds before the cancellation, pending ones included.
    returned: i64,
    /// Currency of such a refund, if it differs from the order's.
    foreign: Option<Currency>,
}

impl<'a> History<'a> {
    /// Adds the refunds; each may be rejected separately.
    fn add_refunds(&mut self, list: &'a str, order: &Order<'a>, customer: &Value<'a>, cancelled: Option<Time>) {
        let Some(list) = elements(list) else { return self.rejected.push(wrong_shape("refunds")) };
        for refund in list {
            let read = serde_json::from_str(refund.get()).map_err(|_| wrong_shape("a refund of the order"));
            let added = read.and_then(|refund| self.add_refund(&refund, order, customer, cancelled));
            self.rejected.extend(added.err());
        }
    }

    fn add_refund(
        &mut self,
        refund: &Refund<'a>,
        order: &Order<'a>,
        customer: &Value<'a>,
        cancelled: Option<Time>,
    ) -> Result<(), Rejection> {
        let Some(paid_back) = moved(refund, order)? else { return Ok(()) };
        if cancelled.is_some_and(|cancelled| paid_back.made >= cancelled) {
            return Ok(());
        }
        let events = refund_events(customer, refund, &paid_back)?;
        for share in paid_back.shares {
            if Some(share.money.currency) == order.shop {
                self.returned = self.returned.saturating_add(share.money.minor);
            } else {
                self.foreign = Some(share.money.currency);
            }
        }
        self.events.extend(events);
        Ok(())
    }

    /// The amount that a cancellation returns.
    fn rest(&self, total: Money) -> Result<Money, Rejection> {
        let Some(foreign) = self.foreign else {
            return Ok(Money { minor: total.minor.saturating_sub(self.returned).max(0), ..total });
        };
        let (foreign, own) = (foreign.code(), total.currency.code());
        let what = format!(
            "the order was cancelled after a refund in {foreign}, and the message does not tell what it is in {own}: what \
             the cancellation returned is not known; send total_price_set with the order"
        );
        Err(Rejection::new(Reason::InvalidAmount, what))
    }
}

/// Facts about the order of its refunds.
fn around<'a>(slots: &Slots<'a>, bytes: &'a [u8], total: Money) -> Order<'a> {
    #[derive(Deserialize)]
    struct Presentment<'a> {
        #[serde(borrow, default)]
        presentment_currency: Option<&'a RawValue>,
    }
    let paid = serde_json::from_slice::<Presentment<'a>>(bytes).ok().and_then(|order| order.presentment_currency);
    Order {
        shop: Some(total.currency),
        paid: paid.map_or(Value::Absent, scalar).or(slots.value(CURRENCY)),
        rate: slots.raw(TOTAL_SET).and_then(|set| Rate::of_total(set, total.currency)),
    }
}

fn named<'a>(name: &str) -> Resource<'a> {
    Resource::Other(Unknown::of("resource", Some(Cow::Owned(name.to_owned()))))
}

/// An order with rejected refunds. The dead letters contain the whole message: replaying it counts nothing twice,
/// because all of its events have ids.
fn partly<'a>(events: Decoded<'a>, rejected: Vec<Rejection>, bytes: &'a [u8]) -> Decoded<'a> {
    let count = rejected.len() + 1;
    let all = std::iter::once(Ok(events)).chain(rejected.into_iter().map(Err));
    let part = |(place, decoded)| Part { decoded, message: Cow::Borrowed(bytes), place: (place, count) };
    Decoded::Batch((1..).zip(all).map(part).collect())
}

/// Decodes a refund webhook.
fn refund_alone<'a>(message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
    let refund: Refund<'a> = serde_json::from_slice(bytes).map_err(|_| wrong_shape("the refund"))?;
    let paid_back = moved(&refund, &Order::default())?;
    let Some(paid_back) = paid_back.filter(|paid_back| paid_back.shares.iter().any(|share| !share.is_pending)) else {
        return Ok(Decoded::Skipped(Skip::NoMoney));
    };
    let customer = message.key_as_customer("a refund webhook does not name its customer")?;
    Ok(told(refund_events(&customer, &refund, &paid_back)?, None))
}

/// One event per completed transaction. The first transaction has the id of the refund; later ones, which may succeed
/// days after it, append their own id.
fn refund_events<'a>(
    customer: &Value<'a>,
    refund: &Refund<'a>,
    paid_back: &PaidBack,
) -> Result<Vec<Event<'a>>, Rejection> {
    let id = refund.id.map_or(Value::Absent, scalar).into_id();
    let Some(whole) = id.as_text().filter(|id| !id.is_empty()) else {
        return Err(Rejection::new(Reason::MissingField, "a refund has no id"));
    };
    let done = paid_back.shares.iter().filter(|share| !share.is_pending);
    let event = |share: &Share| {
        let fields = Fields {
            customer_id: customer.clone(),
            time: Value::Millis(paid_back.at.millis()),
            refund_id: match &share.transaction {
                None => id.clone(),
                Some(transaction) => Value::Text(Cow::Owned(format!("{whole}/{transaction}"))),
            },
            amount: Value::Units { units: share.money.minor, exponent: None },
            currency: Value::Text(share.money.currency.code().into()),
            ..Fields::default()
        };
        fields.into_event(EventType::Refund)
    };
    done.map(event).collect()
}
