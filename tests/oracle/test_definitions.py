#!/usr/bin/env python3
"""The SQL of docs/definitions.md runs, and says what the oracle says, over a dressed-up CDNOW sample."""

import json
import math
import re
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import duckdb

import alerts
from oracle import PARTS, database, evaluate, load, parse_time, read_config

TESTS = Path(__file__).parent.parent
SAMPLE = TESTS / "data" / "CDNOW_sample.txt"
DEFINITIONS = TESTS.parent / "docs" / "definitions.md"

RATES = [["1997-01-01", "USD", "0.9"], ["1998-06-10", "USD", "0.915"], ["1998-01-01", "JPY", "0.007"]]
CONFIG = {"clv_window": "30d", "data_begin": 0, "reporting": "EUR", "rates": RATES}

FIELDS = {name: "VARCHAR" for name in (
    "type", "order_id", "customer_id", "amount", "currency", "referred_by", "kind")}
READ = "read_json($file, format = 'newline_delimited', columns = $columns)"
# Every table of the document; what it says of copies holds for orders alone, and only these have any.
TABLES = {
    "orders": "row_number() OVER () AS log_order, order_id, customer_id, time, amount, currency, referred_by, "
              "attributes.channel AS channel",
    "refunds": "customer_id, time, amount, currency",
    "cancellations": "customer_id, time, amount, currency",
    "sessions": "customer_id, time",
    "profiles": "customer_id, time, referred_by",
    "feedback": "customer_id, time, kind",
    "costs": "customer_id, time, kind, amount, currency",
}
TYPES = {"orders": "order", "refunds": "refund", "cancellations": "cancel", "sessions": "session",
         "profiles": "customer", "feedback": "feedback", "costs": "cost"}


def events() -> list[dict]:
    """The sample with ids, copies, channels, two currencies, and a few events of every other type."""
    result, seen = [], Counter()
    for number, line in enumerate(SAMPLE.read_text(encoding="ascii").split("\n")):
        fields = line.split()
        if not fields:
            continue
        customer, day, dollars, who = fields[0], fields[-3], fields[-1], int(fields[1])
        date = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        head = {"customer_id": customer, "time": f"{date}T00:00:00Z"}
        yen = who % 6 == 0
        money = {"amount": dollars.split(".")[0] if yen else dollars, "currency": "JPY" if yen else "USD"}
        order = {"type": "order", "order_id": f"o-{number}", **head, **money, "attributes": {}}
        if channel := ["web", "app", "ads", None][who % 4]:
            order["attributes"]["channel"] = channel
        if who % 7 == 0 and not seen[customer]:
            order["referred_by"] = "somebody" if who % 14 == 0 else ""
        result.append(order)
        if number % 5 == 0:
            result.append({**order, "amount": "999"})  # a copy, whatever it carries
        if number % 3 == 0:
            result.append({"type": "session", **head, "time": f"{date}T13:00:00Z"})
        if who % 5 == 0:
            result.append({"type": "feedback", **head, "kind": "complaint" if who % 2 else "praise"})
        if who % 9 == 0:
            result.append({"type": "refund", **head, **money})
        if who % 10 == 0:
            result.append({"type": "cancel", **head, **money})
        if who % 3 == 0 and not seen[customer]:
            result.append({"type": "cost", **head, "kind": "acquisition", "amount": "1.50", "currency": "USD"})
        if who % 11 == 0 and not seen[customer]:
            june = {"customer_id": customer, "time": "1998-06-10T10:00:00Z"}
            result.append({"type": "cost", **june, "kind": "retention", "amount": "2.00", "currency": "CHF"})
            result.append({"type": "customer", **june, "referred_by": "somebody" if who % 2 else None})
        seen[customer] += 1
    result.append({"type": "session", "customer_id": "nobody yet", "time": "1998-06-20T00:00:00Z"})
    # The sample won everybody in the first months of 1997; somebody must be new, and referred.
    for who, referrer in (("late", "somebody"), ("later", None)):
        result.append({"type": "order", "order_id": who, "customer_id": who, "time": "1998-06-15T09:00:00Z",
                       "amount": "12.34", "currency": "USD", "referred_by": referrer, "attributes": {}})
    return result


def documented(path: Path) -> tuple[str, list[tuple[str, list[dict]]]]:
    """The instant of the document, and the part and the rows of each of its questions."""
    text = DEFINITIONS.read_text(encoding="utf-8")
    db = duckdb.connect()
    columns = {**FIELDS, "time": "TIMESTAMP", "attributes": "STRUCT(channel VARCHAR)"}
    for table, names in TABLES.items():
        names = names.replace("amount", "amount::DECIMAL(18, 2) AS amount")
        sql = f"CREATE TABLE {table} AS SELECT {names} FROM {READ} WHERE type = '{TYPES[table]}'"
        db.execute(sql, {"file": str(path), "columns": columns})
    db.execute("CREATE TABLE rates (date TIMESTAMP, currency VARCHAR, rate DECIMAL(18, 10))")
    db.executemany("INSERT INTO rates VALUES (?, ?, ?)", RATES)
    answers = []
    for sql in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
        cursor = db.execute(sql)
        if part := re.match(r"-- (\w+)\n", sql):
            names = [column[0] for column in cursor.description]
            answers.append((part[1], [dict(zip(names, row)) for row in cursor.fetchall()]))
    as_of = re.search(r"TIMESTAMP '(.*?)'", text).group(1).replace(" ", "T") + "Z"
    return as_of, answers


RULE = {"name": "lapsing", "after_ms": 45 * 86_400_000}
ALERTS = {"settle_ms": 86_400_000, "holdout": 0, "salt": "", "winback_within_ms": 30 * 86_400_000}


def silences(path: Path) -> dict:
    """What the oracle says of silences, by part."""
    with database() as db:
        load(db, [path], read_config(CONFIG), False)
        messages, [rule] = alerts.evaluate(db, {**CONFIG, "inactivity": [RULE], "alerts": ALERTS})
    inactive = [message for message in messages if message["type"].endswith("inactive.v1")]
    return {
        "alerts": {message["id"]: {**message["data"], "id": message["id"]} for message in inactive},
        "winbacks": rule["treated"],
    }


def expected_row(part: str, row: dict, result: dict) -> dict:
    """Where the oracle says what a row of the document says."""

    def find(entries: list[dict], *names: str) -> dict:
        return next(entry for entry in entries if all(entry[name] == row[name] for name in names))

    window = next(window for window in result["windows"] if window["window"] == "30d")
    match part:
        case "windows":
            return window
        case "currencies":
            return {**window["currencies"][row["currency"]], "currency": row["currency"]}
        case "reporting":
            return window["currencies"]["reporting"]
        case "segments":
            return find([s for s in result["segments"] if s["window"] == "30d"], "value")
        case "stages":
            return find(result["stages"], "stage", "status")
        case "transitions":
            return find(result["transitions"], "from", "to")
        case "distributions":
            entry = find(result["distributions"], "name")
            return {**entry, "median": entry["quantiles"]["0.5"]}
        case "referrals":
            return {"referrals": result["referrals"]}
        case "feedback":
            return find(result["feedback"], "kind")
        case "alerts":
            return result["silences"]["alerts"][row["id"]]
        case "winbacks":
            return result["silences"]["winbacks"]
        case "cohorts":
            return find(result["cohorts"], "cohort", "age_months")
    raise AssertionError(f"a part that is not compared: {part}")


def same(expected, value) -> bool:
    if value is None or expected is None or (isinstance(expected, str) and isinstance(value, str)):
        return expected is value or expected == value
    if isinstance(value, int):
        return Decimal(expected) == value
    return math.isclose(float(expected), float(value), rel_tol=1e-9, abs_tol=1e-9)


def main():
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events.ndjson"
        path.write_text("".join(json.dumps(event) + "\n" for event in events()))
        as_of, answers = documented(path)
        [result], rejected = evaluate([path], CONFIG, [parse_time(as_of)], PARTS)
        result["silences"] = silences(path)
        # Nobody was active before, nobody is lost, nobody visited: every ratio without a denominator is null.
        few = Path(directory) / "few.ndjson"
        few.write_text(json.dumps({**events()[0], "time": "1998-06-29T00:00:00Z"}) + "\n")
        nulls = Counter()
        for part, rows in documented(few)[1]:
            for figure, value in (pair for row in rows for pair in row.items()):
                assert value is None or isinstance(value, str) or math.isfinite(value), (part, figure, value)
                nulls[part] += value is None
        assert nulls["windows"] >= 5, nulls
    assert not rejected, rejected
    asked = {part for part, _ in answers}
    assert asked >= {"windows", "currencies", "reporting", "segments", "stages", "transitions", "distributions",
                     "referrals", "feedback", "cohorts", "alerts", "winbacks"}, asked
    compared = 0
    for part, rows in answers:
        assert rows, part
        if part == "alerts":
            assert {row["id"] for row in rows} == set(result["silences"]["alerts"]), part
        for row in rows:
            expected = expected_row(part, row, result)
            for figure, value in row.items():
                assert same(expected[figure], value), (part, row, figure, value, expected[figure])
                # A figure that is zero here would agree with nearly anything.
                assert part != "windows" or value, (figure, value)
                compared += 1
    assert compared > 200, compared
    print(f"{compared} documented figures are those of the oracle, as of {as_of}")


if __name__ == "__main__":
    main()
