//! The messages in `tests/formats`, and files that contain them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retentiond::decode::{Decoded, Decoder, Format, Message, Options, Salt};
use retentiond::event::{Event, Kind, Money, Time};
use serde::Deserialize;
use serde_json::json;

/// The dimensions that are kept.
pub const DIMENSIONS: [&str; 2] = ["channel", "country"];

/// Parts of a record beside its value, and options of the source.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Beside {
    key: Option<String>,
    /// Whether the value is null.
    null: bool,
    salt: Option<String>,
    /// The record timestamp.
    time: Option<String>,
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

    /// The configuration of a source with this format and mapping; `None` for messages that a line of a file cannot
    /// represent, because they have a key, headers or a salt.
    pub fn source(&self) -> Option<String> {
        let Beside { key, null, salt, time, headers, .. } = &self.beside;
        let beside = fs::read_to_string(self.path.with_extension("toml")).unwrap_or_default();
        let beside: toml::Table = toml::from_str(&beside).unwrap();
        let mut source = toml::Table::new();
        source.insert("format".to_owned(), self.format.name().into());
        source.extend(beside.get("mapping").map(|mapping| ("mapping".to_owned(), mapping.clone())));
        let sources = toml::Table::from_iter([("orders".to_owned(), source.into())]);
        let text = toml::to_string(&toml::Table::from_iter([("sources".to_owned(), sources.into())])).unwrap();
        (key.is_none() && !null && salt.is_none() && time.is_none() && headers.is_empty()).then_some(text)
    }

    /// The message as a line of a file.
    pub fn line(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap().replace('\n', " ")
    }

    /// Its events, as lines of the native format.
    pub fn native(&self) -> Vec<String> {
        match self.decoder().decode_message(&self.message(), Time::MAX) {
            Ok(Decoded::Erase { customer, time: None }) => {
                vec![json!({"type": "erase", "customer_id": customer}).to_string()]
            }
            Ok(Decoded::Erase { customer, time: Some(time) }) => {
                vec![json!({"type": "erase", "customer_id": customer, "time": time.millis()}).to_string()]
            }
            // Alone in a file it cancels nothing.
            Ok(Decoded::Cancellation { .. }) => Vec::new(),
            Ok(decoded) => decoded.events().into_iter().map(native).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// The message with another value.
    pub fn message_of<'a>(&'a self, bytes: &'a [u8]) -> Message<'a> {
        let headers = self.beside.headers.iter();
        Message {
            key: self.beside.key.as_deref().map(str::as_bytes),
            payload: (!self.beside.null).then_some(bytes),
            headers: headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), Some(value.as_bytes()))).collect(),
            time: self.beside.time.as_deref().map(|time| Time::parse(time).unwrap()),
        }
    }
}

fn native(event: &Event<'_>) -> String {
    let amount = |amount: &Money| {
        let text = amount.to_string();
        let (number, currency) = text.split_once(' ').unwrap();
        (number.to_owned(), currency.to_owned())
    };
    let mut line = json!({
        "type": event.kind.event_type().name(),
        "customer_id": event.customer,
        "time": event.time.to_string(),
    });
    let id = match &event.kind {
        Kind::Order { .. } | Kind::Cancel { .. } => "order_id",
        Kind::Refund { .. } => "refund_id",
        _ => "session_id",
    };
    line[id] = event.kind.id().into();
    if let Some((id, of)) = event.kind.as_reversed_refund() {
        let (number, currency) = amount(&of);
        (line["refund_id"], line["reversed"]) = (id.into(), true.into());
        (line["amount"], line["currency"]) = (number.into(), currency.into());
        return line.to_string();
    }
    if let Kind::Order { amount: of, .. } | Kind::Refund { amount: of, .. } | Kind::Cancel { amount: of, .. } =
        &event.kind
    {
        let (number, currency) = amount(of);
        (line["amount"], line["currency"]) = (number.into(), currency.into());
    }
    if let Kind::Order { attributes, .. } | Kind::Customer { attributes, .. } = &event.kind {
        for (dimension, name) in DIMENSIONS.iter().enumerate() {
            line["attributes"][name] = attributes.get(dimension).into();
        }
    }
    line.to_string()
}

/// The messages that can be in files and contain events, by the configuration of their source.
pub fn files() -> BTreeMap<String, Vec<Fixture>> {
    let mut files = BTreeMap::<String, Vec<Fixture>>::new();
    for fixture in all() {
        if let Some(source) = fixture.source() {
            files.entry(source).or_default().push(fixture);
        }
    }
    let happened = |line: String| !line.contains(r#""type":"erase""#);
    files.retain(|_, messages| messages.iter().flat_map(Fixture::native).any(happened));
    files
}

/// Every message, sorted by format and name.
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
