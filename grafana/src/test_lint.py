"""What the lint finds: each rule is broken once, in a dashboard that keeps all of them.

    python grafana/src/test_lint.py
"""

import copy
import json
import unittest

import lint

BOARD = json.loads((lint.DASHBOARDS / "operations.json").read_text())


def figures(board):
    return [panel for panel in lint.panels(board) if panel["type"] == "timeseries"]


def spoil(board, path, value):
    *way, last = path
    for step in way:
        board = board[step]
    board[last] = value


class Lint(unittest.TestCase):
    def found(self, change):
        board = copy.deepcopy(BOARD)
        change(board)
        return {rule for rule, _ in lint.check_board(board)}

    def test_a_good_dashboard_has_no_faults(self):
        self.assertEqual(self.found(lambda board: None), set())

    def test_every_rule_is_held(self):
        def panel(*path, value):
            return lambda board: spoil(figures(board)[0], path, value)

        def query(text):
            return panel("targets", 0, "expr", value=text)

        def variable(place, key, value):
            return lambda board: spoil(board["templating"]["list"][place], [key], value)

        broken = {
            "uneditable-dashboard": lambda board: spoil(board, ["editable"], True),
            "head": lambda board: spoil(board, ["tags"], []),
            "template-datasource-rule": variable(0, "label", "Prometheus"),
            "template-job-rule": variable(1, "multi", False),
            "template-instance-rule": variable(2, "allValue", ".*"),
            "template-on-time-change-reload-rule": variable(1, "refresh", 1),
            "template-label-promql-rule": variable(1, "query", {"query": "label_values(sum(, job)"}),
            "panel-title-description-rule": panel("description", value=""),
            "panel-datasource-rule": panel("datasource", value={"type": "prometheus", "uid": "P1"}),
            "panel-units-rule": panel("fieldConfig", "defaults", "unit", value="apples"),
            "panel-no-targets-rule": panel("targets", value=[]),
            "legend": panel("targets", 0, "legendFormat", value=""),
            "layout": panel("gridPos", "y", value=0),
            "target-promql-rule": query("sum(by"),
            "target-rate-interval-rule": query('rate(x_total{job=~"$job",instance=~"$instance"}[5m])'),
            "target-counter-agg-rule": query('sum(x_total{job=~"$job",instance=~"$instance"})'),
            "target-job-rule": query('x{job="$job",instance=~"$instance"}'),
            "target-instance-rule": query('x{job=~"$job"}'),
        }
        for rule, change in broken.items():
            with self.subTest(rule):
                self.assertIn(rule, self.found(change))

    def test_a_variable_without_use_is_a_fault(self):
        def drop(board):
            for panel in figures(board):
                for target in panel["targets"]:
                    target["expr"] = 'x{job=~"$job"}'

        self.assertIn("unused-variable", self.found(drop))


if __name__ == "__main__":
    unittest.main()
