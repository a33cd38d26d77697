#!/usr/bin/env python3
"""Messages of the program against docs/schema/alert.json: `python test_alert_schema.py ALERTS.ndjson`.

Prints how many there were of each type; exits 1 when one does not fit, or when the schema takes a spoilt one.
"""

import copy
import json
import sys
from collections import Counter
from pathlib import Path

import jsonschema

SCHEMA = Path(__file__).parent.parent.parent / "docs" / "schema" / "alert.json"


def spoilt(message: dict):
    """The message with one thing wrong, in every way that comes to mind."""
    for key in list(message):
        yield {name: value for name, value in message.items() if name != key}
    for key in list(message["data"]):
        less = copy.deepcopy(message)
        del less["data"][key]
        yield less
    for change in ({"id": "x"}, {"type": "other"}, {"extra": 1}, {"time": 0}, {"source": "other"}):
        yield message | change
    for change in ({"revenue": {"EUR": 1.5}}, {"due_at": "yesterday"}, {"extra": 1}):
        yield message | {"data": message["data"] | change}


def main() -> int:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    counts = Counter()
    for line in Path(sys.argv[1]).read_text().splitlines():
        message = json.loads(line)
        for error in validator.iter_errors(message):
            print(f"{line}: {error.message}", file=sys.stderr)
            return 1
        if not counts[message["type"]]:
            for wrong in spoilt(message):
                if validator.is_valid(wrong):
                    print(f"the schema takes {json.dumps(wrong)}", file=sys.stderr)
                    return 1
        counts[message["type"]] += 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
