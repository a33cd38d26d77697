//! `retentiond replay`: computes the figures of event files with the same engine, without Kafka.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Serialize;
use tracing::warn;

use super::{ConfigFile, progress, table};
use crate::config::{Format, Millis, Settings, Source};
use crate::engine::axis::Pane;
use crate::engine::inactivity::release::Alert;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::{Engine, WindowParts, window_ids};
use crate::event::{HOUR, REPORTING, Time, wall_clock};
use crate::files;
use crate::output::alerts;
use crate::output::metrics::openmetrics::{self, WindowSeries};
use crate::output::summary::{Summary, WindowSummary, pane_summary};
use crate::replay::{AsOf, History, Tally};
use crate::wiring::worker_config;

/// Compute the figures of event files: JSON in the format of the source, native by default; CSV with the header
/// `order_id,customer_id,time,amount,currency` (order_id optional, also `type` and others) or columns that the mapping
/// of the source names; or Parquet with such columns. Compression, encoding and layout are found out from the content;
/// see "Files" in docs/integrate/formats.md.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Event files, in the order in which copies of one event are told apart.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// The instant of the figures, RFC 3339 or epoch milliseconds [default: the last event]. Also limits alerts and
    /// win-backs to those decided by then.
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    as_of: Option<Time>,
    /// The format of the messages in NDJSON files, such as "shopify", without options.
    #[arg(long, value_name = "FORMAT", value_parser = super::parse_format, conflicts_with = "source")]
    input_format: Option<Format>,
    /// The source whose format and mapping the messages have [default: that of all sources, if they are equal].
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    format: Output,
    /// Print the figures of every pane since the first order: JSON lines, or OpenMetrics with timestamps.
    #[arg(long)]
    series: bool,
    /// Print at most one pane per window in this time, such as "1h" [default: 1h for OpenMetrics, every pane for JSON].
    #[arg(long, requires = "series", value_name = "SPAN", value_parser = parse_step)]
    step: Option<Millis>,
    /// Also print every dimension value (OpenMetrics only).
    #[arg(long)]
    segments: bool,
    /// Also write alerts and win-backs to a file as the daemon would send them: one CloudEvents message per line.
    /// Silences count from the beginning unless alerts.since is set.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// A label to add to every sample (OpenMetrics only), such as job=retentiond.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

/// What OpenMetrics shows of windows with fine panes, so that years stay small.
const OPENMETRICS_STEP: Millis = Millis::clamped(HOUR);

fn parse_step(text: &str) -> Result<Millis, String> {
    match Millis::parse(text)? {
        Millis::ZERO => Err("write a span such as 15m, 1h or 1d".to_owned()),
        step => Ok(step),
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'_') {
        return Err("a label name consists of letters, digits and \"_\", and does not begin with a digit".to_owned());
    }
    if ["window", "currency", "dimension", "value"].contains(&name) {
        return Err(format!("the metrics already have a label {name}; choose another"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text tables.
    Table,
    /// One JSON object; with --series one per line.
    Json,
    /// OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.
    Openmetrics,
}

impl Replay {
    pub(super) fn run(self) -> Result<()> {
        let mut settings = self.config.load_without_secrets()?;
        settings.read_salts()?;
        let source = chosen(&settings, self.source.as_deref(), self.input_format)?;
        let history = read(&self.files, &settings, &source)?;
        report_rejections(&history.tally);
        ensure!(!history.is_empty(), "no event in {} line(s): nothing to compute", history.tally.lines);
        let (mut engine, as_of) = self.apply(history, &settings)?;
        report_unconverted(&mut engine);
        if self.series {
            return self.print_series(&mut engine, &settings);
        }
        match self.format {
            Output::Table => super::print(&table::render(&summary(&mut engine, &settings, as_of.as_ref()))),
            Output::Json => super::print(&serde_json::to_string(&summary(&mut engine, &settings, as_of.as_ref()))?),
            Output::Openmetrics => {
                let at = self.as_of.or(engine.clock().watermark()).context("no event")?;
                self.print_openmetrics(&mut engine, &settings, at, at)?;
            }
        }
        Ok(())
    }

    fn apply(&self, history: History, settings: &Settings) -> Result<(Engine, Option<AsOf>)> {
        let mut out = None;
        let failed = |path: &Path| format!("{}: cannot write alerts", path.display());
        if let Some(path) = &self.alerts {
            out = Some(BufWriter::new(File::create(path).with_context(|| failed(path))?));
        }
        let source = alerts::source(&settings.kafka.group_id);
        let mut written = Ok(());
        let tell = |alert: &Alert| {
            if let (Some(out), Ok(())) = (&mut out, &written) {
                let mut line = alerts::json(alert, &source);
                line.push(b'\n');
                written = out.write_all(&line);
            }
        };
        let bar = progress::bar(history.len() as u64, "applying {wide_bar} {pos}/{len} {eta}");
        let spec = Arc::new(worker_config::replay_spec(settings));
        let progress = |done| bar.set_position(done);
        let applied = match self.as_of {
            None => (history.apply_telling(spec, progress, tell), None),
            Some(at) => {
                let (engine, as_of) = history.apply_as_of(spec, at, progress, tell);
                (engine, Some(as_of))
            }
        };
        if let (Some(mut out), Some(path)) = (out, &self.alerts) {
            written.and_then(|()| out.flush()).with_context(|| failed(path))?;
        }
        bar.finish_and_clear();
        Ok(applied)
    }

    fn print_series(&self, engine: &mut Engine, settings: &Settings) -> Result<()> {
        let to = self.as_of.or(engine.clock().watermark()).context("no event")?;
        let from = engine.first_order().unwrap_or(to);
        match self.format {
            Output::Table => {
                bail!("--series prints every pane, which no table holds; add --format json or openmetrics")
            }
            Output::Json => self.print_json_lines(engine, settings, from, to),
            Output::Openmetrics => self.print_openmetrics(engine, settings, from, to),
        }
    }

    fn print_json_lines(&self, engine: &mut Engine, settings: &Settings, from: Time, to: Time) -> Result<()> {
        let background = worker_config::background(settings, engine.first_event());
        let mut out = BufWriter::new(std::io::stdout().lock());
        let every_pane = Millis::clamped(1);
        for run in series(engine, from, to, self.step.unwrap_or(every_pane)) {
            for (pane, figures) in run.panes {
                let spec = engine.spec();
                let line = PaneLine {
                    at: spec.first_instant(run.window, pane),
                    figures: pane_summary(spec, run.window, pane, &figures, &background),
                };
                if unless_closed(writeln!(out, "{}", serde_json::to_string(&line)?))?.is_none() {
                    return Ok(());
                }
            }
        }
        unless_closed(out.flush())?;
        Ok(())
    }

    fn print_openmetrics(&self, engine: &mut Engine, settings: &Settings, from: Time, to: Time) -> Result<()> {
        let background = worker_config::background(settings, engine.first_event());
        let step = self.step.unwrap_or(OPENMETRICS_STEP);
        let mut series = series(engine, from, to, step);
        if self.segments {
            let segments: Vec<_> = series.iter().flat_map(|run| segment_series(engine, run)).collect();
            series.extend(segments);
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        let written = openmetrics::write(&mut out, engine.spec(), &background, &series, &self.labels, to);
        unless_closed(written.and_then(|()| out.flush()))?;
        Ok(())
    }
}

/// The decoder of the files' messages.
pub(super) fn chosen(settings: &Settings, name: Option<&str>, format: Option<Format>) -> Result<Source> {
    let mut sources = settings.sources.iter();
    if let Some(format) = format {
        return Ok(Source { format, ..Source::default() });
    }
    if let Some(name) = name {
        let found = settings.source(name).map(|(_, source)| source.clone());
        let names = || settings.source_names().join(", ");
        return found.with_context(|| format!("the configuration has no source {name:?}; its sources are {}", names()));
    }
    let (_, first) = sources.next().context("no source is configured")?;
    let reading = |source: &Source| (source.format, source.mapping.clone(), source.also.clone());
    let same = |(_, other): (_, &Source)| reading(other) == reading(first);
    ensure!(sources.all(same), "the sources have different formats; name the one of the files with --source NAME");
    Ok(first.clone())
}

fn read(paths: &[PathBuf], settings: &Settings, source: &Source) -> Result<History> {
    let bytes = paths.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
    let bar = progress::bar(bytes, "reading  {wide_bar} {bytes}/{total_bytes} {eta}");
    let decoder = worker_config::decoder(settings, source);
    let latest = wall_clock().plus(settings.customers.max_future.get());
    let mut history = History::new(settings.customers.dedup_for.get());
    for path in paths {
        let file = open(path, &bar)?;
        history.read(file, &decoder, latest)?;
    }
    bar.finish_and_clear();
    Ok(history)
}

pub(super) fn open(path: &Path, bar: &ProgressBar) -> Result<files::EventFile> {
    let bar = bar.clone();
    let file = files::open(path, move |file: File| bar.wrap_read(file));
    let file = file.with_context(|| format!("{}: cannot be read", path.display()))?;
    if file.layout == files::Layout::Empty {
        warn!("{} is empty", path.display());
    }
    Ok(file)
}

fn summary(engine: &mut Engine, settings: &Settings, as_of: Option<&AsOf>) -> Summary {
    let Some(at) = as_of.map(AsOf::at).or(engine.clock().watermark()) else { return Summary::before_any_event() };
    let background = worker_config::background(settings, engine.first_event());
    let periods = Periods::Since(engine.first_order().unwrap_or(at));
    let mut snapshot = Snapshot::empty(engine.spec(), at, periods);
    snapshot.add(engine);
    if let Some(as_of) = as_of {
        as_of.correct(&mut snapshot);
    }
    Summary::new(engine.spec(), &snapshot, &background)
}

/// One window of one pane, as a line of JSON.
#[derive(Serialize)]
struct PaneLine {
    /// The first instant of the pane.
    at: Time,
    #[serde(flatten)]
    figures: WindowSummary,
}

/// The panes to show from one instant to another; always includes the last one.
fn series(engine: &mut Engine, from: Time, to: Time, step: Millis) -> Vec<WindowSeries> {
    let spec = engine.spec().clone();
    let run = |window| {
        let (from, to) = (spec.pane(window, from), spec.pane(window, to));
        let shown = |&(pane, _): &(Pane, _)| pane == to || openmetrics::is_shown(&spec, window, pane, step.get());
        let panes = (from..).zip(engine.series(window, from, to)).filter(shown);
        WindowSeries { window, segment: None, panes: panes.filter_map(|(p, figures)| Some((p, figures?))).collect() }
    };
    window_ids(&spec).map(run).collect()
}

/// The same window and panes by dimension value.
fn segment_series(engine: &mut Engine, run: &WindowSeries) -> Vec<WindowSeries> {
    let mut found = BTreeMap::<(usize, String), Vec<(Pane, WindowParts)>>::new();
    for &(pane, _) in &run.panes {
        for (dimension, value, figures) in engine.segment_figures(run.window, pane) {
            found.entry((dimension, value)).or_default().extend(figures.map(|figures| (pane, figures)));
        }
    }
    let dimensions = &engine.spec().dimensions;
    let named = |((dimension, value), panes): ((usize, String), _)| WindowSeries {
        window: run.window,
        segment: Some((dimensions[dimension].name.clone(), value)),
        panes,
    };
    found.into_iter().map(named).collect()
}

/// A closed pipe (`| head`) is not an error, but stops the output.
fn unless_closed(written: std::io::Result<()>) -> std::io::Result<Option<()>> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        other => other.map(Some),
    }
}

fn report_unconverted(engine: &mut Engine) {
    for (currency, amounts) in engine.take_unconverted() {
        warn!(
            "{amounts} amount(s) in {currency} have no rate in currency.rates_file on their day; they are left out of \
             {REPORTING}"
        );
    }
}

pub(super) fn report_rejections(tally: &Tally) {
    if tally.duplicates > 0 {
        warn!(duplicates = tally.duplicates, "duplicate events were ignored");
    }
    if tally.unknown > 0 {
        warn!(events = tally.unknown, "events of unknown types were ignored");
    }
    for (skip, messages) in &tally.skipped {
        warn!("{messages} message(s) were deliberately skipped: {}", skip.label());
    }
    let rejected: u64 = tally.rejected.values().sum();
    if rejected == 0 {
        return;
    }
    for example in &tally.examples {
        warn!("{}, line {}: {}", example.path.display(), example.line, example.rejection);
    }
    let reasons: Vec<_> = tally.rejected.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
    warn!("{rejected} of {} line(s) were rejected: {}", tally.lines, reasons.join(", "));
}
