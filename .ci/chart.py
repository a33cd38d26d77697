#!/usr/bin/env python3
"""Renders the Helm chart and holds what comes out to the schemas of Kubernetes and to what the project promises.

    .ci/chart.py HELM PROGRAM

HELM is the program helm, PROGRAM a built retentiond, which reads the configuration that is rendered. Needs promtool.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/helm/retentiond"
EVERYTHING = CHART / "ci/everything-values.yaml"
# The oldest that Chart.yaml allows, and the newest whose schemas are here.
VERSIONS = ["1.27", "1.37"]
# Kinds of the Prometheus operator: what of them is used, since their schemas are not here.
OPERATOR = {
    "PodMonitor": {"selector", "podMetricsEndpoints"},
    "PrometheusRule": {"groups"},
}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def rendered(helm, version, *options):
    code, out, err = run(helm, "template", "shop", CHART, "--kube-version", version, *options)
    assert code == 0, err
    return [document for document in yaml.safe_load_all(out) if document]


def one(documents, kind, ending=""):
    found = [document for document in documents if document["kind"] == kind and document["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{len(found)} of {kind} {ending}"
    return found[0]


def check_schemas(documents, version):
    for document in documents:
        kind = document["kind"]
        if kind in OPERATOR:
            assert document["apiVersion"] == "monitoring.coreos.com/v1" and set(document["spec"]) == OPERATOR[kind], kind
        else:
            kubernetes_validate.validate(document, version, strict=True)


def check_pod(documents):
    """Without rights, without a writable root, with probes, and with an identity that outlives the pod."""
    stateful = one(documents, "StatefulSet")["spec"]
    pod = stateful["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}, paths
    variables = {variable["name"]: variable for variable in container["env"]}
    source = variables["RETENTIOND__KAFKA__INSTANCE_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert source == "metadata.name", source
    selector = stateful["selector"]["matchLabels"].items()
    assert selector <= stateful["template"]["metadata"]["labels"].items()
    for kind in ("PodDisruptionBudget", "Service"):
        chosen = one(documents, kind)["spec"]["selector"]
        assert chosen.get("matchLabels", chosen).items() == selector, kind
    assert stateful["serviceName"] == one(documents, "Service")["metadata"]["name"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in stateful.get("volumeClaimTemplates", [])}
    assert mounts == {volume["name"] for volume in pod["volumes"]} | claims
    return variables


def check_configuration(documents, program, variables):
    toml = one([it for it in documents if not it["metadata"]["name"].endswith("-dashboards")], "ConfigMap")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "retentiond.toml"
        path.write_text(toml["data"]["retentiond.toml"])
        environment = {name: it["value"] for name, it in variables.items() if "value" in it and name.startswith("RETENTIOND__")}
        command = ["env", *(f"{name}={value}" for name, value in environment.items()), program, "validate", "--config", path]
        code, out, err = run(*command)
        assert code == 0, out + err


def check_monitoring(documents):
    """The rules are those of deploy/prometheus, with the runbook's address and the floors of the values."""
    groups = one(documents, "PrometheusRule")["spec"]["groups"]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": groups}, file)
        code, out, err = run("promtool", "check", "rules", "--lint=all", file.name)
        assert code == 0, out + err
    expected = []
    for name in ("alerts.yml", "rules.yml"):
        text = (ROOT / "deploy/prometheus" / name).read_text()
        expected += yaml.safe_load(text.replace("http://127.0.0.1:9736/runbook", "https://example.org/runbook.md"))["groups"]
    assert groups[:-1] == expected
    floors = {rule["labels"]["window"]: rule["expr"] for rule in groups[-1]["rules"]}
    assert floors == {"30d": "vector(0.6)", "90d": "vector(0.5)"}, floors
    endpoint = one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    jobs = [it["replacement"] for it in endpoint["relabelings"] if it["targetLabel"] == "job"]
    assert jobs == ["till-retentiond"], jobs
    boards = one(documents, "ConfigMap", "-dashboards")["data"]
    files = {path.name: json.loads(path.read_text()) for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in boards.items()} == files


def check_refusals(helm):
    """What must not be installed is not rendered, and the message says why."""
    refused = {
        "persistence.existingClaim": ["--set", "replicas=2"],
        "names no bucket": ["--set", "persistence.enabled=false"],
        "at '/replicas'": ["--set", "replicas=two"],
        "'replica'": ["--set", "replica=2"],
        "at '/prometheusRule/retentionFloor": ["--set", "prometheusRule.retentionFloor.30d=60"],
    }
    for why, options in refused.items():
        code, _, err = run(helm, "template", "shop", CHART, "--kube-version", VERSIONS[-1], *options)
        assert code != 0 and why in err, f"{options}: {code}: {err}"


def main() -> int:
    helm, program = sys.argv[1:]
    code, out, err = run(helm, "lint", "--strict", CHART, "--values", EVERYTHING)
    assert code == 0, out + err
    documents = 0
    for version in VERSIONS:
        for options in ([], ["--values", EVERYTHING]):
            found = rendered(helm, version, *options)
            documents += len(found)
            check_schemas(found, version)
            variables = check_pod(found)
            check_configuration(found, program, variables)
            if options:
                check_monitoring(found)
    check_refusals(helm)
    print(f"{documents} documents for Kubernetes {' and '.join(VERSIONS)} are valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
