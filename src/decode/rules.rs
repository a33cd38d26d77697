//! How a source writes ids, instants and amounts, in any format.

use std::borrow::Cow;

use super::Rejection;
use super::fields::{Fields, Value};
use super::instants::Instants;
use super::nobody::Nobody;
use super::options::{OptionError, Options};
use crate::event::Rounding;

/// Options about values.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    nobody: Nobody,
    rounding: Rounding,
    /// `None` if instants are read by default rules.
    instants: Option<Instants>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { nobody: Nobody::new(&Options::default()), rounding: Rounding::Exact, instants: None }
    }
}

impl Rules {
    pub fn new(options: &Options) -> Result<Rules, OptionError> {
        let instants = Some(Instants::new(options)?).filter(|instants| !instants.is_plain());
        Ok(Rules { nobody: Nobody::new(options), rounding: options.rounding, instants })
    }

    /// The rules for tables with native columns, which do not depend on the notation of the source's messages.
    pub fn of_tables(options: &Options) -> Result<Rules, OptionError> {
        let plain = Options::default();
        Rules::new(&Options {
            nobody: options.nobody.clone(),
            rounding: options.rounding,
            time_zone: options.time_zone.clone(),
            ..plain
        })
    }

    /// Whether a zone for instants without an offset is configured.
    pub fn has_time_zone(&self) -> bool {
        self.instants.as_ref().is_some_and(Instants::has_zone)
    }

    /// Whether a value identifies nobody: it is absent or a placeholder.
    #[inline]
    pub fn is_nobody(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Absent => true,
            Value::Text(text) => self.nobody.is(text),
            Value::Number(digits) => self.nobody.is(digits),
            Value::Millis(_) | Value::Units { .. } | Value::Rounded(_) | Value::Other(_) => false,
        }
    }

    /// Reads an instant.
    pub fn time<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        match &self.instants {
            Some(instants) => instants.read(value),
            None => Ok(value),
        }
    }

    /// An amount in major units, marked for rounding if configured.
    pub fn amount<'a>(&self, value: Value<'a>) -> Value<'a> {
        match (value, self.rounding) {
            (Value::Text(text), Rounding::HalfUp) => Value::Rounded(text),
            (Value::Number(digits), Rounding::HalfUp) => Value::Rounded(Cow::Borrowed(digits)),
            (value, _) => value,
        }
    }

    /// Applies the rules to all fields except the customer id; placeholder ids become absent.
    #[inline]
    pub fn settle(&self, fields: &mut Fields<'_>) -> Result<(), Rejection> {
        for id in [&mut fields.order_id, &mut fields.refund_id, &mut fields.session_id, &mut fields.referred_by] {
            if *id != Value::Absent && self.is_nobody(id) {
                *id = Value::Absent;
            }
        }
        if self.instants.is_some() {
            fields.time = self.time(std::mem::take(&mut fields.time))?;
        }
        if self.rounding != Rounding::Exact {
            fields.amount = self.amount(std::mem::take(&mut fields.amount));
        }
        Ok(())
    }
}
