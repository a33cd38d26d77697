//! Fields combined from several paths: `fields.time = ["Date", "Time"]`, `fields.amount = ["Total", "Tax"]`.

use std::borrow::Cow;

use crate::decode::fields::Value;
use crate::decode::options::{FieldText, OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::presets::slot;
use crate::decode::{Reason, Rejection, decimals};

/// Slots of a field's paths after the first one.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Several {
    /// Parts of the time, joined with blanks.
    time: Vec<usize>,
    /// Terms of the amount, added up.
    amount: Vec<usize>,
}

impl Several {
    /// Adds the additional paths of the options to `paths`.
    pub fn new(
        options: &Options,
        paths: &mut Paths,
        explicit: &mut Vec<(String, usize)>,
    ) -> Result<Several, OptionError> {
        if let Some((name, _)) = behind_first(&options.constants).next() {
            return Err(OptionError::new(format!("constants.{name}"), "is a list; write one value"));
        }
        if let Some((name, _)) = behind_first(&options.fields).find(|(name, _)| !["time", "amount"].contains(name)) {
            let what = "is a list; write one place. Only fields.time (joined with blanks) and fields.amount (added up) may \
                        be lists";
            return Err(OptionError::new(format!("fields.{name}"), what));
        }
        let mut slots = |name: &str, text: Option<&FieldText>| -> Result<Vec<usize>, OptionError> {
            let option = format!("fields.{name}");
            let Some(text) = text.filter(|text| !text.more().is_empty()) else { return Ok(Vec::new()) };
            if let Some(place) = std::iter::once(&**text)
                .chain(text.more().iter().map(String::as_str))
                .find(|place| place.starts_with('$'))
            {
                return Err(OptionError::new(
                    option,
                    format!("{place:?} cannot be one of several places; write it alone"),
                ));
            }
            let add =
                |place: &String| slot(paths, &option, place).inspect(|slot| explicit.push((option.clone(), *slot)));
            text.more().iter().map(add).collect()
        };
        Ok(Several {
            time: slots("time", options.fields.time.as_ref())?,
            amount: slots("amount", options.fields.amount.as_ref())?,
        })
    }

    /// Whether a slot belongs to one of the additional paths.
    pub fn has(&self, slot: usize) -> bool {
        self.time.contains(&slot) || self.amount.contains(&slot)
    }

    /// Slots of the parts of the time after the first.
    pub fn time(&self) -> &[usize] {
        &self.time
    }

    /// The complete time; `first` is its first part.
    pub fn joined<'a>(&self, first: Value<'a>, slots: &Slots<'a>) -> Result<Value<'a>, Rejection> {
        if self.time.is_empty() {
            return Ok(first);
        }
        let parts: Vec<Value<'a>> =
            std::iter::once(first).chain(self.time.iter().map(|slot| slots.value(*slot))).collect();
        let texts: Vec<&str> =
            parts.iter().filter_map(|part| part.as_text().map(str::trim)).filter(|text| !text.is_empty()).collect();
        match texts.len() {
            0 => Ok(Value::Absent),
            count if count == parts.len() => Ok(Value::Text(Cow::Owned(texts.join(" ")))),
            count => {
                let what =
                    format!("time is made up of {} places, of which {} are empty", parts.len(), parts.len() - count);
                Err(Rejection::new(Reason::MissingField, what))
            }
        }
    }

    /// The terms of the amount after the first.
    pub fn terms<'a>(&self, slots: &Slots<'a>, scale: Option<i32>) -> Result<Vec<Value<'a>>, Rejection> {
        let terms = self.amount.iter().filter_map(|slot| slots.raw(*slot));
        terms.map(|json| decimals::amount(json, scale)).collect()
    }
}

/// The paths of each field after the first one.
fn behind_first(texts: &crate::decode::FieldTexts) -> impl Iterator<Item = (&'static str, &str)> {
    texts.places().skip(texts.iter().count())
}
