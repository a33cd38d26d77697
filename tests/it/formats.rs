//! Messages in every format, with the field names of its published documentation, and their meanings.
//!
//! `tests/formats/FORMAT/NAME.json` is a message; the optional `NAME.toml` contains its key, headers, salt and mapping;
//! `NAME.expected` its meaning. `RETENTIOND_BLESS=1` writes the latter, to be reviewed by a person.

mod files;
pub mod fixtures;
mod mutation;
mod same_figures;

use std::fmt::Write as _;
use std::fs;

use retentiond::decode::{Decoded, Decoder, Format, Rejection, encode, encode_cancellation};
use retentiond::event::{Event, Kind, Time};

use fixtures::{DIMENSIONS, Fixture};

#[test]
fn every_message_means_what_stands_beside_it() {
    let bless = std::env::var_os("RETENTIOND_BLESS").is_some();
    let mut faults = String::new();
    let mut seen = 0;
    for fixture in fixtures::all() {
        seen += 1;
        let message = fixture.message();
        let meaning = meaning(&fixture.decoder().decode_message(&message, Time::MAX));
        if bless {
            fs::write(fixture.path.with_extension("expected"), &meaning).unwrap();
        }
        let expected = fs::read_to_string(fixture.path.with_extension("expected")).unwrap_or_default();
        if meaning != expected {
            _ = writeln!(faults, "{}:\n{meaning}expected:\n{expected}", fixture.path.display());
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert!(seen > 70, "only {seen} messages found");
}

#[test]
fn every_format_has_messages_and_does_without_options() {
    let all: Vec<Fixture> = fixtures::all().collect();
    for format in Format::ALL {
        assert!(all.iter().any(|fixture| fixture.format == format), "{}", format.name());
        let plain = retentiond::decode::Options::default();
        let decoder = retentiond::decode::Decoder::with_options(format, DIMENSIONS.map(str::to_owned).to_vec(), &plain);
        assert!(decoder.is_ok(), "{}: {decoder:?}", format.name());
    }
}

#[test]
fn every_event_survives_the_way_through_a_router() {
    let dimensions = DIMENSIONS.map(str::to_owned);
    let routed = Decoder::routed(dimensions.to_vec());
    let mut seen = 0;
    for fixture in fixtures::all() {
        let message = fixture.message();
        let decoder = fixture.decoder();
        let (events, told_before) = match decoder.decode_message(&message, Time::MAX) {
            Ok(Decoded::Event(event)) => (vec![event], Time::MIN),
            Ok(Decoded::Several { events, told_before }) => (events, told_before),
            Ok(Decoded::Cancellation { event, placed }) => {
                let mut bytes = Vec::new();
                encode_cancellation(&event, placed, &dimensions, &mut bytes);
                let expected = Ok(Decoded::Cancellation { event, placed });
                assert_eq!(routed.decode(None, Some(&bytes), Time::MAX), expected, "{}", fixture.path.display());
                continue;
            }
            _ => continue,
        };
        for event in events {
            let mut bytes = Vec::new();
            encode(&event, told_before, &dimensions, &mut bytes);
            let expected = if event.time < told_before {
                Decoded::Several { events: vec![event], told_before }
            } else {
                Decoded::Event(event)
            };
            assert_eq!(routed.decode(None, Some(&bytes), Time::MAX), Ok(expected), "{}", fixture.path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} events");
}

/// One line per event.
fn meaning(decoded: &Result<Decoded<'_>, Rejection>) -> String {
    match decoded {
        Ok(Decoded::Event(event)) => line(event),
        Ok(Decoded::Several { events, told_before }) => {
            let mark = |event: &Event<'_>| if event.time < *told_before { "told before: " } else { "" };
            events.iter().map(|event| format!("{}{}", mark(event), line(event))).collect()
        }
        Ok(Decoded::Cancellation { event, placed }) => format!("if placed at {placed}: {}", line(event)),
        Ok(Decoded::Erase { customer, time: None }) => format!("erase customer={customer}\n"),
        Ok(Decoded::Erase { customer, time: Some(time) }) => format!("erase customer={customer} time={time}\n"),
        Ok(Decoded::Unknown(unknown)) => format!("unknown {unknown}\n"),
        Ok(Decoded::Batch(parts)) => parts.iter().map(|part| meaning(&part.decoded)).collect(),
        Ok(Decoded::Skipped(skip)) => format!("skipped {}\n", skip.label()),
        Err(rejection) => format!("rejected {rejection}\n"),
    }
}

fn line(event: &Event<'_>) -> String {
    let mut line = format!("{} customer={} time={}", event.kind.event_type().name(), event.customer, event.time);
    if let Some(id) = event.kind.id() {
        _ = write!(line, " id={id}");
    }
    match &event.kind {
        Kind::Order { amount, .. } | Kind::Refund { amount, .. } | Kind::Cancel { amount, .. } => {
            _ = write!(line, " amount={amount}");
        }
        _ => {}
    }
    if let Kind::Order { attributes, .. } | Kind::Customer { attributes, .. } = &event.kind {
        for (dimension, name) in DIMENSIONS.iter().enumerate() {
            if let Some(value) = attributes.get(dimension) {
                _ = write!(line, " {name}={value}");
            }
        }
    }
    line + "\n"
}
