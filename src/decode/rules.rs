//! How a source spells ids, instants and amounts, whatever its format.

use std::borrow::Cow;

use super::Rejection;
use super::fields::{Fields, Value};
use super::instants::Instants;
use super::nobody::Nobody;
use super::options::{OptionError, Options};
use crate::event::Rounding;

/// What the options say of values.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    nobody: Nobody,
    rounding: Rounding,
    /// `None` where instants are read as by default.
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

    /// Those of tables with native columns, whatever the messages of the source look like.
    pub fn of_tables(options: &Options) -> Result<Rules, OptionError> {
        let plain = Options::default();
        Rules::new(&Options {
            nobody: options.nobody.clone(),
            rounding: options.rounding,
            time_zone: options.time_zone.clone(),
            ..plain
        })
    }

    /// Whether instants without an offset have a zone.
    pub fn has_time_zone(&self) -> bool {
        self.instants.as_ref().is_some_and(Instants::has_zone)
    }

    /// Whether a value names nobody: it is absent, or stands for no id.
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

    /// An amount in major units, to be rounded if the source allows it.
    pub fn amount<'a>(&self, value: Value<'a>) -> Value<'a> {
        match (value, self.rounding) {
            (Value::Text(text), Rounding::HalfUp) => Value::Rounded(text),
            (Value::Number(digits), Rounding::HalfUp) => Value::Rounded(Cow::Borrowed(digits)),
            (value, _) => value,
        }
    }

    /// Reads what the fields hold, save whose they are; ids that are none are left out.
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
