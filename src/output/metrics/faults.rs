//! Current faults of the daemon; `/readyz` describes the same in words.

use super::{Metric, gauge, read};

/// Faults that an operator should know about.
pub(super) static FAULTS: &[Metric] = &[
    gauge(
        "retentiond_checkpoint_uncommitted_seconds",
        &[],
        "Seconds since the oldest record was applied that is in no committed checkpoint; 0 if there is none.",
        |scrape, samples| samples.add([], scrape.source.checkpoints.uncommitted_for(scrape.now).as_secs_f64()),
    ),
    gauge(
        "retentiond_checkpoint_stale",
        &[],
        "1 if records have been applied for longer than checkpoint.stale_after without a committed checkpoint.",
        |scrape, samples| samples.add([], read::flag(scrape.source.checkpoints.is_stale(scrape.now))),
    ),
    gauge(
        "retentiond_topic_unusable",
        &["topic"],
        "1 if nearly all messages of the topic are unusable; /readyz has numbers and types.",
        read::unusable,
    ),
    gauge(
        "retentiond_group_faults",
        &[],
        "Number of problems with the group or its topics that /readyz names: partitions without an owner, or added \
         partitions; 0 if there are none.",
        |scrape, samples| samples.add([], read::size(scrape.source.coverage.reasons.len())),
    ),
];
