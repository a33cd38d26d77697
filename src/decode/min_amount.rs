//! `mapping.min_amount`: orders below a smallest amount do not count.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::batch::Part;
use super::options::{OptionError, Options};
use super::{Decoded, Decoder, Rejection, Skip, refuse_future};
use crate::event::{Event, Kind, Time};

/// No currency has more than four decimals.
const EXPONENTS: usize = 5;

/// The smallest amount of an order that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MinAmount {
    /// In minor units, by the decimals of the currency.
    minor: [i64; EXPONENTS],
}

impl MinAmount {
    /// `None`: every order counts.
    pub fn new(options: &Options) -> Result<Option<MinAmount>, OptionError> {
        let Some(text) = &options.min_amount else { return Ok(None) };
        let refused = || {
            let what = format!("{text:?} is not a decimal number of at least 0; write such as \"0.01\"");
            OptionError::new("min_amount", what)
        };
        let least: Decimal = text.trim().parse().map_err(|_| refused())?;
        if least.is_sign_negative() {
            return Err(refused());
        }
        let minor = |exponent: usize| {
            let scaled = (0..exponent).try_fold(least, |scaled, _| scaled.checked_mul(Decimal::TEN))?;
            scaled.ceil().to_i64()
        };
        // A larger amount is rejected anyway.
        Ok(Some(MinAmount { minor: std::array::from_fn(|exponent| minor(exponent).unwrap_or(i64::MAX)) }))
    }

    fn excludes(&self, event: &Event<'_>) -> bool {
        let Kind::Order { amount, .. } = &event.kind else { return false };
        let exponent = (amount.currency.exponent() as usize).min(EXPONENTS - 1);
        amount.minor < self.minor[exponent]
    }

    /// Skips orders that are too small. Other events of the message still count; each part then carries `message`.
    pub fn sift<'a>(&self, decoded: &mut Result<Decoded<'a>, Rejection>, message: Option<&'a [u8]>) {
        match decoded {
            Ok(Decoded::Event(event)) if self.excludes(event) => *decoded = Ok(Decoded::Skipped(Skip::MinAmount)),
            Ok(Decoded::Several { events, .. }) if events.iter().any(|event| self.excludes(event)) => {
                let message = Cow::Borrowed(message.unwrap_or_default());
                let whole = std::mem::replace(decoded, Ok(Decoded::Skipped(Skip::MinAmount)));
                let mut parts = self.parts(Part { decoded: whole, message, place: (1, 1) });
                *decoded = if parts.len() == 1 { parts.remove(0).decoded } else { Ok(Decoded::Batch(parts)) };
            }
            Ok(Decoded::Batch(parts)) => {
                *parts = std::mem::take(parts).into_iter().flat_map(|part| self.parts(part)).collect();
            }
            _ => {}
        }
    }

    /// The part, preceded by a skipped one for each of its orders that is too small.
    fn parts<'a>(&self, mut part: Part<'a>) -> Vec<Part<'a>> {
        let skipped = || Ok(Decoded::Skipped(Skip::MinAmount));
        let Ok(Decoded::Several { events, .. }) = &mut part.decoded else {
            self.sift(&mut part.decoded, None);
            return vec![part];
        };
        let before = events.len();
        events.retain(|event| !self.excludes(event));
        let (left, excluded) = (events.len(), before - events.len());
        let mut parts: Vec<_> = (0..excluded)
            .map(|_| Part { decoded: skipped(), message: part.message.clone(), place: part.place })
            .collect();
        if left > 0 {
            parts.push(part);
        }
        parts
    }
}

impl Decoder {
    /// Applies `min_amount` and rejects events after `latest`.
    pub(super) fn settle<'a>(
        &self,
        decoded: &mut Result<Decoded<'a>, Rejection>,
        message: Option<&'a [u8]>,
        latest: Time,
    ) {
        if let Some(min_amount) = &self.min_amount {
            min_amount.sift(decoded, message);
        }
        refuse_future(decoded, latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Format;

    fn decoder(format: Format, options: &str) -> Decoder {
        Decoder::with_options(format, vec![], &toml::from_str(options).unwrap()).unwrap()
    }

    fn order(id: &str, amount: &str, currency: &str) -> String {
        format!(
            r#"{{"type":"order","order_id":"{id}","customer_id":"c","time":1767323045009,"amount":"{amount}","currency":"{currency}"}}"#
        )
    }

    fn decode(decoder: &Decoder, json: &str) -> Decoded<'static> {
        decoder.decode(None, Some(json.as_bytes()), Time::MAX).unwrap().into_owned()
    }

    const SKIPPED: Decoded<'static> = Decoded::Skipped(Skip::MinAmount);

    #[test]
    fn orders_below_it_are_skipped_in_the_units_of_their_currency() {
        let least = decoder(Format::Native, "min_amount = \"0.015\"");
        for (amount, currency, counts) in [
            ("0", "EUR", false),
            ("0.01", "EUR", false),
            ("0.02", "EUR", true),
            ("0.014", "KWD", false),
            ("0.015", "KWD", true),
            ("0", "JPY", false),
            ("1", "JPY", true),
        ] {
            let decoded = decode(&least, &order("a", amount, currency));
            assert_eq!(decoded != SKIPPED, counts, "{amount} {currency}: {decoded:?}");
        }
        let refund = order("a", "0", "EUR").replace("\"order\"", "\"refund\"");
        assert!(matches!(decode(&least, &refund), Decoded::Event(_)), "a refund is none");
        assert!(matches!(decode(&decoder(Format::Native, ""), &order("a", "0", "EUR")), Decoded::Event(_)));
    }

    #[test]
    fn of_a_list_each_order_is_looked_at() {
        let least = decoder(Format::Native, "min_amount = \"1\"");
        let list = format!("[{},{}]", order("a", "0.99", "EUR"), order("b", "1", "EUR"));
        let Decoded::Batch(parts) = decode(&least, &list) else { panic!("a batch") };
        assert_eq!(parts[0].decoded, Ok(SKIPPED));
        assert!(matches!(&parts[1].decoded, Ok(Decoded::Event(event)) if event.kind.id() == Some("b")));
    }

    #[test]
    fn refunds_count_beside_an_order_that_is_too_small() {
        let json = r#"{"id":1,"admin_graphql_api_id":"gid://shopify/Order/1","created_at":"2026-01-05T10:00:00Z",
            "currency":"EUR","total_price":"0.00","customer":{"id":7},"line_items":[],
            "refunds":[{"id":3,"created_at":"2026-01-06T10:00:00Z",
                "transactions":[{"id":9,"kind":"refund","status":"success","amount":"2.00","currency":"EUR"}]}]}"#;
        let all = decode(&decoder(Format::Shopify, ""), json);
        assert_eq!(all.event_types().len(), 2, "{all:?}");
        let Decoded::Batch(parts) = decode(&decoder(Format::Shopify, "min_amount = \"0.01\""), json) else {
            panic!("two parts")
        };
        assert_eq!(parts[0].decoded, Ok(SKIPPED));
        assert_eq!(parts[1].message, json.as_bytes(), "what is rejected is put back whole");
        let left = parts[1].decoded.as_ref().unwrap().events();
        assert!(matches!(left.as_slice(), [Event { kind: Kind::Refund { .. }, .. }]), "{left:?}");
    }

    #[test]
    fn sources_that_share_a_topic_have_each_their_own() {
        let both = Decoder::shared(vec![
            decoder(Format::Native, "min_amount = \"5\"\nwhere = { order_id = [\"a\"] }"),
            decoder(Format::Native, "where = { order_id = { not = [\"a\"] } }"),
        ]);
        let both = both.unwrap();
        assert_eq!(decode(&both, &order("a", "4", "EUR")), SKIPPED);
        assert!(matches!(decode(&both, &order("b", "4", "EUR")), Decoded::Event(_)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-1", "1,5", "much"] {
            let options = Options { min_amount: Some(text.to_owned()), ..Options::default() };
            let error = Decoder::with_options(Format::Native, vec![], &options).unwrap_err();
            assert_eq!(error.option, "min_amount", "{error}");
        }
    }
}
