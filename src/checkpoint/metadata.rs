//! The metadata string committed with an offset, which names the state at that offset. ASCII, shorter than 256 bytes.
//!
//! `v1;genesis;<since>;<store id>`: an initial commit. No record is applied yet; silences due before `since` (epoch
//! milliseconds) raise no alerts.
//! `v1;<manifest name>;<digest prefix>`: the state of that manifest in the group's directory.

use std::fmt;
use std::str::FromStr;

use crate::event::Time;

/// Number of hexadecimal digits of the manifest's digest in the metadata.
pub const DIGEST_PREFIX: usize = 32;

/// A reference to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    /// Its name in the group's directory, such as `p3/0000000017-5d0fe6c4a8c1b2d3.json`.
    pub name: String,
    /// Its SHA-256 in hexadecimal, or the first [`DIGEST_PREFIX`] digits.
    pub digest: String,
}

/// The metadata committed with an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// An initial commit: no record is applied yet.
    Genesis {
        /// Silences that were due before this time raise no alerts.
        since: Time,
        /// The store that will hold the state.
        store: String,
    },
    /// The state of this manifest.
    State(ManifestRef),
}

/// Metadata that retentiond did not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the committed offset carries {0:?}, which names no state of retentiond: another program committed or reset it; \
     restore the offsets with `retentiond rewind`, or choose another kafka.group_id to start over"
)]
pub struct ForeignMetadata(pub String);

/// Metadata that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// See [`ForeignMetadata`].
    #[error(transparent)]
    Foreign(#[from] ForeignMetadata),
    /// A newer format.
    #[error(
        "the committed offset was written by a newer version of retentiond ({0:?}); run that version or a newer one"
    )]
    Newer(String),
}

impl Metadata {
    /// The metadata for a manifest. Truncates the digest to the stored prefix, so that the value read back compares
    /// equal.
    #[must_use]
    pub fn of(named: &ManifestRef) -> Metadata {
        let digest = named.digest.get(..DIGEST_PREFIX).unwrap_or(&named.digest);
        Metadata::State(ManifestRef { name: named.name.clone(), digest: digest.to_owned() })
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metadata::Genesis { since, store } => write!(f, "v1;genesis;{};{store}", since.millis()),
            Metadata::State(ManifestRef { name, digest }) => {
                write!(f, "v1;{name};{}", digest.get(..DIGEST_PREFIX).unwrap_or(digest))
            }
        }
    }
}

impl FromStr for Metadata {
    type Err = MetadataError;

    fn from_str(text: &str) -> Result<Metadata, MetadataError> {
        let foreign = || ForeignMetadata(text.chars().take(300).collect());
        let (version, rest) = text.split_once(';').ok_or_else(foreign)?;
        if version != "v1" {
            let number = version.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
            return Err(match number {
                Some(number) if number > 1 => MetadataError::Newer(foreign().0),
                _ => foreign().into(),
            });
        }
        let parts: Vec<_> = rest.split(';').collect();
        let parsed = match *parts.as_slice() {
            ["genesis", since, store] => since
                .parse()
                .ok()
                .and_then(|millis| Time::from_millis(millis).ok())
                .filter(|_| is_word(store))
                .map(|since| Metadata::Genesis { since, store: store.to_owned() }),
            [name, digest] if is_manifest_name(name) && is_digest_prefix(digest) => {
                Some(Metadata::State(ManifestRef { name: name.to_owned(), digest: digest.to_owned() }))
            }
            _ => None,
        };
        // Accept only the canonical spelling: this program never writes any other.
        parsed.filter(|metadata| metadata.to_string() == text).ok_or_else(|| foreign().into())
    }
}

/// Letters, digits, `-` and `_`; 1 to 64 of them.
pub(super) fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}

/// `p<partition>/<word>.json`.
fn is_manifest_name(name: &str) -> bool {
    let parts =
        name.strip_suffix(".json").and_then(|name| name.strip_prefix('p')).and_then(|name| name.split_once('/'));
    parts.is_some_and(|(partition, file)| partition.parse::<u32>().is_ok() && is_word(file))
}

fn is_digest_prefix(text: &str) -> bool {
    text.len() == DIGEST_PREFIX && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn both_kinds_survive() {
        let digest = format!("{DIGEST}fedcba98");
        for (metadata, text) in [
            (
                Metadata::Genesis { since: Time::clamped(1_767_323_045_678), store: "5d0fe6c4".into() },
                "v1;genesis;1767323045678;5d0fe6c4".to_owned(),
            ),
            (
                Metadata::State(ManifestRef { name: "p31/0000000017-5d0f.json".into(), digest }),
                format!("v1;p31/0000000017-5d0f.json;{DIGEST}"),
            ),
        ] {
            assert_eq!(metadata.to_string(), text);
            assert_eq!(text.parse::<Metadata>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn everything_else_is_foreign() {
        for text in [
            "",
            "v1",
            "v1;",
            "v1;genesis;;x",
            "v1;genesis;-5;x",
            "v1;genesis;+5;x",
            "v1;genesis;05;x",
            "v1;genesis;5;",
            "v1;genesis;5;a;b",
            "v1;genesis;5;a b",
            "v1;p1/a.json;0123",
            "v1;p1/../a.json;0123456789abcdef0123456789abcdef",
            "v1;p01/a.json;0123456789ABCDEF0123456789abcdef",
            "v1;/a.json;0123456789abcdef0123456789abcdef",
            "v1;p1/a.json;0123456789abcdef0123456789abcdef;",
            " v1;genesis;5;a",
            "v0;genesis;5;a",
            "flink-checkpoint-17",
        ] {
            let error = text.parse::<Metadata>().unwrap_err();
            assert!(matches!(error, MetadataError::Foreign(_)), "{text}: {error}");
            assert!(error.to_string().contains("rewind"), "{error}");
        }
        assert_eq!("v2;x;y".parse::<Metadata>(), Err(MetadataError::Newer("v2;x;y".into())));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_alike(text in "(v1;)?[ -~é]{0,80}(;[0-9a-f]{32})?") {
            if let Ok(metadata) = text.parse::<Metadata>() {
                prop_assert_eq!(metadata.to_string(), text);
            }
        }

        #[test]
        fn it_is_short(partition in 0..i32::MAX, sequence in any::<u64>(), nonce in any::<u64>()) {
            let name = super::super::files::stem(partition, sequence, nonce) + ".json";
            let text = Metadata::State(ManifestRef { name, digest: DIGEST.into() }).to_string();
            prop_assert!(text.len() < 256 && text.is_ascii());
            prop_assert!(text.parse::<Metadata>().is_ok(), "{}", text);
        }
    }
}
