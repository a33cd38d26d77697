//! Damaged messages: no decoder panics, and every one is an event, or skipped, or rejected.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use retentiond::decode::Decoded;
use retentiond::event::{MAX_CUSTOMER_ID_BYTES, Time};

use crate::fixtures::{self, Fixture};

/// Pieces that damage is made of: what JSON, numbers and times break on.
const PIECES: [&[u8]; 24] = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"0",
    b"-1",
    b"1e999",
    b"-0.0",
    b"9223372036854775808",
    b"0.000000000001",
    b"\xff",
    b"\\u0000",
    b"\\ud800",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"1970-01-01T00:00:00Z",
    b"\xf0\x9f\x9b\x92",
    b"\x00",
];

fn damage(random: &mut impl Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..=3) {
        let at = random.random_range(0..=bytes.len());
        let piece = PIECES[random.random_range(0..PIECES.len())];
        match random.random_range(0..7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.splice(at..at, piece.iter().copied())),
            3 => replace_value(bytes, at, piece),
            4 => {
                let end = (at + random.random_range(0..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let to = (from + 30).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let end = (at + 20).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// Puts a piece where the value behind the next colon stands, which keeps most documents sound.
fn replace_value(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let Some(colon) = bytes[at..].iter().position(|byte| *byte == b':') else { return };
    let from = at + colon + 1;
    let len = bytes[from..].iter().position(|byte| matches!(byte, b',' | b'\n' | b'}')).unwrap_or(0);
    bytes.splice(from..from + len, piece.iter().copied());
}

/// What stands beside committed offsets may be anybody's.
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

/// Damages the messages of all formats in turn; how many were events, skipped and rejected.
#[test]
fn damaged_messages_are_told_apart_and_panic_nowhere() {
    let cases: u64 = std::env::var("RETENTIOND_MUTATIONS").map_or(30_000, |cases| cases.parse().unwrap());
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
            Ok(Decoded::Event(event)) => {
                assert!((1..=MAX_CUSTOMER_ID_BYTES).contains(&event.customer.len()));
                decoded += 1;
            }
            Ok(Decoded::Several { events, .. }) => {
                assert!(!events.is_empty(), "{}", String::from_utf8_lossy(&bytes));
                decoded += 1;
            }
            Ok(Decoded::Erase(customer)) => {
                assert!(!customer.is_empty());
                decoded += 1;
            }
            Ok(Decoded::Unknown | Decoded::Skipped(_)) => skipped += 1,
            Err(rejection) => {
                assert!(!rejection.detail.is_empty());
                rejected += 1;
            }
        }
    }
    assert_eq!(decoded + skipped + rejected, cases);
    assert!(decoded > cases / 20 && skipped > cases / 50 && rejected > cases / 20, "{decoded} {skipped} {rejected}");
}
