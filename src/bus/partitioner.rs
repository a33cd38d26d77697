//! How producers map keys to partitions.

/// The partitioner of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// The Java client's default, and librdkafka's `murmur2` and `murmur2_random`.
    Murmur2,
    /// librdkafka's default: `consistent` and `consistent_random`.
    Crc32,
}

impl Partitioner {
    /// All partitioners.
    pub const ALL: [Partitioner; 2] = [Partitioner::Murmur2, Partitioner::Crc32];

    /// The name in `kafka.partitioner`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
        }
    }

    /// The partition of a nonempty key among `partitions`; 0 if there are none.
    #[must_use]
    pub fn partition(self, key: &[u8], partitions: u32) -> u32 {
        let hash = match self {
            // Clears the sign bit, as `Utils.toPositive` does.
            Partitioner::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Partitioner::Crc32 => {
                let mut crc = flate2::Crc::new();
                crc.update(key);
                crc.sum()
            }
        };
        hash.checked_rem(partitions).unwrap_or(0)
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`: MurmurHash2 (Austin Appleby) with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_matches_the_java_client() {
        // From UtilsTest.testMurmur2 of Apache Kafka.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn crc32_matches_zlib() {
        assert_eq!(Partitioner::Crc32.partition(b"123456789", u32::MAX), 0xcbf4_3926);
        assert_eq!(Partitioner::Murmur2.partition(b"21", 1_000), ((-973_932_308_i32) as u32 & 0x7fff_ffff) % 1_000);
        assert_eq!(Partitioner::Murmur2.partition(b"21", 0), 0);
    }
}
