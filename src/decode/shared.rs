//! Combines what several sources read from one message.

use super::{Decoded, Rejection, Skip};
use crate::event::Time;

/// Everything that the sources found. If one of them cannot read the message, it is rejected as a whole, so that
/// replaying the dead letter counts every part once. If none of them wants it, the most informative reason is returned.
pub(super) fn meaning<'a>(found: Vec<Result<Decoded<'a>, Rejection>>) -> Result<Decoded<'a>, Rejection> {
    let found: Vec<Decoded<'a>> = found.into_iter().collect::<Result<_, _>>()?;
    let (mut wanted, rest): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|decoded| !matches!(decoded, Decoded::Unknown(_) | Decoded::Skipped(_)));
    // Sources with complementary conditions find the same cancellation in a row that no longer satisfies either of
    // them.
    wanted.dedup_by(|second, first| matches!(first, Decoded::Cancellation { .. }) && first == second);
    match wanted.len() {
        0 => Ok(rest.into_iter().max_by_key(weight).unwrap_or(Decoded::Skipped(Skip::Filtered))),
        1 => Ok(wanted.swap_remove(0)),
        _ => together(wanted),
    }
}

/// Ranks results without events by how informative they are.
fn weight(decoded: &Decoded<'_>) -> u8 {
    match decoded {
        Decoded::Skipped(Skip::NoSuchField) => 0,
        Decoded::Skipped(Skip::Filtered) => 1,
        Decoded::Unknown(_) => 2,
        _ => 3,
    }
}

fn together(wanted: Vec<Decoded<'_>>) -> Result<Decoded<'_>, Rejection> {
    let (mut events, mut parts, mut told_before) = (Vec::new(), Vec::new(), Time::MAX);
    for decoded in wanted {
        match decoded {
            // An erasure makes all other events of the customer irrelevant.
            Decoded::Erase { .. } => return Ok(decoded),
            Decoded::Event(event) => {
                told_before = Time::MIN;
                events.push(event);
            }
            Decoded::Several { events: more, told_before: before } => {
                told_before = told_before.min(before);
                events.extend(more);
            }
            Decoded::Batch(more) => parts.extend(more),
            // Combined with events of another source, its condition cannot be kept.
            Decoded::Cancellation { event, .. } => events.push(event),
            Decoded::Unknown(_) | Decoded::Skipped(_) => {}
        }
    }
    match parts.first().cloned() {
        None => Ok(Decoded::Several { events, told_before }),
        // Single events are added to the list as its first part.
        Some(mut first) if !events.is_empty() => {
            first.decoded = Ok(Decoded::Several { events, told_before });
            parts.insert(0, first);
            Ok(Decoded::Batch(parts))
        }
        Some(_) => Ok(Decoded::Batch(parts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoder, Format, Message, Options, Reason, Unknown};
    use crate::event::Event;

    fn decoder(sources: &[(Format, &str)]) -> Decoder {
        let one = |(format, options): &(Format, &str)| {
            let options: Options = toml::from_str(options).unwrap();
            Decoder::with_options(*format, vec![], &options).unwrap()
        };
        Decoder::shared(sources.iter().map(one).collect()).unwrap()
    }

    fn ids(decoded: &Decoded<'_>) -> Vec<String> {
        decoded.events().into_iter().map(|event: &Event<'_>| format!("{:?}", event.kind.id())).collect()
    }

    const SALE: &str =
        r#"{"kind":"sale","order_id":"a","customer_id":"c","time":1767607200,"amount":1,"currency":"EUR"}"#;
    const VISIT: &str = r#"{"kind":"visit","type":"session","session_id":"v","customer_id":"c","time":1767607200}"#;

    #[test]
    fn complementary_conditions_read_each_message_once() {
        let both = decoder(&[
            (Format::Custom, "where = { kind = [\"sale\"] }"),
            (Format::Native, "where = { kind = { not = [\"sale\"] } }"),
        ]);
        for json in [SALE, VISIT] {
            let decoded = both.decode(None, Some(json.as_bytes()), Time::MAX).unwrap();
            assert!(matches!(decoded, Decoded::Event(_)), "{decoded:?}");
        }
        let list = format!("[{SALE},{VISIT}]");
        let decoded = both.decode(None, Some(list.as_bytes()), Time::MAX).unwrap();
        assert_eq!(ids(&decoded), ["Some(\"a\")", "Some(\"v\")"]);
        assert_eq!(
            both.decode(Some(b"c"), None, Time::MAX),
            Ok(Decoded::Erase { customer: "c".into(), time: None }),
            "native keys do"
        );
    }

    #[test]
    fn all_that_the_sources_find_counts_and_a_fault_of_one_rejects_the_message() {
        let both = decoder(&[
            (Format::Custom, "where = { kind = [\"sale\"] }"),
            (Format::Custom, "constants = { type = \"session\" }\nfields = { session_id = \"order_id\" }"),
        ]);
        let decoded = both.decode(None, Some(SALE.as_bytes()), Time::MAX).unwrap();
        assert!(matches!(&decoded, Decoded::Several { told_before: Time::MIN, .. }), "{decoded:?}");
        assert_eq!(ids(&decoded), ["Some(\"a\")", "Some(\"a\")"]);
        let broken = SALE.replace("\"amount\":1,", "");
        let refused = both.decode(None, Some(broken.as_bytes()), Time::MAX).unwrap_err();
        assert_eq!(refused.reason, Reason::MissingField);
    }

    #[test]
    fn the_reason_that_says_most_is_given() {
        let unknown = || Decoded::Unknown(Unknown::of("type", None));
        let skipped = Decoded::Skipped;
        for (found, expected) in [
            (vec![skipped(Skip::Filtered), skipped(Skip::NoSuchField)], skipped(Skip::Filtered)),
            (vec![skipped(Skip::Filtered), unknown()], unknown()),
            (vec![skipped(Skip::Guest), unknown()], skipped(Skip::Guest)),
        ] {
            assert_eq!(meaning(found.into_iter().map(Ok).collect()), Ok(expected));
        }
    }

    #[test]
    fn the_time_of_the_record_is_asked_for_where_one_source_needs_it() {
        let of = |options| decoder(&[(Format::Native, ""), (Format::Native, options)]);
        assert!(!of("").wants_message());
        let timed = of("fields = { time = \"$record.time\" }");
        assert!(timed.wants_message());
        let json = SALE.replace("1767607200", "null").replace("\"kind\":\"sale\"", "\"type\":\"order\"");
        let time = Time::parse("2026-01-05T10:00:00Z").ok();
        let message = Message { payload: Some(json.as_bytes()), time, ..Message::default() };
        assert_eq!(timed.decode_message(&message, Time::MAX).unwrap_err().detail, "time is missing");
    }
}
