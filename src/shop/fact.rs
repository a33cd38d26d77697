//! Facts that happened in the shop, and their native JSON.
//!
//! All texts are the shop's own ASCII without quotes or backslashes, so nothing needs escaping.

use std::fmt;

use super::market::{Channel, Market};
use super::{Published, Stream};
use crate::event::Time;

/// A fact; small, so that thousands can be pending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fact {
    pub customer: CustomerId,
    pub time: Time,
    pub what: FactKind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum FactKind {
    Order { order: u64, paid: Sum, place: Acquisition, referrer: Option<CustomerId> },
    Refund { order: u64, part: u8, returned: Sum },
    Cancel { order: u64, returned: Sum },
    Session { session: u64 },
    Profile { place: Acquisition, referrer: Option<CustomerId> },
    Complaint,
    Praise,
    Acquisition { spent: Sum },
    Retention { spent: Sum },
    Erase { tombstone: bool },
}

impl FactKind {
    /// Whether a duplicate can be recognised.
    pub fn has_id(&self) -> bool {
        matches!(
            self,
            FactKind::Order { .. } | FactKind::Refund { .. } | FactKind::Cancel { .. } | FactKind::Session { .. }
        )
    }
}

impl Fact {
    /// The message with this fact.
    pub fn publish(&self, emitted_at: Time) -> Published {
        let stream = if matches!(self.what, FactKind::Session { .. }) { Stream::Sessions } else { Stream::Orders };
        Published { stream, emitted_at, key: self.customer.to_string(), payload: self.payload() }
    }

    fn payload(&self) -> Option<String> {
        let Fact { customer, time, what } = self;
        Some(match what {
            FactKind::Order { order, paid, place, referrer } => format!(
                r#"{{"type":"order","order_id":"o-{order:010}","customer_id":"{customer}","time":"{time}",{paid},{place}{}}}"#,
                Referrer(*referrer)
            ),
            FactKind::Refund { order, part, returned } => format!(
                r#"{{"type":"refund","order_id":"o-{order:010}","refund_id":"r-{order:010}-{part}","customer_id":"{customer}","time":"{time}",{returned}}}"#
            ),
            FactKind::Cancel { order, returned } => format!(
                r#"{{"type":"cancel","order_id":"o-{order:010}","customer_id":"{customer}","time":"{time}",{returned}}}"#
            ),
            FactKind::Session { session } => format!(
                r#"{{"type":"session","session_id":"s-{session:010}","customer_id":"{customer}","time":"{time}"}}"#
            ),
            FactKind::Profile { place, referrer } => format!(
                r#"{{"type":"customer","customer_id":"{customer}","time":"{time}",{place}{}}}"#,
                Referrer(*referrer)
            ),
            FactKind::Complaint => feedback(*customer, *time, "complaint", -1),
            FactKind::Praise => feedback(*customer, *time, "praise", 1),
            FactKind::Acquisition { spent } => cost(*customer, *time, "acquisition", *spent),
            FactKind::Retention { spent } => cost(*customer, *time, "retention", *spent),
            FactKind::Erase { tombstone: false } => {
                format!(r#"{{"type":"erase","customer_id":"{customer}","time":"{time}"}}"#)
            }
            FactKind::Erase { tombstone: true } => return None,
        })
    }
}

fn feedback(customer: CustomerId, time: Time, kind: &str, score: i32) -> String {
    format!(r#"{{"type":"feedback","customer_id":"{customer}","time":"{time}","kind":"{kind}","score":{score}}}"#)
}

fn cost(customer: CustomerId, time: Time, kind: &str, spent: Sum) -> String {
    format!(r#"{{"type":"cost","time":"{time}","customer_id":"{customer}","kind":"{kind}",{spent}}}"#)
}

/// The number of a customer, in the order of arrival; written as `c-00000042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CustomerId(pub u64);

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c-{:08}", self.0)
    }
}

/// Minor units of a market's currency; written as the fields `amount` and `currency`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    pub minor: i64,
    pub market: &'static Market,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Market { currency, decimals, .. } = *self.market;
        let unit = 10_i64.pow(decimals);
        write!(f, r#""amount":"{}"#, self.minor / unit)?;
        if decimals > 0 {
            write!(f, ".{:0width$}", self.minor % unit, width = decimals as usize)?;
        }
        write!(f, r#"","currency":"{currency}""#)
    }
}

/// A customer's country and channel; written as the field `attributes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acquisition {
    pub market: &'static Market,
    pub channel: Channel,
}

impl fmt::Display for Acquisition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""attributes":{{"channel":"{}","country":"{}"}}"#, self.channel.name(), self.market.country)
    }
}

/// The field `referred_by` with its comma, or nothing.
struct Referrer(Option<CustomerId>);

impl fmt::Display for Referrer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(customer) => write!(f, r#","referred_by":"{customer}""#),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::market::MARKETS;
    use super::*;

    fn payload(what: FactKind) -> String {
        let fact = Fact { customer: CustomerId(42), time: Time::clamped(1_767_323_045_678), what };
        fact.publish(fact.time).payload.unwrap_or_default()
    }

    fn sum(minor: i64, currency: &str) -> Sum {
        Sum { minor, market: MARKETS.iter().find(|market| market.currency == currency).unwrap() }
    }

    #[test]
    fn writes_the_native_format() {
        let place = Acquisition { market: &MARKETS[0], channel: Channel::Web };
        let order = FactKind::Order { order: 7, paid: sum(7212, "EUR"), place, referrer: Some(CustomerId(9)) };
        assert_eq!(
            payload(order),
            r#"{"type":"order","order_id":"o-0000000007","customer_id":"c-00000042","time":"2026-01-02T03:04:05.678Z","amount":"72.12","currency":"EUR","attributes":{"channel":"web","country":"DE"},"referred_by":"c-00000009"}"#
        );
        assert_eq!(
            payload(FactKind::Refund { order: 7, part: 2, returned: sum(5, "EUR") }),
            r#"{"type":"refund","order_id":"o-0000000007","refund_id":"r-0000000007-2","customer_id":"c-00000042","time":"2026-01-02T03:04:05.678Z","amount":"0.05","currency":"EUR"}"#
        );
        assert_eq!(
            payload(FactKind::Complaint),
            r#"{"type":"feedback","customer_id":"c-00000042","time":"2026-01-02T03:04:05.678Z","kind":"complaint","score":-1}"#
        );
    }

    #[test]
    fn amounts_have_the_decimals_of_their_currency() {
        assert_eq!(sum(7212, "JPY").to_string(), r#""amount":"7212","currency":"JPY""#);
        assert_eq!(sum(0, "EUR").to_string(), r#""amount":"0.00","currency":"EUR""#);
        assert_eq!(sum(1_005, "KWD").to_string(), r#""amount":"1.005","currency":"KWD""#);
    }
}
