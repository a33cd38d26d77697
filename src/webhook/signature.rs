//! Signatures as in Standard Webhooks: HMAC-SHA256 of `id.timestamp.body`
//! (github.com/standard-webhooks/standard-webhooks, `spec/standard-webhooks.md`, "Signature scheme").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Prefix of a generated secret; the base64-encoded key follows.
const PREFIX: &str = "whsec_";

/// The keys that alerts are signed with. More than one is in use while the receiver rotates keys.
#[derive(Clone)]
pub struct Keys(Vec<Vec<u8>>);

/// Why a secret file could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file contains no secret.
    #[error("contains no secret; write one secret per line: whsec_ followed by base64, or any other text")]
    Empty,
    /// The text after the prefix is not base64.
    #[error("line {0} begins with whsec_, but the rest is not valid base64; copy the whole secret")]
    InvalidBase64(usize),
}

impl Keys {
    /// Parses the content of `alerts.webhook.secret_file`: one secret per line, `whsec_` and base64 or plain text.
    ///
    /// # Errors
    /// When a line is invalid, or there is none.
    pub fn parse(text: &str) -> Result<Keys, KeyError> {
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
        let key = |(number, line): (usize, &str)| match line.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| KeyError::InvalidBase64(number)),
            None => Ok(line.as_bytes().to_vec()),
        };
        let keys: Vec<_> = lines.map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.iter().any(Vec::is_empty) { Err(KeyError::Empty) } else { Ok(Keys(keys)) }
    }

    /// The header `webhook-signature`: one signature per key. `timestamp` is in seconds since the epoch.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let one = |key: &Vec<u8>| {
            // HMAC accepts keys of any length (RFC 2104, section 2).
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
                mac.update(part);
            }
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation shares no code with ours.
    #[test]
    fn equals_the_reference_implementation() {
        let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let body = r#"{"specversion":"1.0","id":"é-1"}"#;
        let reference = standardwebhooks::Webhook::new(secret).unwrap();
        let raw = standardwebhooks::Webhook::from_bytes(b"not generated".to_vec()).unwrap();
        for (id, timestamp) in [("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553), ("", 0), ("a.b", -1)] {
            let theirs = reference.sign(id, timestamp, body.as_bytes()).unwrap();
            assert_eq!(Keys::parse(secret).unwrap().sign(id, timestamp, body.as_bytes()), theirs);
            let both = Keys::parse(&format!("{secret}\n\n not generated \n")).unwrap();
            let theirs = format!("{theirs} {}", raw.sign(id, timestamp, body.as_bytes()).unwrap());
            assert_eq!(both.sign(id, timestamp, body.as_bytes()), theirs);
        }
    }

    #[test]
    fn a_truncated_secret_is_reported_by_line_number_and_not_shown() {
        assert_eq!(Keys::parse("\n \n").err(), Some(KeyError::Empty));
        assert_eq!(Keys::parse("whsec_").err(), Some(KeyError::Empty));
        assert_eq!(Keys::parse("fine\nwhsec_C2FVsBQIhrscChlQIMV+b5s*").err(), Some(KeyError::InvalidBase64(2)));
    }
}
