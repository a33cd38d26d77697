"""*Operations*: for the operators of the daemon."""

from kit import BYTES, COUNT, INSTANCE, INSTANCES, JOB, SECONDS, board, lines, number, quantile, rate
from grafana_foundation_sdk.models import units

R = "retentiond_"


def now():
    owned = f"sum by (job) ({R}partitions_assigned{{{JOB}}}) == bool on (job) max by (job) ({R}source_partitions{{{JOB}}})"
    return [
        number("Replicas", "Replicas that Prometheus can scrape.", COUNT, f"count({R}build_info{{{JOB}}})", graph=False),
        number("Every partition owned", "Whether every partition belongs to a replica.", COUNT, f"min({owned})",
               mappings={0: ("no", "red"), 1: ("yes", "green")}, graph=False),
        number("Caught up", "Whether every replica has reached the end of its partitions.", COUNT, f"min({R}caught_up{{{JOB}}})",
               mappings={0: ("no", "orange"), 1: ("yes", "green")}, graph=False),
        number("Partitions that wait for a person", "Partitions with inconsistent state, which are not processed; the log and /readyz have the reason.", COUNT,
               f'sum({R}partition_state{{{JOB},state="failed"}})', steps=[(None, "green"), (1, "red")], graph=False),
        number("Last checkpoint", "Time since the last checkpoint of the replica whose checkpoint is oldest. An idle replica has nothing to commit.", SECONDS,
               f"max(time() - {R}checkpoint_last_success_timestamp_seconds{{{JOB}}})", graph=False),
        number("Event time behind the clock", "How far the instant of the figures is behind the wall clock. It is as old as the events.", SECONDS,
               f"max(time() - {R}as_of_timestamp_seconds{{{JOB}}})", graph=False),
    ]


def reading():
    return [
        lines("Messages", "Decoded messages by type, per second, including duplicates and late ones.", "cps", [(rate(f"{R}events_total", "topic, type", INSTANCE), "{{topic}} {{type}}")]),
        lines("Lag", "Records that have not been applied yet, by topic.", COUNT, [(f"sum by (topic) ({R}lag_events{{{INSTANCE}}})", "{{topic}}")], low=0),
        lines("Lag in time", "Time since the partition furthest behind was at its end.", SECONDS, [(f"max by (instance) ({R}lag_seconds{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Read to applied", "Time from reading a message to applying it: median and 99th percentile.", SECONDS,
              [(quantile(q, f"{R}event_latency_seconds", INSTANCE, recent=True), name) for q, name in ((0.5, "half"), (0.99, "99 of 100"))], low=0),
        lines("Not counted", "Messages per second in no figure: duplicates, and messages that are too late.", "cps",
              [(rate(f"{R}events_duplicate_total", "", INSTANCE), "duplicate"), (rate(f"{R}events_late_total", "", INSTANCE), "too late")]),
        lines("Rejected", "Messages per second that could not be decoded or are in the future, by reason, and committed dead letters.", "cps",
              [(rate(f"{R}events_rejected_total", "topic, reason", INSTANCE), "{{topic}} {{reason}}"), (rate(f"{R}dead_letters_total", "", INSTANCE), "dead letters")]),
        lines("Without a rate", "Amounts per second that could not be converted into the reporting currency.", "cps", [(rate(f"{R}unconverted_total", "currency", INSTANCE), "{{currency}}")]),
        lines("Age of the last event", "How far the latest event of each topic is behind the wall clock.", SECONDS,
              [(f"time() - max by (topic) ({R}last_event_timestamp_seconds{{{INSTANCE}}})", "{{topic}}")]),
        lines("Dimensions that overflow", "1 for a dimension with more values than are kept; the rest counts as other.", COUNT,
              [(f"max by (dimension) ({R}dimension_overflowed{{{INSTANCE}}})", "{{dimension}}")], low=0, high=1),
    ]


def state():
    return [
        lines("Checkpoint duration", "Duration of the last checkpoint, from copying the state to the commit.", SECONDS, [(f"max by (instance) ({R}checkpoint_duration_seconds{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Checkpoint bytes", "Bytes written to the store, per second.", units.BytesPerSecondIEC, [(rate(f"{R}checkpoint_bytes_total", "instance", INSTANCE), "{{instance}}")], low=0),
        lines("Checkpoint age", "Time since each replica's last committed checkpoint.", SECONDS, [(f"time() - {R}checkpoint_last_success_timestamp_seconds{{{INSTANCE}}}", "{{instance}}")], low=0),
        lines("Memory of the state", "Memory of the state of each replica.", BYTES, [(f"sum by (instance) ({R}state_bytes{{{INSTANCE}}})", "{{instance}}")], low=0),
        lines("Customers with a record", "Customers, by replica.", COUNT, [(f"sum by (instance) ({R}tracked_customers{{{INSTANCE}}})", "{{instance}}")], stacked=True),
        lines("Bytes per customer", "Memory of the state / customers with a record, including windows and duplicate detection.", BYTES,
              [(f"sum by (instance) ({R}state_bytes{{{INSTANCE}}}) / (sum by (instance) ({R}tracked_customers{{{INSTANCE}}}) > 0)", "{{instance}}")], low=0),
        lines("Partitions owned", "Partitions that each replica owns.", COUNT, [(f"sum by (instance) ({R}partitions_assigned{{{INSTANCE}}})", "{{instance}}")], stacked=True),
        lines("Partition states", "Owned partitions by state.", COUNT, [(f"sum by (state) ({R}partition_state{{{INSTANCE}}})", "{{state}}")], stacked=True),
        lines("Rebalances", "Rebalances of the group, per second.", "cps", [(rate(f"{R}rebalances_total", "instance", INSTANCE), "{{instance}}")], low=0),
    ]


def dashboard():
    return board(
        "retentiond-operations",
        "Operations",
        "Whether the replicas keep up, what they reject, and whether their state is safe.",
        [INSTANCES],
        [("Now", now()), ("Reading", reading()), ("State", state())],
        since="now-6h",
        refresh="30s",
    )
