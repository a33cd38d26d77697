//! `retentiond checkpoint`: lists and verifies the group's checkpoints in the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tracing::warn;

use super::ConfigFile;
use crate::checkpoint::catalogue::{self, Damage, Entry, PartitionCheckpoints};
use crate::checkpoint::files;
use crate::checkpoint::manifest::{Expected, Manifest};
use crate::checkpoint::metadata::Metadata;
use crate::checkpoint::store::Store;
use crate::config::Settings;
use crate::engine::Engine;
use crate::event::Time;
use crate::offline::cluster::{Cluster, Standing};
use crate::wiring::worker_config;

/// Timeout for brokers, which are optional here.
const PATIENCE: Duration = Duration::from_secs(5);
/// Number of threads that decode customers.
const THREADS: usize = 2;

/// List or verify the checkpoints in the store, without disturbing a running daemon.
#[derive(Debug, clap::Args)]
pub struct Checkpoint {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the manifests of every partition, newest first, and mark the committed one.
    Ls(Ls),
    /// Check every file of a checkpoint against its digest, load it, and show its content; exit 1 if it is damaged.
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Ls {
    #[command(flatten)]
    config: ConfigFile,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    format: Output,
    /// Maximum number per partition; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 10)]
    last: usize,
    /// Do not ask the brokers what is committed.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    #[command(flatten)]
    config: ConfigFile,
    /// The partition; all of them when absent.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// A manifest as named by `checkpoint ls`, such as p3/0000000042-5d0fe6c4a8c1b2d3.json [default: the committed one,
    /// or the newest if that is not known].
    #[arg(value_name = "MANIFEST")]
    manifest: Option<String>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    format: Output,
    /// Do not ask the brokers what is committed.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text.
    Table,
    /// One JSON object.
    Json,
}

/// What the group has committed; `None` if the brokers were not asked or did not answer.
type Standings = Option<BTreeMap<i32, Standing>>;

/// A listed manifest.
#[derive(Debug, Serialize)]
struct Line {
    manifest: String,
    written: Time,
    /// Whether the group has committed it; unknown without brokers.
    committed: Option<bool>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    sequence: Option<u64>,
    watermark: Option<Time>,
    customers: Option<u64>,
    files: Option<usize>,
    bytes: Option<u64>,
    offsets: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize)]
struct Listing {
    partition: i32,
    /// The committed manifest, `genesis`, or what is wrong; absent when nothing is committed or that is not known.
    committed: Option<String>,
    manifests: Vec<Line>,
    /// Unreferenced files and their total size in bytes.
    orphans: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Catalogue {
    store: String,
    group: String,
    /// Whether the brokers answered.
    committed_known: bool,
    partitions: Vec<Listing>,
}

impl Checkpoint {
    pub(super) fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(ls) => ls.run(),
            Verb::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Ls {
    fn run(self) -> Result<()> {
        let settings = self.config.load(self.offline)?;
        let standings = standings(&settings, self.offline);
        let runtime = super::runtime()?;
        let group = settings.kafka.group_id.clone();
        let (store, shelves) = runtime.block_on(async {
            let store = Store::open_existing(&settings.checkpoint.url).await?;
            let shelves = catalogue::shelves(&store, &group).await?;
            anyhow::Ok((store, shelves))
        })?;
        let last = if self.last == 0 { usize::MAX } else { self.last };
        let listing = |shelf: PartitionCheckpoints| {
            let standing = standings.as_ref().map(|all| all.get(&shelf.partition).unwrap_or(&Standing::Nothing));
            listing(shelf, standing, last)
        };
        let catalogue = Catalogue {
            store: store.url().to_owned(),
            group,
            committed_known: standings.is_some(),
            partitions: shelves.into_iter().map(listing).collect(),
        };
        match self.format {
            Output::Json => super::print(&serde_json::to_string(&catalogue)?),
            Output::Table => super::print(&render(&catalogue)),
        }
        Ok(())
    }
}

/// Asks the brokers what is committed. They are optional: the store can be inspected without them.
fn standings(settings: &Settings, offline: bool) -> Standings {
    if offline {
        return None;
    }
    let asked = Cluster::reach(settings, PATIENCE).and_then(|cluster| cluster.standings());
    asked.inspect_err(|error| warn!("cannot find out what is committed: {error}")).ok()
}

fn listing(shelf: PartitionCheckpoints, standing: Option<&Standing>, last: usize) -> Listing {
    let committed = match standing {
        Some(Standing::At(Metadata::State(named), _)) => Some(named.name.clone()),
        Some(Standing::At(Metadata::Genesis { .. }, _)) => Some("genesis".to_owned()),
        Some(Standing::Unsound(why)) => Some(why.clone()),
        Some(Standing::Nothing) | None => None,
    };
    let line = |entry: Entry| {
        let known = entry.manifest.as_ref().ok();
        Line {
            committed: standing.map(|standing| is_committed(standing, &entry)),
            written: Time::clamped(entry.written),
            unreadable: entry.manifest.as_ref().err().map(ToString::to_string),
            sequence: known.map(|manifest| manifest.sequence),
            watermark: known.and_then(|manifest| manifest.watermark).map(Time::clamped),
            customers: known.map(|manifest| manifest.customers),
            files: known.map(|manifest| manifest.files.len()),
            bytes: known.map(|manifest| manifest.files.iter().map(|file| file.bytes).sum()),
            offsets: known.map(offsets).unwrap_or_default(),
            manifest: entry.reference.name,
        }
    };
    Listing {
        partition: shelf.partition,
        committed,
        manifests: shelf.entries.into_iter().take(last).map(line).collect(),
        orphans: shelf.orphans.into_iter().map(|stored| (stored.name, stored.bytes)).collect(),
    }
}

pub(super) fn is_committed(standing: &Standing, entry: &Entry) -> bool {
    match standing {
        Standing::At(Metadata::State(named), _) => {
            named.name == entry.reference.name && entry.reference.digest.starts_with(&named.digest)
        }
        _ => false,
    }
}

fn offsets(manifest: &Manifest) -> BTreeMap<String, i64> {
    manifest.origin.topics.iter().map(|topic| (topic.name.clone(), topic.offset)).collect()
}

fn render(catalogue: &Catalogue) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "manifest", "written", "watermark", "customers", "files", "bytes", "offsets"]);
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for line in catalogue.partitions.iter().flat_map(|partition| &partition.manifests) {
        let mark = match line.committed {
            Some(true) => "committed",
            Some(false) => "",
            None => "?",
        };
        let offsets: Vec<_> = line.offsets.iter().map(|(topic, offset)| format!("{topic} {offset}")).collect();
        table.add_row([
            mark.to_owned(),
            line.manifest.clone(),
            line.written.to_string(),
            text(line.watermark.map(|time| time.to_string())),
            text(line.customers.map(|count| count.to_string())),
            text(line.files.map(|count| count.to_string())),
            text(line.bytes.map(|count| count.to_string())),
            line.unreadable.clone().unwrap_or_else(|| offsets.join(", ")),
        ]);
    }
    for column in table.column_iter_mut().skip(4).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("{}, group {}\n\n{table}\n", catalogue.store, catalogue.group);
    if !catalogue.committed_known {
        out.push_str("\nWhich of them are committed is not known: the brokers were not asked or did not answer.\n");
    }
    for partition in &catalogue.partitions {
        let is_listed = |name: &String| partition.manifests.iter().any(|line| line.manifest == *name);
        if let Some(committed) = partition.committed.as_ref().filter(|name| !is_listed(name)) {
            out.push_str(&format!("\nPartition {}: committed is {committed}.\n", partition.partition));
        }
        if !partition.orphans.is_empty() {
            let bytes: u64 = partition.orphans.values().sum();
            let count = partition.orphans.len();
            out.push_str(&format!(
                "\nPartition {}: no manifest names {count} file(s), {bytes} bytes:\n",
                partition.partition
            ));
            partition.orphans.keys().for_each(|name| out.push_str(&format!("  {name}\n")));
        }
    }
    out
}

/// The verification result of one checkpoint.
#[derive(Debug, Serialize)]
struct Report {
    manifest: String,
    partition: i32,
    written: Time,
    committed: Option<bool>,
    whole: bool,
    /// A fault of the checkpoint as a whole, although its files are intact.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    /// Faults of single files.
    damages: BTreeMap<String, String>,
    #[serde(flatten)]
    content: Option<Manifest>,
    totals: Option<Totals>,
}

/// Totals of the engine loaded from the files.
#[derive(Debug, Serialize)]
struct Totals {
    customers: usize,
    first_event: Option<Time>,
    first_order: Option<Time>,
    watermark: Option<Time>,
    topic_watermarks: BTreeMap<String, Option<Time>>,
    history_whole: bool,
    state_bytes: usize,
}

impl Inspect {
    fn run(self) -> Result<()> {
        let settings = self.config.load(self.offline)?;
        let standings = standings(&settings, self.offline);
        let runtime = super::runtime()?;
        let reports = runtime.block_on(async {
            let store = Store::open_existing(&settings.checkpoint.url).await?;
            let mut reports = Vec::new();
            for (partition, entry) in self.chosen(&store, &settings, standings.as_ref()).await? {
                let standing = standings.as_ref().map(|all| all.get(&partition).unwrap_or(&Standing::Nothing));
                let committed = standing.map(|standing| is_committed(standing, &entry));
                reports.push(report(&store, &settings, partition, entry, committed).await?);
            }
            anyhow::Ok(reports)
        })?;
        match self.format {
            Output::Json => super::print(&serde_json::to_string(&reports)?),
            Output::Table => super::print(&reports.iter().map(describe).collect::<Vec<_>>().join("\n")),
        }
        let damaged = reports.iter().filter(|report| !report.whole).count();
        ensure!(
            damaged == 0,
            "{damaged} of {} checkpoint(s) cannot be loaded; bring the files back from a copy, or go back to an older \
             one with `retentiond rewind`",
            reports.len()
        );
        Ok(())
    }

    /// The checkpoints to verify: one per partition.
    async fn chosen(
        &self,
        store: &Store,
        settings: &Settings,
        standings: Option<&BTreeMap<i32, Standing>>,
    ) -> Result<Vec<(i32, Entry)>> {
        let group = &settings.kafka.group_id;
        let shelves = catalogue::shelves(store, group).await?;
        let of = self.manifest.as_ref().and_then(|name| partition_of(name)).or(self.partition);
        let has: Vec<i32> =
            shelves.iter().filter(|shelf| !shelf.entries.is_empty()).map(|shelf| shelf.partition).collect();
        let wanted: Vec<_> = shelves.into_iter().filter(|shelf| of.is_none_or(|of| shelf.partition == of)).collect();
        let mut chosen = Vec::new();
        for mut shelf in wanted.into_iter().filter(|shelf| !shelf.entries.is_empty()) {
            let standing = standings.and_then(|all| all.get(&shelf.partition));
            let place = match (&self.manifest, standing) {
                (Some(name), _) => shelf.entries.iter().position(|entry| is_named(entry, name)),
                (None, Some(Standing::At(Metadata::State(named), _))) => {
                    let there = shelf.entries.iter().position(|entry| entry.reference.name == named.name);
                    Some(there.with_context(|| {
                        format!(
                            "the committed manifest {} is missing in the store; go back to another one with \
                             `retentiond rewind`",
                            named.name
                        )
                    })?)
                }
                (None, _) => Some(0),
            };
            chosen.extend(place.map(|place| (shelf.partition, shelf.entries.swap_remove(place))));
        }
        if chosen.is_empty() {
            let what = match (&self.manifest, of) {
                (Some(name), _) => format!("no manifest {name}"),
                (None, Some(partition)) if !has.is_empty() => {
                    let has: Vec<_> = has.iter().map(i32::to_string).collect();
                    format!("no checkpoint of partition {partition}, only of {}", has.join(", "))
                }
                (None, Some(partition)) => format!("no checkpoint of partition {partition}, nor of any other"),
                (None, None) => "no checkpoint".to_owned(),
            };
            bail!("{}: the group {group} has {what} here; see `retentiond checkpoint ls`", store.url());
        }
        Ok(chosen)
    }
}

/// The partition in the name of a manifest.
pub(super) fn partition_of(name: &str) -> Option<i32> {
    name.split_once('/')?.0.strip_prefix('p')?.parse().ok()
}

/// Whether the name matches, with or without the directory of the partition.
pub(super) fn is_named(entry: &Entry, name: &str) -> bool {
    entry.reference.name == name || entry.reference.name.split_once('/').is_some_and(|(_, file)| file == name)
}

async fn report(
    store: &Store,
    settings: &Settings,
    partition: i32,
    entry: Entry,
    committed: Option<bool>,
) -> Result<Report> {
    let mut report = Report {
        manifest: entry.reference.name.clone(),
        partition,
        written: Time::clamped(entry.written),
        committed,
        whole: false,
        fault: None,
        damages: BTreeMap::new(),
        content: None,
        totals: None,
    };
    let manifest = match entry.manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            report.fault = Some(error.to_string());
            return Ok(report);
        }
    };
    let damages = catalogue::damages(store, &manifest).await?;
    report.damages = damages.into_iter().map(|(name, damage): (_, Damage)| (name, damage.to_string())).collect();
    if report.damages.is_empty() {
        let spec = Arc::new(worker_config::spec(settings));
        match files::load(store, &entry.reference, &as_it_says(&manifest), &spec, THREADS).await {
            Ok((engine, _)) => {
                report.whole = true;
                report.totals = Some(totals(&engine, settings));
            }
            Err(error) => report.fault = Some(error.to_string()),
        }
    }
    report.content = Some(manifest);
    Ok(report)
}

/// What a manifest expects of itself.
fn as_it_says(manifest: &Manifest) -> Expected {
    let origin = &manifest.origin;
    Expected {
        group: origin.group.clone(),
        partition: origin.partition,
        partitions: origin.partitions,
        topics: origin.topics.iter().map(|topic| (topic.name.clone(), topic.id.clone())).collect(),
        store: origin.store.clone(),
    }
}

fn totals(engine: &Engine, settings: &Settings) -> Totals {
    let topics = settings.sources.values().enumerate();
    let watermark = |(number, source): (usize, &crate::config::Source)| {
        (source.topic.clone(), engine.clock().topic_watermark(number))
    };
    Totals {
        customers: engine.tracked_customers(),
        first_event: engine.first_event(),
        first_order: engine.first_order(),
        watermark: engine.clock().watermark(),
        topic_watermarks: topics.map(watermark).collect(),
        history_whole: engine.history_whole(),
        state_bytes: engine.state_bytes(),
    }
}

fn describe(report: &Report) -> String {
    let mut out = format!("{}\n", report.manifest);
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<18}{value}\n"));
    let known = |time: Option<Time>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    line("written", report.written.to_string());
    let committed = report.committed.map_or("not known", |committed| if committed { "yes" } else { "no" });
    line("committed", committed.to_owned());
    if let Some(manifest) = &report.content {
        line("epoch", manifest.sequence.to_string());
        line("partition", format!("{} of {}", manifest.origin.partition, manifest.origin.partitions));
        line("store", manifest.origin.store.clone());
        line("alerts since", Time::clamped(manifest.origin.since).to_string());
        for topic in &manifest.origin.topics {
            let id = topic.id.as_deref().unwrap_or("without id");
            let anchor = topic.anchor.as_ref().map_or_else(
                || "no record before".to_owned(),
                |anchor| format!("last record {} of {}", anchor.offset, Time::clamped(anchor.time)),
            );
            line("topic", format!("{} ({id}): next offset {}, {anchor}", topic.name, topic.offset));
        }
        line("definition", manifest.definition.digest.clone());
        manifest.definition.windows.iter().for_each(|window| line("window", window.clone()));
        manifest.definition.dimensions.iter().for_each(|(name, _)| line("dimension", name.clone()));
        let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        line("files", format!("{}, {bytes} bytes", manifest.files.len()));
    }
    if let Some(totals) = &report.totals {
        line("customers", totals.customers.to_string());
        line("first event", known(totals.first_event));
        line("first order", known(totals.first_order));
        line("watermark", known(totals.watermark));
        totals.topic_watermarks.iter().for_each(|(topic, time)| line("", format!("{topic}: {}", known(*time))));
        line("whole history", if totals.history_whole { "yes" } else { "not known" }.to_owned());
        line("memory", format!("{} bytes", totals.state_bytes));
    }
    report.damages.iter().for_each(|(name, damage)| line("DAMAGED", format!("{name}: {damage}")));
    report.fault.iter().for_each(|fault| line("DAMAGED", fault.clone()));
    line("whole", if report.whole { "yes" } else { "NO" }.to_owned());
    out
}
