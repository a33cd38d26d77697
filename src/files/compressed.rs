//! Compressed files, recognized by their first bytes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

const BUFFER_BYTES: usize = 1 << 18;

/// A supported compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstandard,
}

/// Recognizes a compression by the first bytes of a file.
pub(super) fn recognize(head: &[u8]) -> Option<Compression> {
    match head {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        // A frame, or a skippable frame as written by parallel compressors.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstandard),
        _ => None,
    }
}

impl Compression {
    pub fn open(self, reader: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
        let decompressed: Box<dyn Read + Send> = match self {
            Compression::Gzip => Box::new(Gzip { member: Some(GzDecoder::new(reader)) }),
            Compression::Zstandard => Box::new(zstd::Decoder::with_buffer(reader)?),
        };
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decompressed)))
    }
}

/// The concatenated members of a gzip file, followed by zero padding as left by tapes and block storage.
struct Gzip {
    member: Option<GzDecoder<Box<dyn BufRead + Send>>>,
}

impl Gzip {
    /// Advances to the next member, if any.
    fn next_member(&mut self) -> io::Result<()> {
        let Some(member) = self.member.take() else { return Ok(()) };
        let mut reader = member.into_inner();
        loop {
            let bytes = reader.fill_buf()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            match bytes.get(zeros) {
                None if bytes.is_empty() => return Ok(()),
                None => reader.consume(zeros),
                Some(0x1f) => {
                    reader.consume(zeros);
                    self.member = Some(GzDecoder::new(reader));
                    return Ok(());
                }
                Some(_) => {
                    let what = "something else follows the gzip data; compress the file again, or cut it there";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }
}

impl Read for Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), "the gzip data end too early; copy or compress the file again")
                }
                _ => error,
            })?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}
