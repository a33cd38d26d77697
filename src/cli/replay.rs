//! `retentiond replay`: the same engine over files, without Kafka.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing::warn;

use super::{ConfigFile, table};
use crate::app::blueprint;
use crate::config::{Format, Settings};
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::{Engine, window_ids};
use crate::event::{Time, wall_clock};
use crate::output::metrics::openmetrics::{self, WindowSeries};
use crate::output::summary::{Summary, WindowSummary, pane_summary};
use crate::replay::History;
use crate::source::files;

/// Compute the figures of event files: NDJSON in the native format, or CSV with the header
/// `order_id,customer_id,time,amount,currency` (order_id optional, other columns are attributes); `.gz` and `.zst` too.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Event files, in the order in which copies of one event are told apart.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// The instant at which the figures are read, RFC 3339 or epoch milliseconds [default: the last event].
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    as_of: Option<Time>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    format: Output,
    /// Print the figures of every pane since the first order: JSON lines, or OpenMetrics with timestamps.
    #[arg(long)]
    series: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for a person.
    Table,
    /// One JSON object; with --series one a line.
    Json,
    /// OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.
    Openmetrics,
}

impl Replay {
    pub(super) fn run(self) -> Result<()> {
        let settings = self.config.load_without_secrets()?;
        let history = read(&self.files, &settings)?;
        report_rejections(&history);
        ensure!(!history.is_empty(), "no event in {} line(s): nothing to compute", history.lines);
        let mut engine = apply(history, &settings);
        if self.series {
            return self.print_series(&mut engine, &settings);
        }
        match self.format {
            Output::Table => super::print(&table::render(&summary(&mut engine, &settings, self.as_of))),
            Output::Json => super::print(&serde_json::to_string(&summary(&mut engine, &settings, self.as_of))?),
            Output::Openmetrics => {
                let at = self.as_of.or(engine.clock().watermark()).context("no event")?;
                print_openmetrics(&mut engine, &settings, at, at)?;
            }
        }
        Ok(())
    }

    fn print_series(&self, engine: &mut Engine, settings: &Settings) -> Result<()> {
        let to = self.as_of.or(engine.clock().watermark()).context("no event")?;
        let from = engine.first_order().unwrap_or(to);
        match self.format {
            Output::Table => {
                bail!("--series prints every pane, which no table holds; add --format json or openmetrics")
            }
            Output::Json => print_json_lines(engine, settings, from, to),
            Output::Openmetrics => print_openmetrics(engine, settings, from, to),
        }
    }
}

fn read(paths: &[PathBuf], settings: &Settings) -> Result<History> {
    let bytes = paths.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
    let bar = progress_bar(bytes, "reading  {wide_bar} {bytes}/{total_bytes} {eta}");
    let decoder = blueprint::decoder(settings, Format::Native);
    let latest = wall_clock().plus(settings.customers.max_future.get());
    let mut history = History::default();
    for path in paths {
        let file = open(path, &bar).with_context(|| format!("{}: cannot be read", path.display()))?;
        history.read(file, &decoder, latest)?;
    }
    bar.finish_and_clear();
    Ok(history)
}

fn open(path: &Path, bar: &ProgressBar) -> std::io::Result<files::EventFile> {
    let bar = bar.clone();
    files::open(path, move |file: File| bar.wrap_read(file))
}

/// Drawn on a terminal only.
fn progress_bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len)
        .with_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn apply(history: History, settings: &Settings) -> Engine {
    let bar = progress_bar(history.len() as u64, "applying {wide_bar} {pos}/{len} {eta}");
    let engine = history.apply(Arc::new(blueprint::replay_spec(settings)), |done| bar.set_position(done));
    bar.finish_and_clear();
    engine
}

fn summary(engine: &mut Engine, settings: &Settings, as_of: Option<Time>) -> Summary {
    let Some(at) = as_of.or(engine.clock().watermark()) else { return Summary::before_any_event() };
    let background = blueprint::background(settings, engine.first_event());
    let periods = Periods::Since(engine.first_order().unwrap_or(at));
    let mut snapshot = Snapshot::empty(engine.spec(), at, periods);
    snapshot.add(engine);
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

fn print_json_lines(engine: &mut Engine, settings: &Settings, from: Time, to: Time) -> Result<()> {
    let background = blueprint::background(settings, engine.first_event());
    let mut out = BufWriter::new(std::io::stdout().lock());
    for run in series(engine, from, to) {
        for (pane, figures) in (run.from..).zip(&run.figures) {
            let Some(figures) = figures else { continue };
            let spec = engine.spec();
            let line = PaneLine {
                at: spec.first_instant(run.window, pane),
                figures: pane_summary(spec, run.window, pane, figures, &background),
            };
            if unless_closed(writeln!(out, "{}", serde_json::to_string(&line)?))?.is_none() {
                return Ok(());
            }
        }
    }
    unless_closed(out.flush())?;
    Ok(())
}

fn print_openmetrics(engine: &mut Engine, settings: &Settings, from: Time, to: Time) -> Result<()> {
    let background = blueprint::background(settings, engine.first_event());
    let series = series(engine, from, to);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = openmetrics::write(&mut out, engine.spec(), &background, &series).and_then(|()| out.flush());
    unless_closed(written)?;
    Ok(())
}

fn series(engine: &mut Engine, from: Time, to: Time) -> Vec<WindowSeries> {
    let spec = engine.spec().clone();
    let run = |window| {
        let (from, to) = (spec.pane(window, from), spec.pane(window, to));
        WindowSeries { window, from, figures: engine.series(window, from, to) }
    };
    window_ids(&spec).map(run).collect()
}

/// A reader that has gone away (`| head`) is no error, but nothing more is written.
fn unless_closed(written: std::io::Result<()>) -> std::io::Result<Option<()>> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        other => other.map(Some),
    }
}

fn report_rejections(history: &History) {
    if history.duplicates > 0 {
        warn!(duplicates = history.duplicates, "second copies were left out");
    }
    if history.unknown > 0 {
        warn!(events = history.unknown, "events of unknown types were passed over");
    }
    let rejected: u64 = history.rejected.values().sum();
    if rejected == 0 {
        return;
    }
    for example in &history.examples {
        warn!("{}, line {}: {}", example.path.display(), example.line, example.rejection);
    }
    let reasons: Vec<_> =
        history.rejected.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
    warn!("{rejected} of {} line(s) were rejected: {}", history.lines, reasons.join(", "));
}
