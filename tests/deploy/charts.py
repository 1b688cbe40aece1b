"""Checks of the Helm chart: Helm's own lint, what it renders against kustomize's and Kubernetes' schemas, bad values.

Each check is an async function that returns a note or raises AssertionError; `checks()` lists them with their sentences.
"""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

import files
import helm

CHART = files.DEPLOY / "helm"
LABEL = "app.kubernetes.io/"
ADDED = ("instance", "version", "managed-by")
OPERATOR = ("ServiceMonitor", "PrometheusRule")


def example():
    return yaml.safe_load((CHART / "ci/example-values.yaml").read_text())


def merged(base, changes):
    """`base` with `changes`, as Helm lays one file of values over another."""
    both = dict(base)
    for key, value in changes.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def rendered(name="carillon", **changes):
    """Resources by kind and name: the example's values with some of them changed."""
    resources, _ = helm.render(CHART, merged(example(), changes), name)
    return {(document["kind"], document["metadata"]["name"]): document for document in resources}


def pod(resources, name="carillon"):
    return resources["Deployment", name]["spec"]["template"]["spec"]


async def lint():
    for name, values in (("its own values", {}), ("the example's", example())):
        found = helm.lint(CHART, values)
        assert not found, f"with {name}: {found}"
    # The checker can say no: a template that does not close, in a copy of the chart.
    with tempfile.TemporaryDirectory() as folder:
        broken = shutil.copytree(CHART, Path(folder) / "carillon")
        (broken / "templates/broken.yaml").write_text("kind: {{ if .Values.image }}")
        assert helm.lint(broken, example()), "lint accepts a template that does not close"


async def schemas():
    resources = rendered()
    plain = [document for (kind, _), document in resources.items() if kind not in OPERATOR]
    for document in plain:
        for version in files.KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{document['kind']} for Kubernetes {version}: {error.message}") from error
    return f"{len(plain)} resources, Kubernetes {' and '.join(files.KUBERNETES_VERSIONS)}"


def without(labels):
    """Labels without those that only a chart sets."""
    return {key: value for key, value in labels.items() if key not in {LABEL + name for name in ADDED} | {"helm.sh/chart"}}


def comparable(document):
    """A resource without what a chart and an overlay name differently: namespace, added labels, the ConfigMap's hash."""
    def walk(value):
        if isinstance(value, dict):
            return {key: without(walk(inner)) if key in ("labels", "matchLabels", "selector") else walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    document = walk(copy.deepcopy(document))
    document["metadata"].pop("namespace", None)
    document["metadata"].pop("labels", None)
    if document["kind"] == "ConfigMap":
        document["metadata"]["name"] = "carillon"
    if document["kind"] == "Deployment":
        template = document["spec"]["template"]
        template["metadata"]["annotations"].pop("checksum/config", None)
        (container,) = template["spec"]["containers"]
        container["envFrom"] = [{"configMapRef": {"name": "carillon"}}]
        container["env"].sort(key=lambda entry: entry["name"])
    return document


async def equal():
    """One truth: with the same settings the chart makes what `kubectl apply -k` sends, to the last field."""
    chart = {key: comparable(document) for key, document in rendered().items() if key[0] not in OPERATOR}
    overlay = {(one["kind"], one["metadata"]["name"]): one for one in map(comparable, files.rendered()) if one["kind"] != "Namespace"}
    assert sorted(chart) == sorted(overlay), f"only one of both has {sorted(set(chart) ^ set(overlay))}"
    for key, document in overlay.items():
        assert chart[key] == document, f"{key}: the chart has {json.dumps(chart[key])}, the overlay {json.dumps(document)}"
    return f"{len(chart)} resources"


async def releases():
    """Two releases in one namespace select their own pods only, and share no name."""
    one, two = rendered("carillon"), rendered("site-b")
    assert not set(one) & set(two), f"both have {set(one) & set(two)}"
    for name, resources in (("carillon", one), ("site-b-carillon", two)):
        labels = resources["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        other = (two if resources is one else one)["Deployment", "site-b-carillon" if resources is one else "carillon"]["spec"]["template"]["metadata"]["labels"]
        selectors = [
            resources["Deployment", name]["spec"]["selector"]["matchLabels"],
            resources["Service", name]["spec"]["selector"],
            resources["Service", f"{name}-internal"]["spec"]["selector"],
            resources["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"],
            resources["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"],
        ]
        for selector in selectors:
            assert selector.items() <= labels.items() and not selector.items() <= other.items(), selector
        # The monitor reads the internal Service, not the public one.
        monitor = resources["ServiceMonitor", name]["spec"]
        selected = [key for key, document in resources.items()
                    if key[0] == "Service" and monitor["selector"]["matchLabels"].items() <= document["metadata"]["labels"].items()]
        assert selected == [("Service", f"{name}-internal")], selected
        ports = [port["name"] for port in resources["Service", f"{name}-internal"]["spec"]["ports"]]
        assert [endpoint["port"] for endpoint in monitor["endpoints"]] == ports == ["internal"]


async def values():
    """What a value changes, and what follows from it."""
    slow = rendered(drain={"preStopSeconds": 10, "windowSeconds": 120, "graceSeconds": 20})
    assert pod(slow)["terminationGracePeriodSeconds"] == 155
    assert pod(slow)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 10
    assert slow["ConfigMap", "carillon"]["data"]["CARILLON__DRAIN__WINDOW_SECONDS"] == "120"
    checksum = lambda resources: resources["Deployment", "carillon"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    assert checksum(slow) != checksum(rendered()), "a changed setting does not roll the pods"
    more = rendered(settings={"CARILLON__LIMITS__SESSIONS": 10000000, "CARILLON__DEMO__ENABLED": True, "CARILLON__AUTH__MODE": None})
    data = more["ConfigMap", "carillon"]["data"]
    assert data["CARILLON__LIMITS__SESSIONS"] == "10000000" and data["CARILLON__DEMO__ENABLED"] == "true" and "CARILLON__AUTH__MODE" not in data
    fixed = rendered(autoscaling={"enabled": False}, replicas=4)
    assert fixed["Deployment", "carillon"]["spec"]["replicas"] == 4 and ("HorizontalPodAutoscaler", "carillon") not in fixed
    digest = "sha256:" + "0" * 64
    assert pod(rendered(image={"digest": digest}))["containers"][0]["image"] == f"registry.example.com/carillon@{digest}"
    # Without a namespace to let in there is no rule, and none that lets everybody in.
    closed = rendered(networkPolicy={"ingressNamespaces": [], "monitoringNamespaces": []})["NetworkPolicy", "carillon"]["spec"]["ingress"]
    assert [rule["ports"] for rule in closed] == [[{"port": "internal"}]] and all(rule["from"] for rule in closed), closed
    # A node gets the secrets that it reads, each as one file, and no others.
    names = ("CARILLON__AUTH__SECRET_FILE", "CARILLON__REDIS__PASSWORD_FILE", "CARILLON__INTERNAL__PUBLISH_TOKEN_FILE")
    some = pod(rendered(secret={"files": {names[0]: None, "CARILLON__REDIS__SENTINEL_PASSWORD_FILE": "sentinel"}}))
    assert [item["key"] for item in some["volumes"][0]["secret"]["items"]] == ["publish-token", "redis-password", "sentinel"]
    environment = {entry["name"]: entry["value"] for entry in some["containers"][0]["env"]}
    assert names[0] not in environment and environment["CARILLON__REDIS__SENTINEL_PASSWORD_FILE"] == "/run/secrets/carillon/sentinel"
    none = pod(rendered(secret={"files": dict.fromkeys(names)}))
    assert "volumes" not in none and "volumeMounts" not in none["containers"][0]


async def refusals():
    """Bad values are refused, and the answer names the value. No secret gets into a ConfigMap."""
    url = "redis://redis:6379"
    cases = [
        ({"image": {"repository": ""}}, "image.repository"),
        ({"redis": {"url": ""}}, "redis.url"),
        ({"redis": {"url": "http://redis"}}, "/redis/url"),
        ({"redis": {"url": "redis://carillon:secret@redis:6379"}}, "/redis/url"),
        ({"redis": {"url": "redis-sentinel://a:1?sentinelServiceName=m&sentinelPassword=x"}}, "/redis/url"),
        ({"settings": {"CARILLON__AUTH__SECRET": "x"}}, "/settings/CARILLON__AUTH__SECRET"),
        ({"settings": {"CARILLON__REDIS__SENTINEL_PASSWORD": "x"}}, "SENTINEL_PASSWORD"),
        ({"settings": {"CARILLON_AUTH__MODE": "jwt"}}, "CARILLON_AUTH__MODE"),
        ({"settings": {"CARILLON__HTTP__LISTEN": "0.0.0.0:1"}}, "settings.CARILLON__HTTP__LISTEN"),
        ({"settings": {"CARILLON__REDIS__URL": url}}, "settings.CARILLON__REDIS__URL"),
        ({"settings": {"CARILLON__AUTH__SECRET_FILE": "/x"}}, "CARILLON__AUTH__SECRET_FILE is in settings and in secret.files"),
        ({"drain": {"windowSeconds": "30"}}, "/drain/windowSeconds"),
        ({"image": {"digest": "sha256:1234"}}, "/image/digest"),
        ({"ingress": {"host": ""}}, "ingress.host"),
        ({"networkPolicy": {"redisPorts": []}}, "/networkPolicy/redisPorts"),
        ({"replica": 3}, "replica"),
    ]
    for changes, named in cases:
        try:
            rendered(**changes)
        except helm.Refused as refused:
            assert named in str(refused), f"{changes}: the answer does not name {named}: {refused}"
            continue
        raise AssertionError(f"accepted: {changes}")
    return f"{len(cases)} bad values"


async def alerts():
    """One source for the alerts; whichever way nodes are found, they bear the job's name that alerts and dashboard ask for."""
    source = yaml.safe_load((files.DEPLOY / "monitoring/alerts.yml").read_text())
    resources = rendered("site-b")
    rule, monitor = resources["PrometheusRule", "site-b-carillon"], resources["ServiceMonitor", "site-b-carillon"]
    assert rule["spec"] == source, "the PrometheusRule differs from deploy/monitoring/alerts.yml"
    assert rule["metadata"]["labels"]["release"] == "prometheus", "prometheusRule.labels are not set"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
        files.run("promtool", "check", "rules", "rules.yml", cwd=folder)
    pods = yaml.safe_load((files.DEPLOY / "kubernetes/monitoring/podmonitor.yaml").read_text())
    scraped = yaml.safe_load((files.DEPLOY / "monitoring/prometheus.yml").read_text())["scrape_configs"]
    assert "carillon" in [job["job_name"] for job in scraped]
    for name, (endpoint,) in (("ServiceMonitor", monitor["spec"]["endpoints"]), ("PodMonitor", pods["spec"]["podMetricsEndpoints"])):
        assert {"targetLabel": "job", "replacement": "carillon"} in endpoint["relabelings"], f"{name}: another job than the alerts ask for"
        assert (endpoint["port"], endpoint["path"]) == ("internal", "/metrics")
    off = rendered(prometheusRule={"enabled": False}, serviceMonitor={"enabled": False})
    assert not [kind for kind, _ in off if kind in OPERATOR], "the operator's resources where there is no operator"


async def versions():
    """The chart installs the program of this tree."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    manifest = (files.ROOT / "Cargo.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in manifest, f"appVersion {chart['appVersion']} is not that of Cargo.toml"
    _, notes = helm.render(CHART, example())
    command = "create secret generic carillon --from-file=jwt=FILE --from-file=publish-token=FILE --from-file=redis-password=FILE"
    assert command in notes, notes


def checks(binary):
    async def known():
        """The node takes what the chart gives it."""
        resources = rendered()
        container = pod(resources)["containers"][0]
        settings = {**resources["ConfigMap", "carillon"]["data"], **{entry["name"]: entry["value"] for entry in container["env"]}}
        with tempfile.NamedTemporaryFile("w", suffix=".secret") as secret:
            secret.write("0123456789abcdef0123456789abcdef0123")
            secret.flush()
            filled = {key: secret.name if key.endswith("_FILE") else value for key, value in settings.items()}
            files.run(binary, "config", "check", "--offline", environment=filled)
        return f"{len(settings)} settings"

    return [
        ("helm lint finds nothing", lint),
        ("Kubernetes' schemas accept what the chart renders", schemas),
        ("the chart and the kustomize example make the same resources", equal),
        ("two releases in one namespace do not touch each other", releases),
        ("the chart's values do what they say", values),
        ("the chart refuses bad values by name, and secrets in a ConfigMap", refusals),
        ("one source for alerts; every monitor names the job that they ask for", alerts),
        ("the chart's version and notes are right", versions),
        ("the node knows every setting that the chart gives it", known),
    ]
