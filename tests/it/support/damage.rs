//! Random damage to messages and files.

use rand::prelude::*;

/// Fragments that provoke parsing errors in JSON, numbers and times.
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

/// Damages up to three positions, partly with fragments of `other`.
pub fn damage(random: &mut impl Rng, bytes: &mut Vec<u8>, other: &[u8]) {
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

/// Replaces the value after the next colon, which usually keeps the document valid.
fn replace_value(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let Some(colon) = bytes[at..].iter().position(|byte| *byte == b':') else { return };
    let from = at + colon + 1;
    let len = bytes[from..].iter().position(|byte| matches!(byte, b',' | b'\n' | b'}')).unwrap_or(0);
    bytes.splice(from..from + len, piece.iter().copied());
}
