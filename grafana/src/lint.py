"""Holds the dashboards to the rules of Grafana's dashboard-linter, and to some of our own.

The rules carry the linter's names. Not held: `template-instance-rule` and `target-instance-rule` where a dashboard has no variable
`instance`, for figures of customers are sums over the replicas.

    python grafana/src/lint.py
"""

import json
import re
import sys
from pathlib import Path

import promql_parser as promql
from grafana_foundation_sdk.models import units

DASHBOARDS = Path(__file__).parent.parent / "dashboards"
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
# Grafana's own variables, and what stands for them when a query is read.
STANDINS = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
OVER_TIME = {"rate", "irate", "increase"}


def panels(board):
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def variables(board):
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def plain(query):
    """The query with values in the place of variables."""
    for name, value in STANDINS.items():
        query = query.replace(name, value)
    return re.sub(r"\$\{?([a-z_]+)\}?", r"\1", query)


def selectors(expression):
    """Every vector selector of a query, with the names of the functions around it."""
    found, around = [], []

    def enter(node):
        if isinstance(node, promql.Call):
            around.append(node.func.name)
        if isinstance(node, promql.VectorSelector):
            found.append((node, tuple(around)))
        if isinstance(node, promql.MatrixSelector):
            found.append((node.vector_selector, tuple(around)))
            return
        return

    def leave(node):
        if isinstance(node, promql.Call):
            around.pop()

    promql.walk(expression, enter, leave)
    return found


def matchers(selector):
    return {matcher.name: (str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}


def check_variables(board):
    known = variables(board)
    source = known.get("datasource", {})
    if (source.get("type"), source.get("query"), source.get("label")) != ("datasource", "prometheus", "Data source"):
        yield "template-datasource-rule", "there is no variable datasource, labelled Data source, of type prometheus"
    for name in {"job", "instance"} & known.keys() | {"job"}:
        it = known.get(name, {})
        wanted = {"type": "query", "label": name.capitalize(), "multi": True, "includeAll": True, "allValue": ".+"}
        for key, value in wanted.items():
            if it.get(key) != value:
                yield f"template-{name}-rule", f"{key} of the variable {name} is {it.get(key)!r}, not {value!r}"
    for name, it in known.items():
        if it["type"] != "query":
            continue
        if it["datasource"]["uid"] != "${datasource}":
            yield "template-datasource-rule", f"the variable {name} asks a fixed data source"
        if it["refresh"] != 2:
            yield "template-on-time-change-reload-rule", f"the variable {name} is not read again with the time range"
        query = re.fullmatch(r"label_values\((.+), [a-z_]+\)", it["query"]["query"])
        if not query:
            yield "template-label-promql-rule", f"the variable {name}: {it['query']['query']}"
            continue
        try:
            promql.parse(plain(query[1]))
        except ValueError as error:
            yield "template-label-promql-rule", f"the variable {name}: {error}"


def check_panel(panel):
    where = panel.get("title") or f"panel {panel.get('id')}"
    if panel["type"] == "row":
        return
    if not panel.get("title") or not panel.get("description"):
        yield "panel-title-description-rule", where
    if panel["type"] == "text":
        return
    if panel["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
        yield "panel-datasource-rule", where
    unit = panel["fieldConfig"]["defaults"].get("unit")
    if unit not in UNITS:
        yield "panel-units-rule", f"{where}: {unit}"
    if not panel.get("targets"):
        yield "panel-no-targets-rule", where


def check_target(panel, target, names):
    where = f"{panel['title']}, {target['refId']}"
    if target["datasource"]["uid"] != "${datasource}":
        yield "panel-datasource-rule", where
    try:
        expression = promql.parse(plain(target["expr"]))
    except ValueError as error:
        yield "target-promql-rule", f"{where}: {error}"
        return
    if re.search(r"\[(?!\$__rate_interval\])", target["expr"]):
        yield "target-rate-interval-rule", f"{where}: {target['expr']}"
    if panel["type"] == "timeseries" and not target.get("legendFormat"):
        yield "legend", where
    for selector, functions in selectors(expression):
        found = matchers(selector)
        for name in ["job", *(["instance"] if "instance" in names else [])]:
            # A single number says something of the group as a whole.
            of_group = name == "instance" and panel["type"] == "stat"
            if found.get(name) != ("MatchOp.Re", name) and not of_group:
                yield f"target-{name}-rule", f"{where}: {selector.name} is not narrowed to ${name}"
        counter = selector.name.endswith("_total") or (selector.name.endswith("_bucket") and "event_latency" in selector.name)
        if counter and not OVER_TIME & set(functions):
            yield "target-counter-agg-rule", f"{where}: {selector.name} is a counter"


def check_board(board):
    if board["editable"]:
        yield "uneditable-dashboard", "it can be edited where it is provisioned"
    if "retentiond" not in board["tags"] or not board["uid"] or not board["description"]:
        yield "head", "tag, uid or description is missing"
    yield from check_variables(board)
    used = json.dumps(board["panels"])
    for name in variables(board):
        if f"${name}" not in used and f"${{{name}}}" not in used:
            yield "unused-variable", name
    taken = set()
    for panel in panels(board):
        yield from check_panel(panel)
        for target in panel.get("targets", []):
            yield from check_target(panel, target, variables(board))
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if cells & taken or place["x"] + place["w"] > 24:
            yield "layout", f"{panel.get('title')} lies over another panel or past the edge"
        taken |= cells


def main() -> int:
    paths = sorted(DASHBOARDS.glob("*.json"))
    faults, queries, uids = [], 0, []
    for path in paths:
        board = json.loads(path.read_text())
        uids.append(board["uid"])
        queries += sum(len(panel.get("targets", [])) for panel in panels(board))
        faults += [f"{path.name}: {rule}: {what}" for rule, what in check_board(board)]
    if len(set(uids)) != len(uids):
        faults.append(f"two dashboards share a uid: {uids}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(paths)} dashboards with {queries} queries, {len(faults)} faults")
    return 1 if faults or queries < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
