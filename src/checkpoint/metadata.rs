//! The text that is committed beside an offset: it names the state that belongs to the offset.

use std::fmt;

/// The longest text that is committed beside an offset, in bytes; a broker takes 4,096 by default.
pub const MAX_BYTES: usize = 255;

const VERSION: &str = "v1";
const GENESIS: &str = "genesis";

/// What the text beside a committed offset says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Nothing was applied before this offset: `v1;genesis;<since>;<store>`.
    Genesis {
        /// Wall clock of the very first start, epoch milliseconds: earlier silences raise no alerts.
        since: i64,
        /// The id of the store that later states go to.
        store: String,
    },
    /// The state is in these files: `v1;<name>;<digest>`.
    Manifest {
        /// The name of the manifest in the store.
        name: String,
        /// The first digits of its digest, hexadecimal.
        digest: String,
    },
}

/// The text was not written by this program, or by a later version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the metadata of a retentiond offset")]
pub struct Foreign;

impl Metadata {
    /// Reads the text.
    ///
    /// # Errors
    /// When it is anything but what [`Metadata`] prints: empty, of somebody else, or of another version.
    pub fn parse(text: &str) -> Result<Metadata, Foreign> {
        if text.len() > MAX_BYTES || !text.is_ascii() {
            return Err(Foreign);
        }
        let fields: Vec<&str> = text.split(';').collect();
        let parsed = match fields[..] {
            [VERSION, GENESIS, since, store] if !store.is_empty() => {
                Metadata::Genesis { since: since.parse().map_err(|_| Foreign)?, store: store.to_owned() }
            }
            [VERSION, name, digest] if !name.is_empty() && name != GENESIS && !digest.is_empty() => {
                Metadata::Manifest { name: name.to_owned(), digest: digest.to_owned() }
            }
            _ => return Err(Foreign),
        };
        // Whatever does not print as it was read, such as a number with a plus sign, is not ours.
        if parsed.to_string() == text { Ok(parsed) } else { Err(Foreign) }
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metadata::Genesis { since, store } => write!(f, "{VERSION};{GENESIS};{since};{store}"),
            Metadata::Manifest { name, digest } => write!(f, "{VERSION};{name};{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        let all = [
            (Metadata::Genesis { since: 1_700_000_000_000, store: "s1".into() }, "v1;genesis;1700000000000;s1"),
            (
                Metadata::Manifest { name: "shop/p3/0007-ab.json".into(), digest: "0011aabb".into() },
                "v1;shop/p3/0007-ab.json;0011aabb",
            ),
        ];
        for (metadata, text) in all {
            assert_eq!(metadata.to_string(), text);
            assert_eq!(Metadata::parse(text), Ok(metadata));
        }
    }

    #[test]
    fn anything_else_is_foreign() {
        let long = format!("v1;{};00", "n".repeat(MAX_BYTES));
        let foreign = [
            "",
            "v1",
            "v1;genesis",
            "v1;genesis;1",
            "v1;genesis;1;",
            "v1;genesis;+1;s",
            "v1;genesis;x;s",
            "v1;name;",
            "v1;;00",
            "v1;name;00;more",
            "v2;name;00",
            " v1;name;00",
            "v1;n\u{e4}me;00",
            "somebody else's",
            &long,
        ];
        for text in foreign {
            assert_eq!(Metadata::parse(text), Err(Foreign), "{text:?}");
        }
    }
}
