//! Damaged messages: no decoder panics, and each message is an event, skipped, or rejected.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use retentiond::decode::Decoded;
use retentiond::event::{MAX_CUSTOMER_ID_BYTES, Time};

use super::fixtures::{self, Fixture};
use crate::support::damage::damage;
use crate::support::effort::effort;

/// The metadata of committed offsets may be written by anyone.
#[test]
fn damaged_metadata_of_offsets_are_refused_or_read_as_they_are() {
    use retentiond::checkpoint::metadata::Metadata;

    let sound: [&[u8]; 3] =
        [b"v1;genesis;1767323045678;0123456789abcdef", b"v1;p0-1-2.json;0123456789abcdef", b"v2;something;else"];
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut read = 0;
    for case in 0..20_000 {
        let mut bytes = sound[case % sound.len()].to_vec();
        damage(&mut random, &mut bytes, sound[0]);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(metadata) = text.parse::<Metadata>() {
            read += 1;
            assert_eq!(metadata.to_string().parse(), Ok(metadata), "{text:?}");
        }
    }
    assert!(read > 100, "{read}");
}

/// Damages messages of all formats and counts events, skips and rejections.
#[test]
fn damaged_messages_are_told_apart_and_panic_nowhere() {
    let cases = effort().mutations;
    let all: Vec<Fixture> = fixtures::all().collect();
    let decoders: Vec<_> = all.iter().map(Fixture::decoder).collect();
    let mut random = ChaCha8Rng::seed_from_u64(20_260_102);
    let (mut decoded, mut skipped, mut rejected) = (0, 0, 0);
    for case in 0..cases {
        let place = usize::try_from(case).unwrap() % all.len();
        let (fixture, other) = (&all[place], &all[random.random_range(0..all.len())]);
        let mut bytes = fixture.bytes.clone();
        damage(&mut random, &mut bytes, &other.bytes);
        match decoders[place].decode_message(&fixture.message_of(&bytes), Time::MAX) {
            Ok(Decoded::Event(event) | Decoded::Cancellation { event, .. }) => {
                assert!((1..=MAX_CUSTOMER_ID_BYTES).contains(&event.customer.len()));
                decoded += 1;
            }
            Ok(Decoded::Several { events, .. }) => {
                assert!(!events.is_empty(), "{}", String::from_utf8_lossy(&bytes));
                decoded += 1;
            }
            Ok(Decoded::Erase { customer, .. }) => {
                assert!(!customer.is_empty());
                decoded += 1;
            }
            Ok(Decoded::Batch(parts)) => {
                assert!(parts.len() > 1);
                decoded += 1;
            }
            Ok(Decoded::Unknown(_) | Decoded::Skipped(_)) => skipped += 1,
            Err(rejection) => {
                assert!(!rejection.detail.is_empty());
                rejected += 1;
            }
        }
    }
    assert_eq!(decoded + skipped + rejected, cases);
    assert!(decoded > cases / 40 && skipped > cases / 50 && rejected > cases / 20, "{decoded} {skipped} {rejected}");
}
