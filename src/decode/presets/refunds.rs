//! What a refund of Shopify's moved, in the currency of the shop where the message says it.
//!
//! <https://shopify.dev/docs/api/admin-rest/latest/resources/refund>. Transactions are in the currency that the customer
//! paid in, orders in that of the shop. What is returned, and the order as a whole, have their amounts in both: their
//! ratio is the rate at which the order was placed, by which Shopify's reports convert a refund too.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::fields::{Value, money, time};
use crate::decode::json::scalar;
use crate::decode::{Reason, Rejection};
use crate::event::{Currency, Money, Time};

/// A refund, inside an order or alone.
#[derive(Deserialize)]
pub(super) struct Refund<'a> {
    #[serde(borrow)]
    pub id: &'a RawValue,
    #[serde(borrow, default)]
    processed_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transactions: Vec<Transaction<'a>>,
    // Read only where currencies differ, so that nothing else depends on their shape.
    #[serde(borrow, default)]
    refund_line_items: Option<&'a RawValue>,
    #[serde(borrow, default)]
    order_adjustments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refund_shipping_lines: Option<&'a RawValue>,
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

/// An amount in both currencies.
#[derive(Deserialize)]
struct Both<'a> {
    #[serde(borrow)]
    shop_money: Amount<'a>,
    #[serde(borrow)]
    presentment_money: Amount<'a>,
}

#[derive(Deserialize)]
struct Amount<'a> {
    #[serde(borrow)]
    amount: &'a RawValue,
    #[serde(borrow)]
    currency_code: &'a RawValue,
}

/// Goods that are returned.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    subtotal_set: Option<Both<'a>>,
    #[serde(borrow, default)]
    total_tax_set: Option<Both<'a>>,
}

/// What a refund differs by from the goods: below zero, such as shipping costs, where more is returned.
#[derive(Deserialize)]
struct Adjustment<'a> {
    #[serde(borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount_set: Option<Both<'a>>,
    #[serde(borrow, default)]
    tax_amount_set: Option<Both<'a>>,
}

/// Shipping costs that are returned, which are adjustments too in some versions.
#[derive(Deserialize)]
struct Shipping<'a> {
    #[serde(borrow, default)]
    subtotal_amount_set: Option<Both<'a>>,
}

/// Amounts of the same worth, in minor units of the shop's currency and of the customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    shop: (i64, Currency),
    paid: (i64, Currency),
}

impl Rate {
    /// From the total of an order of a shop with this currency.
    pub fn of_total(json: &str, shop: Currency) -> Option<Rate> {
        let mut sum = Sum::default();
        sum.add(serde_json::from_str(json).ok(), 1)?;
        sum.rate().filter(|rate| rate.shop.1 == shop)
    }

    /// From what a refund returns, with taxes and costs.
    fn of_refund(refund: &Refund<'_>) -> Option<Rate> {
        let mut sum = Sum::default();
        for line in list::<Line<'_>>(refund.refund_line_items)? {
            sum.add(line.subtotal_set, 1)?;
            sum.add(line.total_tax_set, 1)?;
        }
        let mut has_shipping = false;
        for adjustment in list::<Adjustment<'_>>(refund.order_adjustments)? {
            has_shipping |= value(adjustment.kind).as_text() == Some("shipping_refund");
            sum.add(adjustment.amount_set, -1)?;
            sum.add(adjustment.tax_amount_set, -1)?;
        }
        for shipping in list::<Shipping<'_>>(refund.refund_shipping_lines)?.into_iter().filter(|_| !has_shipping) {
            sum.add(shipping.subtotal_amount_set, 1)?;
        }
        sum.rate()
    }

    /// The same amount in the currency of the shop, rounded half away from zero.
    fn convert(&self, paid: Money) -> Option<Money> {
        if paid.currency != self.paid.1 {
            return None;
        }
        let (product, divisor) = (i128::from(paid.minor) * i128::from(self.shop.0), i128::from(self.paid.0));
        let minor = i64::try_from((2 * product + divisor) / (2 * divisor)).ok()?;
        Some(Money { minor, currency: self.shop.1 })
    }
}

/// Amounts that are added up in both currencies.
#[derive(Default)]
struct Sum {
    shop: Option<(i64, Currency)>,
    paid: Option<(i64, Currency)>,
}

impl Sum {
    /// `None` where an amount is unclear or in a third currency.
    fn add(&mut self, both: Option<Both<'_>>, sign: i64) -> Option<()> {
        let Some(both) = both else { return Some(()) };
        for (sum, amount) in [(&mut self.shop, &both.shop_money), (&mut self.paid, &both.presentment_money)] {
            let (minor, currency) = signed(amount)?;
            let (so_far, known) = sum.get_or_insert((0, currency));
            if *known != currency {
                return None;
            }
            *so_far = so_far.checked_add(sign * minor)?;
        }
        Some(())
    }

    fn rate(self) -> Option<Rate> {
        let rate = Rate { shop: self.shop?, paid: self.paid? };
        (rate.shop.0 > 0 && rate.paid.0 > 0).then_some(rate)
    }
}

/// An amount that may be below zero.
fn signed(amount: &Amount<'_>) -> Option<(i64, Currency)> {
    let (text, code) = (scalar(amount.amount), scalar(amount.currency_code));
    let (text, currency) = (text.as_text()?, Currency::from_code(code.as_text()?).ok()?);
    let unsigned = Money::parse(text.strip_prefix('-').unwrap_or(text), currency).ok()?;
    Some((if text.starts_with('-') { -unsigned.minor } else { unsigned.minor }, currency))
}

fn list<'a, T: Deserialize<'a>>(json: Option<&'a RawValue>) -> Option<Vec<T>> {
    json.map_or(Some(Vec::new()), |json| {
        serde_json::from_str::<Option<Vec<T>>>(json.get()).ok().map(Option::unwrap_or_default)
    })
}

fn value(raw: Option<&RawValue>) -> Value<'_> {
    raw.map_or(Value::Absent, scalar)
}

/// Money that went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PaidBack {
    /// When, as the shop says; that may lie in the past of a refund that is imported.
    pub at: Time,
    /// When the refund was made.
    pub made: Time,
    /// How much: in the currency of the shop where the message tells it.
    pub money: Money,
}

/// When money went back and how much, if any did: the successful transactions of kind refund. `shop` and `rate` are those
/// of the order where they are known.
pub(super) fn moved(
    refund: &Refund<'_>,
    shop: Option<Currency>,
    rate: Option<&Rate>,
) -> Result<Option<PaidBack>, Rejection> {
    let mut sums: Vec<Money> = Vec::new();
    for transaction in &refund.transactions {
        let is = |raw, text| value(raw).as_text() == Some(text);
        if is(transaction.kind, "refund") && is(transaction.status, "success") {
            add(&mut sums, money(value(transaction.amount), value(transaction.currency))?);
        }
    }
    if sums.iter().any(|sum| Some(sum.currency) != shop) {
        sums = in_shop_currency(refund, shop, rate, sums);
    }
    if sums.len() > 1 {
        return Err(Rejection::new(Reason::InvalidAmount, "the transactions of one refund are in several currencies"));
    }
    let Some(money) = sums.pop().filter(|sum| sum.minor > 0) else { return Ok(None) };
    let at = time(value(refund.processed_at).or(value(refund.created_at)))?;
    let made = time(value(refund.created_at)).unwrap_or(at);
    Ok(Some(PaidBack { at, made, money }))
}

fn add(sums: &mut Vec<Money>, part: Money) {
    match sums.iter_mut().find(|sum| sum.currency == part.currency) {
        Some(sum) => sum.minor = sum.minor.saturating_add(part.minor),
        None => sums.push(part),
    }
}

/// The same amounts, in the currency of the shop as far as the message tells what they are in it.
fn in_shop_currency(refund: &Refund<'_>, shop: Option<Currency>, rate: Option<&Rate>, sums: Vec<Money>) -> Vec<Money> {
    let own = Rate::of_refund(refund).filter(|own| shop.is_none_or(|shop| own.shop.1 == shop));
    let mut converted = Vec::new();
    for sum in sums {
        let is_foreign = Some(sum.currency) != shop;
        let mut rates = [own.as_ref(), rate].into_iter().flatten().filter(|_| is_foreign);
        let in_shop = rates.find_map(|rate| rate.convert(sum));
        add(&mut converted, in_shop.unwrap_or(sum));
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(shop: &str, paid: &str) -> String {
        format!(
            r#"{{"shop_money":{{"amount":{shop},"currency_code":"AUD"}},"presentment_money":{{"amount":{paid},"currency_code":"USD"}}}}"#
        )
    }

    fn money_back(paid: &str, rest: &str, total: Option<&str>) -> String {
        let json = format!(
            r#"{{"id":7,"created_at":"2026-01-06T10:00:00Z","transactions":[{{"kind":"refund","status":"success","amount":"{paid}",
                "currency":"USD"}}]{rest}}}"#
        );
        let refund: Refund<'_> = serde_json::from_str(&json).unwrap();
        let shop = Currency::from_code("AUD").unwrap();
        let rate = total.and_then(|total| Rate::of_total(total, shop));
        moved(&refund, Some(shop), rate.as_ref()).unwrap().unwrap().money.to_string()
    }

    #[test]
    fn what_is_returned_says_what_the_refund_is_in_the_currency_of_the_shop() {
        let lines = format!(
            r#","refund_line_items":[{{"subtotal_set":{},"total_tax_set":{}}},{{"subtotal_set":{}}}]"#,
            both("\"40.00\"", "\"30.00\""),
            both("4.00", "3.00"),
            both("\"10.00\"", "\"7.50\""),
        );
        assert_eq!(money_back("40.50", &lines, None), "54.00 AUD");
        // Half of it, by two transactions of which one is pending.
        assert_eq!(money_back("20.25", &lines, None), "27.00 AUD");
        // Shipping costs are below zero, and a discrepancy above zero keeps money back.
        let adjusted = format!(
            r#"{lines},"order_adjustments":[{{"kind":"shipping_refund","amount_set":{},"tax_amount_set":{}}},
                {{"kind":"refund_discrepancy","amount_set":{}}}],"refund_shipping_lines":[{{"subtotal_amount_set":{}}}]"#,
            both("\"-6.00\"", "\"-4.50\""),
            both("\"-0.60\"", "\"-0.45\""),
            both("\"6.00\"", "\"4.50\""),
            both("\"6.60\"", "\"9.00\""),
        );
        assert_eq!(money_back("37.50", &adjusted, None), "50.00 AUD");
    }

    #[test]
    fn the_total_of_the_order_serves_where_the_refund_does_not_say() {
        let total = both("\"59.45\"", "\"45.81\"");
        assert_eq!(money_back("45.81", "", Some(&total)), "59.45 AUD");
        assert_eq!(money_back("10.00", "", Some(&total)), "12.98 AUD");
        assert_eq!(money_back("10.00", "", None), "10.00 USD", "nothing says what it is in the currency of the shop");
        let elsewhere = total.replace("USD", "EUR");
        assert_eq!(money_back("10.00", "", Some(&elsewhere)), "10.00 USD");
    }

    #[test]
    fn lists_of_another_shape_say_nothing() {
        for rest in [r#","refund_line_items":7"#, r#","refund_line_items":[{"subtotal_set":{"shop_money":1}}]"#] {
            assert_eq!(money_back("10.00", rest, None), "10.00 USD", "{rest}");
        }
        assert_eq!(money_back("10.00", r#","refund_line_items":null"#, Some(&both("20", "10"))), "20.00 AUD");
    }
}
