use super::*;
use crate::decode::{Decoder, Format, Message};
use crate::event::{CostKind, Event, EventType, Kind, Time};

const NOW: &str = "2026-06-01T00:00:00Z";

fn decoder() -> Decoder {
    Decoder::new(Format::Native, vec!["channel".into(), "country".into()])
}

fn decode(json: &str) -> Result<Decoded<'_>, Rejection> {
    decoder().decode(Some(b"key"), Some(json.as_bytes()), Time::parse(NOW).unwrap())
}

fn kind(json: &str) -> Kind<'_> {
    match decode(json) {
        Ok(Decoded::Event(event)) => event.kind,
        other => panic!("{json}: {other:?}"),
    }
}

const ORDER: &str = r#"{"type":"order","order_id":"o-1","customer_id":"c-1","time":"2026-01-02T03:04:05.678Z","amount":"72.12","currency":"EUR","attributes":{"channel":"web","country":"NO"}}"#;

#[test]
fn reads_the_examples_of_the_documentation() {
    let Ok(Decoded::Event(order)) = decode(ORDER) else { panic!("an order") };
    assert_eq!((order.customer.as_ref(), order.time.millis()), ("c-1", 1_767_323_045_678));
    let Kind::Order { id, amount, attributes, referred_by } = order.kind else { panic!("an order") };
    assert_eq!((id.as_deref(), amount.minor, amount.currency.code()), (Some("o-1"), 7212, "EUR"));
    assert_eq!((attributes.get(0), attributes.get(1), attributes.get(2)), (Some("web"), Some("NO"), None));
    assert_eq!(referred_by, None);

    let refund = kind(
        r#"{"type":"refund","order_id":"o-1","refund_id":"r-1","customer_id":"c-1","time":1767323045678,"amount":20,"currency":"EUR"}"#,
    );
    assert_eq!((refund.event_type(), refund.id()), (EventType::Refund, Some("r-1")));
    assert!(matches!(refund, Kind::Refund { amount, .. } if amount.minor == 2000));

    let cancel = kind(
        r#"{"type":"cancel","order_id":"o-1","customer_id":"c-1","time":1767323045678,"amount":72.12,"currency":"EUR"}"#,
    );
    assert_eq!((cancel.event_type(), cancel.id()), (EventType::Cancel, Some("o-1")));

    let session = kind(r#"{"type":"session","session_id":"s-1","customer_id":"c-1","time":1767323045678}"#);
    assert_eq!((session.event_type(), session.id()), (EventType::Session, Some("s-1")));

    let customer = kind(
        r#"{"type":"customer","customer_id":"c-1","time":1767323045678,"referred_by":"c-0","attributes":{"channel":"ads"}}"#,
    );
    assert!(
        matches!(&customer, Kind::Customer { referred_by, attributes } if referred_by.as_deref() == Some("c-0") && attributes.get(0) == Some("ads"))
    );

    let feedback =
        kind(r#"{"type":"feedback","customer_id":"c-1","time":1767323045678,"kind":"complaint","score":-1}"#);
    assert!(matches!(&feedback, Kind::Feedback { kind, score } if kind == "complaint" && *score == Some(-1.0)));

    let cost = kind(
        r#"{"type":"cost","time":1767323045678,"customer_id":"c-1","kind":"retention","amount":"1.20","currency":"EUR"}"#,
    );
    assert!(matches!(cost, Kind::Cost { kind: CostKind::Retention, amount } if amount.minor == 120));

    let erased = |time| Ok(Decoded::Erase { customer: "c-1".into(), time });
    assert_eq!(decode(r#"{"type":"erase","customer_id":"c-1"}"#), erased(None));
    assert_eq!(
        decode(r#"{"type":"erase","customer_id":"c-1","time":1767323045678}"#),
        erased(Some(Time::clamped(1_767_323_045_678)))
    );
}

#[test]
fn an_erasure_with_a_bad_time_is_refused_rather_than_dated_otherwise() {
    for (time, reason) in [
        (r#""soon""#, Reason::InvalidTime),
        ("true", Reason::WrongType),
        (r#""2026-06-01T00:00:01Z""#, Reason::InTheFuture),
    ] {
        let erase = format!(r#"{{"type":"erase","customer_id":"c-1","time":{time}}}"#);
        assert_eq!(decode(&erase).unwrap_err().reason, reason, "{erase}");
    }
}

#[test]
fn a_null_value_erases_the_customer_of_the_key() {
    let decoder = decoder();
    assert_eq!(
        decoder.decode(Some(b"c-1"), None, Time::MAX),
        Ok(Decoded::Erase { customer: "c-1".into(), time: None })
    );
    let megabyte = vec![b'k'; 1 << 20];
    for (key, reason) in [
        (None, Reason::InvalidId),
        (Some(&b""[..]), Reason::InvalidId),
        (Some(&b"\xff"[..]), Reason::NotUtf8),
        (Some(&megabyte[..]), Reason::InvalidId),
    ] {
        assert_eq!(decoder.decode(key, None, Time::MAX).unwrap_err().reason, reason);
    }
}

#[test]
fn borrows_from_the_message_unless_there_are_escapes() {
    let Ok(Decoded::Event(plain)) = decode(ORDER) else { panic!("an order") };
    assert!(matches!(plain.customer, Cow::Borrowed(_)));
    let Ok(Decoded::Event(escaped)) =
        decode(r#"{"type":"session","customer_id":"c\u002d1","time":"2026-01-02T03:04:05\u005a"}"#)
    else {
        panic!("a session")
    };
    assert_eq!((escaped.customer.as_ref(), escaped.time.millis()), ("c-1", 1_767_323_045_000));
}

#[test]
fn unknown_fields_are_ignored_and_unknown_types_counted() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let json = format!(
        r#"{{"deep":{deep},"type":"session","customer_id":"c","time":1767323045678,"attributes":{{"channel":{{"a":[1]}},"x":{{}}}}}}"#
    );
    assert!(matches!(decode(&json), Ok(Decoded::Event(_))));
    assert!(matches!(decode(r#"{"type":"wishlist","anything":[1,{"a":2}]}"#), Ok(Decoded::Unknown(_))));
    assert!(matches!(decode(r#"{"type":"unknown"}"#), Ok(Decoded::Unknown(_))));
}

#[test]
fn numbers_keep_their_digits() {
    assert!(matches!(
        kind(r#"{"type":"order","customer_id":"c","time":1767323045678,"amount":99999999999.99,"currency":"EUR"}"#),
        Kind::Order { amount, .. } if amount.minor == 9_999_999_999_999
    ));
}

/// An order with one field replaced.
fn with(field: &str, value: &str) -> String {
    let mut fields: Vec<(&str, &str)> = vec![
        ("type", r#""order""#),
        ("order_id", r#""o""#),
        ("customer_id", r#""c""#),
        ("time", r#""2026-01-02T03:04:05Z""#),
        ("amount", r#""1.00""#),
        ("currency", r#""EUR""#),
    ];
    fields.retain(|(name, _)| *name != field);
    fields.push((field, value));
    let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", body.join(","))
}

#[test]
fn every_mistake_has_a_reason_that_names_it() {
    let long = format!("\"{}\"", "x".repeat(300));
    let table: [(&str, &str, &str); 36] = [
        ("type", "null", "missing_field: type is missing"),
        ("type", "7", "wrong_type: type must be a string, not a number"),
        ("customer_id", "null", "missing_field: customer_id is missing"),
        ("customer_id", "17", "wrong_type: customer_id must be a string, not a number"),
        ("customer_id", "[]", "wrong_type: customer_id must be a string, not a list"),
        ("customer_id", "{\"a\":[]}", "wrong_type: customer_id must be a string, not an object"),
        ("customer_id", "true", "wrong_type: customer_id must be a string, not a boolean"),
        ("customer_id", &long, "invalid_id: customer_id has 300 bytes"),
        ("order_id", "17", "wrong_type: order_id must be a string, not a number"),
        ("time", "null", "missing_field: time is missing"),
        ("time", "{}", "wrong_type: time must be RFC 3339 text or a number since the epoch, not an object"),
        ("time", "\"yesterday\"", "invalid_time: time \"yesterday\" is not an RFC 3339 time"),
        (
            "time",
            "\"2026-01-02\"",
            "invalid_time: time \"2026-01-02\" is without an offset; write in the source's mapping",
        ),
        ("time", "\"2026-01-02T03:04:05\"", "invalid_time: time \"2026-01-02T03:04:05\" is without an offset;"),
        ("time", "0", "invalid_time: time \"0\" is 0, which is no time"),
        ("time", "\"0\"", "invalid_time: time \"0\" is 0, which is no time"),
        ("time", "12345678", "invalid_time: time \"12345678\" is no time since the epoch"),
        ("time", "\"\"", "invalid_time: time \"\" is not an RFC 3339 time"),
        ("time", "1.5", "invalid_time: time \"1.5\" is no time since the epoch"),
        ("time", "-1", "invalid_time: time \"-1\" is no time since the epoch"),
        ("time", "\"1960-05-05T00:00:00Z\"", "invalid_time: time \"1960-05-05T00:00:00Z\" is outside the years"),
        ("time", "\"9999-05-05T00:00:00Z\"", "invalid_time: time \"9999-05-05T00:00:00Z\" is outside the years"),
        ("time", "\"2026-06-01T00:00:00.001Z\"", "in_the_future: time 2026-06-01T00:00:00.001Z is ahead of the clock"),
        ("amount", "null", "missing_field: amount is missing"),
        ("amount", "[1]", "wrong_type: amount must be a decimal string or a number, not a list"),
        ("amount", "\"much\"", "invalid_amount: amount \"much\" is not a decimal number"),
        ("amount", "-1", "invalid_amount: amount \"-1\" is negative"),
        ("amount", "1.001", "invalid_amount: amount \"1.001\" has more decimals than the currency (EUR)"),
        ("amount", "1e99", "invalid_amount: amount \"1e99\""),
        ("amount", "999999999999999", "invalid_amount: amount \"999999999999999\" is absurdly large"),
        ("currency", "null", "missing_field: currency is missing"),
        ("currency", "978", "wrong_type: currency must be a string, not a number"),
        (
            "currency",
            "\"eur\"",
            "unknown_currency: currency \"eur\" is not a three-letter ISO 4217 currency code in capitals",
        ),
        ("currency", "\"XXX\"", "unknown_currency: currency \"XXX\""),
        ("currency", &long, "unknown_currency: currency \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\""),
        ("referred_by", "5", "wrong_type: referred_by must be a string, not a number"),
    ];
    for (field, value, expected) in table {
        let json = with(field, value);
        match decode(&json) {
            Err(rejection) => assert!(rejection.to_string().starts_with(expected), "{json}: {rejection}"),
            Ok(decoded) => panic!("{json}: {decoded:?}"),
        }
    }
}

#[test]
fn bytes_that_are_no_json_object_are_told_apart() {
    let long = "x".repeat(10 << 20);
    for (bytes, reason) in [
        (&b""[..], Reason::EmptyMessage),
        (b" ", Reason::InvalidJson),
        (b"{", Reason::InvalidJson),
        (b"{\"type\":\"order\"", Reason::InvalidJson),
        (b"{\"type\":\"order\"} {}", Reason::InvalidJson),
        (long.as_bytes(), Reason::InvalidJson),
        (b"{\"type\":\"\xff\"}", Reason::NotUtf8),
        (b"\xff\xfe", Reason::NotUtf8),
        (b"[[[1]]]", Reason::NotAnObject),
        (b"\"order\"", Reason::NotAnObject),
        (b"17", Reason::NotAnObject),
        (b"null", Reason::NotAnObject),
        (b"true", Reason::NotAnObject),
        (b"{}", Reason::MissingField),
    ] {
        let rejection = decoder().decode(None, Some(bytes), Time::MAX).unwrap_err();
        assert_eq!(rejection.reason, reason, "{rejection}");
        assert!(rejection.detail.len() < 200, "{rejection}");
    }
}

fn with_options(toml: &str) -> Decoder {
    let options = toml::from_str(toml).unwrap();
    Decoder::with_options(Format::Native, vec![], &options).unwrap()
}

fn time_of(decoder: &Decoder, time: &str) -> Result<String, String> {
    match decoder.decode(None, Some(with("time", time).as_bytes()), Time::MAX) {
        Ok(Decoded::Event(event)) => Ok(event.time.to_string()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn numbers_are_told_apart_by_size() {
    for time in
        ["1767323045", "\"1767323045\"", "1767323045000", "1767323045000000", "1767323045000000000", "1.767323045E9"]
    {
        assert_eq!(time_of(&decoder(), time).as_deref(), Ok("2026-01-02T03:04:05.000Z"), "{time}");
    }
    let oslo = with_options("time_zone = \"Europe/Oslo\"");
    for time in ["\"2026-01-02T04:04:05\"", "\"2026-01-02 04:04:05\"", "\"2026-01-02T03:04:05Z\"", "1767323045000"] {
        assert_eq!(time_of(&oslo, time).as_deref(), Ok("2026-01-02T03:04:05.000Z"), "{time}");
    }
}

#[test]
fn nobody_is_a_guest_and_no_order_id() {
    for id in
        ["\"\"", "\" \"", "\"0\"", "\"null\"", "\"NULL\"", "\"[object Object]\"", "\"anonymous\"", "\"(not set)\""]
    {
        assert_eq!(decode(&with("customer_id", id)), Ok(Decoded::Skipped(Skip::Nobody)), "{id}");
        assert_eq!(kind(&with("order_id", id)).id(), None, "{id}");
    }
    let own = with_options("nobody = [\"gast\"]");
    let read = |json: &str| own.decode(None, Some(json.as_bytes()), Time::MAX).map(Decoded::into_owned);
    assert_eq!(read(&with("customer_id", "\"Gast\"")), Ok(Decoded::Skipped(Skip::Nobody)));
    assert!(matches!(read(&with("customer_id", "\"0\"")), Ok(Decoded::Event(event)) if event.customer == "0"));
}

#[test]
fn the_key_and_the_time_of_the_record_stand_in_where_the_options_say() {
    let decoder = with_options(
        "fields = { customer_id = \"$record.key\", time = \"$record.time\" }\nconstants = { type = \"order\", currency = \"EUR\" }",
    );
    assert!(decoder.wants_message());
    let payload = Some(&br#"{"order_id":"o","amount":"1.00"}"#[..]);
    let time = Time::parse("2026-01-02T03:04:05Z").ok();
    let message = Message { key: Some(b"\"c-7\""), payload, time, ..Message::default() };
    let Ok(Decoded::Event(event)) = decoder.decode_message(&message, Time::MAX) else { panic!("an order") };
    assert_eq!((event.customer.as_ref(), Some(event.time)), ("c-7", time));
    let without = Message { key: None, ..message };
    assert_eq!(decoder.decode_message(&without, Time::MAX).unwrap_err().reason, Reason::MissingField);

    let hint = decode(r#"{"type":"session","time":1767323045678}"#).unwrap_err().detail;
    assert!(hint.contains("fields.customer_id = \"$record.key\""), "{hint}");
    for toml in
        ["fields = { amount = \"total\" }", "fields = { time = \"$record.key\" }", "constants = { amount = \"1\" }"]
    {
        let options = toml::from_str(toml).unwrap();
        assert!(Decoder::with_options(Format::Native, vec![], &options).is_err(), "{toml}");
    }
}

#[test]
fn types_are_known_in_any_case_and_other_values_are_chosen_or_rounded() {
    assert!(matches!(kind(&with("type", "\"Order\"")), Kind::Order { .. }));
    let decoder = with_options("rounding = \"half_up\"\nwhere = { test = { not = [true] } }");
    let read = |json: &str| decoder.decode(None, Some(json.as_bytes()), Time::MAX).map(Decoded::into_owned);
    let rounded = with("amount", "20.37566");
    assert!(
        matches!(read(&rounded), Ok(Decoded::Event(Event { kind: Kind::Order { amount, .. }, .. })) if amount.minor == 2038)
    );
    assert!(decode(&rounded).unwrap_err().detail.contains("rounding = \"half_up\""));
    assert_eq!(read(&with("test", "true")), Ok(Decoded::Skipped(Skip::Filtered)));
}

#[test]
fn a_null_value_under_the_key_of_a_row_erases_only_where_that_is_said() {
    let connect = Some(&br#"{"schema":null,"payload":{"id":1}}"#[..]);
    assert_eq!(decoder().decode(connect, None, Time::MAX), Ok(Decoded::Skipped(Skip::Tombstone)));
    let erases = with_options("tombstones = \"erase\"");
    assert_eq!(erases.decode(connect, None, Time::MAX), Ok(Decoded::Erase { customer: "1".into(), time: None }));
    let skips = with_options("tombstones = \"skip\"");
    assert_eq!(skips.decode(Some(b"c-1"), None, Time::MAX), Ok(Decoded::Skipped(Skip::Tombstone)));
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Native) {
        let plain = Decoder::new(format, vec![]);
        assert_eq!(
            plain.decode(Some(b"7"), None, Time::MAX),
            Ok(Decoded::Skipped(Skip::Tombstone)),
            "{}",
            format.name()
        );
    }
}

#[test]
fn an_object_in_a_string_is_read() {
    let json = serde_json::to_string(ORDER).unwrap();
    assert_eq!(decode(&json).map(Decoded::into_owned), decode(ORDER).map(Decoded::into_owned));
}
