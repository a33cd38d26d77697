//! What is wrong with the daemon at the moment, if anything; `/readyz` says the same in words.

use super::{Metric, gauge, read};

/// Faults that an operator should know of.
pub(super) static FAULTS: &[Metric] = &[
    gauge(
        "retentiond_checkpoint_uncommitted_seconds",
        &[],
        "Seconds since the oldest record was applied that no committed checkpoint holds; 0 when there is none.",
        |scrape, samples| samples.add([], scrape.source.checkpoints.uncommitted_for(scrape.now).as_secs_f64()),
    ),
    gauge(
        "retentiond_checkpoint_stale",
        &[],
        "1 when records have been applied for longer than checkpoint.stale_after without a committed checkpoint.",
        |scrape, samples| samples.add([], read::flag(scrape.source.checkpoints.is_stale(scrape.now))),
    ),
    gauge(
        "retentiond_topic_unusable",
        &["topic"],
        "1 when nearly all messages of the topic enter no figure, as /readyz says with numbers and types; else 0.",
        read::unusable,
    ),
    gauge(
        "retentiond_group_faults",
        &[],
        "What is wrong with the group or the partitions of its topics, as /readyz names it: partitions of nobody, or added \
         ones; 0 when nothing is.",
        |scrape, samples| samples.add([], read::size(scrape.source.coverage.reasons.len())),
    ),
];
