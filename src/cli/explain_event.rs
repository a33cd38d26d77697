//! `retentiond explain --event FILE`: shows how a message decodes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::IgnoredAny;
use tracing::warn;

use super::{ConfigFile, replay};
use crate::config::Format;
use crate::decode::{Decoded, Decoder, Message, Rejection};
use crate::event::{Event, Kind, Time, wall_clock};
use crate::files::{self, EventFile, Layout};
use crate::wiring::worker_config;

/// Timeout for fetching a schema.
const SCHEMA_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of lines to explain.
const SHOWN_LINES: usize = 20;

/// The message to explain.
#[derive(Debug, clap::Args)]
pub(super) struct EventQuestion {
    /// File with the value of one message, as in the topic; "-" for standard input. For a file with rows or several
    /// messages, the first 20 are explained.
    #[arg(long, value_name = "FILE")]
    pub(super) event: Option<PathBuf>,
    /// The format, such as "shopify", without options.
    #[arg(long, value_name = "FORMAT", value_parser = super::parse_format, requires = "event", conflicts_with_all = ["source", "path"])]
    format: Option<Format>,
    /// The source whose format and mapping the message has [default: that of all sources, if they are equal].
    #[arg(long, value_name = "NAME", requires = "event")]
    source: Option<String>,
    /// The key of the message.
    #[arg(long, value_name = "TEXT", requires = "event")]
    key: Option<String>,
    /// A header of the message; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header, requires = "event")]
    headers: Vec<(String, String)>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl EventQuestion {
    pub(super) fn run(self, config: &ConfigFile) -> Result<()> {
        let mut settings = config.load_without_secrets()?;
        settings.read_salts()?;
        let source = replay::chosen(&settings, self.source.as_deref(), self.format)?;
        let mut decoder = worker_config::decoder(&settings, &source);
        if let Some(schemas) = worker_config::registry(&settings) {
            decoder = decoder.with_schemas(schemas);
        }
        let path = self.event.clone().unwrap_or_else(|| PathBuf::from("-"));
        let latest = wall_clock().plus(settings.customers.max_future.get());
        let bytes = match content(&path)? {
            Content::Message(bytes) => bytes,
            Content::Lines(file) => return explain_lines(file, &decoder, latest),
        };
        let headers = self.headers.iter();
        let message = Message {
            key: self.key.as_deref().map(str::as_bytes),
            payload: Some(&bytes),
            headers: headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), Some(value.as_bytes()))).collect(),
            time: Some(wall_clock()),
        };
        wait_for_schema(&decoder, &message)?;
        super::print(&meaning(&decoder.decode_message(&message, latest), &decoder));
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()));
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

/// The content of a file.
enum Content {
    /// One message.
    Message(Vec<u8>),
    /// Rows or several messages.
    Lines(EventFile),
}

/// Detects the content of a file. The output of a schema registry's serializer begins with a byte that no text begins
/// with.
fn content(path: &Path) -> Result<Content> {
    let raw = read(path)?;
    if matches!(raw.first(), None | Some(0 | 1)) {
        return Ok(Content::Message(raw));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let failed = || format!("{}: cannot be read", path.display());
    let (layout, mut reader) = files::open_reader(Box::new(Cursor::new(raw.clone())), &name).with_context(failed)?;
    if layout == Layout::Parquet {
        return Ok(Content::Lines(EventFile { path: path.to_owned(), layout, reader }));
    }
    let mut text = Vec::new();
    reader.read_to_end(&mut text).with_context(failed)?;
    let lines = || text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    let is_message = match layout {
        Layout::Json => serde_json::from_slice::<IgnoredAny>(&text).is_ok(),
        Layout::Csv => lines() == 1,
        _ => lines() <= 1,
    };
    if !is_message {
        return Ok(Content::Lines(EventFile { path: path.to_owned(), layout, reader: Box::new(Cursor::new(text)) }));
    }
    if text != raw {
        warn!(
            "{}: a message with these very bytes would be rejected; shown is what its text in plain UTF-8 means",
            path.display()
        );
    }
    Ok(Content::Message(text))
}

/// Explains the first lines.
fn explain_lines(file: EventFile, decoder: &Decoder, latest: Time) -> Result<()> {
    let (mut text, mut count) = (String::new(), 0);
    crate::replay::read(file, decoder, latest, &mut |line, decoded| {
        count += 1;
        if count <= SHOWN_LINES {
            _ = writeln!(text, "line {line}: {}", meaning(&decoded, decoder).trim_end());
        }
    })?;
    if count > SHOWN_LINES {
        _ = writeln!(text, "... and {} more", count - SHOWN_LINES);
    }
    super::print(text.trim_end());
    Ok(())
}

fn wait_for_schema(decoder: &Decoder, message: &Message<'_>) -> Result<()> {
    let begun = Instant::now();
    while !decoder.is_ready_for(message) {
        if begun.elapsed() > SCHEMA_WAIT {
            bail!("{}", decoder.last_error().unwrap_or_else(|| "the schema did not arrive in time".to_owned()));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// One line for each event.
fn meaning(decoded: &Result<Decoded<'_>, Rejection>, decoder: &Decoder) -> String {
    let dimensions = decoder.dimensions();
    match decoded {
        Ok(Decoded::Event(event)) => line(event, dimensions),
        Ok(Decoded::Cancellation { event, placed }) => {
            format!("{}  (if the order placed at {placed} counted)", line(event, dimensions))
        }
        Ok(Decoded::Several { events, told_before }) => events.iter().fold(String::new(), |mut lines, event| {
            let again = if event.time < *told_before { "  (an earlier message has told this)" } else { "" };
            _ = writeln!(lines, "{}{again}", line(event, dimensions));
            lines
        }),
        Ok(Decoded::Erase { customer, time: Some(time) }) => format!("erase: customer {customer}, as of {time}"),
        Ok(Decoded::Erase { customer, time: None }) => {
            format!(
                "erase: customer {customer}, as of the timestamp of the Kafka record, for the message names no time"
            )
        }
        Ok(Decoded::Unknown(unknown)) => {
            format!("unknown: {} (counted, but in no figure)", decoder.explain_unknown(unknown))
        }
        Ok(Decoded::Batch(parts)) => {
            let lines: Vec<_> = parts.iter().map(|part| meaning(&part.decoded, decoder)).collect();
            lines.iter().map(|lines| lines.trim_end()).collect::<Vec<_>>().join("\n")
        }
        Ok(Decoded::Skipped(skip)) => format!("skipped: {}; counted, but in no figure", skip.label()),
        Err(rejection) => format!("rejected: {rejection}"),
    }
}

fn line(event: &Event<'_>, dimensions: &[String]) -> String {
    let mut line = format!("{}: customer {}, {}", event.kind.event_type().name(), event.customer, event.time);
    match event.kind.id() {
        Some(id) => _ = write!(line, ", id {id}"),
        None => line.push_str(", without an id"),
    }
    match &event.kind {
        Kind::Order { amount, .. }
        | Kind::Refund { amount, .. }
        | Kind::Cancel { amount, .. }
        | Kind::Cost { amount, .. } => _ = write!(line, ", {amount}"),
        Kind::Session { .. } | Kind::Customer { .. } | Kind::Feedback { .. } => {}
    }
    if let Kind::Order { attributes, .. } | Kind::Customer { attributes, .. } = &event.kind {
        for (place, name) in dimensions.iter().enumerate() {
            if let Some(value) = attributes.get(place) {
                _ = write!(line, ", {name} {value}");
            }
        }
    }
    line
}
