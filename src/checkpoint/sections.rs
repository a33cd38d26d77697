//! Scalars, arrays and fingerprints in a binary file of named sections.
//!
//! ```text
//! magic "RTNDSECT" | version u32 | section count u32 | per section: name, raw length, stored length, SHA-256
//! SHA-256 of everything above | the bytes of each section, compressed with zstd
//! ```
//!
//! Numbers are little endian, or LEB128 if no width is given. Every damaged byte and every truncation is detected
//! before the content is used.

use std::borrow::Cow;
use std::io::Write;

use sha2::{Digest as _, Sha256};

use crate::engine::dedup::{Buckets, SHARDS, ShardState};
use crate::engine::state::arrays::{ArrayState, PieceState};
use crate::engine::state::plain::{Plain, Reader, put_bytes, put_number, put_signed};
use crate::engine::state::{Scalars, SeenState};

const MAGIC: &[u8; 8] = b"RTNDSECT";
/// The version that this program writes.
pub const VERSION: i32 = 2;
/// The oldest version that this program reads.
pub const OLDEST: i32 = 1;

const ZSTD_LEVEL: i32 = 1;
const DIGEST: usize = 32;
/// Upper bound of a section's length: a damaged length must not reserve memory.
const MOST_BYTES: u64 = 1 << 36;

/// Why a file of sections could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SectionsError {
    /// Missing or wrong bytes.
    #[error("damaged at {0}")]
    Damaged(&'static str),
    /// An unsupported version.
    #[error("the file has format version {0}; this program reads {OLDEST} to {VERSION}")]
    Version(i32),
    /// A missing section.
    #[error("the section {0} is missing")]
    Missing(&'static str),
}

use SectionsError::Damaged;

/// Encodes sections into a file.
///
/// # Errors
/// zstd fails, for example when memory runs out.
pub fn encode(sections: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let whole: Vec<_> = sections.iter().map(|(name, raw)| (*name, vec![Cow::Borrowed(*raw)])).collect();
    encode_parts(&whole)
}

/// As [`encode`], for sections in several parts, to avoid concatenating them.
fn encode_parts(sections: &[(&str, Vec<Cow<'_, [u8]>>)]) -> std::io::Result<Vec<u8>> {
    let stored = sections.iter().map(|(_, parts)| pack(parts)).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = stored.iter().map(Vec::len).sum();
    let mut file = Vec::with_capacity(bytes + sections.len() * (DIGEST + 64) + 64);
    file.extend_from_slice(MAGIC);
    VERSION.put(&mut file);
    put_number(&mut file, sections.len() as u64);
    for ((name, parts), stored) in sections.iter().zip(&stored) {
        put_bytes(&mut file, name.as_bytes());
        put_number(&mut file, len_of(parts));
        put_number(&mut file, stored.len() as u64);
        file.extend_from_slice(&Sha256::digest(stored));
    }
    let head = Sha256::digest(&file);
    file.extend_from_slice(&head);
    stored.iter().for_each(|stored| file.extend_from_slice(stored));
    Ok(file)
}

fn len_of(parts: &[Cow<'_, [u8]>]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

fn pack(parts: &[Cow<'_, [u8]>]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.set_pledged_src_size(Some(len_of(parts)))?;
    parts.iter().try_for_each(|part| encoder.write_all(part))?;
    encoder.finish()
}

/// The decoded sections of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections(Vec<(String, Vec<u8>)>);

impl Sections {
    /// Decodes and verifies a file.
    ///
    /// # Errors
    /// See [`SectionsError`].
    pub fn decode(file: &[u8]) -> Result<Sections, SectionsError> {
        let mut reader = Reader::new(file);
        if reader.bytes(MAGIC.len()) != Some(MAGIC) {
            return Err(Damaged("the first bytes"));
        }
        let version = i32::take(&mut reader).ok_or(Damaged("the version"))?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(SectionsError::Version(version));
        }
        let count = reader.len().ok_or(Damaged("the number of sections"))?;
        let heads = (0..count).map(|_| Head::take(&mut reader)).collect::<Option<Vec<_>>>();
        let heads = heads.ok_or(Damaged("the list of sections"))?;
        let head_len = file.len() - reader.left();
        let digest = reader.bytes(DIGEST).ok_or(Damaged("the digest of the list"))?;
        if Sha256::digest(&file[..head_len]).as_slice() != digest {
            return Err(Damaged("the list of sections"));
        }
        let section = |Head { name, raw, stored, digest }: Head<'_>| {
            let bytes = reader.bytes(stored).ok_or(Damaged("the end"))?;
            if Sha256::digest(bytes).as_slice() != digest {
                return Err(Damaged("a section"));
            }
            let unpacked = zstd::bulk::decompress(bytes, raw).map_err(|_| Damaged("a packed section"))?;
            let name = std::str::from_utf8(name).map_err(|_| Damaged("a name"))?;
            if unpacked.len() == raw { Ok((name.to_owned(), unpacked)) } else { Err(Damaged("a length")) }
        };
        let sections = heads.into_iter().map(section).collect::<Result<_, _>>()?;
        reader.end().ok_or(Damaged("the end"))?;
        Ok(Sections(sections))
    }

    /// The content of a section.
    ///
    /// # Errors
    /// [`SectionsError::Missing`].
    pub fn get(&self, name: &'static str) -> Result<&[u8], SectionsError> {
        let found = self.0.iter().find(|(section, _)| section == name);
        found.map(|(_, bytes)| bytes.as_slice()).ok_or(SectionsError::Missing(name))
    }
}

struct Head<'a> {
    name: &'a [u8],
    raw: usize,
    stored: usize,
    digest: &'a [u8],
}

impl<'a> Head<'a> {
    fn take(reader: &mut Reader<'a>) -> Option<Head<'a>> {
        let name = reader.counted()?;
        let mut len = || reader.number().filter(|&len| len <= MOST_BYTES).and_then(|len| usize::try_from(len).ok());
        let (raw, stored) = (len()?, len()?);
        Some(Head { name, raw, stored, digest: reader.bytes(DIGEST)? })
    }
}

/// The section with the scalars.
const SCALARS: &str = "scalars";
/// The section with the arrays.
const ARRAYS: &str = "arrays";
/// The section with the fingerprints.
const SEEN: &str = "seen";

/// Encodes the scalars and arrays of a checkpoint.
///
/// # Errors
/// As [`encode`].
pub fn encode_state(scalars: &Scalars, arrays: &[ArrayState]) -> std::io::Result<Vec<u8>> {
    let scalars = serde_json::to_vec(scalars)?;
    let mut parts = Vec::with_capacity(2 * arrays.len() + 1);
    let mut out = Vec::new();
    put_number(&mut out, arrays.len() as u64);
    for ArrayState { key, born, header, pieces, bytes } in arrays {
        put_bytes(&mut out, key.as_bytes());
        put_number(&mut out, *born);
        put_bytes(&mut out, header);
        put_number(&mut out, pieces.len() as u64);
        for PieceState { number, skipped, len } in pieces {
            put_signed(&mut out, i64::from(*number));
            put_number(&mut out, u64::from(*skipped));
            put_number(&mut out, u64::from(*len));
        }
        put_number(&mut out, bytes.len() as u64);
        parts.push(Cow::Owned(std::mem::take(&mut out)));
        // Borrowed, not copied: the arrays are large.
        parts.push(Cow::Borrowed(bytes.as_slice()));
    }
    parts.push(Cow::Owned(out));
    encode_parts(&[(SCALARS, vec![Cow::Borrowed(&scalars)]), (ARRAYS, parts)])
}

/// Decodes the output of [`encode_state`].
///
/// # Errors
/// See [`SectionsError`].
pub fn decode_state(file: &[u8]) -> Result<(Scalars, Vec<ArrayState>), SectionsError> {
    let sections = Sections::decode(file)?;
    let scalars = serde_json::from_slice(sections.get(SCALARS)?).map_err(|_| Damaged("the scalars"))?;
    let mut reader = Reader::new(sections.get(ARRAYS)?);
    let arrays = take_all(&mut reader, take_array).ok_or(Damaged("the arrays"))?;
    Ok((scalars, arrays))
}

fn take_array(reader: &mut Reader<'_>) -> Option<ArrayState> {
    let key = std::str::from_utf8(reader.counted()?).ok()?.to_owned();
    let (born, header) = (reader.number()?, reader.counted()?.to_vec());
    let count = reader.len()?;
    let piece = |reader: &mut Reader<'_>| {
        Some(PieceState {
            number: i32::try_from(reader.signed()?).ok()?,
            skipped: u8::try_from(reader.number()?).ok()?,
            len: u32::try_from(reader.number()?).ok()?,
        })
    };
    let pieces = (0..count).map(|_| piece(reader)).collect::<Option<_>>()?;
    Some(ArrayState { key, born, header, pieces, bytes: reader.counted()?.to_vec() })
}

/// Reads a count and that many items; `None` if bytes follow.
fn take_all<T>(reader: &mut Reader<'_>, take: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = reader.len()?;
    let all = (0..count).map(|_| take(reader)).collect::<Option<_>>()?;
    reader.end()?;
    Some(all)
}

/// Encodes the fingerprints of a checkpoint.
///
/// # Errors
/// As [`encode`].
pub fn encode_seen(seen: &SeenState) -> std::io::Result<Vec<u8>> {
    let most = |shard: &ShardState| 12 + 11 * shard.seen.len();
    let capacity = seen.classes.iter().flat_map(|(_, shards)| shards).map(most).sum::<usize>() + 64;
    let mut out = Vec::with_capacity(capacity);
    for (Buckets { width, current }, shards) in &seen.classes {
        put_signed(&mut out, *width);
        put_number(&mut out, u64::from(current.is_some()));
        put_signed(&mut out, current.unwrap_or(0));
        put_number(&mut out, shards.len() as u64);
        for ShardState { shard, full, seen } in shards {
            out.extend_from_slice(&[*shard, u8::from(*full)]);
            put_number(&mut out, seen.len() as u64);
            for (fingerprint, bucket) in seen {
                put_signed(&mut out, current.unwrap_or(0) - bucket);
                fingerprint.cast_signed().put(&mut out);
            }
        }
    }
    encode(&[(SEEN, &out)])
}

/// Decodes the output of [`encode_seen`].
///
/// # Errors
/// See [`SectionsError`].
pub fn decode_seen(file: &[u8]) -> Result<SeenState, SectionsError> {
    let sections = Sections::decode(file)?;
    let mut reader = Reader::new(sections.get(SEEN)?);
    let mut read = || {
        let classes = [take_class(&mut reader)?, take_class(&mut reader)?];
        reader.end()?;
        Some(SeenState { classes })
    };
    read().ok_or(Damaged("the fingerprints"))
}

fn take_class(reader: &mut Reader<'_>) -> Option<(Buckets, Vec<ShardState>)> {
    let width = reader.signed().filter(|&width| width > 0)?;
    let (has_current, current) = (reader.number()? != 0, reader.signed()?);
    let count = reader.len()?;
    let shard = |reader: &mut Reader<'_>| {
        let &[shard, full] = reader.bytes(2)? else { return None };
        let count = reader.len()?;
        let one = |reader: &mut Reader<'_>| {
            let bucket = current.checked_sub(reader.signed()?)?;
            Some((i64::take(reader)?.cast_unsigned(), bucket))
        };
        let seen = (0..count).map(|_| one(reader)).collect::<Option<_>>()?;
        (usize::from(shard) < SHARDS).then_some(ShardState { shard, full: full != 0, seen })
    };
    let shards = (0..count).map(|_| shard(reader)).collect::<Option<_>>()?;
    Some((Buckets { width, current: has_current.then_some(current) }, shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::state::CurrencyState;

    fn small() -> (Scalars, Vec<ArrayState>) {
        let currencies = vec![CurrencyState { code: "EUR".into(), reporting: true }];
        let scalars = Scalars { sequence: 7, slots: 3, currencies, ..Scalars::default() };
        let pieces = vec![PieceState { number: -3, skipped: 5, len: 4 }, PieceState { number: 1, skipped: 0, len: 2 }];
        let array =
            ArrayState { key: "a/b".into(), born: 6, header: vec![9; 20], pieces, bytes: vec![1, 2, 3, 4, 5, 6] };
        (scalars, vec![array])
    }

    fn small_seen() -> SeenState {
        let shard = |shard, full, seen: &[(u64, i64)]| ShardState { shard, full, seen: seen.to_vec() };
        SeenState {
            classes: [
                (
                    Buckets { width: 86_400_000, current: Some(20_000) },
                    vec![shard(0, true, &[]), shard(63, false, &[(u64::MAX, 19_998), (1 << 63, 20_000)])],
                ),
                (Buckets { width: 86_400_001, current: None }, vec![]),
            ],
        }
    }

    #[test]
    fn state_and_fingerprints_survive() {
        let (scalars, arrays) = small();
        let file = encode_state(&scalars, &arrays).unwrap();
        assert_eq!(decode_state(&file), Ok((scalars, arrays)));
        assert_eq!(decode_seen(&encode_seen(&small_seen()).unwrap()), Ok(small_seen()));
        assert_eq!(decode_seen(&file), Err(SectionsError::Missing("seen")));
    }

    #[test]
    fn every_damaged_byte_and_every_truncation_is_detected() {
        let (scalars, arrays) = small();
        for file in [encode_state(&scalars, &arrays).unwrap(), encode_seen(&small_seen()).unwrap()] {
            assert!(Sections::decode(&file).is_ok());
            for at in 0..file.len() {
                for flip in [1, 0x80, 0xFF] {
                    let mut damaged = file.clone();
                    damaged[at] ^= flip;
                    assert!(Sections::decode(&damaged).is_err(), "byte {at} ^ {flip}");
                }
                assert!(Sections::decode(&file[..at]).is_err(), "only {at} bytes");
            }
            assert!(Sections::decode(&[file.as_slice(), &[0]].concat()).is_err(), "one byte more");
        }
    }

    #[test]
    fn another_version_says_so() {
        let mut file = encode(&[("a", b"b")]).unwrap();
        file[8] = u8::try_from(VERSION + 1).unwrap();
        assert_eq!(Sections::decode(&file), Err(SectionsError::Version(VERSION + 1)));
    }
}
