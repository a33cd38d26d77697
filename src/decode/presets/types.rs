//! The names of event types in messages.

use std::collections::BTreeMap;

use crate::decode::fields;
use crate::decode::options::{OptionError, Options};
use crate::event::EventType;

/// Event types by their names in `mapping.types`, otherwise by their native names.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Types {
    names: BTreeMap<String, EventType>,
    /// Whether the names are the native ones, whose case does not matter.
    are_own: bool,
}

impl Types {
    pub fn new(options: &Options) -> Result<Types, OptionError> {
        let own: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), *event_type)).collect();
        Ok(Types { names: options.types(&own)?, are_own: options.types.is_empty() })
    }

    /// The type with a name.
    pub fn get(&self, name: &str) -> Option<EventType> {
        let in_any_case =
            || self.names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, known)| known);
        self.names.get(name).or_else(|| if self.are_own { in_any_case() } else { None }).copied()
    }

    /// The type in `constants.type`, by its name in `types` or its native name; `None` if it is not set.
    pub fn constant(&self, options: &Options) -> Result<Option<EventType>, OptionError> {
        let Some(name) = options.constants.r#type.as_deref() else { return Ok(None) };
        constant_type(name, self.names.get(name).copied()).map(Some)
    }

    /// The names.
    pub fn known(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }
}

/// The type in `constants.type`: `listed`, or the type with that native name.
pub(in crate::decode) fn constant_type(name: &str, listed: Option<EventType>) -> Result<EventType, OptionError> {
    let own = || fields::event_type(name);
    listed.or_else(own).filter(|known| *known != EventType::Unknown).ok_or_else(|| {
        let known = EventType::ALL.into_iter().filter(|known| *known != EventType::Unknown).map(EventType::name);
        let what = format!("{name:?} is not a type of event; write one of {}", known.collect::<Vec<_>>().join(", "));
        OptionError::new("constants.type", what)
    })
}
