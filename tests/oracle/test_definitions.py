#!/usr/bin/env python3
"""The SQL of docs/definitions.md runs, and says what the oracle says, over the CDNOW sample."""

import re
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import duckdb

from cdnow import convert
from oracle import evaluate, parse_time

TESTS = Path(__file__).parent.parent
SAMPLE = TESTS / "data" / "CDNOW_sample.txt"
DEFINITIONS = TESTS.parent / "docs" / "definitions.md"

ORDERS = """
CREATE TABLE orders AS
SELECT row_number() OVER () AS log_order, NULL::VARCHAR AS order_id, customer_id, time, amount::DECIMAL(18, 2) AS amount, currency
FROM read_csv($file, types = {'customer_id': 'VARCHAR', 'time': 'TIMESTAMP'})
"""


def documented(csv: Path) -> tuple[str, list[dict]]:
    """The instant of the document, and the first row of each of its questions."""
    text = DEFINITIONS.read_text(encoding="utf-8")
    db = duckdb.connect()
    db.execute(ORDERS, {"file": str(csv)})
    answers = []
    for sql in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
        cursor = db.execute(sql)
        if sql.startswith("SELECT"):
            answers.append(dict(zip([column[0] for column in cursor.description], cursor.fetchone())))
    as_of = datetime.fromisoformat(re.search(r"TIMESTAMP '(.*?)'", text).group(1)).replace(tzinfo=timezone.utc)
    return as_of.isoformat().replace("+00:00", "Z"), answers


def main():
    with tempfile.TemporaryDirectory() as directory:
        csv = Path(directory) / "cdnow.csv"
        with SAMPLE.open(encoding="ascii") as lines, csv.open("w") as out:
            convert(lines, out)
        as_of, (people, money) = documented(csv)
        [result], _ = evaluate([csv], None, [parse_time(as_of)], ("windows",))
    window = next(window for window in result["windows"] if window["window"] == "30d")
    assert people["lost_customers"] > 0 and people["reactivated_customers"] > 0
    for figure, value in people.items():
        assert window[figure] == value, (figure, value, window[figure])
    expected = window["currencies"][money.pop("currency")]
    for figure, value in money.items():
        assert abs(float(expected[figure]) - float(value)) < 1e-9, (figure, value, expected[figure])
    print(f"{len(people) + len(money)} documented figures are those of the oracle, as of {as_of}")


if __name__ == "__main__":
    main()
