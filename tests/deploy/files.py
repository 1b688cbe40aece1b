"""Checks of the files themselves: manifests against Kubernetes' schemas, alerts and queries by promtool, and so on.

Each check is an async function that returns a note or raises AssertionError; `checks()` lists them with their sentences.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES_VERSIONS = ["1.31", "1.37"]
# Custom resources, kustomize's own and Helm values have no schema among Kubernetes' own.
NOT_KUBERNETES = {"kustomization.yaml", "podmonitor.yaml", "prometheus-adapter.yaml"}


def run(*command, environment=None, cwd=ROOT, expect=0):
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == expect, f"{' '.join(map(str, command))} ended with {done.returncode}: {text.strip()[-600:]}"
    return text


def manifests():
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def kind(name):
    return next(document for path, document in manifests() if document.get("kind") == name and "base" in path.parts)


async def kubernetes_schema():
    seen = 0
    for path, document in manifests():
        if path.name in NOT_KUBERNETES:
            continue
        for version in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{path.relative_to(ROOT)} for Kubernetes {version}: {error.message}") from error
        seen += 1
    # The checker can say no: a misspelt field must fail.
    broken = kind("Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 50
    try:
        kubernetes_validate.validate(broken, KUBERNETES_VERSIONS[-1], strict=True)
    except kubernetes_validate.ValidationError:
        return f"{seen} manifests, Kubernetes {' and '.join(KUBERNETES_VERSIONS)}"
    raise AssertionError("the schema checker accepts a misspelt field")


async def kubernetes_fits():
    deployment, config = kind("Deployment")["spec"], kind("ConfigMap")["data"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    labels = deployment["template"]["metadata"]["labels"]
    for path, document in manifests():
        spec = document.get("spec", {})
        selector = {
            "Deployment": lambda: spec["selector"]["matchLabels"],
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        }.get(document.get("kind"))
        if selector:
            assert selector().items() <= labels.items(), f"{path.name} selects {selector()}, pods have {labels}"
    # What the drain may take fits into what Kubernetes gives.
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + sum(
        int(config[f"CARILLON__DRAIN__{key}_SECONDS"]) for key in ("WINDOW", "GRACE")
    )
    assert needed < pod["terminationGracePeriodSeconds"], f"{needed} s of drain in {pod['terminationGracePeriodSeconds']} s"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config["CARILLON__HTTP__LISTEN"].endswith(f":{ports['http']}")
    assert config["CARILLON__INTERNAL__LISTEN"].endswith(f":{ports['internal']}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "internal"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "losing Redis must not restart nodes"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"] and security["capabilities"]["drop"] == ["ALL"]
    # Ingress reaches the public port only.
    service = next(d for p, d in manifests() if d.get("kind") == "Service" and d["metadata"]["name"] == "carillon")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    base = DEPLOY / "kubernetes/base"
    listed = set(yaml.safe_load((base / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in base.glob("*.yaml")} - {"kustomization.yaml"}, "kustomization.yaml does not list every file"


def node_environments():
    """The settings that the deployment files give a node, by file. Secret files are replaced by real ones."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    yield "docker-compose.yml", compose["services"]["node"]["environment"]
    for variant in ("sentinel.yml", "cluster.yml"):
        services = yaml.safe_load((DEPLOY / "compose" / variant).read_text())["services"]
        yield f"deploy/compose/{variant}", {**compose["services"]["node"]["environment"], **services["node"]["environment"]}
    container = kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    yield "deploy/kubernetes", {**kind("ConfigMap")["data"], **{entry["name"]: entry["value"] for entry in container["env"]}}
    unit = (DEPLOY / "systemd/carillon.service").read_text()
    yield "deploy/systemd", dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
    image = (DEPLOY / "Dockerfile").read_text()
    yield "deploy/Dockerfile", dict(re.findall(r"^ENV (CARILLON__\w+)=(.*)$", image, re.MULTILINE))


def settings_are_known(binary):
    async def check():
        with tempfile.TemporaryDirectory() as folder:
            secret = Path(folder) / "secret"
            secret.write_text("0123456789abcdef0123456789abcdef0123")
            files = 0
            for name, environment in node_environments():
                assert environment, f"no settings found in {name}"
                filled = {"CARILLON__AUTH__MODE": "jwt", "CARILLON__AUTH__SECRET_FILE": str(secret)}
                filled |= {key: str(secret) if key.endswith("_FILE") else value for key, value in environment.items()}
                try:
                    run(binary, "config", "check", environment=filled)
                except AssertionError as error:
                    raise AssertionError(f"{name}: {error}") from error
                files += 1
            run(binary, "config", "check", environment={**filled, "CARILLON__DRAIN__WINDOW": "5"}, expect=1)
        return f"{files} files"

    return check


async def compose_files():
    compose = shutil.which("docker-compose")
    command = [compose] if compose else ["docker", "compose"]
    base = yaml.safe_load(run(*command, "config"))
    assert base["services"]["node"]["read_only"] and base["services"]["node"]["cap_drop"] == ["ALL"]
    published = {name for name, service in base["services"].items() if service.get("ports")}
    assert published <= {"balancer", "grafana"}, f"published: {published}"
    for variant in ("sentinel.yml", "cluster.yml"):
        run(*command, "-f", "docker-compose.yml", "-f", f"deploy/compose/{variant}", "config", "-q")


async def systemd():
    unit = (DEPLOY / "systemd/carillon.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "carillon"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        path = Path(folder) / "carillon.service"
        path.write_text(unit.replace("/usr/local/bin/carillon", str(program)))
        said = run("systemd-analyze", "verify", str(path))
        assert "carillon" not in said, said
        security = run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(path))
    return f"exposure {re.search(r'exposure level.*: ([0-9.]+)', security)[1]} of 10"


def metric_names():
    """The names that a node exposes, read off its source: Prometheus' suffixes follow from kind and unit."""
    names = set()
    source = (ROOT / "src/metrics.rs").read_text()
    for field in re.finditer(r'^    \w+: ([\w<>, ]+) = [^;]*?"(\w+)"(?:, Unit::(\w+))?;', source, re.MULTILINE):
        name = "carillon_" + field[2] + (f"_{field[3].lower()}" if field[3] else "")
        if "Counter" in field[1]:
            names.add(name + "_total")
        elif "Histogram" in field[1]:
            names |= {name + end for end in ("_bucket", "_count", "_sum")}
        else:
            names.add(name)
    assert len(names) > 15, f"only {sorted(names)} found in src/metrics.rs"
    return names


async def monitoring():
    folder = DEPLOY / "monitoring"
    run("promtool", "check", "config", "prometheus.yml", cwd=folder)
    run("promtool", "test", "rules", "alerts.test.yml", cwd=folder)
    alerts = yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((folder / "grafana/dashboards/carillon.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 15
    # promtool reads queries as rules; Grafana's variables are filled in first.
    filled = [query.replace("$__rate_interval", "1m").replace("$job", "carillon") for query in queries]
    with tempfile.TemporaryDirectory() as work:
        rules = {"groups": [{"name": "dashboard", "rules": [{"record": f"q{n}", "expr": q} for n, q in enumerate(filled)]}]}
        (Path(work) / "rules.yml").write_text(yaml.safe_dump(rules))
        run("promtool", "check", "rules", "rules.yml", cwd=work)
    known = metric_names()
    used = set(re.findall(r"carillon_\w+", " ".join([*queries, *(alert["expr"] for alert in alerts)])))
    assert used <= known, f"not exposed by a node: {sorted(used - known)}"
    return f"{len(alerts)} alerts, {len(queries)} queries, {len(used)} metrics"


async def documented():
    """Whatever can fire is explained, and whatever is counted is named, in docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text()
    alerts = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    missing = [alert["alert"] for alert in alerts if alert["alert"] not in text]
    missing += sorted({re.sub(r"_(bucket|count|sum)$", "", name) for name in metric_names()} - set(re.findall(r"carillon_\w+", text)))
    assert not missing, f"docs/operations.md does not mention {missing}"


def checks(binary):
    return [
        ("Kubernetes' schemas accept every manifest", kubernetes_schema),
        ("the manifests fit together: selectors, ports, probes, drain and grace", kubernetes_fits),
        ("docker-compose reads every variant", compose_files),
        ("systemd accepts the unit and finds it hardened", systemd),
        ("promtool accepts alerts, their tests, and every query of the dashboard; every metric exists", monitoring),
        ("docs/operations.md explains every alert and metric", documented),
        ("the node knows every setting that the files give it", settings_are_known(binary)),
    ]


