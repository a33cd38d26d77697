#!/usr/bin/env python3
"""Every alert and win-back of the definitions as SQL over raw events, and whether the program says the same.

    python alerts.py --events FILE... --config CONFIG.json [--log-order]
                     [--program ALERTS.ndjson [--summary SUMMARY.json]]

Prints the messages, one a line, in the order of their instants; with --program it prints what differs between these
and the lines of `replay --alerts` (or of the alert topic), and with --summary also what differs from the key `winback`
of `replay --format json`; then it exits with 1.

Events are taken in the order of (time, place in the file), as `replay` takes them, or with --log-order as they stand, as
the daemon takes those of a partition; too late must be none. The event that decides a silence is the first one later than
due + settle, and what is known then are the events up to that one.

Besides what `oracle.py` reads, the configuration holds `inactivity`, a list of rules

    {"name": .., "after_ms": .. | "cadence": .., "min_ms": .., "max_ms": .. | "no_session_for_ms": ..,
     "stage": [..], "min_orders": .., "min_revenue": ["100.00", "EUR"], "segment": {"channel": "web"}}

and `alerts`: {"settle_ms": .., "since": .., "holdout": .., "salt": .., "winback_within_ms": ..}.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

from oracle import (
    HOUR_MS, UNKNOWN_VALUE, database, exponent_of, load, money, parse_amount, query, read_config,
)

RULE_KEYS = {
    "name", "after_ms", "cadence", "min_ms", "max_ms", "no_session_for_ms", "stage", "min_orders", "min_revenue",
    "segment",
}


def format_time(ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_held_out(customer: str, alerts: dict) -> bool:
    share = int(digest("holdout", alerts["salt"], customer)[:16], 16)
    return share < alerts["holdout"] * 2**64


# Who is who: `customer` is a life of an id, `customer_id` the id itself; `place` is the order in which events are taken.
EVENTS = """
CREATE OR REPLACE TEMP TABLE taken AS
SELECT e.file_order, e.type, e.time_ms AS t, e.currency, e.amount, e.kind, e.civil_day, e.customer, r.customer_id,
       row_number() OVER (ORDER BY CASE WHEN $log_order THEN 0 ELSE e.time_ms END, e.file_order) AS place,
       e.erased_at
FROM events e JOIN raw_events r USING (file_order)
"""

# The last qualifying events of silences: y, how many orders there are up to then, the first order, and the next one.
ORDERS = """
SELECT customer, y, y_day, n, first_order, lead(y) OVER (PARTITION BY customer ORDER BY y) AS next_y, -1 AS begun
FROM (SELECT DISTINCT customer, t AS y, civil_day AS y_day,
             count(*) OVER (PARTITION BY customer ORDER BY t) AS n,
             min(t) OVER (PARTITION BY customer) AS first_order
      FROM taken WHERE type = 'order')
"""
# Sessions by the minute, and a prospect's first sight. Before the first session nothing is decided.
SESSIONS = """
SELECT customer, y, NULL AS y_day, NULL AS n, NULL AS first_order, lead(y) OVER (PARTITION BY customer ORDER BY y) AS next_y,
       (SELECT min(t) FROM taken WHERE type = 'session') - $settle AS begun
FROM (SELECT DISTINCT customer, t // 60000 * 60000 AS y FROM taken WHERE type = 'session'
      UNION
      SELECT customer, min(t) // 60000 * 60000 FROM taken GROUP BY customer
      HAVING min(t) < coalesce(min(t) FILTER (type = 'order'), 9e15::BIGINT))
"""

# Cadence: factor x mean gap, within the bounds; from the third order on.
CADENCE = """
CASE WHEN n >= 3 THEN y + least(greatest(floor($factor::DOUBLE * (y - first_order) / (n - 1))::BIGINT, $min), $max) END
"""

SILENCES = """
WITH qualifying AS ({qualifying}),
due AS (SELECT *, {due} AS due FROM qualifying),
-- What is not decided by an erasure never is.
silences AS (
    SELECT due.*, coalesce(erased_at, 9e15::BIGINT) AS erased_at
    FROM due JOIN (SELECT DISTINCT customer, erased_at FROM taken) USING (customer)
    WHERE due IS NOT NULL AND due + $settle < coalesce(erased_at, 9e15::BIGINT) AND (next_y IS NULL OR next_y > due) AND due >= $since AND due >= coalesce(begun, 9e15::BIGINT)
),
-- The first event later than due + settle decides.
decided AS (
    SELECT s.*, m.place AS decided, m.t AS decided_at
    FROM silences s ASOF JOIN (
        SELECT DISTINCT t, min(place) OVER (ORDER BY t DESC) AS place FROM taken    -- of all that are no earlier
    ) m ON s.due + $settle < m.t
),
-- As of the instant when it was due: orders, stage, status.
as_due AS (
    SELECT d.*, count(o.t) AS orders, min(o.t) AS first_t, max(o.t) AS last_t
    FROM decided d LEFT JOIN taken o ON o.customer = d.customer AND o.type = 'order' AND o.t <= d.due
    GROUP BY ALL
),
ages AS (
    SELECT *, due // $hour - last_t // $hour AS silent_hours,
           ceil(CASE WHEN orders < 3 THEN 0.5 * $active_for
                     ELSE least(greatest($at_risk_cadence::DOUBLE * (last_t - first_t) / (orders - 1), $at_risk_min),
                                0.75 * $active_for) END / $hour) AS at_risk_hours,
           ceil($active_for / $hour) AS lapsed_hours
    FROM as_due
),
standing AS (
    SELECT *,
           CASE WHEN orders = 0 THEN 'none' WHEN silent_hours >= lapsed_hours THEN 'lapsed'
                WHEN silent_hours >= at_risk_hours THEN 'at_risk' ELSE 'active' END AS status,
           CASE WHEN orders = 0 THEN 'prospect'
                WHEN orders >= $loyal_orders AND silent_hours < lapsed_hours THEN 'loyal'
                WHEN orders = 1 THEN 'new' ELSE 'repeat' END AS stage
    FROM ages
),
-- As it is known when decided: whether the customer is back, complaints.
known AS (
    SELECT s.*,
           EXISTS (FROM taken q WHERE q.customer = s.customer AND q.place <= s.decided AND {is_later}) AS is_over,
           EXISTS (FROM taken f WHERE f.customer = s.customer AND f.place <= s.decided
                   AND f.type = 'feedback' AND f.kind = 'complaint') AS complained
    FROM standing s
),
backs AS (
    SELECT k.customer, k.y, first(o.t ORDER BY o.t, o.place) AS back_t,
           first(o.currency ORDER BY o.t, o.place) AS back_currency, first(o.amount ORDER BY o.t, o.place) AS back_amount
    FROM known k JOIN taken o ON o.customer = k.customer AND o.type = 'order'
         AND o.t > k.due AND o.t <= k.due + $within AND o.t + $settle < k.erased_at
    GROUP BY ALL
)
SELECT k.*, b.* EXCLUDE (customer, y), who.customer_id, k.erased_at < 9e15::BIGINT AS is_erased,
       coalesce(b.back_t + $settle < (SELECT max(t) FROM taken), false) AS back_is_settled
FROM known k LEFT JOIN backs b USING (customer, y)
JOIN (SELECT customer, any_value(customer_id) AS customer_id FROM taken GROUP BY customer) who USING (customer)
ORDER BY due, customer_id
"""

REVENUE = """
SELECT d.customer, d.decided, t.currency,
       sum(CASE WHEN t.type IN ('order', 'payment') THEN t.amount ELSE -t.amount END)::BIGINT AS minor
FROM (SELECT unnest($customers::BIGINT[]) AS customer, unnest($places::BIGINT[]) AS decided) d
JOIN taken t ON t.customer = d.customer AND t.place <= d.decided AND t.type IN ('order', 'payment', 'refund', 'cancel')
GROUP BY ALL
"""

# By the first order that is known when a silence is decided; nothing for those of whom none is.
SEGMENTS = """
WITH firsts AS (
    SELECT d.customer, d.decided, arg_min(o.file_order, (o.t, o.file_order)) AS file_order
    FROM (SELECT unnest($customers::BIGINT[]) AS customer, unnest($places::BIGINT[]) AS decided) d
    JOIN taken o ON o.customer = d.customer AND o.place <= d.decided AND o.type IN ('order', 'payment')
    GROUP BY ALL
)
SELECT f.customer, f.decided, a.dimension, a.value FROM firsts f LEFT JOIN order_attributes a USING (file_order)
"""


def silences_of(db, rule: dict, config, alerts: dict) -> list[dict]:
    parameters = {
        "settle": alerts["settle_ms"], "since": alerts.get("since") or 0, "within": alerts["winback_within_ms"],
        "hour": HOUR_MS, "active_for": config.active_for_ms, "at_risk_cadence": config.at_risk_cadence,
        "at_risk_min": config.at_risk_min_ms, "loyal_orders": config.loyal_orders,
    }
    # A payment, too, says that there is an order on its day: one that is known by then, or comes in later.
    qualifying, is_later = ORDERS, "(q.type = 'order' AND q.t > s.y OR q.type = 'payment' AND q.civil_day > s.y_day)"
    if "after_ms" in rule:
        due = "y + $after"
        parameters["after"] = rule["after_ms"]
    elif "cadence" in rule:
        due = CADENCE
        parameters |= {"factor": rule["cadence"], "min": rule["min_ms"], "max": rule["max_ms"]}
    else:
        qualifying, is_later = SESSIONS, "q.type = 'session' AND q.t // 60000 * 60000 > s.y"
        due = "y + $after"
        parameters["after"] = rule["no_session_for_ms"]
    return query(db, SILENCES.format(qualifying=qualifying, due=due, is_later=is_later), parameters)


def passes(rule: dict, silence: dict, revenue: dict[str, int], segments: dict[str, str] | None, config) -> bool:
    if silence["orders"] < rule.get("min_orders", 0):
        return False
    if rule.get("stage") and silence["stage"] not in rule["stage"]:
        return False
    if "min_revenue" in rule:
        amount, currency = rule["min_revenue"]
        if revenue.get(currency, 0) < parse_amount(amount, currency):
            return False
    for dimension, value in rule.get("segment", {}).items():
        listed = config.dimensions[dimension]
        if segments is None:
            found = "none"
        elif (found := segments.get(dimension, UNKNOWN_VALUE)) != UNKNOWN_VALUE and listed is not None:
            found = found if found in listed else "other"
        if found != value:
            return False
    return True


def amounts(sums: dict[str, int]) -> dict[str, str]:
    return {currency: money(minor, exponent_of(currency)) for currency, minor in sums.items()}


def risk(status: str, complained: bool) -> str:
    step = {"at_risk": 1, "lapsed": 2}.get(status, 0)
    return ["low", "medium", "high"][min(step + complained, 2)]


def messages_of(rule: dict, silence: dict, revenue: dict[str, int]) -> list[tuple[int, dict]]:
    customer, y, due = silence["customer_id"], silence["y"], silence["due"]
    alert_id = digest(rule["name"], customer, str(y))
    head = {
        "customer_id": customer, "rule": rule["name"], "silent_since": format_time(y), "due_at": format_time(due),
    }

    def message(kind: str, identity: str, at: int, data: dict) -> tuple[int, dict]:
        return at, {
            "specversion": "1.0", "id": identity, "type": f"retentiond.customer.{kind}.v1", "subject": customer,
            "time": format_time(at), "datacontenttype": "application/json", "data": head | data,
        }

    found = [message("inactive", alert_id, due, {
        "orders": silence["orders"], "revenue": amounts(revenue), "stage": silence["stage"],
        "status": silence["status"], "complained": silence["complained"],
        "risk": risk(silence["status"], silence["complained"]),
    })]
    if silence["back_is_settled"]:
        found.append(message("winback", digest("winback", alert_id), silence["back_t"], {
            "alert_id": alert_id, "ordered_at": format_time(silence["back_t"]),
            "revenue": amounts({silence["back_currency"]: silence["back_amount"]}),
        }))
    return found


def evaluate(db, raw: dict, log_order: bool = False) -> tuple[list[dict], list[dict]]:
    """The messages in the order of their instants, and what came of each rule."""
    config = read_config({key: value for key, value in raw.items() if key not in ("inactivity", "alerts")})
    alerts = raw["alerts"]
    db.execute(EVENTS, {"log_order": log_order})
    told, rules = [], []
    for place, rule in enumerate(raw["inactivity"]):
        if unknown := set(rule) - RULE_KEYS:
            raise ValueError(f"rule {rule['name']}: {sorted(unknown)}")
        silences = silences_of(db, rule, config, alerts)
        revenues: dict[tuple[int, int], dict[str, int]] = {}
        # One event may decide two silences of a customer.
        decisions = sorted({(silence["customer"], silence["decided"]) for silence in silences})
        keys = {"customers": [customer for customer, _ in decisions], "places": [place for _, place in decisions]}
        for row in query(db, REVENUE, keys) if decisions else []:
            revenues.setdefault((row["customer"], row["decided"]), {})[row["currency"]] = row["minor"]
        segments: dict[tuple[int, int], dict[str, str]] = {}
        for row in query(db, SEGMENTS, keys) if decisions and "segment" in rule else []:
            named = segments.setdefault((row["customer"], row["decided"]), {})
            if row["dimension"] is not None:
                named[row["dimension"]] = row["value"]
        groups = {name: Counter() for name in ("treated", "holdout")}
        won: dict[str, Counter] = {name: Counter() for name in groups}
        for silence in silences:
            revenue = revenues.get((silence["customer"], silence["decided"]), {})
            if not passes(rule, silence, revenue, segments.get((silence["customer"], silence["decided"])), config):
                continue
            name = "holdout" if is_held_out(silence["customer_id"], alerts) else "treated"
            groups[name]["due"] += 1
            if silence["back_is_settled"]:
                groups[name]["won_back"] += 1
                won[name][silence["back_currency"]] += silence["back_amount"]
            if name == "holdout" or silence["is_over"]:
                continue
            # Alerts leave before the erasure or not at all.
            groups[name]["sent"] += silence["decided_at"] <= silence["erased_at"]
            if not silence["is_erased"]:
                told += [(at, silence["customer_id"], place, m) for at, m in messages_of(rule, silence, revenue)]
        rules.append({"rule": rule["name"]} | {
            name: {
                **{key: groups[name][key] for key in ("due", "sent", "won_back")},
                "currencies": {c: {"revenue": a} for c, a in amounts(won[name]).items()},
            }
            for name in groups
        })
    told.sort(key=lambda one: one[:3])
    return [message for *_, message in told], rules


def without_source(message: dict) -> dict:
    return {key: value for key, value in message.items() if key != "source"}


def differences(expected: list[dict], program: list[dict]) -> list[str]:
    found: dict[str, dict] = {}
    lines = []
    for message in map(without_source, program):
        if message["id"] in found:
            lines.append(f"twice: {json.dumps(message)}")
        found[message["id"]] = message
    for message in expected:
        said = found.pop(message["id"], None)
        if said != message:
            lines.append(f"{json.dumps(message, sort_keys=True)}\n != {json.dumps(said, sort_keys=True)}")
    lines += [f"not due: {json.dumps(message)}" for message in found.values()]
    return lines


def rule_differences(expected: list[dict], program: list[dict]) -> list[str]:
    said = {rule["rule"]: rule for rule in program}
    lines = []
    for rule in expected:
        for group in ("treated", "holdout"):
            shown = {key: said[rule["rule"]][group][key] for key in rule[group]}
            if shown != rule[group]:
                lines.append(f"{rule['rule']}, {group}: {rule[group]} != {shown}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--log-order", action="store_true")
    parser.add_argument("--program", type=Path)
    parser.add_argument("--summary", type=Path)
    args = parser.parse_args()
    raw = json.loads(args.config.read_text())
    config = read_config({key: value for key, value in raw.items() if key not in ("inactivity", "alerts")})
    with database() as db:
        load(db, args.events, config, False)
        messages, rules = evaluate(db, raw, args.log_order)
    if not args.program:
        for message in messages:
            print(json.dumps(message))
        return 0
    lines = differences(messages, [json.loads(line) for line in args.program.read_text().splitlines()])
    if args.summary:
        lines += rule_differences(rules, json.loads(args.summary.read_text())["winback"])
    for line in lines[:20]:
        print(line)
    winbacks = sum(message["type"].endswith("winback.v1") for message in messages)
    held_out = sum(rule["holdout"]["due"] for rule in rules)
    print(f"{len(messages) - winbacks} alerts, {winbacks} win-backs compared; {held_out} held out; {len(lines)} differ")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
