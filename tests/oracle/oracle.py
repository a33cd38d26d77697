#!/usr/bin/env python3
"""Every figure of the definitions as plain SQL over raw events.

    python oracle.py --events FILE... [--config CONFIG.json] [--as-of TIME ...]
                     [--parts windows,calendar,... | all]

Prints a JSON array, one object per instant, in the shape of `replay --format json`.

The figures are recomputed from all events for every instant: no state, no increments, no
intervals. Python reads the files (times, amounts, civil days); SQL decides what counts.
"""

import argparse
import calendar as gregorian
import csv
import gzip
import json
import math
import re
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# Keys of the printed object.
LIST_PARTS = (
    "windows", "calendar", "cohorts", "stages", "segments", "transitions", "referrals", "feedback",
    "distributions",
)
# What they add to every entry of `windows` and `calendar`, and of `segments` where it says so.
# `referrals` is both a key of its own and such an addition; `reporting` books money once more.
ADDED_PARTS = (
    "complainers",  # also in segments
    "costs",
    "coverage",
    "clv_after_costs",
    "segment_clv",  # in segments alone
    "reporting",  # also in segments and cohorts
)
PARTS = LIST_PARTS + ADDED_PARTS
DEFAULT_PARTS = ("windows", "calendar")

# Names of segment values that no event carries.
NO_VALUE = "none"  # there is no order yet
UNKNOWN_VALUE = "unknown"  # the earliest order has no such attribute
OTHER_VALUE = "other"  # not among the configured values of the dimension
EVERYBODY = "everybody"  # where nothing is split

# The name under which converted money is booked a second time.
REPORTING = "reporting"
# Kinds of feedback that are told apart; the rest is "other".
FEEDBACK_KINDS = 50


# --------------------------------------------------------------------------------------
# Configuration
# --------------------------------------------------------------------------------------

RESOLUTIONS_MS = [
    MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS, 12 * HOUR_MS, DAY_MS,
]
CALENDAR_DEFAULTS = ("month", "quarter", "year")
CALENDAR_ACTIVE_DAYS = {"week": 90, "month": 90, "quarter": 180, "year": 366}
CALENDAR_LONGEST_DAYS = {"week": 7, "month": 31, "quarter": 92, "year": 366}


@dataclass(frozen=True)
class Window:
    name: str
    period_ms: int
    active_for_ms: int
    resolution_ms: int


@dataclass(frozen=True)
class CalendarWindow:
    name: str  # week | month | quarter | year
    active_for_days: int | None  # None: to the end of the period of the order


@dataclass(frozen=True)
class Config:
    windows: list[Window]
    calendar: list[CalendarWindow]
    zone: ZoneInfo
    history_whole: bool
    data_begin: int | None  # epoch milliseconds; None: the first event's time
    active_for_ms: int
    at_risk_cadence: float
    at_risk_min_ms: int
    loyal_orders: int
    dimensions: dict[str, list[str] | None]  # None: every value found
    clv_window: str
    allowed_lateness_ms: int
    dedup_for_ms: int
    merge_orders: bool  # orders of one customer on one civil day are one order
    reporting: str | None  # the reporting currency
    rates: list[tuple[int, str, Fraction]]  # civil day, currency, rate


def read_config(raw: dict) -> Config:
    known = {
        "windows", "calendar", "zone", "history_whole", "data_begin", "active_for_ms",
        "at_risk_cadence", "at_risk_min_ms", "loyal_orders", "dimensions", "clv_window",
        "allowed_lateness_ms", "dedup_for_ms", "merge_orders", "reporting", "rates",
    }
    if unknown := set(raw) - known:
        raise ValueError(f"unknown configuration keys: {sorted(unknown)}")
    active_for_ms = raw.get("active_for_ms", 90 * DAY_MS)
    windows = raw.get("windows") or [
        {"name": f"{days}d", "period_ms": days * DAY_MS} for days in (7, 30, 90, 365)
    ]
    calendar = raw.get("calendar") or [{"name": name} for name in CALENDAR_DEFAULTS]
    dimensions = raw.get("dimensions", ["channel"])
    if isinstance(dimensions, list):
        dimensions = dict.fromkeys(dimensions)
    return Config(
        windows=[rolling_window(w, active_for_ms) for w in windows],
        calendar=[calendar_window(c) for c in calendar],
        zone=ZoneInfo(raw.get("zone", "UTC")),
        history_whole=raw.get("history_whole", False),
        data_begin=raw.get("data_begin"),
        active_for_ms=active_for_ms,
        at_risk_cadence=raw.get("at_risk_cadence", 2.0),
        at_risk_min_ms=raw.get("at_risk_min_ms", 7 * DAY_MS),
        loyal_orders=raw.get("loyal_orders", 5),
        dimensions=dimensions,
        clv_window=raw.get("clv_window", "365d"),
        allowed_lateness_ms=raw.get("allowed_lateness_ms", DAY_MS),
        dedup_for_ms=raw.get("dedup_for_ms", 7 * DAY_MS),
        merge_orders=raw.get("merge_orders", False),
        reporting=raw.get("reporting"),
        rates=[
            (day_of(date.fromisoformat(day)), currency, Fraction(Decimal(rate)))
            for day, currency, rate in raw.get("rates", [])
        ],
    )


def rolling_window(raw: dict, active_for_ms: int) -> Window:
    period = raw["period_ms"]
    active_for = raw.get("active_for_ms") or max(period, active_for_ms)
    fitting = [r for r in RESOLUTIONS_MS if r * 360 <= period]
    resolution = raw.get("resolution_ms") or (fitting[-1] if fitting else MINUTE_MS)
    if active_for < period:
        raise ValueError(f"window {raw['name']}: active_for is shorter than the period")
    if period % resolution or active_for % resolution:
        raise ValueError(f"window {raw['name']}: not in whole multiples of the resolution")
    return Window(raw["name"], period, active_for, resolution)


def calendar_window(raw: dict) -> CalendarWindow:
    name = raw["name"]
    if raw.get("active_for") == "period":
        return CalendarWindow(name, None)
    days = raw.get("active_for_days") or CALENDAR_ACTIVE_DAYS[name]
    if days < CALENDAR_LONGEST_DAYS[name]:
        raise ValueError(f"calendar {name}: active_for is shorter than the longest {name}")
    return CalendarWindow(name, days)


# --------------------------------------------------------------------------------------
# Time, civil days, money
# --------------------------------------------------------------------------------------

RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))"
)
EPOCH_DAY = date(1970, 1, 1).toordinal()


# Numbers since the epoch are told apart by size: the years 1971 to 2199 in days, seconds,
# milli-, micro- and nanoseconds do not overlap (docs/integrate/formats.md, "Time").
EARLIEST_MS = 365 * DAY_MS
LATEST_MS = 7_258_118_399_999


def parse_epoch(number) -> int:
    if 365 <= number < 100_000:
        return math.floor(number) * DAY_MS
    for unit in (Fraction(1000), Fraction(1), Fraction(1, 1000), Fraction(1, 1_000_000)):
        milliseconds = math.floor(Fraction(number) * unit)
        if EARLIEST_MS <= milliseconds <= LATEST_MS:
            return milliseconds
    raise ValueError("time")


def parse_time(value) -> int:
    """RFC 3339 or a number since the epoch -> whole epoch milliseconds, rounded down."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError("time")
    if not isinstance(value, str):
        return parse_epoch(value)
    if re.fullmatch(r"-?\d+", value):
        return parse_epoch(int(value))
    match = RFC_3339.fullmatch(value)
    if not match:
        raise ValueError("time")
    day, clock, fraction, sign, hours, minutes = match.groups()
    seconds = gregorian.timegm(datetime.fromisoformat(f"{day}T{clock}").timetuple())
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * 1000 + int((fraction or "0")[:3].ljust(3, "0"))


def format_time(ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")[:-6] + "Z"


def civil_day(ms: int, zone: ZoneInfo) -> int:
    """The number of the civil day in the zone; 1970-01-01 is day 0."""
    return datetime.fromtimestamp(ms // 1000, zone).date().toordinal() - EPOCH_DAY


def day_of(day: date) -> int:
    return day.toordinal() - EPOCH_DAY


def date_of(day: int) -> date:
    return date.fromordinal(day + EPOCH_DAY)


def first_instant(day: int, zone: ZoneInfo) -> int:
    """The first instant of a civil day; of a skipped day: of the day that follows it."""
    midnight = datetime.combine(date_of(day), datetime.min.time(), zone)
    instant = round(midnight.timestamp()) * 1000
    if civil_day(instant - 1, zone) < day:
        return instant
    # Midnight falls into a gap that began before it: find where the clock jumped.
    before, after = instant - 2 * DAY_MS, instant
    while after - before > 1:
        middle = (before + after) // 2
        if civil_day(middle, zone) < day:
            before = middle
        else:
            after = middle
    return after


# ISO 4217: digits after the decimal point, where they are not two.
EXPONENTS = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}


MAX_MINOR_UNITS = 10**13  # of one event: far above any order, and sums still fit


def exponent_of(currency: str, reporting: str | None = None) -> int:
    return EXPONENTS.get(reporting if currency == REPORTING else currency, 2)


def parse_amount(value, currency: str) -> int:
    """Major units (decimal string or number) -> minor units. No float is involved."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError("amount")
    if isinstance(value, str) and not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value):
        raise ValueError("amount")
    amount = Decimal(value)
    if amount < 0:
        raise ValueError("negative amount")
    if amount and abs(amount.adjusted()) > 20:  # before any arithmetic with it
        raise ValueError("amount" if amount.adjusted() > 0 else "excess decimals")
    minor = Fraction(amount) * 10 ** exponent_of(currency)
    if minor.denominator != 1:  # zeros beyond the currency's decimals do no harm
        raise ValueError("excess decimals")
    if minor > MAX_MINOR_UNITS:
        raise ValueError("amount")
    return int(minor)


def money(minor: int, exponent: int) -> str:
    return f"{Decimal(minor).scaleb(-exponent):f}"


def converted(minor: int, currency: str, rate: Fraction, reporting: str) -> int:
    """Minor units of the reporting currency, rounded half away from zero; a reversed refund is negative."""
    exact = Fraction(abs(minor), 10 ** exponent_of(currency)) * rate * 10 ** exponent_of(reporting)
    rounded = math.floor(exact + Fraction(1, 2))
    return rounded if minor >= 0 else -rounded


def decimal_string(value: Fraction, digits: int = 12) -> str:
    return f"{Decimal(round(value * 10**digits)).scaleb(-digits):f}"


def ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


# --------------------------------------------------------------------------------------
# Events: files -> table `raw_events` -> table `events` (accepted, no duplicates)
# --------------------------------------------------------------------------------------

EVENT_ID_FIELD = {
    "order": "order_id",
    "refund": "refund_id",
    "cancel": "order_id",
    "session": "session_id",
    "customer": None,
    "feedback": None,
    "cost": None,
    "erase": None,
}


def open_text(path: Path):
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open("rt", encoding="utf-8", newline="")


def read_records(path: Path):
    """Yields the native event objects of one file; None for a line that is not one."""
    with open_text(path) as text:
        if ".csv" in path.suffixes[-2:]:
            named = {"order_id", "customer_id", "time", "amount", "currency"}
            for row in csv.DictReader(text):
                attributes = {key: row[key] for key in row if key and key not in named}
                yield {**row, "type": "order", "attributes": attributes}
        else:
            for line in text:
                if line.strip():
                    try:
                        record = json.loads(line, parse_float=Decimal)
                    except json.JSONDecodeError:
                        record = None
                    yield record if isinstance(record, dict) else None


# What stands for no id, in any case (docs/integrate/formats.md, "Ids that are none").
NO_ID = {
    "", "0", "null", "undefined", "none", "nil", "nan", "true", "false", "[object object]",
    "anonymous", "guest", "not_authenticated", "(not set)", "(none)",
    "na", "n/a", "#n/a", "<na>", "nat", "(null)", "[null]", "\\n",
    "00000000-0000-0000-0000-000000000000",
}


def identifier(value) -> str | None:
    if value is None or isinstance(value, (bool, dict, list)):
        return None
    return None if str(value).strip().lower() in NO_ID else str(value)


def read_event(record: dict, zone: ZoneInfo) -> dict:
    """One record as a row of `raw_events`; raises ValueError with the reason to reject it."""
    kind = record.get("type")
    if kind not in EVENT_ID_FIELD:
        raise ValueError("unknown type")
    customer = identifier(record.get("customer_id"))
    if customer is None:
        raise ValueError("customer_id")
    event = {
        "type": kind,
        "customer_id": customer,
        "event_id": identifier(record.get(EVENT_ID_FIELD[kind])) if EVENT_ID_FIELD[kind] else None,
        "time_ms": None,
        "civil_day": None,
        "currency": None,
        "amount": None,
        "kind": record.get("kind"),
        "referred": identifier(record.get("referred_by")) is not None,
        "attributes": record.get("attributes") or {},
    }
    if kind == "erase":
        if record.get("time") is not None:
            event["time_ms"] = parse_time(record["time"])
        return event
    event["time_ms"] = parse_time(record.get("time"))
    try:
        event["civil_day"] = civil_day(event["time_ms"], zone)
    except (OverflowError, OSError):
        raise ValueError("time") from None
    if kind == "cost" and event["kind"] not in ("acquisition", "retention"):
        raise ValueError("kind of cost")
    if kind == "feedback" and not isinstance(event["kind"], str):
        raise ValueError("kind of feedback")
    if kind in ("order", "refund", "cancel", "cost"):
        currency = record.get("currency")
        if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
            raise ValueError("currency")
        event["currency"] = currency
        event["amount"] = parse_amount(record.get("amount"), currency)
    if kind == "refund" and record.get("reversed") is True:
        # It takes back what the refund with that id returned, so it is no copy of that refund.
        event["amount"] = -event["amount"]
        event["event_id"] = event["event_id"] and event["event_id"] + "/reversed"
    return event


RAW_COLUMNS = {
    "file_order": "BIGINT",
    "type": "VARCHAR",
    "customer_id": "VARCHAR",
    "event_id": "VARCHAR",
    "time_ms": "BIGINT",
    "civil_day": "BIGINT",
    "currency": "VARCHAR",
    "amount": "BIGINT",  # minor units
    "kind": "VARCHAR",  # of feedback or of a cost
    "referred": "BOOLEAN",  # whether the event names who referred the customer
    "is_copy": "BOOLEAN",
}
ATTRIBUTE_COLUMNS = {"file_order": "BIGINT", "dimension": "VARCHAR", "value": "VARCHAR"}


def insert(db, table: str, columns: dict[str, str], rows: list[tuple], chunk: int = 100_000):
    unnested = ", ".join(f"unnest(?::{kind}[])" for kind in columns.values())
    for start in range(0, len(rows), chunk):
        lists = [list(column) for column in zip(*rows[start : start + chunk])]
        db.execute(f"INSERT INTO {table} SELECT {unnested}", lists)


def create(db, table: str, columns: dict[str, str]):
    fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    db.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({fields})")


# Who is who, and which copies count:
# - a customer is an id plus the number of its erasures, at different times, before the event; an event at the very
#   time of an erasure belongs to the customer who is erased (`load` says when an erasure is);
# - of events with the same (customer id, type, id) the first in file order counts, also when an
#   erase lies between them: an erased customer's order that is delivered again is still a copy;
#   an event without an id always counts. One that lies more than `dedup_for` from the one that
#   counted, in UTC days, is another event: see `Copies`.
ACCEPTED_EVENTS = """
CREATE OR REPLACE TEMP TABLE events AS
WITH erasures AS (
    SELECT customer_id, time_ms AS at, row_number() OVER (PARTITION BY customer_id ORDER BY time_ms) AS number
    FROM (SELECT DISTINCT customer_id, time_ms FROM raw_events WHERE type = 'erase')
),
born AS (
    SELECT e.*, coalesce(x.number, 0) AS erases_before
    FROM raw_events e ASOF LEFT JOIN erasures x ON e.customer_id = x.customer_id AND e.time_ms > x.at
    WHERE e.type <> 'erase'
),
lives AS (
    SELECT b.*, x.at AS erased_at
    FROM born b ASOF LEFT JOIN erasures x ON b.customer_id = x.customer_id AND b.time_ms <= x.at
)
SELECT file_order, type, time_ms, civil_day, currency, amount, kind, referred, erased_at,
       dense_rank() OVER (ORDER BY customer_id, erases_before) AS customer
FROM lives
WHERE type <> 'erase' AND NOT is_copy
"""

# Of the orders of a customer on one civil day the first one stands, by time and then by place in the file. The others
# are payments: they add their amounts, and count as orders nowhere.
MERGED_ORDERS = """
CREATE OR REPLACE TEMP TABLE events AS
SELECT * REPLACE (CASE WHEN type = 'order' AND row_number() OVER (PARTITION BY customer, type, civil_day
                                                                  ORDER BY time_ms, file_order) > 1
                       THEN 'payment' ELSE type END AS type)
FROM events
"""

# Which bookings count as an order of their currency: each order, and where those of a day are one, the first of the day
# in the currency.
COUNTED_BOOKINGS = """
CREATE OR REPLACE TEMP TABLE bookings AS
SELECT file_order, b.currency, b.amount,
       type IN ('order', 'payment')
         AND (NOT $merged OR row_number() OVER (PARTITION BY type IN ('order', 'payment'), customer, e.civil_day, b.currency
                                                ORDER BY time_ms, file_order) = 1) AS is_order
FROM bookings b JOIN events e USING (file_order)
"""

# Every amount once in its own currency, and once more in the reporting currency where a rate holds
# on the event's civil day: the latest line of the currency on or before that day.
BOOKINGS = """
CREATE OR REPLACE TEMP TABLE bookings AS
SELECT file_order, currency, amount FROM events WHERE amount IS NOT NULL
"""
CONVERTIBLE = """
SELECT file_order, currency, amount, line
FROM events ASOF LEFT JOIN rates
     ON events.currency = rates.rate_currency AND events.civil_day >= rates.from_day
WHERE amount IS NOT NULL
"""
BOOKING_COLUMNS = {"file_order": "BIGINT", "currency": "VARCHAR", "amount": "BIGINT"}
RATE_COLUMNS = {"rate_currency": "VARCHAR", "from_day": "BIGINT", "line": "BIGINT"}


def book(db, config: Config, with_reporting: bool):
    """Fills `bookings`."""
    db.execute(BOOKINGS)
    if not (with_reporting and config.reporting):
        return
    create(db, "rates", RATE_COLUMNS)
    lines = [(currency, day, line) for line, (day, currency, _) in enumerate(config.rates)]
    insert(db, "rates", RATE_COLUMNS, lines)
    bookings = []
    for row in query(db, CONVERTIBLE):
        if row["currency"] == config.reporting:
            rate = Fraction(1)
        elif row["line"] is not None:
            rate = config.rates[row["line"]][2]
        else:
            continue
        amount = converted(row["amount"], row["currency"], rate, config.reporting)
        bookings.append((row["file_order"], REPORTING, amount))
    insert(db, "bookings", BOOKING_COLUMNS, bookings)


class Copies:
    """Which events are copies of one that counted, in file order."""

    def __init__(self, dedup_for_ms: int):
        self.days = -(-dedup_for_ms // DAY_MS)
        self.counted: dict[tuple, int] = {}

    def has(self, event: dict) -> bool:
        if event["event_id"] is None:
            return False
        identity = (event["customer_id"], event["type"], event["event_id"])
        day = event["time_ms"] // DAY_MS
        if identity in self.counted and abs(day - self.counted[identity]) <= self.days:
            return True
        self.counted[identity] = day
        return False


def load(db, paths: list[Path], config: Config, with_reporting: bool) -> Counter:
    """Fills `events`, `bookings` and `order_attributes`; returns the reasons of rejected records."""
    rejected = Counter()
    rows, attributes = [], []
    copies = Copies(config.dedup_for_ms)
    records = ((path, record) for path in paths for record in read_records(path))
    newest: dict[Path, int] = {}
    for file_order, (path, record) in enumerate(records):
        try:
            if record is None:
                raise ValueError("not a JSON object")
            event = read_event(record, config.zone)
        except ValueError as error:
            rejected[str(error)] += 1
            continue
        # An erasure is not before what its own file has brought; without a time it is then.
        if event["type"] != "erase":
            newest[path] = max(event["time_ms"], newest.get(path, event["time_ms"]))
        elif (times := [time for time in (event["time_ms"], newest.get(path)) if time is not None]):
            event["time_ms"] = max(times)
        else:
            continue
        event["is_copy"] = copies.has(event)
        rows.append((file_order, *(event[name] for name in list(RAW_COLUMNS)[1:])))
        if event["type"] == "order" and isinstance(event["attributes"], dict):
            for dimension in config.dimensions:
                value = identifier(event["attributes"].get(dimension))
                if value is not None:
                    attributes.append((file_order, dimension, value))
    create(db, "raw_events", RAW_COLUMNS)
    create(db, "order_attributes", ATTRIBUTE_COLUMNS)
    insert(db, "raw_events", RAW_COLUMNS, rows)
    insert(db, "order_attributes", ATTRIBUTE_COLUMNS, attributes)
    db.execute(ACCEPTED_EVENTS)
    if config.merge_orders:
        db.execute(MERGED_ORDERS)
    book(db, config, with_reporting)
    db.execute(COUNTED_BOOKINGS, {"merged": config.merge_orders})
    return rejected


# --------------------------------------------------------------------------------------
# Windows: one span = one window at one instant
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """The window (start, end] in panes; customers are active with an order in so many panes up to then."""

    start: int  # p - P; for a calendar period the day before its first
    end: int  # p
    active_for: int  # A at the start
    active_for_at_end: int


SPAN_COLUMNS = {"span": "INTEGER", "s": "BIGINT", "p": "BIGINT", "a": "BIGINT", "e": "BIGINT"}


def pane_sql(resolution_ms: int) -> str:
    return f"floor(time_ms / {resolution_ms})::BIGINT"


CIVIL_DAY_PANE = "civil_day"

# `facts`: the events with their pane, and the customer's segment value with the customer's first order.
# Where nothing is split, everybody is in one value from the beginning of time.
FACTS = f"""
CREATE OR REPLACE TEMP TABLE facts AS
SELECT {{pane}} AS pane, events.* EXCLUDE (currency, amount),
       type = 'order' AND row_number() OVER (PARTITION BY customer, type
                                             ORDER BY time_ms, file_order) = 1 AS is_first_order,
       '{EVERYBODY}' AS segment, -(2::BIGINT ** 60)::BIGINT AS first_order_ms, -(2 ** 60)::BIGINT AS first_order_pane
FROM events
"""

# The segment comes from the earliest order; of orders at the same time, the first in the file.
SEGMENT_FACTS = """
CREATE OR REPLACE TEMP TABLE facts AS
WITH earliest_orders AS (
    SELECT DISTINCT ON (customer) customer, file_order, time_ms AS first_order_ms, {pane} AS first_order_pane
    FROM events
    WHERE type = 'order'
    ORDER BY customer, time_ms, file_order
),
segments AS (
    SELECT e.*,
           CASE WHEN o.value IS NULL THEN $unknown
                WHEN $listed AND NOT list_contains($values::VARCHAR[], o.value) THEN $other
                ELSE o.value END AS segment
    FROM earliest_orders e
    LEFT JOIN order_attributes o ON o.file_order = e.file_order AND o.dimension = $dimension
)
SELECT {pane} AS pane, events.* EXCLUDE (currency, amount),
       coalesce(events.file_order = segments.file_order, false) AS is_first_order,
       segment, first_order_ms, first_order_pane
FROM events LEFT JOIN segments USING (customer)
"""

# What counts as of a span: events in panes <= p. Before the first order the value is "none": a
# customer is counted for the value that holds at p, what happened for the one that held then.
COUNTED = f"""
counted AS (
    SELECT span, s, p, a, e, f.*,
           CASE WHEN first_order_pane <= p     THEN segment ELSE '{NO_VALUE}' END AS value_now,
           CASE WHEN first_order_ms <= time_ms THEN segment ELSE '{NO_VALUE}' END AS value_then
    FROM facts f JOIN spans ON f.pane <= spans.p
)
"""

CUSTOMER_FIGURES = f"""
WITH {COUNTED},
customers AS (
    SELECT span, value_now AS value, customer,
           bool_or(type = 'order' AND pane > s - a AND pane <= s)       AS active_at_start,
           bool_or(type = 'order' AND pane > p - e)                     AS active_at_end,
           min(pane) FILTER (type = 'order') > s                        AS is_new,
           count(*)  FILTER (type = 'order' AND pane > s)               AS orders_within,
           count(*)  FILTER (type = 'order')                            AS orders_ever,
           max(time_ms) FILTER (type = 'order')
             - min(time_ms) FILTER (type = 'order')                     AS first_to_last_ms,  -- the sum of the gaps
           bool_or(referred AND (is_first_order OR type = 'customer'))  AS is_referred,
           bool_or(type = 'feedback' AND kind = 'complaint')            AS has_complained,
           bool_or(type = 'cost')                                       AS has_cost
    FROM counted
    GROUP BY span, s, p, a, e, value_now, customer
    HAVING orders_ever >= 1
),
by_customers AS (
    SELECT span, value,
           count(*) FILTER (active_at_start)                           AS start_customers,
           count(*) FILTER (active_at_end)                             AS end_customers,
           count(*) FILTER (is_new)                                    AS new_customers,
           count(*) FILTER (active_at_start AND NOT active_at_end)     AS lost_customers,
           count(*) FILTER (active_at_start AND active_at_end)         AS retained_customers,
           count(*) FILTER (active_at_end AND NOT active_at_start
                            AND NOT is_new)                            AS reactivated_customers,
           count(*) FILTER (orders_within >= 1)                        AS ordering_customers,
           count(*) FILTER (orders_within >= 2)                        AS repeat_customers,
           count(*) FILTER (orders_within >= 1 AND orders_ever >= 2)   AS returning_customers,
           count(*) FILTER (is_new AND is_referred)                    AS referred_customers,
           count(*) FILTER (active_at_start AND NOT active_at_end
                            AND has_complained)                        AS lost_complainers,
           count(*)                                                    AS customers_to_date,
           count(*) FILTER (has_cost)                                  AS costed_customers,
           sum(orders_within)                                          AS orders,
           sum(first_to_last_ms) FILTER (orders_ever >= 2)             AS gaps_ms,
           count(*) FILTER (orders_ever >= 2)                          AS gap_customers
    FROM customers
    GROUP BY span, value
),
by_visits AS (
    SELECT span, value_now AS value, count(DISTINCT customer) AS visiting_customers
    FROM counted
    WHERE type = 'session' AND pane > s
    GROUP BY span, value_now
),
by_sessions AS (
    SELECT span, value_then AS value, count(*) AS sessions
    FROM counted
    WHERE type = 'session' AND pane > s
    GROUP BY span, value_then
)
SELECT *
FROM by_customers FULL JOIN by_visits USING (span, value) FULL JOIN by_sessions USING (span, value)
"""

CURRENCY_FIGURES = f"""
WITH {COUNTED}
SELECT span, value_then AS value, currency,
       count(*) FILTER (is_order AND pane > s)                                     AS orders,
       coalesce(sum(amount) FILTER (type IN ('order', 'payment') AND pane > s), 0) AS revenue,
       coalesce(sum(amount) FILTER (type = 'refund' AND pane > s), 0)              AS refunds,
       coalesce(sum(amount) FILTER (type = 'cancel' AND pane > s), 0)              AS cancellations,
       coalesce(sum(amount) FILTER (kind = 'acquisition' AND type = 'cost' AND pane > s), 0) AS acquisition_costs,
       coalesce(sum(amount) FILTER (kind = 'retention'   AND type = 'cost' AND pane > s), 0) AS retention_costs,
       sum(amount) FILTER (type = 'cost')                                          AS costs_to_date,
       count(*) FILTER (type <> 'cost' AND pane > s)                               AS sales_within
FROM counted JOIN bookings USING (file_order)
GROUP BY span, value_then, currency
HAVING count(*) FILTER (pane > s) >= 1
ORDER BY currency
"""

COUNTS = (
    "start_customers", "end_customers", "new_customers", "lost_customers", "retained_customers",
    "reactivated_customers", "ordering_customers", "repeat_customers", "returning_customers",
    "visiting_customers", "orders", "sessions",
)


def query(db, sql: str, parameters=None) -> list[dict]:
    cursor = db.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def span_figures(db, spans: list[Span], at_once: int = 64) -> dict[Span, dict[str, dict]]:
    """Per span and value of the dimension ("everybody", if `facts` has none) the sums of `facts`."""
    figures = {span: {} for span in spans}
    distinct = list(figures)
    for start in range(0, len(distinct), at_once):
        chunk = distinct[start : start + at_once]
        create(db, "spans", SPAN_COLUMNS)
        rows = [
            (i, span.start, span.end, span.active_for, span.active_for_at_end)
            for i, span in enumerate(chunk)
        ]
        insert(db, "spans", SPAN_COLUMNS, rows)

        def sums(row):
            return figures[chunk[row["span"]]].setdefault(row["value"], no_figures())

        for row in query(db, CUSTOMER_FIGURES):
            sums(row).update({name: row[name] or 0 for name in NO_FIGURES})
        for row in query(db, CURRENCY_FIGURES):
            sums(row)["currencies"][row["currency"]] = row
    return figures


ADDED_COUNTS = ("referred_customers", "lost_complainers", "customers_to_date", "costed_customers")
NO_FIGURES = dict.fromkeys((*COUNTS, *ADDED_COUNTS, "gaps_ms", "gap_customers"), 0)


def no_figures() -> dict:
    return {**NO_FIGURES, "currencies": {}}


@dataclass(frozen=True)
class Shown:
    """What of a window is printed."""

    parts: frozenset[str]
    reporting: str | None
    clv_period_ms: int | None = None  # of the reference window
    split: bool = False  # whether this is one value of a dimension

    def has(self, part: str) -> bool:
        return part in self.parts


def window_json(figures: dict, complete: bool, new_complete: bool, shown: Shown):
    """Ratios and averages from the sums of one span."""
    f = figures
    start, ordering = f["start_customers"], f["ordering_customers"]
    lifespan_ms = Fraction(int(f["gaps_ms"]), f["gap_customers"]) if f["gap_customers"] else None
    value_per_net = None  # clv per unit of net revenue
    if shown.clv_period_ms and complete and ordering and lifespan_ms is not None:
        value_per_net = lifespan_ms / ordering / shown.clv_period_ms
    with_costs = shown.has("costs") and not shown.split
    return {
        **{name: int(f[name]) for name in COUNTS},
        "churn_ratio": ratio(f["lost_customers"], start),
        "retention_ratio": ratio(f["retained_customers"], start),
        "crr_ratio": ratio(f["end_customers"] - f["new_customers"], start),
        "repeat_ratio": ratio(f["repeat_customers"], ordering),
        "returning_ratio": ratio(f["returning_customers"], ordering),
        "purchase_frequency": ratio(int(f["orders"]), ordering),
        "conversion_ratio": ratio(ordering, f["visiting_customers"]),
        "complete": complete,
        "new_complete": new_complete,
        "lifespan_seconds": None if lifespan_ms is None else float(lifespan_ms / 1000),
        **added_json(f, shown),
        "currencies": {
            currency: currency_json(sums, currency, value_per_net, f["customers_to_date"], shown)
            for currency, sums in f["currencies"].items()
            if with_costs or sums["sales_within"]
        },
    }


def added_json(f: dict, shown: Shown) -> dict:
    """Referrals, complainers and coverage of one span."""
    added = {}
    if shown.has("referrals"):
        added["referred_customers"] = f["referred_customers"]
        added["referral_ratio"] = ratio(f["referred_customers"], f["new_customers"])
    if shown.has("complainers"):
        added["lost_complainers"] = f["lost_complainers"]
        added["lost_complainer_ratio"] = ratio(f["lost_complainers"], f["lost_customers"])
    if shown.has("coverage") and not shown.split:
        added["customers_to_date"] = f["customers_to_date"]
        added["costed_customers"] = f["costed_customers"]
        added["cost_coverage_ratio"] = ratio(f["costed_customers"], f["customers_to_date"])
    return added


def currency_json(sums: dict, currency: str, value_per_net, customers_to_date: int, shown: Shown) -> dict:
    exponent = exponent_of(currency, shown.reporting)
    unit = 10**exponent
    orders, gross = sums["orders"], int(sums["revenue"])
    net = gross - int(sums["refunds"]) - int(sums["cancellations"])
    clv = None if value_per_net is None else Fraction(net, unit) * value_per_net
    amounts = ["revenue", "refunds", "cancellations"]
    if shown.has("costs") and not shown.split:
        amounts += ["acquisition_costs", "retention_costs"]
    result = {
        "orders": orders,
        **{name: money(int(sums[name]), exponent) for name in amounts},
        "average_order_value": decimal_string(Fraction(gross, unit * orders)) if orders else None,
        "net_average_order_value": decimal_string(Fraction(net, unit * orders)) if orders else None,
    }
    if not shown.split or shown.has("segment_clv"):
        result["clv"] = None if clv is None else decimal_string(clv)
    if shown.has("clv_after_costs") and not shown.split:
        after = None
        if clv is not None and sums["costs_to_date"] is not None:
            after = clv - Fraction(int(sums["costs_to_date"]), unit * customers_to_date)
        result["clv_after_costs"] = None if after is None else decimal_string(after)
    return result


# Rolling windows ----------------------------------------------------------------------


def rolling_span(window: Window, as_of: int) -> Span:
    p = as_of // window.resolution_ms
    period = window.period_ms // window.resolution_ms
    active_for = window.active_for_ms // window.resolution_ms
    return Span(p - period, p, active_for, active_for)


def rolling_json(window: Window, span: Span, sums: dict, config: Config, begin, shown: Shown) -> dict:
    needed_from = (span.start - span.active_for + 1) * window.resolution_ms
    complete = begin is not None and begin <= needed_from
    if window.name == config.clv_window:
        shown = replace(shown, clv_period_ms=window.period_ms)
    return {
        "window": window.name,
        "period_seconds": window.period_ms // 1000,
        "active_for_seconds": window.active_for_ms // 1000,
        **window_json(sums, complete, complete and config.history_whole, shown),
    }


def windows_part(db, config: Config, as_ofs: list[int], begin: int | None, shown: Shown):
    results = [[] for _ in as_ofs]
    for window in config.windows:
        db.execute(FACTS.format(pane=pane_sql(window.resolution_ms)))
        spans = [rolling_span(window, as_of) for as_of in as_ofs]
        figures = span_figures(db, spans)
        for result, span in zip(results, spans):
            sums = figures[span].get(EVERYBODY, no_figures())
            result.append(rolling_json(window, span, sums, config, begin, shown))
    return results


# Calendar windows ---------------------------------------------------------------------


def period_of(name: str, day: date) -> tuple[date, date]:
    """First and last day of the week, month, quarter or year that holds the day."""
    if name == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=6)
    months = {"month": 1, "quarter": 3, "year": 12}[name]
    first_month = (day.month - 1) // months * months + 1
    last_month = first_month + months - 1
    last_day = gregorian.monthrange(day.year, last_month)[1]
    return date(day.year, first_month, 1), date(day.year, last_month, last_day)


def periods(name: str, first_order_day: int | None, today: int) -> list[tuple[date, date]]:
    """From the first order's period to today's, empty ones included."""
    result = []
    day = None if first_order_day is None else day_of(period_of(name, date_of(first_order_day))[0])
    while day is not None and day <= today:
        first, last = period_of(name, date_of(day))
        result.append((first, last))
        day = day_of(last) + 1
    return result


@dataclass(frozen=True)
class CalendarSpan:
    first: date
    last: date
    closed: bool
    span: Span


def calendar_span(window: CalendarWindow, first: date, end: int) -> Span:
    start = day_of(first) - 1
    if window.active_for_days is not None:
        return Span(start, end, window.active_for_days, window.active_for_days)
    before = period_of(window.name, date_of(start))
    return Span(start, end, start - day_of(before[0]) + 1, end - start)


def calendar_spans(db, window: CalendarWindow, zone: ZoneInfo, as_of: int) -> list[CalendarSpan]:
    today = civil_day(as_of, zone)
    sql = "SELECT min(civil_day) FROM events WHERE type = 'order'"
    first_order_day = db.execute(sql).fetchone()[0]
    return [
        CalendarSpan(
            first,
            last,
            closed=today > day_of(last),
            span=calendar_span(window, first, min(day_of(last), today)),
        )
        for first, last in periods(window.name, first_order_day, today)
    ]


def period_json(window: CalendarWindow, period: CalendarSpan, sums: dict, config: Config, begin, shown: Shown):
    needed_day = period.span.start - period.span.active_for + 1
    complete = begin is not None and begin <= first_instant(needed_day, config.zone)
    return {
        "window": window.name,
        "from": period.first.isoformat(),
        "to": period.last.isoformat(),
        "closed": period.closed,
        "active_for_seconds": window.active_for_days and window.active_for_days * DAY_MS // 1000,
        **window_json(sums, complete, complete and config.history_whole, shown),
    }


def calendar_part(db, config: Config, as_ofs: list[int], begin: int | None, shown: Shown):
    results = [[] for _ in as_ofs]
    db.execute(FACTS.format(pane=CIVIL_DAY_PANE))
    for window in config.calendar:
        lists = [calendar_spans(db, window, config.zone, as_of) for as_of in as_ofs]
        figures = span_figures(db, [period.span for spans in lists for period in spans])
        for result, spans in zip(results, lists):
            for period in spans:
                sums = figures[period.span].get(EVERYBODY, no_figures())
                result.append(period_json(window, period, sums, config, begin, shown))
    return results


# Segments -----------------------------------------------------------------------------


def segment_facts(db, pane: str, dimension: str, values: list[str] | None):
    parameters = {
        "dimension": dimension,
        "listed": values is not None,
        "values": values or [],
        "unknown": UNKNOWN_VALUE,
        "other": OTHER_VALUE,
    }
    db.execute(SEGMENT_FACTS.format(pane=pane), parameters)


def segments_part(db, config: Config, as_ofs: list[int], begin: int | None, shown: Shown):
    """Rolling windows, and of each calendar window the period that is open at the instant."""
    results = [[] for _ in as_ofs]
    shown = replace(shown, split=True)
    for dimension, values in config.dimensions.items():
        for window in config.windows:
            segment_facts(db, pane_sql(window.resolution_ms), dimension, values)
            spans = [rolling_span(window, as_of) for as_of in as_ofs]
            figures = span_figures(db, spans)
            for result, span in zip(results, spans):
                for value, sums in sorted(figures[span].items()):
                    head = {"dimension": dimension, "value": value}
                    result.append({**head, **rolling_json(window, span, sums, config, begin, shown)})
        segment_facts(db, CIVIL_DAY_PANE, dimension, values)
        for window in config.calendar:
            lists = [calendar_spans(db, window, config.zone, as_of)[-1:] for as_of in as_ofs]
            figures = span_figures(db, [period.span for spans in lists for period in spans])
            for result, spans in zip(results, lists):
                for period in spans:
                    for value, sums in sorted(figures[period.span].items()):
                        head = {"dimension": dimension, "value": value}
                        result.append({**head, **period_json(window, period, sums, config, begin, shown)})
    return results


# --------------------------------------------------------------------------------------
# Cohorts
# --------------------------------------------------------------------------------------

# Months are numbered year * 12 + month - 1.
COHORTS = """
WITH orders AS (
    SELECT file_order, customer, civil_day, time_ms, type,
           DATE '1970-01-01' + civil_day::INTEGER AS day,
           year(day) * 12 + month(day) - 1 AS month
    FROM events
    WHERE type IN ('order', 'payment') AND civil_day <= $today
),
members AS (
    SELECT customer, min(month) AS cohort, min(time_ms) AS first_ms FROM orders GROUP BY customer
),
sizes AS (
    SELECT cohort, count(*) AS customers FROM members GROUP BY cohort
),
cells AS (  -- every age from 0 to this month's
    SELECT cohort, customers, unnest(range($this_month - cohort + 1)) AS age FROM sizes
),
cell_orders AS (
    SELECT cohort, month - cohort AS age, type, file_order, customer, currency, amount
    FROM orders JOIN members USING (customer) JOIN bookings USING (file_order)
),
cell_returns AS (  -- of members, from their first order on
    SELECT cohort, year(day) * 12 + month(day) - 1 - cohort AS age, type, file_order, customer, currency, amount
    FROM (SELECT file_order, customer, type, time_ms, DATE '1970-01-01' + civil_day::INTEGER AS day
          FROM events WHERE type IN ('refund', 'cancel') AND civil_day <= $today)
    JOIN members USING (customer) JOIN bookings USING (file_order)
    WHERE time_ms >= first_ms
),
cell_events AS (FROM cell_orders UNION ALL FROM cell_returns)
SELECT cohort, age, customers, currency,
       count(DISTINCT customer)   FILTER (type = 'order')           AS ordering_customers,
       count(DISTINCT file_order) FILTER (type = 'order')           AS orders,
       coalesce(sum(amount)       FILTER (type IN ('order', 'payment')), 0) AS revenue,
       coalesce(sum(amount)       FILTER (type = 'refund'), 0)      AS refunds,
       coalesce(sum(amount)       FILTER (type = 'cancel'), 0)      AS cancellations
FROM cells LEFT JOIN cell_events USING (cohort, age)
GROUP BY GROUPING SETS ((cohort, age, customers), (cohort, age, customers, currency))
ORDER BY cohort, age, grouping(currency) DESC, currency
"""


def cohorts_part(db, config: Config, as_ofs: list[int]) -> list[list[dict]]:
    return [cohorts_at(db, civil_day(as_of, config.zone), config.reporting) for as_of in as_ofs]


def cohorts_at(db, today: int, reporting: str | None) -> list[dict]:
    this_month = date_of(today).year * 12 + date_of(today).month - 1
    cells: dict[tuple[int, int], dict] = {}
    for row in query(db, COHORTS, {"today": today, "this_month": this_month}):
        key = (row["cohort"], row["age"])
        if key not in cells:  # the first row of a cell is its total
            year, month = divmod(row["cohort"], 12)
            cells[key] = {
                "cohort": f"{year:04}-{month + 1:02}",
                "age_months": row["age"],
                "customers": row["customers"],
                "ordering_customers": row["ordering_customers"],
                "orders": row["orders"],
                "currencies": {},
            }
        elif row["currency"] is not None:
            exponent = exponent_of(row["currency"], reporting)
            cells[key]["currencies"][row["currency"]] = {
                name: money(int(row[name]), exponent) for name in ("revenue", "refunds", "cancellations")
            }
    return list(cells.values())


# --------------------------------------------------------------------------------------
# Stages
# --------------------------------------------------------------------------------------

# Panes of one hour. A customer is lapsed with no order in (p-A, p], and at risk with no order
# in (p-X, p], X being the at-risk age rounded up to whole hours. `moments` holds who is looked at when.
STATES = """
CREATE OR REPLACE TEMP TABLE states AS
WITH seen AS (
    SELECT customer, p, type, time_ms, pane
    FROM moments JOIN hourly USING (customer)
    WHERE pane <= p
),
customers AS (
    SELECT customer, p,
           count(*)     FILTER (type = 'order') AS orders,
           min(time_ms) FILTER (type = 'order') AS first_ms,
           max(time_ms) FILTER (type = 'order') AS last_ms,
           max(pane)    FILTER (type = 'order') AS last_pane
    FROM seen
    GROUP BY customer, p
),
ages AS (
    SELECT *,
           CASE WHEN orders < 3 THEN 0.5 * $active_for
                ELSE least(greatest($cadence * (last_ms - first_ms) / (orders - 1), $at_risk_min),
                           0.75 * $active_for)
           END AS at_risk_ms,
           ceil(at_risk_ms / $hour)::BIGINT AS at_risk_hours
    FROM customers
)
SELECT customer, p, orders, at_risk_hours,
       CASE WHEN orders = 0                                 THEN 'none'
            WHEN last_pane <= p - $active_for // $hour      THEN 'lapsed'
            WHEN last_pane <= p - at_risk_hours             THEN 'at_risk'
            ELSE 'active'
       END AS status,
       CASE WHEN orders = 0 THEN 'prospect'
            WHEN orders = 1 THEN 'new'
            WHEN orders >= $loyal_orders AND status <> 'lapsed' THEN 'loyal'
            ELSE 'repeat'
       END AS stage
FROM ages
"""


def hourly(db):
    """The events with their pane of an hour."""
    pane = pane_sql(HOUR_MS)
    db.execute(f"CREATE OR REPLACE TEMP TABLE hourly AS SELECT *, {pane} AS pane FROM events")


def states(db, config: Config, moments: str, parameters=None):
    """Fills `states` with who is in which stage and status at the moments that a query selects."""
    if config.active_for_ms % HOUR_MS:
        raise ValueError("active_for_ms: not in whole hours")
    db.execute(f"CREATE OR REPLACE TEMP TABLE moments AS {moments}", parameters)
    db.execute(STATES, {
        "hour": HOUR_MS,
        "active_for": config.active_for_ms,
        "cadence": float(config.at_risk_cadence),
        "at_risk_min": config.at_risk_min_ms,
        "loyal_orders": config.loyal_orders,
    })


def stages_part(db, config: Config, as_ofs: list[int]) -> list[list[dict]]:
    hourly(db)
    results = []
    for as_of in as_ofs:
        states(db, config, "SELECT DISTINCT customer, $p::BIGINT AS p FROM hourly", {"p": as_of // HOUR_MS})
        results.append(query(db, """
            SELECT stage, status, count(*) AS customers
            FROM states GROUP BY stage, status ORDER BY stage, status
        """))
    return results


# --------------------------------------------------------------------------------------
# What has settled: passages, referrals, distances between orders
# --------------------------------------------------------------------------------------


def settled_before(config: Config, as_of: int) -> int:
    """The hour that holds T - allowed_lateness: what lies before it counts."""
    return (as_of - config.allowed_lateness_ms) // HOUR_MS


# Stage and status can change in the hours with an order, and a fixed time after each of them.
# In each of these hours both are worked out anew, as are those of the hour before.
CHANGES = """
CREATE OR REPLACE TEMP TABLE changes AS
SELECT DISTINCT customer, unnest([p, p + at_risk_hours, p + $active_for // $hour]) AS p
FROM states
"""
# A first order leads from none to a status; that a prospect has become new says the same and is not
# told twice. Who climbs several stages within an hour passes each of them.
PASSAGES = """
CREATE OR REPLACE TEMP TABLE passages AS
WITH ladder AS (
    SELECT unnest(['prospect', 'new', 'repeat', 'loyal']) AS stage, unnest(range(4)) AS step
),
pairs AS (
    SELECT p, coalesce(before.status, 'none') AS status_before, now.status AS status_now,
           coalesce(before.stage, 'prospect') AS stage_before, now.stage AS stage_now
    FROM changes
    JOIN states AS now USING (customer, p)
    LEFT JOIN states AS before ON before.customer = changes.customer AND before.p = changes.p - 1
),
steps AS (
    SELECT p, lower_step.step AS step, after.step > before.step AS up
    FROM pairs
    JOIN ladder AS before ON before.stage = stage_before
    JOIN ladder AS after ON after.stage = stage_now
    JOIN ladder AS lower_step ON lower_step.step >= least(before.step, after.step)
                             AND lower_step.step < greatest(before.step, after.step)
)
SELECT p, status_before AS "from", status_now AS "to" FROM pairs WHERE status_before <> status_now
UNION ALL
SELECT p, CASE WHEN up THEN low.stage ELSE high.stage END, CASE WHEN up THEN high.stage ELSE low.stage END
FROM steps JOIN ladder AS low USING (step) JOIN ladder AS high ON high.step = steps.step + 1
WHERE low.stage <> 'prospect'
"""


def transitions_part(db, config: Config, as_ofs: list[int]) -> list[list[dict]]:
    hourly(db)
    states(db, config, "SELECT DISTINCT customer, pane AS p FROM hourly WHERE type = 'order'")
    db.execute(CHANGES, {"active_for": config.active_for_ms, "hour": HOUR_MS})
    states(db, config, "SELECT customer, p FROM changes UNION SELECT customer, p - 1 FROM changes")
    db.execute(PASSAGES)
    counted = """
        SELECT "from", "to", count(*) AS count
        FROM passages WHERE p < $settled GROUP BY ALL ORDER BY ALL
    """
    return [query(db, counted, {"settled": settled_before(config, as_of)}) for as_of in as_ofs]


REFERRALS = """
WITH facts AS (
    SELECT customer, type, pane, referred,
           type = 'order' AND row_number() OVER (PARTITION BY customer, type
                                                 ORDER BY time_ms, file_order) = 1 AS is_first_order
    FROM hourly
)
SELECT customer,
       min(pane) FILTER (is_first_order)                                  AS first_order,
       min(pane) FILTER (referred AND (is_first_order OR type = 'customer')) AS first_mention
FROM facts
GROUP BY customer
HAVING greatest(first_order, first_mention) < $settled AND first_order IS NOT NULL AND first_mention IS NOT NULL
"""


def referrals_part(db, config: Config, as_ofs: list[int]) -> list[int]:
    hourly(db)
    return [len(query(db, REFERRALS, {"settled": settled_before(config, as_of)})) for as_of in as_ofs]


# Kinds beyond the first 50 that were found, in the order of time, are "other".
FEEDBACK = """
WITH kinds AS (
    SELECT kind, row_number() OVER (ORDER BY min((time_ms, file_order))) AS place
    FROM hourly WHERE type = 'feedback' GROUP BY kind
)
SELECT CASE WHEN place <= $kept THEN kind ELSE $other END AS kind, count(*) AS count
FROM hourly JOIN kinds USING (kind)
WHERE type = 'feedback' AND pane <= $p
GROUP BY ALL
ORDER BY ALL
"""


def feedback_part(db, as_ofs: list[int]) -> list[list[dict]]:
    hourly(db)
    fixed = {"kept": FEEDBACK_KINDS, "other": OTHER_VALUE}
    return [query(db, FEEDBACK, {**fixed, "p": as_of // HOUR_MS}) for as_of in as_ofs]


# Distances between successive orders of a customer, in the hour of the later one.
GAPS = """
CREATE OR REPLACE TEMP TABLE gaps AS
SELECT customer, pane, time_ms - lag(time_ms) OVER orders AS gap_ms, row_number() OVER orders AS place
FROM hourly
WHERE type = 'order'
WINDOW orders AS (PARTITION BY customer ORDER BY time_ms, file_order)
"""
GAP_VALUES = {
    "interpurchase_seconds": "SELECT gap_ms FROM gaps WHERE place >= 2 AND pane < $settled ORDER BY 1",
    "time_to_second_order_seconds": "SELECT gap_ms FROM gaps WHERE place = 2 AND pane < $settled ORDER BY 1",
}
# Those of a day together, where they are one order.
ORDER_VALUES = """
WITH orders AS (
    SELECT currency, sum(amount)::BIGINT AS amount
    FROM hourly WHERE type IN ('order', 'payment') AND pane <= $p
    GROUP BY currency, customer, civil_day, CASE WHEN $merged THEN 0 ELSE file_order END
)
SELECT currency, list(amount ORDER BY amount) AS amounts
FROM orders
GROUP BY currency ORDER BY currency
"""
PERCENTS = {"0.1": 10, "0.25": 25, "0.5": 50, "0.75": 75, "0.9": 90, "0.95": 95, "0.99": 99}


def quantiles(values: list[int], unit: int) -> dict[str, float]:
    """Of each q the smallest value such that at least q x count values are no larger."""
    if not values:
        return {}
    return {name: values[-(-percent * len(values) // 100) - 1] / unit for name, percent in PERCENTS.items()}


def distributions_part(db, config: Config, as_ofs: list[int]) -> list[list[dict]]:
    hourly(db)
    db.execute(GAPS)
    results = []
    for as_of in as_ofs:
        entries = []
        for name, sql in GAP_VALUES.items():
            values = [row["gap_ms"] for row in query(db, sql, {"settled": settled_before(config, as_of)})]
            entries.append({
                "name": name, "count": len(values), "sum": sum(values) / 1000,
                "quantiles": quantiles(values, 1000),
            })
        for row in query(db, ORDER_VALUES, {"p": as_of // HOUR_MS, "merged": config.merge_orders}):
            exponent = exponent_of(row["currency"])
            entries.append({
                "name": "order_value", "currency": row["currency"], "count": len(row["amounts"]),
                "sum": money(sum(row["amounts"]), exponent),
                "quantiles": quantiles(row["amounts"], 10**exponent),
            })
        results.append(entries)
    return results


# --------------------------------------------------------------------------------------
# All together
# --------------------------------------------------------------------------------------


@contextmanager
def database():
    db = duckdb.connect(":memory:")
    db.execute("SET preserve_insertion_order = true")
    try:
        yield db
    finally:
        db.close()


def evaluate(
    paths: list[Path],
    raw_config: dict | None = None,
    as_ofs: list[int] | None = None,
    parts: tuple[str, ...] = DEFAULT_PARTS,
) -> tuple[list[dict], Counter]:
    """One object per instant (epoch milliseconds; default: the last event), and the rejects."""
    config = read_config(raw_config or {})
    with database() as db:
        rejected = load(db, [Path(path) for path in paths], config, "reporting" in parts)
        first, last = db.execute("SELECT min(time_ms), max(time_ms) FROM events").fetchone()
        if not as_ofs:
            if last is None:
                raise ValueError("no events and no --as-of")
            as_ofs = [last]
        begin = first if config.data_begin is None else config.data_begin
        shown = Shown(frozenset(parts), config.reporting)
        evaluators = {
            "windows": lambda: windows_part(db, config, as_ofs, begin, shown),
            "calendar": lambda: calendar_part(db, config, as_ofs, begin, shown),
            "cohorts": lambda: cohorts_part(db, config, as_ofs),
            "stages": lambda: stages_part(db, config, as_ofs),
            "segments": lambda: segments_part(db, config, as_ofs, begin, shown),
            "transitions": lambda: transitions_part(db, config, as_ofs),
            "referrals": lambda: referrals_part(db, config, as_ofs),
            "feedback": lambda: feedback_part(db, as_ofs),
            "distributions": lambda: distributions_part(db, config, as_ofs),
        }
        results = {part: evaluators[part]() for part in LIST_PARTS if part in parts}
    objects = [
        {"as_of": format_time(as_of), **{part: results[part][i] for part in results}}
        for i, as_of in enumerate(as_ofs)
    ]
    return objects, rejected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", nargs="+", type=Path, required=True, metavar="FILE",
                        help="NDJSON or CSV (.csv), optionally .gz")
    parser.add_argument("--config", type=Path, metavar="CONFIG.json")
    parser.add_argument("--as-of", action="append", type=parse_time, metavar="TIME",
                        help="RFC 3339 or epoch milliseconds; repeatable (default: the last event)")
    parser.add_argument("--parts", default=",".join(DEFAULT_PARTS),
                        help=f"all, or of {','.join(PARTS)} (default: %(default)s)")
    arguments = parser.parse_args()
    parts = PARTS if arguments.parts == "all" else tuple(arguments.parts.split(","))
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {sorted(unknown)}")
    raw_config = json.loads(arguments.config.read_text()) if arguments.config else {}
    results, rejected = evaluate(arguments.events, raw_config, arguments.as_of, parts)
    for reason, count in sorted(rejected.items()):
        print(f"rejected {count}: {reason}", file=sys.stderr)
    json.dump(results, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
