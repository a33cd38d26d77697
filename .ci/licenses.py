#!/usr/bin/env python3
"""Every dependency comes from the package registry under a licence that deny.toml allows, and each of those is needed.

    cargo metadata --locked --format-version 1 | .ci/licenses.py
"""

import json
import re
import sys
import tomllib
from pathlib import Path


def parse(expression: str):
    """An SPDX expression ("/" is an old spelling of OR) as ("OR" | "AND", parts) or the name of a licence."""
    text = re.sub(r"\s+WITH\s+", "~", expression.replace("/", " OR "))
    tokens = re.findall(r"[()]|[\w.+~-]+", text)

    def chain(word, inner):
        parts = [inner()]
        while tokens and tokens[0] == word:
            tokens.pop(0)
            parts.append(inner())
        return parts[0] if len(parts) == 1 else (word, parts)

    def atom():
        token = tokens.pop(0)
        if token != "(":
            return token
        inner = either()
        tokens.pop(0)
        return inner

    def either():
        return chain("OR", lambda: chain("AND", atom))

    return either()


def fits(licence, allowed: set[str]) -> bool:
    if isinstance(licence, str):
        return licence in allowed
    word, parts = licence
    return (any if word == "OR" else all)(fits(part, allowed) for part in parts)


def main() -> int:
    deny = tomllib.loads((Path(__file__).parent.parent / "deny.toml").read_text())
    allowed = set(deny["licenses"]["allow"])
    packages = [package for package in json.load(sys.stdin)["packages"] if package["source"]]
    licences = {package["name"]: parse(package["license"] or "none") for package in packages}
    problems = [f"{p['name']}: comes from {p['source']}" for p in packages if not p["source"].startswith("registry+")]
    problems += [f"{name}: {licence} is not allowed" for name, licence in licences.items() if not fits(licence, allowed)]
    problems += [
        f"{licence} is allowed in deny.toml and not needed"
        for licence in sorted(allowed)
        if all(fits(each, allowed - {licence}) for each in licences.values())
    ]
    print("\n".join(problems) or f"{len(packages)} dependencies, all under {', '.join(sorted(allowed))}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
