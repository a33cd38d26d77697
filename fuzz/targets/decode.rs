//! Messages in every format, with and without options, keys and headers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use retentiond::decode::{
    AmountUnit, Condition, Decoded, Decoder, Deletes, FieldTexts, Format, Guests, Message, Options, Salt, Scratch,
    StripeRefunds, Table, TestOrders, TimeFormat,
};
use retentiond::event::{Event, Kind, MAX_CUSTOMER_ID_BYTES, Time};

/// Separates value, key and headers; does not occur in UTF-8.
pub const SEPARATOR: u8 = 0xff;

/// A decoder of each format without options, in the order of [`Format::ALL`], then decoders with many options.
static DECODERS: LazyLock<Vec<Decoder>> =
    LazyLock::new(|| chosen().into_iter().map(|(format, options)| decoder(format, &options)).collect());

fn chosen() -> Vec<(Format, Options)> {
    let plain = Format::ALL.into_iter().map(|format| (format, Options::default()));
    plain.chain(with_options()).collect()
}

/// The first bytes that select a decoder of this format.
#[allow(dead_code, reason = "a fuzzer finds them itself")]
pub fn choosers(format: Format) -> Vec<u8> {
    (0..).zip(chosen()).filter(|(_, (known, _))| *known == format).map(|(place, _)| place).collect()
}

/// The first byte that selects rows of CSV.
#[allow(dead_code, reason = "a fuzzer finds it itself")]
pub fn chooser_of_rows() -> u8 {
    chosen().len() as u8
}

fn decoder(format: Format, options: &Options) -> Decoder {
    let dimensions = vec!["channel".to_owned(), "country".to_owned()];
    Decoder::with_options(format, dimensions, options).unwrap_or_else(|error| panic!("{}: {error}", format.name()))
}

fn with_options() -> Vec<(Format, Options)> {
    let text = |text: &str| Some(text.to_owned());
    let table = |rows: &[(&str, &str)]| rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let only = |place: &str, values: &[&str]| {
        let mut condition = Condition::default();
        condition.is.extend(values.iter().map(|value| (*value).to_owned()));
        BTreeMap::from([(place.to_owned(), condition)])
    };
    let hashed = Options { guests: Guests::EmailHash, salt: Some(Salt::new("pepper")), ..Options::default() };
    let anonymous = Options { guests: Guests::AnonymousId, currency: text("EUR"), ..Options::default() };
    let place = |place: &str| Some(place.into());
    let row = FieldTexts { time: place("placed_at"), email: place("email"), ..FieldTexts::default() };
    let deep = FieldTexts {
        customer_id: place("buyer.number"),
        amount: place("items.0.price"),
        time: place("/meta~1created"),
        ..FieldTexts::default()
    };
    let inside = |format: Format| Options { data: text(format.name()), ..Options::default() };
    let mut all = vec![
        (Format::Segment, Options { currency: text("EUR"), ..hashed.clone() }),
        (
            Format::Segment,
            Options { types: table(&[("Trip Booked", "order"), ("page", "session")]), ..anonymous.clone() },
        ),
        (Format::Shopify, Options { amount: text("subtotal_price"), test_orders: TestOrders::Count, ..hashed.clone() }),
        (
            Format::Stripe,
            Options { refunds: StripeRefunds::RefundObjects, test_orders: TestOrders::Count, ..hashed.clone() },
        ),
        (Format::Stripe, hashed),
        (Format::Ga4, anonymous.clone()),
        (Format::Snowplow, anonymous),
        (
            Format::Debezium,
            Options {
                amount_scale: Some(2),
                cancelled: text("cancelled_at"),
                deletes: Deletes::Cancel,
                fields: row,
                only: only("status", &["paid", "shipped"]),
                attributes: table(&[("channel", "channel")]),
                ..Options::default()
            },
        ),
        (
            Format::Custom,
            Options {
                amount_unit: AmountUnit::Minor,
                time_format: TimeFormat::Pattern,
                time_pattern: text("%d.%m.%Y %H:%M:%S"),
                time_zone: text("Europe/Oslo"),
                constants: FieldTexts { currency: place("JPY"), ..FieldTexts::default() },
                types: table(&[("SALE", "order"), ("RETURN", "refund"), ("GONE", "erase")]),
                ..Options::default()
            },
        ),
        (Format::Custom, Options { fields: deep, time_format: TimeFormat::EpochS, ..Options::default() }),
    ];
    let data = Format::ALL.into_iter().filter(|format| *format != Format::CloudEvents);
    all.extend(data.map(|format| (Format::CloudEvents, inside(format))));
    all
}

/// The first byte selects the decoder, or rows of CSV; a value, a key, and names and values of headers follow.
pub fn decode(bytes: &[u8]) -> bool {
    let Some((&first, rest)) = bytes.split_first() else { return false };
    let Some(decoder) = DECODERS.get(usize::from(first) % (DECODERS.len() + 1)) else { return rows(rest) };
    let mut parts = rest.split(|byte| *byte == SEPARATOR);
    let payload = parts.next();
    let key = parts.next();
    let mut headers = Vec::new();
    while let Some(name) = parts.next() {
        headers.push((String::from_utf8_lossy(name), parts.next()));
    }
    let message = Message { key, payload: payload.filter(|value| *value != b"null"), headers, time: None };
    let decoded = decoder.decode_message(&message, Time::MAX);
    if message.headers.is_empty() {
        // The fast path for messages without headers gives the same result.
        assert_eq!(decoder.decode(key, message.payload, Time::MAX), decoded);
    }
    is_sound(decoded.as_ref().ok(), bytes)
}

/// The input is a header and rows, as in CSV.
fn rows(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let header = lines.next().map(String::from_utf8_lossy).unwrap_or(Cow::Borrowed(""));
    let lines: Vec<&[u8]> = lines.collect();
    DECODERS.iter().fold(false, |any, decoder| table_rows(decoder, &header, &lines) | any)
}

fn table_rows(decoder: &Decoder, header: &str, lines: &[&[u8]]) -> bool {
    let Ok(table) = Table::new(decoder, header.split(',')) else { return false };
    lines.iter().fold(false, |any, line| {
        let cells: Vec<&[u8]> = line.split(|byte| *byte == b',').collect();
        let cell = |place: usize| cells.get(place).copied().unwrap_or_default();
        let mut scratch = Scratch::default();
        is_sound(table.decode(decoder, cell, &mut scratch, Time::MAX).as_ref().ok(), line) | any
    })
}

/// Whether `message` contains an event; panics if an event is invalid.
pub fn is_sound(decoded: Option<&Decoded<'_>>, message: &[u8]) -> bool {
    match decoded {
        Some(Decoded::Event(event) | Decoded::Cancellation { event, .. }) => check_event(event, message),
        Some(Decoded::Several { events, .. }) => {
            assert!(!events.is_empty(), "several events are some");
            events.iter().for_each(|event| check_event(event, message));
        }
        Some(Decoded::Erase { customer, .. }) => assert!(!customer.is_empty(), "nobody is erased"),
        Some(Decoded::Batch(parts)) => {
            assert!(parts.len() > 1, "a batch holds several objects");
            return parts.iter().fold(false, |any, part| is_sound(part.decoded.as_ref().ok(), message) | any);
        }
        Some(Decoded::Unknown(_) | Decoded::Skipped(_)) | None => return false,
    }
    true
}

fn check_event(event: &Event<'_>, message: &[u8]) {
    // Costs of all customers together have no customer id.
    let is_cost = matches!(event.kind, Kind::Cost { .. });
    assert!(is_cost || (1..=MAX_CUSTOMER_ID_BYTES).contains(&event.customer.len()), "a customer id of a wrong length");
    assert!((Time::MIN..=Time::MAX).contains(&event.time), "a time out of bounds");
    match &event.kind {
        Kind::Order { amount, .. } | Kind::Cancel { amount, .. } | Kind::Cost { amount, .. } => {
            assert!(amount.minor >= 0, "a negative amount");
        }
        Kind::Refund { amount, .. } => {
            assert!(amount.minor >= 0 || speaks_of_reversal(message), "a negative refund without a reversal");
        }
        Kind::Session { .. } | Kind::Customer { .. } | Kind::Feedback { .. } => {}
    }
}

/// Whether a message mentions a refund that failed or was reversed.
fn speaks_of_reversal(message: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"revers", b"failed", b"canceled", b"dispute"];
    WORDS.iter().any(|word| message.windows(word.len()).any(|part| part == *word))
}
