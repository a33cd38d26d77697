"""*Operations*: for those who run the daemon."""

from kit import BYTES, COUNT, INSTANCE, INSTANCES, JOB, SECONDS, board, lines, number, quantile, rate
from grafana_foundation_sdk.models import units

R = "retentiond_"


def now():
    owned = f"sum by (job) ({R}partitions_assigned{{{JOB}}}) == bool on (job) max by (job) ({R}source_partitions{{{JOB}}})"
    return [
        number("Replicas", "Replicas that answer Prometheus.", COUNT, f"count({R}build_info{{{JOB}}})", graph=False),
        number("Every partition owned", "Whether each partition belongs to some replica.", COUNT, f"min({owned})",
               mappings={0: ("no", "red"), 1: ("yes", "green")}, graph=False),
        number("Caught up", "Whether every replica has applied all it owns to the end.", COUNT, f"min({R}caught_up{{{JOB}}})",
               mappings={0: ("no", "orange"), 1: ("yes", "green")}, graph=False),
        number("Partitions that wait for a person", "Partitions whose state does not fit together; the log and /readyz say why.", COUNT,
               f'sum({R}partition_state{{{JOB},state="failed"}})', steps=[(None, "green"), (1, "red")], graph=False),
        number("Last checkpoint", "How long ago the replica that is furthest back committed its last checkpoint. An idle one has nothing to commit.", SECONDS,
               f"max(time() - {R}checkpoint_last_success_timestamp_seconds{{{JOB}}})", graph=False),
        number("Event time behind the clock", "How far the instant of the figures lies behind the wall clock: old where the events are.", SECONDS,
               f"max(time() - {R}as_of_timestamp_seconds{{{JOB}}})", graph=False),
    ]


def reading():
    return [
        lines("Messages", "Messages decoded by type, per second; duplicates and late ones included.", "cps", [(rate(f"{R}events_total", "topic, type", INSTANCE), "{{topic}} {{type}}")]),
        lines("Lag", "Records not applied yet, by topic.", COUNT, [(f"sum by (topic) ({R}lag_events{{{INSTANCE}}})", "{{topic}}")], low=0),
        lines("Lag in time", "Since when the partition that is furthest behind was last at its end.", SECONDS, [(f"max by (instance) ({R}lag_seconds{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Read to applied", "From the poll that read a message until it was applied: a half, and all but a hundredth.", SECONDS,
              [(quantile(q, f"{R}event_latency_seconds", INSTANCE, recent=True), name) for q, name in ((0.5, "half"), (0.99, "99 of 100"))], low=0),
        lines("Not counted", "Messages per second that entered no figure: copies, and those too late.", "cps",
              [(rate(f"{R}events_duplicate_total", "", INSTANCE), "duplicate"), (rate(f"{R}events_late_total", "", INSTANCE), "too late")]),
        lines("Rejected", "Messages per second that could not be decoded or lie in the future, by reason, and dead letters committed.", "cps",
              [(rate(f"{R}events_rejected_total", "topic, reason", INSTANCE), "{{topic}} {{reason}}"), (rate(f"{R}dead_letters_total", "", INSTANCE), "dead letters")]),
        lines("Without a rate", "Amounts per second that could not be converted into the reporting currency.", "cps", [(rate(f"{R}unconverted_total", "currency", INSTANCE), "{{currency}}")]),
        lines("Age of the last event", "How far the latest event of each topic lies behind the wall clock.", SECONDS,
              [(f"time() - max by (topic) ({R}last_event_timestamp_seconds{{{INSTANCE}}})", "{{topic}}")]),
        lines("Dimensions that overflow", "1 for a dimension of which more values were found than are kept; the others count as other.", COUNT,
              [(f"max by (dimension) ({R}dimension_overflowed{{{INSTANCE}}})", "{{dimension}}")], low=0, high=1),
    ]


def state():
    return [
        lines("Checkpoint duration", "How long the last checkpoint took, from the copy of the state to the commit.", SECONDS, [(f"max by (instance) ({R}checkpoint_duration_seconds{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Checkpoint bytes", "Bytes written to the store, per second.", units.BytesPerSecondIEC, [(rate(f"{R}checkpoint_bytes_total", "instance", INSTANCE), "{{instance}}")], low=0),
        lines("Checkpoint age", "How long ago each replica committed its last checkpoint.", SECONDS, [(f"time() - {R}checkpoint_last_success_timestamp_seconds{{{INSTANCE}}}", "{{instance}}")], low=0),
        lines("Memory of the state", "What the state of each replica holds.", BYTES, [(f"sum by (instance) ({R}state_bytes{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Customers with a record", "Customers, by replica.", COUNT, [(f"sum by (instance) ({R}tracked_customers{{{INSTANCE}}})", "{{instance}}")], stacked=True),
        lines("Bytes per customer", "Memory of the state by customers with a record; windows and duplicates included.", BYTES,
              [(f"sum by (instance) ({R}state_bytes{{{INSTANCE}}}) / (sum by (instance) ({R}tracked_customers{{{INSTANCE}}}) > 0)", "{{instance}}")], low=0),
        lines("Partitions owned", "Partitions that each replica owns.", COUNT, [(f"sum by (instance) ({R}partitions_assigned{{{INSTANCE}}})", "{{instance}}")], stacked=True),
        lines("Partition states", "Owned partitions by state.", COUNT, [(f"sum by (state) ({R}partition_state{{{INSTANCE}}})", "{{state}}")], stacked=True),
        lines("Rebalances", "Rebalances of the group, per second.", "cps", [(rate(f"{R}rebalances_total", "instance", INSTANCE), "{{instance}}")], low=0),
    ]


def dashboard():
    return board(
        "retentiond-operations",
        "Operations",
        "Whether the replicas keep up, what they refuse, and whether their state is safe.",
        [INSTANCES],
        [("Now", now()), ("Reading", reading()), ("State", state())],
        since="now-6h",
        refresh="30s",
    )
