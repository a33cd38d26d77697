#!/usr/bin/env python3
"""Compares the program's figures with the oracle's.

    python compare.py ORACLE.json PROGRAM.json

PROGRAM.json holds an array, one object, or several objects one after the other; instants are
matched by `as_of`. Only what the oracle states is compared:
- integers, booleans, texts and amounts (revenue, refunds, cancellations) exactly,
- other numbers to 1e-9, relative,
- averages (other decimal strings) to 1e-6,
- quantiles of distributions to 4 %, as they are promised; below 25 seconds to a second, below 0.25 to 0.01.
Entries that are missing on one side of a sparse list (cohorts, stages, segments, transitions,
feedback, distributions) count as zero, and so do currencies.
Prints each difference as `path: oracle != program`; exits 1 if there is any.
"""

import json
import math
import sys
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

# How the entries of each list are told apart.
LIST_KEYS = {
    "windows": ("window",),
    "calendar": ("window", "from"),
    "cohorts": ("cohort", "age_months"),
    "stages": ("stage", "status"),
    "segments": ("window", "from", "dimension", "value"),
    "transitions": ("from", "to"),
    "feedback": ("kind",),
    "distributions": ("name", "currency"),
}
SPARSE = {"cohorts", "stages", "segments", "transitions", "feedback", "distributions"}
# What an entry says beside its figures.
NO_FIGURES = {"to", "closed", "period_seconds", "active_for_seconds", "complete", "new_complete"}

EXACT_AMOUNTS = {"revenue", "refunds", "cancellations", "acquisition_costs", "retention_costs"}
AVERAGES = {"average_order_value", "net_average_order_value", "clv", "clv_after_costs"}

RELATIVE_TOLERANCE = 1e-9
QUANTILE_TOLERANCE = 0.04
AVERAGE_TOLERANCE = Decimal("1e-6")
MISSING = object()


@dataclass
class Comparison:
    compared: int = 0
    differences: list[str] = field(default_factory=list)

    def check(self, path: str, equal: bool, oracle, program):
        self.compared += 1
        if not equal:
            self.differences.append(f"{path}: {show(oracle)} != {show(program)}")


def show(value) -> str:
    return "missing" if value is MISSING else json.dumps(value)


def instant(text) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def decimal(value) -> Decimal | None:
    """Amounts and averages are decimal strings; a bare number is not one."""
    try:
        return Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None


def equal_leaves(key: str, oracle, program) -> bool:
    if oracle is None or isinstance(oracle, bool):
        return program is oracle
    if key in EXACT_AMOUNTS or key in AVERAGES or (key == "sum" and isinstance(oracle, str)):
        ours, theirs = decimal(oracle), decimal(program)
        if ours is None or theirs is None:
            return False
        if key not in AVERAGES:
            return ours == theirs
        return abs(ours - theirs) <= max(AVERAGE_TOLERANCE, abs(ours) * Decimal("1e-9"))
    if isinstance(oracle, str):
        return program == oracle
    if isinstance(program, bool) or not isinstance(program, (int, float)):
        return False
    if isinstance(oracle, int):
        return program == oracle
    return math.isclose(oracle, program, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12)


def equal_quantiles(path: str, oracle: float, program) -> bool:
    theirs = decimal(program) if isinstance(program, str) else program
    if theirs is None or isinstance(theirs, bool) or not isinstance(theirs, (int, float, Decimal)):
        return False
    least = 1.0 if "_seconds" in path else 0.01
    return abs(float(theirs) - oracle) <= max(QUANTILE_TOLERANCE * oracle, least) + 1e-9


def is_zero(entry, identity: tuple[str, ...] = ()) -> bool:
    """An entry that says nothing but zero, its identity aside."""
    if isinstance(entry, dict):
        # A cohort's size belongs to the cohort, not to the cell.
        ignored = {*identity, *NO_FIGURES, *(["customers"] if "cohort" in identity else [])}
        return all(is_zero(value) for key, value in entry.items() if key not in ignored)
    if isinstance(entry, str):
        value = decimal(entry)
        return value is not None and value == 0
    return not entry


def compare_values(result: Comparison, path: str, key: str, oracle, program, identity=()):
    if isinstance(oracle, dict):
        if not isinstance(program, dict):
            result.check(path, False, oracle, program)
            return
        for name, value in oracle.items():
            if name in identity:
                continue  # how the two were matched; not a figure
            here, right = f"{path}.{name}", program.get(name, MISSING)
            if key == "currencies" and right is MISSING:
                result.check(here, is_zero(value), value, right)
            elif key == "quantiles":
                result.check(here, equal_quantiles(here, value, right), value, right)
            else:
                compare_values(result, here, name, value, right)
        if key == "currencies":
            for name in program.keys() - oracle.keys():
                result.check(f"{path}.{name}", is_zero(program[name]), MISSING, program[name])
    elif isinstance(oracle, list):
        if isinstance(program, list):
            compare_lists(result, path, key, oracle, program)
        else:
            result.check(path, False, oracle, program)
    else:
        result.check(path, equal_leaves(key, oracle, program), oracle, program)


def compare_lists(result: Comparison, path: str, key: str, oracle: list, program: list):
    identity = LIST_KEYS[key]

    def by_identity(entries: list) -> dict[tuple, dict]:
        found = {}
        for entry in entries:
            name = tuple(entry.get(part) for part in identity)
            if name in found:
                result.differences.append(f"{path}{label(name)}: listed twice")
            found[name] = entry
        return found

    def label(name: tuple) -> str:
        return "[" + ",".join(str(part) for part in name if part is not None) + "]"

    ours, theirs = by_identity(oracle), by_identity(program)
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        here = path + label(name)
        left, right = ours.get(name, MISSING), theirs.get(name, MISSING)
        if left is MISSING or right is MISSING:
            present = right if left is MISSING else left
            same = key in SPARSE and is_zero(present, identity)
            result.check(here, same, left, right)
        else:
            compare_values(result, here, key, left, right, identity)


def compare(oracle: list[dict], program: list[dict]) -> Comparison:
    """Both are lists of objects in the shape of `replay --format json`."""
    result = Comparison()
    theirs = {instant(entry.get("as_of")): entry for entry in program}
    for entry in oracle:
        path = entry["as_of"]
        match = theirs.get(instant(entry["as_of"]), MISSING)
        if match is MISSING:
            result.check(path, False, "as_of", MISSING)
        else:
            compare_values(result, path, "", entry, match, ("as_of",))
    return result


def read_objects(text: str) -> list[dict]:
    """An array, one object, or several objects one after the other."""
    objects, decoder, position = [], json.JSONDecoder(), 0
    while rest := text[position:].lstrip():
        position = len(text) - len(rest)
        value, position = decoder.raw_decode(text, position)
        objects.extend(value if isinstance(value, list) else [value])
    return objects


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: compare.py ORACLE.json PROGRAM.json", file=sys.stderr)
        return 2
    oracle, program = (read_objects(Path(name).read_text()) for name in sys.argv[1:])
    result = compare(oracle, program)
    for difference in result.differences:
        print(difference)
    print(f"{result.compared} figures compared, {len(result.differences)} differ")
    return 1 if result.differences or not result.compared else 0


if __name__ == "__main__":
    sys.exit(main())
