//! Reads the values of a JSON file that is pretty-printed or a list, with the number of the line where each begins.

use std::io::{self, BufRead};

use crate::files::MAX_LINE_BYTES;

/// Reads one value after the other, skipping white space and commas; a list is read element by element.
pub(super) struct Values<'r> {
    reader: &'r mut dyn BufRead,
    /// Number of line ends read so far.
    line_ends: u64,
    /// Whether a list is open.
    in_list: bool,
}

/// Parser state at the next byte of a value.
#[derive(Default)]
struct State {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

impl State {
    /// Processes one byte; returns whether the value ends with it.
    fn take(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl<'r> Values<'r> {
    pub fn new(reader: &'r mut dyn BufRead) -> Values<'r> {
        Values { reader, line_ends: 0, in_list: false }
    }

    /// Number of lines read so far.
    pub fn lines(&self) -> u64 {
        self.line_ends + 1
    }

    /// Reads the next value. Returns the line where it begins, or `None` at the end.
    pub fn next(&mut self, value: &mut Vec<u8>) -> io::Result<Option<u64>> {
        value.clear();
        let mut begin = None;
        let mut state = State::default();
        loop {
            let bytes = self.reader.fill_buf()?;
            if bytes.is_empty() {
                return self.at_end(begin, &state);
            }
            let mut taken = 0;
            let mut is_done = false;
            for &byte in bytes {
                if begin.is_some() && state.depth == 0 && !state.in_text && ends_plain(byte) {
                    is_done = true;
                    break;
                }
                taken += 1;
                self.line_ends += u64::from(byte == b'\n');
                match (begin, byte) {
                    (None, b',' | b' ' | b'\t' | b'\r' | b'\n' | 0x1e) => continue,
                    (None, b'[') if !self.in_list => {
                        self.in_list = true;
                        continue;
                    }
                    (None, b']') => {
                        self.in_list = false;
                        continue;
                    }
                    (None, _) => begin = Some(self.line_ends + 1),
                    (Some(_), _) => {}
                }
                value.push(byte);
                if state.take(byte) {
                    is_done = true;
                    break;
                }
            }
            self.reader.consume(taken);
            if is_done {
                return Ok(begin);
            }
            if value.len() > MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a JSON value has more than 64 MiB"));
            }
        }
    }

    fn at_end(&self, begin: Option<u64>, state: &State) -> io::Result<Option<u64>> {
        let truncated = |what: String| Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        match begin {
            Some(line) if state.depth > 0 || state.in_text => {
                truncated(format!("the JSON value that begins in line {line} is cut off; copy the file again"))
            }
            None if self.in_list => truncated("the JSON list is cut off; copy the file again".to_owned()),
            begin => Ok(begin),
        }
    }
}

/// Whether a byte ends a number or literal.
fn ends_plain(byte: u8) -> bool {
    matches!(byte, b',' | b']' | b'{' | b'[') || byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values as `LINE:value`.
    fn values(text: &str) -> io::Result<Vec<String>> {
        // Read in the smallest pieces, so that values span them.
        let mut reader = io::BufReader::with_capacity(1, text.as_bytes());
        let mut values = Values::new(&mut reader);
        let (mut value, mut found) = (Vec::new(), Vec::new());
        while let Some(line) = values.next(&mut value)? {
            found.push(format!("{line}:{}", String::from_utf8_lossy(&value)));
        }
        Ok(found)
    }

    #[test]
    fn values_are_found_in_every_layout() {
        for (text, expected) in [
            ("[{\"a\":1},\n{\"b\":[2]}]\n", &["1:{\"a\":1}", "2:{\"b\":[2]}"][..]),
            ("{\n\"a\": \"}\\\"{\"\n}\n{\n}", &["1:{\n\"a\": \"}\\\"{\"\n}", "4:{\n}"]),
            ("{\"a\":1}{\"b\":2}", &["1:{\"a\":1}", "1:{\"b\":2}"]),
            ("{\"a\":1},\n{\"b\":2},\n", &["1:{\"a\":1}", "2:{\"b\":2}"]),
            ("[]\n[\n{}]", &["3:{}"]),
            ("[1, \"x\", [2], null]", &["1:1", "1:\"x\"", "1:[2]", "1:null"]),
        ] {
            assert_eq!(values(text).unwrap(), expected, "{text:?}");
        }
        for text in ["[{\"a\":1},", "[{\"a\":1}", "{\"a\":", "[{\"a\":\"x"] {
            assert!(values(text).unwrap_err().to_string().contains("cut off"), "{text}");
        }
    }
}
