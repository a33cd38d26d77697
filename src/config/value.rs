//! Parsing of single values: choices by name, instants, addresses, time zones.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::tz::TimeZone;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::error::{nearest, one_of};
use crate::event::Time;

/// An enum whose variants are written by name.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every choice.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The name in the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                let found = $name::ALL.iter().copied().find(|choice| choice.name() == text);
                found.ok_or_else(|| {
                    let names = $name::ALL.iter().map(|choice| choice.name());
                    serde::de::Error::custom($crate::config::value::no_choice(&text, names))
                })
            }
        }
    };
}
pub(super) use choice;

/// The message for a name that is not one of the choices.
pub(super) fn no_choice(text: &str, names: impl Iterator<Item = &'static str>) -> String {
    format!("{text:?} is not known; write {}", one_of(names))
}

/// Parses an optional instant.
pub(super) fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_instant(&text).map(Some).map_err(D::Error::custom)
}

/// An instant from RFC 3339 text.
pub(super) fn parse_instant(text: &str) -> Result<Time, String> {
    let example = "write RFC 3339 with an offset, such as \"2026-01-02T03:04:05Z\"";
    Time::parse(text).map_err(|error| match error {
        crate::event::TimeError::Syntax => format!("{text:?} is no instant; {example}"),
        crate::event::TimeError::Range => format!("{text:?} lies outside the years 1970 to 2199; {example}"),
    })
}

/// Parses an address to listen on.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    SocketAddr::from_str(&text).map_err(|_| {
        D::Error::custom(format!(
            "{text:?} is no IP address with a port; write \"127.0.0.1:9736\", or \"0.0.0.0:9736\" for all interfaces"
        ))
    })
}

/// A time zone of the IANA database.
#[derive(Clone)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// Looks up a zone by name, such as `Europe/Oslo`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn find(name: &str) -> Result<Zone, String> {
        if let Ok(zone) = TimeZone::get(name) {
            return Ok(Zone { name: zone.iana_name().unwrap_or(name).to_owned(), zone });
        }
        let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        Err(match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("{name:?} is no IANA time zone; did you mean {near:?}?"),
            None => format!("{name:?} is no IANA time zone; write a name such as \"UTC\" or \"Europe/Oslo\""),
        })
    }

    /// Coordinated Universal Time.
    #[must_use]
    pub fn utc() -> Zone {
        Zone { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// The name in the IANA database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules of the zone.
    #[must_use]
    pub fn rules(&self) -> &TimeZone {
        &self.zone
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Zone, D::Error> {
        Zone::find(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
