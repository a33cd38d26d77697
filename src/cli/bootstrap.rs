//! `retentiond bootstrap`: builds the first checkpoints from a history export.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::ConfigFile;
use super::progress;
use super::replay::{open, report_rejections};
use crate::config::{Millis, Settings};
use crate::event::{DAY, Time, wall_clock};
use crate::offline::bootstrap::{BootstrapContext, commit, find_handoff, partitioner, require_new};
use crate::offline::cluster::Cluster;
use crate::repartition::topics;
use crate::replay::{Handoff, Partitioned, Topics};
use crate::wiring::{self, worker_config};

/// Timeout for the brokers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Build the first checkpoint of every partition from a history export, and commit it where the topics continue.
///
/// The group must have no members. Events before --until are taken from the files, later ones from the topics. The
/// topics are read from --until minus --overlap, by record timestamp; events in both are deduplicated by id.
#[derive(Debug, clap::Args)]
pub struct Bootstrap {
    /// Event files as for `retentiond replay`, in the format of the source that continues them. SOURCE=FILE names that
    /// [sources.SOURCE]; by default, sessions belong to the only source with `clock = false` and everything else to the
    /// first source that drives time.
    #[arg(required = true, value_name = "HISTORY")]
    history: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Time up to which the files are complete, RFC 3339 or epoch milliseconds; later events are taken from the topics.
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    until: Time,
    /// How far before --until the topics are read, to cover late events and clock differences.
    #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = Millis::parse)]
    overlap: Millis,
    /// The files do not include the first order ever: new, reactivated and returning customers stay incomplete.
    #[arg(long)]
    partial: bool,
    /// Replace the group's committed offsets and checkpoints; the checkpoints are kept in the store.
    #[arg(long)]
    replace: bool,
}

impl Bootstrap {
    pub(super) fn run(self) -> Result<()> {
        let begun = Instant::now();
        let settings = self.config.load(false)?;
        let now = wall_clock();
        ensure!(
            self.until <= now,
            "--until is {}, which is in the future; the files cannot be complete up to then",
            self.until
        );
        let overlap_from = self.until.plus(-self.overlap.get());
        let files = self.files(&settings)?;
        let runtime = super::runtime()?;
        topics::create_missing(&settings)?;
        let cluster = Cluster::reach(&settings, PATIENCE)?;
        cluster.require_empty_group()?;
        let store = runtime.block_on(wiring::open_store(&settings))?;
        if !self.replace {
            runtime.block_on(require_new(&cluster, &store))?;
        }
        let initial_offsets = topics::find_initial_offsets(&settings, overlap_from, self.until, self.replace)?;
        let handoff = find_handoff(&cluster, &settings, overlap_from, self.until)?;
        let history = self.read(&files, &settings, &cluster, overlap_from)?;
        report_rejections(&history.tally);
        let tally = (history.len(), history.left, history.unidentified, history.tally.lines);
        ensure!(!history.is_empty(), "no event before {} in {} line(s): nothing to begin with", self.until, tally.3);
        let context = BootstrapContext {
            cluster: &cluster,
            store: &store,
            settings: &settings,
            handoff: &handoff,
            overlap_from,
            history_whole: !self.partial,
            runtime: runtime.handle().clone(),
        };
        let bar = progress::bar(history.len() as u64, "building {wide_bar} {pos}/{len} {eta}");
        let built = context.build(history.into_partitions(), |more| bar.inc(more))?;
        bar.finish_and_clear();
        // Commit these before the state: a router without initial offsets would start at kafka.start.
        initial_offsets.iter().try_for_each(topics::InitialOffsets::commit)?;
        commit(&cluster, &built)?;
        let (events, left, unidentified, lines) = tally;
        let customers: u64 = built.iter().map(|built| built.customers).sum();
        let bytes: u64 = built.iter().map(|built| built.bytes).sum();
        super::print(&format!(
            "{events} of {lines} line(s) make the state of {customers} customer(s) in {} partition(s), {bytes} bytes, \
             in {:.1} s.\nLeft to the topics: {left} event(s) from {} on, and {unidentified} without an id from \
             {overlap_from} on.\nCommitted for the group {}; `retentiond run` goes on from there.",
            built.len(),
            begun.elapsed().as_secs_f64(),
            self.until,
            cluster.group
        ));
        Ok(())
    }

    /// The files, and the sources that continue them.
    fn files(&self, settings: &Settings) -> Result<Vec<(PathBuf, Topics)>> {
        let file = |text: &String| {
            let (path, topics) = match text.split_once('=') {
                Some((source, path)) if !Path::new(text).exists() => (path, of_source(settings, source)?),
                _ => (text.as_str(), of_any(settings)),
            };
            ensure!(!Path::new(path).is_dir(), "{path}: is a directory; name the files in it, such as {path}/*.csv");
            ensure!(Path::new(path).is_file(), "{path}: there is no such file");
            Ok((PathBuf::from(path), topics))
        };
        self.history.iter().map(file).collect()
    }

    fn read(
        &self,
        files: &[(PathBuf, Topics)],
        settings: &Settings,
        cluster: &Cluster,
        overlap_from: Time,
    ) -> Result<Partitioned> {
        let bytes = files.iter().filter_map(|(path, _)| path.metadata().ok()).map(|file| file.len()).sum();
        let bar = progress::bar(bytes, "reading  {wide_bar} {bytes}/{total_bytes} {eta}");
        // Files have the format of the topic that continues them.
        let decoders: Vec<_> =
            settings.sources.values().map(|source| worker_config::decoder(settings, source)).collect();
        let customers = &settings.customers;
        // Copies are accepted up to the allowed lateness behind the topic, of events that are a while older.
        let dedup_for = customers.dedup_for.get();
        let memory = dedup_for + customers.allowed_lateness.get() + 2 * DAY;
        let handoff = Handoff { until: self.until, overlap_from, remember_from: overlap_from.plus(-memory), dedup_for };
        let partitions = u32::try_from(cluster.partitions).unwrap_or(u32::MAX);
        let mut history = Partitioned::new(partitions, partitioner(settings), handoff);
        for (path, topics) in files {
            let file = open(path, &bar)?;
            history.read(file, &decoders[usize::from(topics.others)], *topics)?;
        }
        bar.finish_and_clear();
        Ok(history)
    }
}

fn of_source(settings: &Settings, name: &str) -> Result<Topics> {
    let reader = settings.source(name).map(|(reader, _)| reader);
    let Some(place) = settings.sources.keys().position(|source| reader == Some(source.as_str())) else {
        bail!("there is no source {name:?}; there are {}", settings.source_names().join(", "));
    };
    let place = u16::try_from(place)?;
    Ok(Topics { sessions: place, others: place })
}

fn of_any(settings: &Settings) -> Topics {
    let sources = || (0_u16..).zip(settings.sources.values());
    let driving = sources().find(|(_, source)| source.clock).map_or(0, |(place, _)| place);
    let mut others = sources().filter(|(_, source)| !source.clock);
    let sessions = match (others.next(), others.next()) {
        (Some((place, _)), None) => place,
        _ => driving,
    };
    Topics { sessions, others: driving }
}
