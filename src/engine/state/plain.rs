//! Numbers as bytes: little endian of fixed width, or of variable width.

/// A type that consists of numbers, which are written, read and added one by one.
pub trait Plain: Sized {
    /// Appends the bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads what [`Plain::put`] wrote; `None` if bytes are missing.
    fn take(reader: &mut Reader<'_>) -> Option<Self>;
    /// Adds another value.
    fn plus(&mut self, other: &Self);
}

/// Implements [`Plain`] for a struct by its fields, all of which must be named.
macro_rules! plain {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::engine::state::plain::Plain for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $type { $($field),+ } = self;
                $($crate::engine::state::plain::Plain::put($field, out);)+
            }
            fn take(reader: &mut $crate::engine::state::plain::Reader<'_>) -> Option<Self> {
                Some($type { $($field: $crate::engine::state::plain::Plain::take(reader)?),+ })
            }
            fn plus(&mut self, other: &Self) {
                let $type { $($field),+ } = other;
                $($crate::engine::state::plain::Plain::plus(&mut self.$field, $field);)+
            }
        }
    };
}
pub(crate) use plain;

macro_rules! integers {
    ($($integer:ident),+) => {$(
        impl Plain for $integer {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Option<Self> {
                reader.array().map(Self::from_le_bytes)
            }
            fn plus(&mut self, other: &Self) {
                *self += other;
            }
        }
    )+};
}
integers!(i32, i64, i128);

impl<T: Plain + Copy + Default, const N: usize> Plain for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|one| one.put(out));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let mut all = [T::default(); N];
        for one in &mut all {
            *one = T::take(reader)?;
        }
        Some(all)
    }
    fn plus(&mut self, other: &Self) {
        self.iter_mut().zip(other).for_each(|(one, other)| one.plus(other));
    }
}

impl<A: Plain, B: Plain> Plain for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some((A::take(reader)?, B::take(reader)?))
    }
    fn plus(&mut self, other: &Self) {
        self.0.plus(&other.0);
        self.1.plus(&other.1);
    }
}

/// Reads bytes from the front, never beyond the end.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of all bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// The next `len` bytes.
    #[must_use]
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// Whether no bytes are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of bytes left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// `None` if bytes are left.
    #[must_use]
    pub fn end(&self) -> Option<()> {
        self.is_empty().then_some(())
    }

    /// Reads a number that [`put_number`] wrote.
    #[must_use]
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Reads a number that [`put_signed`] wrote.
    #[must_use]
    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Reads a length that [`put_number`] wrote. Every element takes at least one byte, so a length beyond the
    /// remaining bytes is refused and reserves no memory.
    #[must_use]
    pub fn len(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|&len| len <= self.0.len())
    }
}

/// Appends a number with seven bits per byte, so that small ones are short (LEB128).
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// As [`put_number`], for signed numbers (zigzag).
pub fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, (number << 1 ^ number >> 63).cast_unsigned());
}

/// Appends bytes after their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl<'a> Reader<'a> {
    /// Reads bytes that [`put_bytes`] wrote.
    #[must_use]
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.bytes(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive(number in any::<u64>(), signed in any::<i64>(), shift in 0..64_u32) {
            let (number, signed) = (number >> shift, signed >> shift);
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_signed(&mut out, signed);
            (signed, [i128::from(signed); 2]).put(&mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert_eq!(<(i64, [i128; 2])>::take(&mut reader), Some((signed, [i128::from(signed); 2])));
            prop_assert_eq!(reader.end(), Some(()));
        }

        #[test]
        fn nonsense_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.counted().is_some() && !reader.is_empty() {}
            while reader.signed().is_some() {}
        }
    }

    #[test]
    fn a_number_that_is_too_long_is_none() {
        assert_eq!(Reader::new(&[0xFF; 11]).number(), None);
        assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]).number(), None);
        assert_eq!(Reader::new(&[0x80]).number(), None);
    }
}
