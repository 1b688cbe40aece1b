"""Helm: the real thing, as a library (tests/deploy/run fetches it), in a process of its own beside kustomize's library.

Both are Go programs, and one process has room for one of these. `render` and `lint` are for the tests.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

TOOLS = Path(__file__).resolve().parents[1] / ".tools/helm"


class Refused(Exception):
    """Helm does not render the chart with these values; the text is what it tells a user."""


def ask(**question):
    done = subprocess.run([sys.executable, __file__], input=json.dumps(question), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Helm ended with {done.returncode}: {done.stderr.strip()[-600:]}"
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise Refused(answer["refused"])
    return answer


def render(chart, values, name="carillon", namespace="carillon"):
    """The resources that `helm install` would send, and NOTES.txt."""
    manifests = ask(call="render", chart=str(chart), values=values, name=name, namespace=namespace)
    notes = next(text for path, text in manifests.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in manifests.items() if path.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document], notes


def lint(chart, values):
    """What `helm lint --strict` finds worth a warning or an error: a list of sentences."""
    report = ask(call="lint", chart=str(chart), values=values)
    return [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= 2] + report["errors"]


def answer():
    sys.path.insert(0, str(TOOLS))
    import helm_python

    question = json.load(sys.stdin)
    try:
        if question["call"] == "lint":
            return helm_python.lint(question["chart"], question["values"], strict=True)
        with helm_python.Chart.load(question["chart"]) as chart:
            return chart.render(question["values"], name=question["name"], namespace=question["namespace"])
    except (helm_python.HelmRenderError, helm_python.HelmValuesError) as error:
        return {"refused": str(error)}


if __name__ == "__main__":
    print(json.dumps(answer()))
