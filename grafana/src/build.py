"""Writes the dashboards as JSON; `--check` compares instead and says which differ.

    pip install -r grafana/src/requirements.txt
    python grafana/src/build.py
"""

import json
import sys
from pathlib import Path

import operations
import overview
import reactivation
import segments
from grafana_foundation_sdk.cog.encoder import JSONEncoder

DASHBOARDS = Path(__file__).parent.parent / "dashboards"
FILES = {
    "retention-overview.json": overview,
    "cohorts-and-segments.json": segments,
    "reactivation.json": reactivation,
    "operations.json": operations,
}


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    differing = []
    for name, module in FILES.items():
        text = json.dumps(module.dashboard(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        path = DASHBOARDS / name
        if check and (not path.exists() or path.read_text() != text):
            differing.append(name)
        elif not check:
            path.write_text(text)
    stray = {path.name for path in DASHBOARDS.glob("*.json")} - FILES.keys()
    for name in [*differing, *sorted(stray)]:
        print(f"grafana/dashboards/{name} is not what grafana/src says; run grafana/src/build.py", file=sys.stderr)
    return 1 if differing or stray else 0


if __name__ == "__main__":
    sys.exit(main())
