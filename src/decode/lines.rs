//! Files with several lines per order, one for each article: `lines = "sum"`.

use std::borrow::Cow;

use hashbrown::HashMap;
use indexmap::IndexMap;
use rust_decimal::Decimal;

mod above;

pub use above::Above;
pub(super) use above::LineSlots;

use super::fields::{Fields, Value, missing, money, time};
use super::min_amount::MinAmount;
use super::presets::Custom;
use super::{Decoded, Reason, Rejection, Skip, amounts, refuse_future};
use crate::event::{Attributes, Event, EventType, Kind, Money, Time};

/// The content of one line of a file.
#[derive(Debug)]
pub enum Line<'a> {
    /// An event of its own.
    Whole(Decoded<'a>),
    /// One of the lines of an order, refund or cancellation.
    Part(Box<OrderLine<'a>>),
    /// A line that names no customer or cannot be read; its order, named here, is incomplete without it.
    Lost(Cow<'a, str>, Result<Decoded<'a>, Rejection>),
}

impl Line<'_> {
    /// A copy that owns its data.
    pub(super) fn into_owned(self) -> Line<'static> {
        match self {
            Line::Whole(decoded) => Line::Whole(decoded.into_owned()),
            Line::Part(line) => Line::Part(Box::new(OrderLine {
                event: line.event.into_owned(),
                id: Cow::Owned(line.id.into_owned()),
                amount: line.amount,
                is_below: line.is_below,
            })),
            Line::Lost(order, decoded) => Line::Lost(Cow::Owned(order.into_owned()), decoded.map(Decoded::into_owned)),
        }
    }
}

/// One line of an order, refund or cancellation.
#[derive(Debug)]
pub struct OrderLine<'a> {
    /// The event of all lines together, with amount zero.
    event: Event<'a>,
    id: Cow<'a, str>,
    /// `None` if the line has no amount.
    amount: Result<Option<Decimal>, Rejection>,
    /// Whether the line left fields to the line above.
    is_below: bool,
}

impl<'a> OrderLine<'a> {
    /// `fields` has no amount: a line without one still belongs to its order.
    pub(super) fn new(
        mut fields: Fields<'a>,
        amount: Result<Value<'a>, Rejection>,
        event_type: EventType,
        is_below: bool,
    ) -> Result<OrderLine<'a>, Rejection> {
        if let (EventType::Refund, Value::Absent, Value::Text(order)) =
            (event_type, &fields.refund_id, &fields.order_id)
        {
            // Time distinguishes the refunds of one order.
            let at = time(fields.time.clone())?;
            fields.refund_id = Value::Text(Cow::Owned(format!("{order}/{}", at.millis())));
        }
        fields.amount = Value::Text(Cow::Borrowed("0"));
        let currency = fields.currency.clone();
        let event = fields.into_event(event_type)?;
        let id = event.kind.id().map(|id| Cow::Owned(id.to_owned())).ok_or_else(|| {
            let what = format!("the id of the {} is missing, by which its lines are added up", event_type.name());
            Rejection::new(Reason::MissingField, what)
        })?;
        let exponent = money_of(&event.kind).map_or(0, |zero| zero.currency.exponent());
        let amount = amount.and_then(|amount| match amount {
            Value::Absent => Ok(None),
            amount => exact(amount, currency, exponent).map(Some),
        });
        Ok(OrderLine { event, id, amount, is_below })
    }

    /// Whether its amount cannot be read.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.amount.is_err()
    }
}

impl<'a> OrderLine<'a> {
    /// Adds attributes that are not among the fields.
    pub(super) fn set_attributes(&mut self, more: Attributes<'a>) {
        if let Kind::Order { attributes, .. } = &mut self.event.kind {
            super::table::add(attributes, more);
        }
    }
}

fn exact<'a>(amount: Value<'a>, currency: Value<'a>, exponent: u32) -> Result<Decimal, Rejection> {
    let exact = match &amount {
        Value::Units { units, exponent: own } => Some(Decimal::new(*units, own.unwrap_or(exponent))),
        other => other.as_text().and_then(amounts::decimal),
    };
    // If it is not an amount, `money` gives the usual explanation.
    exact.ok_or_else(|| match money(amount, currency) {
        Err(rejection) => rejection,
        Ok(_) => Rejection::new(Reason::InvalidAmount, "amount has too many digits to be added up exactly"),
    })
}

fn money_of(kind: &Kind<'_>) -> Option<Money> {
    match kind {
        Kind::Order { amount, .. } | Kind::Refund { amount, .. } | Kind::Cancel { amount, .. } => Some(*amount),
        _ => None,
    }
}

/// Type, customer and id.
type Key = (EventType, Box<str>, Box<str>);

/// The lines of an order so far.
#[derive(Debug)]
struct Sum {
    /// Number of the first line.
    line: u64,
    event: Event<'static>,
    total: Result<Decimal, Rejection>,
    /// Whether the first line has an amount.
    is_priced: bool,
    /// The first line without an amount among those that left fields to the line above, and whether another has one.
    without_amount: Option<u64>,
    is_priced_below: bool,
}

impl Sum {
    /// The total. Either the first line contains it, or every line below has an amount.
    fn total(self, lost: Option<&(u64, Rejection)>) -> Result<(Event<'static>, Decimal), Rejection> {
        if let Some((line, rejection)) = lost {
            return Err(in_line(*line, rejection));
        }
        let without_amount = if self.is_priced_below { self.without_amount } else { None };
        match (self.is_priced || self.is_priced_below, without_amount) {
            (true, None) => self.total.map(|total| (self.event, total)),
            (false, _) => Err(self.total.err().unwrap_or_else(|| in_line(self.line, &missing("amount")))),
            (true, Some(line)) => Err(in_line(line, &missing("amount"))),
        }
    }
}

/// Adds up lines by order. The lines of an order need not be adjacent.
#[derive(Debug)]
pub struct Lines<'d> {
    custom: &'d Custom,
    min_amount: Option<MinAmount>,
    orders: IndexMap<Key, Sum, foldhash::fast::FixedState>,
    /// For each order with lines that could not be assigned: the first of them, and why.
    lost: HashMap<Box<str>, (u64, Rejection), foldhash::fast::FixedState>,
}

impl<'d> Lines<'d> {
    pub(super) fn new(custom: &'d Custom, min_amount: Option<MinAmount>) -> Lines<'d> {
        Lines { custom, min_amount, orders: IndexMap::default(), lost: HashMap::default() }
    }

    /// Adds a line. An order takes the earliest time and the first attributes of its lines.
    pub fn add(&mut self, line: u64, part: OrderLine<'_>) {
        let key = (part.event.kind.event_type(), part.event.customer.as_ref().into(), part.id.as_ref().into());
        let Some(sum) = self.orders.get_mut(&key) else {
            let is_priced = matches!(part.amount, Ok(Some(_)));
            let total = part.amount.map(Option::unwrap_or_default).map_err(|rejection| in_line(line, &rejection));
            let event = part.event.into_owned();
            let sum = Sum { line, event, total, is_priced, without_amount: None, is_priced_below: false };
            self.orders.insert(key, sum);
            return;
        };
        match part.amount {
            Ok(None) if part.is_below => sum.without_amount = sum.without_amount.or(Some(line)),
            Ok(Some(_)) => sum.is_priced_below |= part.is_below,
            Ok(None) | Err(_) => {}
        }
        sum.event.time = sum.event.time.min(part.event.time);
        let Ok(total) = &mut sum.total else { return };
        let currencies = [&sum.event.kind, &part.event.kind].map(|kind| money_of(kind).map(|money| money.currency));
        let added = match part.amount {
            _ if currencies[0] != currencies[1] => {
                Err(Rejection::new(Reason::InvalidValue, "currency is another one than in the lines before"))
            }
            Ok(None) if !part.is_below => Err(missing("amount")),
            Ok(amount) => total
                .checked_add(amount.unwrap_or_default())
                .ok_or_else(|| Rejection::new(Reason::InvalidAmount, "amounts have too many digits to be added up")),
            Err(rejection) => Err(rejection),
        };
        sum.total = added.map_err(|rejection| in_line(line, &rejection));
    }

    /// Records a line that could not be assigned to its order.
    pub fn lose(&mut self, line: u64, order: &str, why: &Result<Decoded<'_>, Rejection>) {
        let why = || why.as_ref().err().cloned().unwrap_or_else(|| missing("customer_id"));
        if !self.lost.contains_key(order) {
            self.lost.insert(order.into(), (line, why()));
        }
    }

    /// The orders, sorted by first line, with the numbers of those lines. An order with an unreadable line is rejected,
    /// because its amount would be wrong.
    pub fn finish(self, latest: Time) -> impl Iterator<Item = (u64, Result<Decoded<'static>, Rejection>)> {
        let Lines { custom, min_amount, orders, lost } = self;
        orders.into_iter().map(move |((_, _, id), sum)| {
            let line = sum.line;
            let mut decoded = sum.total(lost.get(&id)).and_then(|(event, total)| whole(custom, event, total));
            if let Some(min_amount) = min_amount {
                min_amount.sift(&mut decoded, None);
            }
            refuse_future(&mut decoded, latest);
            (line, decoded)
        })
    }
}

fn in_line(line: u64, rejection: &Rejection) -> Rejection {
    Rejection::new(rejection.reason, format!("its order's line {line}: {}", rejection.detail))
}

/// The order with its total; a refund if the total is negative.
fn whole(custom: &Custom, event: Event<'static>, total: Decimal) -> Result<Decoded<'static>, Rejection> {
    let event_type = event.kind.event_type();
    let Some(Money { currency, .. }) = money_of(&event.kind) else { return Ok(Decoded::Event(event)) };
    let mut fields = Fields {
        customer_id: Value::Text(event.customer),
        time: Value::Millis(event.time.millis()),
        amount: Value::Text(Cow::Owned(total.normalize().to_string())),
        currency: Value::Text(Cow::Borrowed(currency.code())),
        ..Fields::default()
    };
    match event.kind {
        Kind::Order { id, attributes, referred_by, .. } => {
            fields.order_id = present(id);
            fields.referred_by = present(referred_by);
            fields.attributes = attributes;
        }
        Kind::Refund { id, .. } => fields.refund_id = present(id),
        Kind::Cancel { order, .. } => fields.order_id = present(order),
        _ => fields.attributes = Attributes::default(),
    }
    if event_type != EventType::Order {
        fields.amount = amounts::absolute(fields.amount);
    }
    let turned = custom.amounts().turn(event_type, &mut fields, custom.rules(), false)?;
    fields.amount = custom.rules().amount(fields.amount);
    match turned {
        Some(event_type) => fields.into_event(event_type).map(Decoded::Event),
        None => Ok(Decoded::Skipped(Skip::NoMoney)),
    }
}

fn present(id: Option<Cow<'static, str>>) -> Value<'static> {
    id.map_or(Value::Absent, Value::Text)
}
