//! The messages below `tests/formats`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retentiond::decode::{Decoder, Format, Message, Options, Salt};
use serde::Deserialize;

/// The dimensions that are kept.
pub const DIMENSIONS: [&str; 2] = ["channel", "country"];

/// What stands beside a message.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Beside {
    key: Option<String>,
    /// Whether the value is null.
    null: bool,
    salt: Option<String>,
    headers: BTreeMap<String, String>,
    mapping: Options,
}

/// A message in a format.
pub struct Fixture {
    pub path: PathBuf,
    pub format: Format,
    pub bytes: Vec<u8>,
    beside: Beside,
}

impl Fixture {
    pub fn decoder(&self) -> Decoder {
        let mut options = self.beside.mapping.clone();
        options.salt = self.beside.salt.as_deref().map(Salt::new);
        let decoder = Decoder::with_options(self.format, DIMENSIONS.map(str::to_owned).to_vec(), &options);
        decoder.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    pub fn message(&self) -> Message<'_> {
        self.message_of(&self.bytes)
    }

    /// Its value, unless that is null.
    #[allow(dead_code, reason = "each test binary uses a part")]
    pub fn payload(&self) -> Option<&[u8]> {
        (!self.beside.null).then_some(&*self.bytes)
    }

    /// The same with another value.
    pub fn message_of<'a>(&'a self, bytes: &'a [u8]) -> Message<'a> {
        let headers = self.beside.headers.iter();
        Message {
            key: self.beside.key.as_deref().map(str::as_bytes),
            payload: (!self.beside.null).then_some(bytes),
            headers: headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), Some(value.as_bytes()))).collect(),
        }
    }
}

/// Every message, in the order of formats and names.
pub fn all() -> impl Iterator<Item = Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    Format::ALL.into_iter().flat_map(move |format| {
        let dir = root.join(format.name());
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        paths.sort();
        paths.into_iter().map(move |path| {
            let beside = fs::read_to_string(path.with_extension("toml")).unwrap_or_default();
            let beside = toml::from_str(&beside).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Fixture { bytes: fs::read(&path).unwrap(), path, format, beside }
        })
    })
}
