//! Selects the reader of a format.

use super::min_amount::MinAmount;
use super::options::{OptionError, Options, Tombstones};
use super::root::Rooted;
use super::{Decoded, Format, Message, Rejection, Skip, key, native, presets, routed, shared};
use crate::event::EventType;

/// The reader of a format, with its options.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    Native(Box<native::Native>),
    Routed,
    Segment(Box<presets::Segment>),
    Shopify(Box<presets::Shopify>),
    Stripe(Box<presets::Stripe>),
    CloudEvents(Box<presets::CloudEvents>),
    Debezium(Box<presets::Debezium>),
    Ga4(Box<presets::Ga4>),
    Snowplow(Box<presets::Snowplow>),
    Custom(Box<presets::Custom>),
    /// The object is nested in another one.
    Rooted(Box<Rooted>),
    /// Several sources share a topic: each reads every message.
    Each(Vec<(Reader, Option<MinAmount>)>),
}

impl Reader {
    pub fn new(format: Format, options: &Options, dimensions: &[String]) -> Result<Reader, OptionError> {
        if format != Format::CloudEvents
            && let Some(rooted) = Rooted::new(options, |inner| Reader::new(format, inner, dimensions))?
        {
            return Ok(Reader::Rooted(Box::new(rooted)));
        }
        if !options.guests.fits(format) {
            let what = format!("is one that messages of the format {:?} do not tell; write another", format.name());
            return Err(OptionError::new("guests", what));
        }
        if !matches!(format, Format::Custom | Format::CloudEvents) {
            refuse_lists(options, format)?;
        }
        Ok(match format {
            Format::Native => Reader::Native(Box::new(native::Native::new(options)?)),
            Format::Segment => Reader::Segment(Box::new(presets::Segment::new(options, dimensions)?)),
            Format::Shopify => Reader::Shopify(Box::new(presets::Shopify::new(options, dimensions)?)),
            Format::Stripe => Reader::Stripe(Box::new(presets::Stripe::new(options, dimensions)?)),
            Format::CloudEvents => Reader::CloudEvents(Box::new(presets::CloudEvents::new(options, dimensions)?)),
            Format::Debezium => Reader::Debezium(Box::new(presets::Debezium::new(options, dimensions)?)),
            Format::Ga4 => Reader::Ga4(Box::new(presets::Ga4::new(options, dimensions)?)),
            Format::Snowplow => Reader::Snowplow(Box::new(presets::Snowplow::new(options, dimensions)?)),
            Format::Custom => Reader::Custom(Box::new(presets::Custom::new(options, dimensions)?)),
        })
    }

    /// Decodes a non-empty value; `message` supplies key and headers.
    pub fn decode<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        dimensions: &[String],
    ) -> Result<Decoded<'a>, Rejection> {
        match self {
            Reader::Native(native) => native.decode(message.key, message.time, bytes, dimensions),
            Reader::Routed => routed::decode(bytes, dimensions),
            Reader::Segment(segment) => segment.decode(bytes),
            Reader::Shopify(shopify) => shopify.decode(message, bytes),
            Reader::Stripe(stripe) => stripe.decode(message, bytes),
            Reader::CloudEvents(events) => events.decode(message, bytes),
            Reader::Debezium(debezium) => debezium.decode(message, bytes),
            Reader::Ga4(ga4) => ga4.decode(message, bytes),
            Reader::Snowplow(snowplow) => snowplow.decode(bytes),
            Reader::Custom(custom) => custom.decode(message, bytes),
            Reader::Rooted(rooted) => rooted.decode(message, bytes, dimensions),
            Reader::Each(readers) => {
                let meaning = |(reader, min_amount): &(Reader, Option<MinAmount>)| {
                    let mut decoded = reader.decode(message, bytes, dimensions);
                    if let Some(min_amount) = min_amount {
                        min_amount.sift(&mut decoded, Some(bytes));
                    }
                    decoded
                };
                shared::meaning(readers.iter().map(meaning).collect())
            }
        }
    }

    /// The reader of table rows, which have no surrounding object.
    pub fn of_rows(&self) -> &Reader {
        match self {
            Reader::Rooted(rooted) => &rooted.reader,
            reader => reader,
        }
    }

    /// The name of the format, and the names of its events in messages.
    pub fn known(&self) -> (&'static str, Vec<&str>) {
        let own = || EventType::ALL.into_iter().filter(|known| *known != EventType::Unknown).map(EventType::name);
        match self {
            Reader::Native(_) | Reader::Routed => (Format::Native.name(), own().collect()),
            Reader::Segment(segment) => (Format::Segment.name(), segment.known()),
            Reader::Shopify(_) => (Format::Shopify.name(), presets::Shopify::KNOWN.to_vec()),
            Reader::Stripe(stripe) => (Format::Stripe.name(), stripe.known()),
            Reader::CloudEvents(events) => (Format::CloudEvents.name(), events.known()),
            Reader::Debezium(debezium) => (Format::Debezium.name(), debezium.known()),
            Reader::Ga4(ga4) => (Format::Ga4.name(), ga4.known()),
            Reader::Snowplow(_) => (Format::Snowplow.name(), presets::Snowplow::KNOWN.to_vec()),
            Reader::Custom(custom) => (Format::Custom.name(), custom.known()),
            Reader::Rooted(rooted) => rooted.reader.known(),
            Reader::Each(readers) => readers.first().map_or(("", Vec::new()), |(reader, _)| reader.known()),
        }
    }

    /// Whether the reader needs more than key and value.
    pub fn wants_message(&self) -> bool {
        match self {
            // Connectors may put added fields into headers.
            Reader::CloudEvents(_) | Reader::Ga4(_) | Reader::Debezium(_) | Reader::Custom(_) => true,
            Reader::Native(native) => native.wants_time(),
            Reader::Rooted(rooted) => rooted.reader.wants_message(),
            Reader::Each(readers) => readers.iter().any(|(reader, _)| reader.wants_message()),
            Reader::Routed | Reader::Segment(_) | Reader::Shopify(_) | Reader::Stripe(_) | Reader::Snowplow(_) => false,
        }
    }
}

/// Rejects paths inside each element of a list, which these formats would never fill.
fn refuse_lists(options: &Options, format: Format) -> Result<(), OptionError> {
    let fields = options.fields.places().map(|(name, place)| (format!("fields.{name}"), place));
    let attributes = options.attributes.iter().map(|(name, place)| (format!("attributes.{name}"), place.as_str()));
    let only = options.only.keys().map(|place| (format!("where.{place:?}"), place.as_str()));
    match fields.chain(attributes).chain(only).find(|(_, place)| super::paths::in_each(place).is_some()) {
        None => Ok(()),
        Some((option, place)) => {
            let what = format!(
                "{place:?} is inside each element of a list, and only format = \"custom\" reads those, not {:?}; write that \
                 format, or the place of one element, such as {:?}",
                format.name(),
                place.replacen(".*.", ".0.", 1)
            );
            Err(OptionError::new(option, what))
        }
    }
}

/// What a null value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NullValue {
    /// Nothing.
    Nothing,
    /// Erase the customer whose id is the key.
    Erases,
    /// Erase the customer, unless the key is a JSON object, as Kafka Connect writes the keys of rows.
    ErasesIds,
}

impl NullValue {
    pub fn of(format: Format, options: &Options) -> NullValue {
        match (options.tombstones, format) {
            (Some(Tombstones::Erase), _) => NullValue::Erases,
            (None, Format::Native) => NullValue::ErasesIds,
            (Some(Tombstones::Skip), _) | (None, _) => NullValue::Nothing,
        }
    }

    pub fn decode(self, key: Option<&[u8]>) -> Result<Decoded<'_>, Rejection> {
        match self {
            NullValue::Erases => native::tombstone(key),
            NullValue::ErasesIds if !key.is_some_and(key::is_object) => native::tombstone(key),
            NullValue::ErasesIds | NullValue::Nothing => Ok(Decoded::Skipped(Skip::Tombstone)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_inside_each_element_of_a_list_are_for_custom_alone() {
        for table in ["[where]\n\"lines.*.sku\" = { not = [\"gift\"] }", "[attributes]\nchannel = \"lines.*.sku\""] {
            let options: Options = toml::from_str(table).unwrap();
            // CloudEvents has native data by default, which cannot have attributes.
            let knows = |format: &Format| *format != Format::CloudEvents || options.attributes.is_empty();
            let known = Format::ALL.into_iter().filter(|format| options.unknown_to(*format).is_empty()).filter(knows);
            for format in known {
                let read = Reader::new(format, &options, &["channel".to_owned()]);
                let is_read = matches!(format, Format::Custom);
                match read {
                    Ok(_) => assert!(is_read, "{format:?}: {table}"),
                    Err(error) if is_read => panic!("{format:?}: {error}"),
                    Err(error) => assert!(error.to_string().contains("format = \"custom\""), "{error}"),
                }
            }
        }
    }
}
