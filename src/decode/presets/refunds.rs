//! The money that a Shopify refund moved, in the shop's currency if the message contains it.
//!
//! <https://shopify.dev/docs/api/admin-rest/latest/resources/refund>. Transactions are in the currency that the
//! customer paid in, orders in the shop's currency. Returned items and the order total have amounts in both: their
//! ratio is the exchange rate of the order, which Shopify's reports use for refunds too.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::fields::{Value, money, time};
use crate::decode::json::scalar;
use crate::decode::{Reason, Rejection};
use crate::event::{Currency, Money, Time};

/// A refund, inside an order or alone.
#[derive(Deserialize)]
pub(super) struct Refund<'a> {
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    processed_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transactions: Option<&'a RawValue>,
    // Parsed only if the currencies differ, so that in all other cases their shape does not matter.
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
    id: Option<&'a RawValue>,
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

/// Returned items.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    subtotal_set: Option<Both<'a>>,
    #[serde(borrow, default)]
    total_tax_set: Option<Both<'a>>,
}

/// A difference between the refund and the returned items. A negative amount, such as shipping costs, increases the
/// refund.
#[derive(Deserialize)]
struct Adjustment<'a> {
    #[serde(borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount_set: Option<Both<'a>>,
    #[serde(borrow, default)]
    tax_amount_set: Option<Both<'a>>,
}

/// Refunded shipping costs, which some API versions report as adjustments too.
#[derive(Deserialize)]
struct Shipping<'a> {
    #[serde(borrow, default)]
    subtotal_amount_set: Option<Both<'a>>,
}

/// Equal amounts in minor units of the shop's currency and of the customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    shop: (i64, Currency),
    paid: (i64, Currency),
}

impl Rate {
    /// From the total of an order, if the shop has this currency.
    pub fn of_total(json: &str, shop: Currency) -> Option<Rate> {
        let mut sum = Sum::default();
        sum.add(serde_json::from_str(json).ok(), 1)?;
        sum.rate().filter(|rate| rate.shop.1 == shop)
    }

    /// From the returned items, with taxes and costs.
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

    /// The amount in the shop's currency, rounded half away from zero.
    fn convert(&self, paid: Money) -> Option<Money> {
        if paid.currency != self.paid.1 {
            return None;
        }
        let (product, divisor) = (i128::from(paid.minor) * i128::from(self.shop.0), i128::from(self.paid.0));
        let minor = i64::try_from((2 * product + divisor) / (2 * divisor)).ok()?;
        Some(Money { minor, currency: self.shop.1 })
    }
}

/// Sums in both currencies.
#[derive(Default)]
struct Sum {
    shop: Option<(i64, Currency)>,
    paid: Option<(i64, Currency)>,
}

impl Sum {
    /// `None` if an amount is unclear or in a third currency.
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

/// An amount that may be negative.
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

/// The elements of a list, or of a GraphQL API connection; `None` for anything else.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    #[derive(Deserialize)]
    struct Connection<'a> {
        #[serde(borrow, alias = "nodes")]
        edges: Vec<&'a RawValue>,
    }
    if json.starts_with('{') {
        return serde_json::from_str::<Connection<'_>>(json).ok().map(|list| list.edges).filter(Vec::is_empty);
    }
    serde_json::from_str::<Option<Vec<&RawValue>>>(json).ok().map(Option::unwrap_or_default)
}

fn value(raw: Option<&RawValue>) -> Value<'_> {
    raw.map_or(Value::Absent, scalar)
}

/// Money that was refunded, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PaidBack {
    /// Time of the refund according to the shop; may be long ago if the refund was imported.
    pub at: Time,
    /// When the refund was created.
    pub made: Time,
    /// The nonzero amounts by transaction, in the shop's currency if the message contains it.
    pub shares: Vec<Share>,
}

/// The money of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Id of the transaction; `None` for the first one of the refund, which is identified by the refund's id.
    pub transaction: Option<String>,
    pub money: Money,
    /// Whether the transaction is pending.
    pub is_pending: bool,
}

/// Facts about the order of a refund.
#[derive(Debug, Clone, Default)]
pub(super) struct Order<'a> {
    /// Currency of the shop.
    pub shop: Option<Currency>,
    /// Currency of transactions that name none.
    pub paid: Value<'a>,
    pub rate: Option<Rate>,
}

/// The money of a refund, if any was or will be moved: its successful and pending transactions of kind refund.
pub(super) fn moved(refund: &Refund<'_>, order: &Order<'_>) -> Result<Option<PaidBack>, Rejection> {
    let own = Rate::of_refund(refund).filter(|own| order.shop.is_none_or(|shop| own.shop.1 == shop));
    let rates = [own, order.rate];
    let in_shop = |paid: Money| {
        let mut rates = rates.iter().flatten().filter(|_| Some(paid.currency) != order.shop);
        rates.find_map(|rate| rate.convert(paid)).unwrap_or(paid)
    };
    let mut sums: Vec<Money> = Vec::new();
    let mut shares: Vec<Share> = Vec::new();
    let is = |raw, text| value(raw).as_text() == Some(text);
    let all = transactions(refund)?;
    for (place, transaction) in all.iter().filter(|transaction| is(transaction.kind, "refund")).enumerate() {
        let is_pending = is(transaction.status, "pending");
        if !is_pending && !is(transaction.status, "success") {
            continue;
        }
        let paid = money(value(transaction.amount), value(transaction.currency).or(order.paid.clone()))?;
        // Convert running sums, so that the shares add up exactly to the refund in the shop's currency.
        let before = sum_of(&sums, paid.currency);
        add(&mut sums, paid);
        let (until, from) = (in_shop(sum_of(&sums, paid.currency)), in_shop(before));
        let money = Money { minor: until.minor - from.minor, ..until };
        if money.minor > 0 {
            let id = value(transaction.id).into_text().map(Cow::into_owned);
            let transaction = if place == 0 { None } else { Some(id.unwrap_or_else(|| place.to_string())) };
            shares.push(Share { transaction, money, is_pending });
        }
    }
    let Some(first) = shares.first() else { return Ok(None) };
    if shares.iter().any(|share| share.money.currency != first.money.currency) {
        return Err(Rejection::new(Reason::InvalidAmount, "the transactions of one refund are in several currencies"));
    }
    let at = time(value(refund.processed_at).or(value(refund.created_at)))?;
    let made = time(value(refund.created_at)).unwrap_or(at);
    Ok(Some(PaidBack { at, made, shares }))
}

fn transactions<'a>(refund: &Refund<'a>) -> Result<Vec<Transaction<'a>>, Rejection> {
    let list = refund.transactions.map_or(Some(Vec::new()), |list| elements(list.get()));
    let read = |list: Vec<&'a RawValue>| {
        list.into_iter().map(|one| serde_json::from_str(one.get()).ok()).collect::<Option<Vec<_>>>()
    };
    let wrong = || Rejection::new(Reason::WrongType, "transactions has another shape than Shopify documents");
    list.and_then(read).ok_or_else(wrong)
}

fn add(sums: &mut Vec<Money>, part: Money) {
    match sums.iter_mut().find(|sum| sum.currency == part.currency) {
        Some(sum) => sum.minor = sum.minor.saturating_add(part.minor),
        None => sums.push(part),
    }
}

fn sum_of(sums: &[Money], currency: Currency) -> Money {
    let known = sums.iter().find(|sum| sum.currency == currency);
    known.copied().unwrap_or(Money { minor: 0, currency })
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
        let order = Order { shop: Some(shop), rate, ..Order::default() };
        moved(&refund, &order).unwrap().unwrap().shares[0].money.to_string()
    }

    #[test]
    fn each_transaction_is_a_share_with_an_id_that_does_not_depend_on_its_state() {
        let shares = |first: &str, second: &str, third: &str| {
            let json = format!(
                r#"{{"id":7,"created_at":"2026-01-06T10:00:00Z","transactions":[
                    {{"id":1,"kind":"refund","status":"{first}","amount":"0.01","currency":"USD"}},
                    {{"id":2,"kind":"refund","status":"{second}","amount":"0.01","currency":"USD"}},
                    {{"id":3,"kind":"refund","status":"{third}","amount":"0.02","currency":"USD"}}]}}"#
            );
            let refund: Refund<'_> = serde_json::from_str(&json).unwrap();
            let shop = Currency::from_code("AUD").unwrap();
            let order = Order { shop: Some(shop), rate: Rate::of_total(&both("3", "2"), shop), ..Order::default() };
            let found = moved(&refund, &order).unwrap().map_or(Vec::new(), |paid_back| paid_back.shares);
            let share = |share: Share| (share.transaction, share.money.minor, share.is_pending);
            found.into_iter().map(share).collect::<Vec<_>>()
        };
        let (second, third) = (Some("2".to_owned()), Some("3".to_owned()));
        // 1.5 and 3 cents: what was rounded up first is missing later.
        let all = [(None, 2, false), (second.clone(), 1, false), (third.clone(), 3, false)];
        assert_eq!(shares("success", "success", "success"), all);
        assert_eq!(shares("pending", "success", "success"), [(None, 2, true), all[1].clone(), all[2].clone()]);
        assert_eq!(shares("failure", "success", "error"), [(second, 2, false)]);
        assert_eq!(shares("failure", "error", "error"), []);
    }

    #[test]
    fn lists_may_be_null_or_empty_connections() {
        for empty in ["null", "[]", r#"{"edges":[]}"#, r#"{"nodes":[]}"#] {
            assert_eq!(elements(empty).map(|list| list.len()), Some(0), "{empty}");
        }
        assert_eq!(elements("[1,2]").map(|list| list.len()), Some(2));
        for wrong in ["7", "{}", r#"{"edges":[1]}"#] {
            assert!(elements(wrong).is_none(), "{wrong}");
        }
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
        // Half of it, in two transactions, one of them pending.
        assert_eq!(money_back("20.25", &lines, None), "27.00 AUD");
        // Shipping costs are negative, and a positive discrepancy reduces the refund.
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
