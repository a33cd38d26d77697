//! `retentiond rewind`: resets the group to an older checkpoint while no replica runs.

use anyhow::{Context, Result, bail, ensure};

use super::ConfigFile;
use super::checkpoint::{is_committed, is_named, partition_of};
use crate::bus::Start;
use crate::checkpoint::catalogue::{self, Entry, PartitionCheckpoints};
use crate::checkpoint::metadata::Metadata;
use crate::checkpoint::store::Store;
use crate::config::Settings;
use crate::event::{Time, wall_clock};
use crate::offline::cluster::{Cluster, Standing};
use crate::wiring::{self, start};

/// Timeout for the brokers.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Go back to an older checkpoint: commit its offsets and its name for the group, which must have no members.
///
/// Records since then are read again from the topics. Without --yes, only shows what it would do.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("partitions").required(true)), group(clap::ArgGroup::new("target").required(true)))]
pub struct Rewind {
    #[command(flatten)]
    config: ConfigFile,
    /// The partition; may be given several times.
    #[arg(long, value_name = "N", group = "partitions")]
    partition: Vec<i32>,
    /// Every partition.
    #[arg(long, group = "partitions")]
    all: bool,
    /// A manifest of one partition, as named by `retentiond checkpoint ls`.
    #[arg(long, value_name = "MANIFEST", group = "target", conflicts_with = "all")]
    to: Option<String>,
    /// The newest intact checkpoint written at or before this time, RFC 3339 or epoch milliseconds.
    #[arg(long, value_name = "TIME", group = "target", value_parser = super::parse_time)]
    to_time: Option<Time>,
    /// The newest checkpoint whose files are all intact.
    #[arg(long, group = "target")]
    to_newest: bool,
    /// The newest intact checkpoint before the committed one.
    #[arg(long, group = "target")]
    to_previous: bool,
    /// No checkpoint: discard all state and read the topics again.
    #[arg(long, group = "target")]
    to_genesis: bool,
    /// Where to start without a checkpoint: earliest, latest or a time [default: kafka.start].
    #[arg(long, value_name = "START", requires = "to_genesis", value_parser = parse_start)]
    start: Option<Start>,
    /// Apply the change.
    #[arg(long)]
    yes: bool,
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        time => Ok(Start::At(super::parse_time(time)?.millis())),
    }
}

/// The target of a partition.
#[derive(Debug)]
struct Move {
    partition: i32,
    now: Standing,
    metadata: Metadata,
    next: Vec<i64>,
    /// Description of the target.
    to: String,
    /// Newer checkpoints that are skipped, and why.
    passed: Vec<String>,
}

impl Rewind {
    pub(super) fn run(self) -> Result<()> {
        let settings = self.config.load(false)?;
        let cluster = Cluster::reach(&settings, PATIENCE)?;
        cluster.require_empty_group()?;
        let standings = cluster.standings()?;
        let runtime = super::runtime()?;
        let moves = runtime.block_on(async {
            let store = if self.to_genesis {
                wiring::open_store(&settings).await?
            } else {
                Store::open_existing(&settings.checkpoint.url).await?
            };
            let mut moves = Vec::new();
            for partition in self.partitions(&cluster)? {
                let now = standings.get(&partition).cloned().unwrap_or(Standing::Nothing);
                moves.push(self.plan(&cluster, &store, &settings, partition, now).await?);
            }
            anyhow::Ok(moves)
        })?;
        super::print(&describe(&moves, &cluster));
        ensure!(self.yes, "nothing was changed; add --yes to apply the change");
        let states: Vec<_> = moves.into_iter().map(|to| (to.partition, to.metadata, to.next)).collect();
        cluster.commit(&states)?;
        super::print(&format!("Done: {} partition(s) will resume from there at the next start.", states.len()));
        Ok(())
    }

    fn partitions(&self, cluster: &Cluster) -> Result<Vec<i32>> {
        if self.all {
            return Ok((0..cluster.partitions).collect());
        }
        let mut partitions = self.partition.clone();
        partitions.sort_unstable();
        partitions.dedup();
        for &partition in &partitions {
            let last = cluster.partitions - 1;
            ensure!((0..=last).contains(&partition), "there is no partition {partition}: they are 0 to {last}");
        }
        if let Some(name) = &self.to {
            ensure!(partitions.len() == 1, "--to names a checkpoint of one partition; give one --partition");
            if let Some(of) = partition_of(name).filter(|of| *of != partitions[0]) {
                bail!("{name} is of partition {of}, not of partition {}", partitions[0]);
            }
        }
        Ok(partitions)
    }

    async fn plan(
        &self,
        cluster: &Cluster,
        store: &Store,
        settings: &Settings,
        partition: i32,
        now: Standing,
    ) -> Result<Move> {
        if self.to_genesis {
            let start = self.start.unwrap_or_else(|| start(settings.kafka.start));
            let starts: Vec<_> = cluster.siblings(partition).into_iter().map(|at| (at, start)).collect();
            let next = cluster.offsets(&starts)?;
            let metadata = Metadata::Genesis { since: wall_clock(), store: store.id().to_owned() };
            return Ok(Move { partition, now, metadata, next, to: "nothing".to_owned(), passed: Vec::new() });
        }
        let shelf = catalogue::shelf(store, &cluster.group, partition).await?;
        ensure!(
            !shelf.entries.is_empty(),
            "{}: there is no checkpoint of partition {partition} of the group {}; start over with --to-genesis, or \
             with `retentiond bootstrap`",
            store.url(),
            cluster.group
        );
        let candidates = self.candidates(&shelf, &now)?;
        let mut passed = Vec::new();
        for entry in candidates {
            match faults(cluster, store, partition, entry).await? {
                Some(fault) if self.to.is_some() => bail!("{} cannot be gone back to: {fault}", entry.reference.name),
                Some(fault) => passed.push(format!("{}: {fault}", entry.reference.name)),
                None => {
                    let next = next_offsets(cluster, entry)?;
                    let to = format!("{}, written {}", entry.reference.name, Time::clamped(entry.written));
                    let metadata = Metadata::of(&entry.reference);
                    return Ok(Move { partition, now, metadata, next, to, passed });
                }
            }
        }
        bail!(
            "partition {partition} has no whole checkpoint of that kind: {}; start over with --to-genesis, or with \
             `retentiond bootstrap`",
            if passed.is_empty() { "there is none so old".to_owned() } else { passed.join("; ") }
        );
    }

    /// The candidate checkpoints, the best first.
    fn candidates<'s>(&self, shelf: &'s PartitionCheckpoints, now: &Standing) -> Result<Vec<&'s Entry>> {
        let entries = shelf.entries.iter();
        if let Some(name) = &self.to {
            let found = entries.filter(|entry| is_named(entry, name)).collect::<Vec<_>>();
            ensure!(!found.is_empty(), "there is no manifest {name}; see `retentiond checkpoint ls`");
            return Ok(found);
        }
        if let Some(time) = self.to_time {
            return Ok(entries.filter(|entry| entry.written <= time.millis()).collect());
        }
        if self.to_previous {
            let at = shelf.entries.iter().position(|entry| is_committed(now, entry));
            let at = at.with_context(|| {
                format!(
                    "partition {}: the committed checkpoint is not in the store, so there is none before it; \
                     use --to-newest or --to",
                    shelf.partition
                )
            })?;
            return Ok(shelf.entries[at + 1..].iter().collect());
        }
        Ok(entries.collect())
    }
}

/// Why a partition cannot resume from a checkpoint.
async fn faults(cluster: &Cluster, store: &Store, partition: i32, entry: &Entry) -> Result<Option<String>> {
    let manifest = match &entry.manifest {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Some(error.to_string())),
    };
    if let Err(error) = manifest.check(&entry.reference, &cluster.expected(partition, store.id())) {
        return Ok(Some(error.to_string()));
    }
    let damages = catalogue::damages(store, manifest).await?;
    if !damages.is_empty() {
        let damages: Vec<_> = damages.iter().map(|(name, damage)| format!("{name} is {damage}")).collect();
        return Ok(Some(damages.join(", ")));
    }
    let next = match next_offsets(cluster, entry) {
        Ok(next) => next,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let siblings = cluster.siblings(partition);
    let at = |start: Start| siblings.iter().map(|&at| (at, start)).collect::<Vec<_>>();
    let (first, end) = (cluster.offsets(&at(Start::Earliest))?, cluster.offsets(&at(Start::Latest))?);
    for (number, topic) in cluster.topics.iter().enumerate() {
        let (next, first, end) = (next[number], first[number], end[number]);
        if next < first {
            return Ok(Some(format!(
                "topic {topic} no longer holds the records from offset {next} to {first}, which came after it"
            )));
        }
        if next > end {
            return Ok(Some(format!("topic {topic} ends at offset {end}, before {next}: records were lost")));
        }
    }
    Ok(None)
}

/// The next offset of each source topic.
fn next_offsets(cluster: &Cluster, entry: &Entry) -> Result<Vec<i64>> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let of = |name: &String| {
        let topic = manifest.origin.topics.iter().find(|topic| topic.name == *name);
        topic.map(|topic| topic.offset).with_context(|| format!("it knows nothing of the topic {name}"))
    };
    cluster.topics.iter().map(of).collect()
}

fn describe(moves: &[Move], cluster: &Cluster) -> String {
    let mut out = String::new();
    for to in moves {
        let (now, before) = match &to.now {
            Standing::Nothing => ("nothing committed".to_owned(), None),
            Standing::Unsound(why) => (why.clone(), None),
            Standing::At(Metadata::Genesis { .. }, next) => ("no state yet".to_owned(), Some(next)),
            Standing::At(Metadata::State(named), next) => (named.name.clone(), Some(next)),
        };
        out.push_str(&format!("Partition {}\n  from  {now}\n  to    {}\n", to.partition, to.to));
        to.passed.iter().for_each(|passed| out.push_str(&format!("  passed over  {passed}\n")));
        for (number, topic) in cluster.topics.iter().enumerate() {
            let next = to.next[number];
            let again = match before.map(|before| before[number]) {
                Some(before) if before > next => format!(", so that {} offset(s) are read again", before - next),
                Some(before) if before < next => format!(", so that {} offset(s) are skipped", next - before),
                Some(_) => String::new(),
                None => ", whatever was read before".to_owned(),
            };
            out.push_str(&format!("  {topic}: offset {next}{again}\n"));
        }
        if matches!(to.metadata, Metadata::Genesis { .. }) {
            out.push_str(
                "  lost: all state; the figures are then computed only from the records after these offsets\n",
            );
        }
    }
    out.push_str(
        "\nOutput for records that are read again, such as dead letters, is written to other topics a second time.\n\
         No file is deleted; skipped checkpoints are kept until later ones replace them.\n",
    );
    out
}
