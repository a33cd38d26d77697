//! Encoding of the events of customers that are ahead of the slowest topic, as part of the customer's row.

use super::CurrencyState;
use super::plain::{Reader, put_number, put_signed};
use crate::engine::ahead::{Deed, DeedKind, Named};
use crate::event::{CostKind, Currency, Money, Time};

/// Types of events.
mod what {
    pub const ORDER: u64 = 0;
    pub const REFUND: u64 = 1;
    pub const CANCEL: u64 = 2;
    pub const SESSION: u64 = 3;
    pub const PROFILE: u64 = 4;
    pub const FEEDBACK: u64 = 5;
    pub const ACQUISITION: u64 = 6;
    pub const RETENTION: u64 = 7;
}

pub(super) fn put_deed(out: &mut Vec<u8>, Deed { time, what }: &Deed) {
    put_signed(out, time.millis());
    match what {
        DeedKind::Order(amount, named) => {
            put_number(out, what::ORDER);
            put_money(out, amount);
            put_number(out, u64::from(named.as_ref().is_some_and(|named| named.referred)));
            let values = named.iter().flat_map(|named| (0_u64..).zip(&named.attributes));
            let values: Vec<_> = values.filter_map(|(place, value)| Some((place, value.as_deref()?))).collect();
            put_number(out, values.len() as u64);
            for (place, value) in values {
                put_number(out, place);
                put_text(out, value);
            }
        }
        DeedKind::Refund(amount) => {
            put_number(out, what::REFUND);
            put_money(out, amount);
        }
        DeedKind::Cancel(amount) => {
            put_number(out, what::CANCEL);
            put_money(out, amount);
        }
        DeedKind::Session => put_number(out, what::SESSION),
        DeedKind::Profile(is_referred) => {
            put_number(out, what::PROFILE);
            put_number(out, u64::from(*is_referred));
        }
        DeedKind::Feedback(is_complaint) => {
            put_number(out, what::FEEDBACK);
            put_number(out, u64::from(*is_complaint));
        }
        DeedKind::Cost(kind, amount) => {
            put_number(out, if *kind == CostKind::Acquisition { what::ACQUISITION } else { what::RETENTION });
            put_money(out, amount);
        }
    }
}

pub(super) fn take_deed(reader: &mut Reader<'_>) -> Option<Deed> {
    let time = Time::from_millis(reader.signed()?).ok()?;
    let what = match reader.number()? {
        what::ORDER => {
            let amount = take_money(reader)?;
            let mut named = Named { referred: reader.number()? != 0, ..Named::default() };
            for _ in 0..reader.len()? {
                let place = usize::try_from(reader.number()?).ok()?;
                *named.attributes.get_mut(place)? = Some(take_text(reader)?.into());
            }
            DeedKind::Order(amount, (named != Named::default()).then(|| Box::new(named)))
        }
        what::REFUND => DeedKind::Refund(take_money(reader)?),
        what::CANCEL => DeedKind::Cancel(take_money(reader)?),
        what::SESSION => DeedKind::Session,
        what::PROFILE => DeedKind::Profile(reader.number()? != 0),
        what::FEEDBACK => DeedKind::Feedback(reader.number()? != 0),
        what::ACQUISITION => DeedKind::Cost(CostKind::Acquisition, take_money(reader)?),
        what::RETENTION => DeedKind::Cost(CostKind::Retention, take_money(reader)?),
        _ => return None,
    };
    Some(Deed { time, what })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let len = usize::try_from(reader.number()?).ok()?;
    std::str::from_utf8(reader.bytes(len)?).ok()
}

fn put_money(out: &mut Vec<u8>, &Money { currency, minor }: &Money) {
    put_text(out, &CurrencyState::of(currency).code);
    put_signed(out, minor);
}

fn take_money(reader: &mut Reader<'_>) -> Option<Money> {
    let currency = Currency::from_code(take_text(reader)?).ok()?;
    Some(Money { currency, minor: reader.signed()? })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn deed() -> impl Strategy<Value = Deed> {
        let money = || {
            (any::<i64>(), any::<bool>()).prop_map(|(minor, is_yen)| {
                let currency = Currency::from_code(if is_yen { "JPY" } else { "EUR" }).unwrap();
                Money { minor, currency }
            })
        };
        let text = || prop::option::of("[a-zé ]{0,9}".prop_map(Box::from));
        let named = (prop::array::uniform4(text()), any::<bool>())
            .prop_map(|(attributes, referred)| Named { attributes, referred });
        let what = prop_oneof![
            (money(), named).prop_map(|(amount, named)| {
                DeedKind::Order(amount, (named != Named::default()).then(|| Box::new(named)))
            }),
            money().prop_map(DeedKind::Refund),
            money().prop_map(DeedKind::Cancel),
            Just(DeedKind::Session),
            any::<bool>().prop_map(DeedKind::Profile),
            any::<bool>().prop_map(DeedKind::Feedback),
            money().prop_map(|amount| DeedKind::Cost(CostKind::Acquisition, amount)),
            money().prop_map(|amount| DeedKind::Cost(CostKind::Retention, amount)),
        ];
        (0..Time::MAX.millis(), what).prop_map(|(time, what)| Deed { time: Time::clamped(time), what })
    }
}
