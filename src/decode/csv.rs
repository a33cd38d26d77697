//! Order rows of a CSV file: `order_id,customer_id,time,amount,currency` and attribute columns, in any order.

use std::borrow::Cow;

use super::fields::{Fields, Value};
use super::{Decoded, Reason, Rejection, refuse_future};
use crate::event::{EventType, Time};

/// Which column holds which field.
#[derive(Debug, Clone)]
pub struct CsvColumns {
    /// What each column, from the left, is.
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    OrderId,
    CustomerId,
    Time,
    Amount,
    Currency,
    /// The attribute of a configured dimension.
    Dimension(usize),
    /// An attribute that no dimension asks for.
    Ignored,
}

/// A header row that does not name the columns an order needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header row lacks the column {missing}; expected are customer_id, time, amount, currency, \
     optionally order_id, and any attribute columns"
)]
pub struct CsvHeaderError {
    missing: &'static str,
}

impl CsvColumns {
    /// Reads the header row.
    ///
    /// # Errors
    /// When a column that every order needs is missing.
    pub fn from_header<'h>(
        names: impl IntoIterator<Item = &'h str>,
        dimensions: &[String],
    ) -> Result<CsvColumns, CsvHeaderError> {
        let column = |name: &str| match name.trim().trim_start_matches('\u{feff}') {
            "order_id" => Column::OrderId,
            "customer_id" => Column::CustomerId,
            "time" => Column::Time,
            "amount" => Column::Amount,
            "currency" => Column::Currency,
            other => dimensions.iter().position(|d| d == other).map_or(Column::Ignored, Column::Dimension),
        };
        let columns: Vec<_> = names.into_iter().map(column).collect();
        let needed = [
            (Column::CustomerId, "customer_id"),
            (Column::Time, "time"),
            (Column::Amount, "amount"),
            (Column::Currency, "currency"),
        ];
        match needed.into_iter().find(|(column, _)| !columns.contains(column)) {
            Some((_, missing)) => Err(CsvHeaderError { missing }),
            None => Ok(CsvColumns { columns }),
        }
    }

    /// Decodes one row. Orders after `latest` are refused.
    ///
    /// # Errors
    /// A [`Rejection`] that names the column and the mistake.
    pub fn decode<'a>(&self, row: impl IntoIterator<Item = &'a [u8]>, latest: Time) -> Result<Decoded<'a>, Rejection> {
        let mut fields = Fields::default();
        for (column, cell) in self.columns.iter().zip(row) {
            let text =
                std::str::from_utf8(cell).map_err(|_| Rejection::new(Reason::NotUtf8, "the row is not UTF-8"))?;
            if text.is_empty() {
                continue;
            }
            let value = Value::Text(Cow::Borrowed(text));
            match *column {
                Column::OrderId => fields.order_id = value,
                Column::CustomerId => fields.customer_id = value,
                Column::Time => fields.time = value,
                Column::Amount => fields.amount = value,
                Column::Currency => fields.currency = value,
                Column::Dimension(dimension) => fields.attributes.set(dimension, Cow::Borrowed(text)),
                Column::Ignored => {}
            }
        }
        let mut decoded = fields.into_event(EventType::Order).map(Decoded::Event);
        refuse_future(&mut decoded, latest);
        decoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    fn columns(header: &str) -> Result<CsvColumns, CsvHeaderError> {
        CsvColumns::from_header(header.split(','), &["channel".to_owned()])
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let columns = columns("\u{feff}amount,currency,channel,customer_id,colour,time").unwrap();
        let row = "72.12,EUR,web,c-1,red,2026-01-02T03:04:05Z";
        let Decoded::Event(event) = columns.decode(row.split(',').map(str::as_bytes), Time::MAX).unwrap() else {
            panic!("an order");
        };
        let Kind::Order { id, amount, attributes, .. } = event.kind else { panic!("an order") };
        assert_eq!((event.customer.as_ref(), id, amount.minor), ("c-1", None, 7212));
        assert_eq!(attributes.get(0), Some("web"));
    }

    #[test]
    fn a_header_without_a_needed_column_is_refused() {
        let error = columns("order_id,customer_id,time,amount").unwrap_err();
        assert!(error.to_string().contains("lacks the column currency"), "{error}");
    }

    #[test]
    fn an_empty_cell_is_an_absent_field() {
        let columns = columns("order_id,customer_id,time,amount,currency").unwrap();
        let rejected = columns.decode(",c-1,2026-01-02T03:04:05Z,,EUR".split(',').map(str::as_bytes), Time::MAX);
        assert_eq!(rejected.unwrap_err().to_string(), "missing_field: amount is missing");
    }
}
