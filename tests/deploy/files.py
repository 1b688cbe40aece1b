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

import kustomize

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES_VERSIONS = ["1.31", "1.37"]


def run(*command, environment=None, cwd=ROOT, expect=0):
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == expect, f"{' '.join(map(str, command))} ended with {done.returncode}: {text.strip()[-600:]}"
    return text


def rendered():
    """What `kubectl apply -k` sends for the example, which includes everything of the base."""
    return kustomize.build(DEPLOY / "kubernetes/overlays/example")


def kind(name, resource="carillon"):
    return next(document for document in rendered() if (document["kind"], document["metadata"]["name"]) == (name, resource))


async def kubernetes_schema():
    resources = rendered()
    for document in resources:
        for version in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{document['kind']} for Kubernetes {version}: {error.message}") from error
    # The checker can say no: a misspelt field must fail.
    broken = kind("Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 50
    try:
        kubernetes_validate.validate(broken, KUBERNETES_VERSIONS[-1], strict=True)
    except kubernetes_validate.ValidationError:
        return f"{len(resources)} resources, Kubernetes {' and '.join(KUBERNETES_VERSIONS)}"
    raise AssertionError("the schema checker accepts a misspelt field")


async def kubernetes_fits():
    resources = rendered()
    deployment = kind("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    settings = next(document for document in resources if document["kind"] == "ConfigMap")
    # A name with a hash: a changed setting rolls the pods.
    assert re.fullmatch(r"carillon-\w{10}", settings["metadata"]["name"]), settings["metadata"]["name"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    config = settings["data"]
    assert config["CARILLON__REDIS__URL"].startswith("redis-sentinel:"), "the overlay's settings do not win over the base's"
    assert container["image"] == "registry.example.com/carillon:0.2.0", container["image"]
    assert {document["metadata"].get("namespace", "carillon") for document in resources} == {"carillon"}
    labels = deployment["template"]["metadata"]["labels"]
    # Whatever selects our pods selects them, and nobody else's.
    policy, budget = kind("NetworkPolicy")["spec"], kind("PodDisruptionBudget")["spec"]
    selectors = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": kind("Service")["spec"]["selector"],
        "internal Service": kind("Service", "carillon-internal")["spec"]["selector"],
        "PodDisruptionBudget": budget["selector"]["matchLabels"],
        "NetworkPolicy": policy["podSelector"]["matchLabels"],
        "topology": pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    }
    for name, selector in selectors.items():
        assert selector.items() <= labels.items(), f"{name} selects {selector}, pods have {labels}"
        assert len(selector) == 2, f"{name} selects by {selector} only"
    # The public port from the ingress controller alone; the internal one from Prometheus and publishers alone.
    name_of = "kubernetes.io/metadata.name"
    publisher = {"matchLabels": {"carillon.dev/publisher": "true"}}
    allowed = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert allowed == {
        "http": [{"namespaceSelector": {"matchLabels": {name_of: "ingress-nginx"}}}],
        "internal": [
            {"namespaceSelector": {"matchLabels": {name_of: "monitoring"}}}, {"podSelector": publisher}, {"namespaceSelector": publisher},
        ],
    }, allowed
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


async def kubernetes_routes_and_scales():
    deployment, budget = kind("Deployment")["spec"], kind("PodDisruptionBudget")["spec"]
    # Ingress reaches the public port only.
    assert [port["targetPort"] for port in kind("Service")["spec"]["ports"]] == ["http"]
    (rule,) = kind("Ingress")["spec"]["rules"]
    assert [path["backend"]["service"]["name"] for path in rule["http"]["paths"]] == ["carillon"]
    # The autoscaler counts what nodes count, and takes one away at a time.
    scaler = kind("HorizontalPodAutoscaler")["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "carillon_sessions" and scaler["minReplicas"] > budget["maxUnavailable"]
    assert "replicas" not in deployment, "the autoscaler owns the number of replicas"
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
    settings = next(document for document in rendered() if document["kind"] == "ConfigMap")
    yield "deploy/kubernetes", {**settings["data"], **{entry["name"]: entry["value"] for entry in container["env"]}}
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
                    run(binary, "config", "check", "--offline", environment=filled)
                except AssertionError as error:
                    raise AssertionError(f"{name}: {error}") from error
                files += 1
            run(binary, "config", "check", "--offline", environment={**filled, "CARILLON__DRAIN__WINDOW": "5"}, expect=1)
        return f"{files} files"

    return check


def compose(*variant):
    """What docker-compose makes of the file, and of one of its variants: the services."""
    program = shutil.which("docker-compose")
    chosen = [argument for name in ("docker-compose.yml", *variant) for argument in ("-f", name)]
    return yaml.safe_load(run(*([program] if program else ["docker", "compose"]), *chosen, "config"))["services"]


async def compose_files():
    base = compose()
    assert base["node"]["read_only"] and base["node"]["cap_drop"] == ["ALL"]
    published = {name for name, service in base.items() if service.get("ports")}
    assert published <= {"balancer", "grafana"}, f"published: {published}"
    doors = [door for service in base.values() for door in service.get("ports", [])]
    for door in doors:
        host = door.get("host_ip") if isinstance(door, dict) else door.split(":")[0]
        assert host == "127.0.0.1", f"{door} is open to more than this machine"
    # One image for both instances, and for what sets them up.
    assert len({base[name]["image"] for name in ("cms-setup", "cms-01", "cms-02")}) == 1
    for variant in ("sentinel.yml", "cluster.yml"):
        assert compose(f"deploy/compose/{variant}").keys() > base.keys() - {"prometheus", "grafana"}


def mounts(service):
    """Target and source of what a service mounts."""
    pairs = [mount.split(":")[1::-1] if isinstance(mount, str) else (mount["target"], mount["source"]) for mount in service.get("volumes", [])]
    return dict(pairs)


async def compose_secrets():
    """Each service reads its own secrets and sees no others; what hands them on does so, and is seen by nobody."""
    with tempfile.TemporaryDirectory() as folder:
        every = Path(folder) / "all"
        every.mkdir()
        run("sh", "-c", (DEPLOY / "compose/make-secrets").read_text().replace("cd /data", f"cd {every}"))
        made = {path.name for path in every.iterdir()}
        for variant in ((), ("deploy/compose/sentinel.yml",), ("deploy/compose/cluster.yml",)):
            services = compose(*variant)
            shared = {}
            for name in ("redis", "node", "cms", "database"):
                share = services[f"secrets-{name}"]
                assert mounts(share) == {"/all": "secrets", "/data": f"secrets-{name}"} and share["network_mode"] == "none", share
                target = Path(folder) / f"{name}{len(variant)}"
                target.mkdir(exist_ok=True)
                shell, option, script, *arguments = [*share["entrypoint"], *share["command"]]
                script = script.replace("$$", "$").replace("/all", str(every)).replace("/data/", str(target))
                run(shell, option, script, *arguments)
                shared[f"secrets-{name}"] = {path.name for path in target.iterdir()}
            assert set().union(*shared.values()) == made, f"made and handed on: {set().union(*shared.values()) ^ made}"
            node, database = services["node"]["environment"], services["database"]["environment"]
            read = {Path(value).name for key, value in node.items() if key.endswith("_FILE")}
            assert shared["secrets-node"] == read, f"nodes get {shared['secrets-node']} and read {read}"
            settings = (ROOT / "integrations/wagtail/demo/newsroom/settings.py").read_text()
            assert shared["secrets-cms"] == set(re.findall(r'\bsecret\("([\w-]+)"\)', settings)), shared
            assert shared["secrets-database"] == {Path(database["POSTGRES_PASSWORD_FILE"]).name}, shared
            assert shared["secrets-redis"] == {"users.acl", "redis-admin"}, shared
            for name, service in services.items():
                if name == "secrets" or name.startswith("secrets-"):
                    continue
                seen = {source for source in mounts(service).values() if source.startswith("secrets")}
                own = {"node": "node", "cms-setup": "cms", "cms-01": "cms", "cms-02": "cms", "database": "database"}.get(name, "redis")
                others = name in ("balancer", "prometheus", "grafana")
                assert seen == (set() if others else {f"secrets-{own}"}), f"{name} sees {seen}"


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
    return f"{len(alerts)} alerts, {len(queries)} queries"


def metrics_used():
    """The metrics of the dashboard and of the alerts."""
    text = (DEPLOY / "monitoring/grafana/dashboards/carillon.json").read_text()
    queries = [target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    return set(re.findall(r"carillon_\w+", " ".join([*queries, *(rule["expr"] for rule in rules)])))


async def documented():
    """Whatever can fire is explained in docs/operations.md, and nothing else is."""
    section = re.search(r"^## 8\. Alerts\n(.*?)^## ", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    alerts = [rule["alert"] for rule in yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(explained) == sorted(alerts), f"explained: {explained}; can fire: {alerts}"
    return f"{len(alerts)} alerts"


def checks(binary):
    return [
        ("kustomize builds the example; Kubernetes' schemas accept every resource", kubernetes_schema),
        ("the manifests fit together: selectors, policy, ports, probes, drain and grace", kubernetes_fits),
        ("ingress reaches the public port, the autoscaler owns the replicas, kustomization.yaml lists every file", kubernetes_routes_and_scales),
        ("docker-compose reads every variant", compose_files),
        ("docker-compose gives each service its own secrets and no others", compose_secrets),
        ("systemd accepts the unit and finds it hardened", systemd),
        ("promtool accepts alerts, their tests, and every query of the dashboard", monitoring),
        ("docs/operations.md explains every alert", documented),
        ("the node knows every setting that the files give it", settings_are_known(binary)),
    ]
