"""The documents themselves: valid by their own specifications, and agreed with each other."""

import json
import os
import subprocess

import jsonschema
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from documents import METHODS, Documents, Validator, read
from kit.stage import ROOT


def asyncapi_findings(path):
    """What AsyncAPI's own parser says: `(exit code, lines)`."""
    env = {"PATH": os.environ["PATH"], "NODE_PATH": str(ROOT / "tests/.tools/specs/node_modules")}
    done = subprocess.run(["node", ROOT / "tests/specs/validate.mjs", path], env=env, capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_asyncapi_is_valid(tmp_path):
    """By @asyncapi/parser, without errors and warnings; a document with one wrong word is not."""
    code, findings = asyncapi_findings(ROOT / "docs/asyncapi.yaml")
    assert code == 0 and [line for line in findings if not line.startswith("info:")] == []
    text = (ROOT / "docs/asyncapi.yaml").read_text()
    (tmp_path / "event.schema.json").write_text((ROOT / "docs/event.schema.json").read_text())
    for right, wrong in (("action: send", "action: shout"), ("'#/channels/stream'", "'#/channels/river'")):
        assert right in text
        (tmp_path / "asyncapi.yaml").write_text(text.replace(right, wrong))
        assert asyncapi_findings(tmp_path / "asyncapi.yaml")[0] == 1, f"nothing said about {wrong}"


def openapi_findings(document):
    base = (ROOT / "docs/openapi.yaml").as_uri()
    return [error.message for error in OpenAPIV31SpecValidator(document, base_uri=base).iter_errors()]


def test_openapi_is_valid():
    """By openapi-spec-validator; a document with one wrong word is not."""
    assert openapi_findings(read("openapi.yaml")) == []
    for path, wrong in ((["paths", "/publish", "post", "responses", "200"], {}), (["info"], {"title": "x"})):
        document = read("openapi.yaml")
        part = document
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = wrong
        assert openapi_findings(document), f"nothing said about {path}"


def test_the_schema_of_events_is_valid():
    """By the meta-schema of JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(read("event.schema.json"))
    for name in ("asyncapi.yaml", "openapi.yaml"):
        for schema in read(name)["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)


def test_the_documents_agree(documents):
    """Every message type is in a channel, an operation and its union; every response and schema is used."""
    asyncapi = documents.asyncapi
    messages = set(asyncapi["components"]["messages"])
    unions = {}
    for union in ("ClientMessage", "NodeMessage"):
        unions[union] = {each["$ref"].rpartition("/")[2] for each in asyncapi["components"]["schemas"][union]["oneOf"]}
    assert unions["ClientMessage"] | unions["NodeMessage"] == messages == set(asyncapi["channels"]["session"]["messages"])
    assert documents.message_types("session", "receive") == unions["ClientMessage"]
    assert documents.message_types("session", "send") == unions["NodeMessage"]
    assert documents.message_types("stream", "send") == set(asyncapi["channels"]["stream"]["messages"])
    codes = asyncapi["components"]["schemas"]["closing"]["properties"]["code"]["enum"]
    assert {str(code) for code in codes} == set(asyncapi["channels"]["session"]["x-close-codes"])
    text = json.dumps(documents.openapi)
    for kind in ("responses", "schemas", "parameters"):
        for name in documents.openapi["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text or (kind, name) in (
                ("responses", "NotFound"), ("responses", "MethodNotAllowed")
            ), f"{name} is used nowhere"
    for path, item in documents.openapi["paths"].items():
        assert set(item) <= set(METHODS), path


def test_the_strict_reading_is_strict(documents):
    """An undocumented member, type, status or header fails here, and the documents themselves allow for the first."""
    pong, extra = {"type": "pong", "at": 1}, {"type": "pong", "at": 1, "mood": "good"}
    documents.message("session", "send", pong)
    Documents(strict=False).message("session", "send", extra)
    refused = [
        lambda: documents.message("session", "send", extra),
        lambda: documents.message("session", "send", {"type": "dance"}),
        lambda: documents.message("stream", "send", pong),
        lambda: documents.message("session", "send", {"type": "ping"}),
        lambda: documents.message("session", "send", {"type": "pong"}),
        lambda: documents.message("session", "send", {"type": "status", "live": True, "since": "yesterday"}),
        lambda: documents.answer("GET", "/readyz", 418, {}, b""),
        lambda: documents.answer("GET", "/readyz", 200, {"Content-Type": "text/html"}, b"{}"),
        lambda: documents.answer("GET", "/readyz", 200, {"Content-Type": "application/json"}, b'{"ready":true,"x":1}'),
        lambda: documents.answer("GET", "/nowhere", 200, {}, b""),
    ]
    for each in refused:
        with pytest.raises(AssertionError):
            each()
    event = {"type": "event", "topic": "comments:1", "at": 1, "event": {"type": "a.b", "own": {"x": 1}}}
    documents.message("session", "send", event)


def test_yaml_reads_the_same_everywhere():
    """No key is a number or a boolean, which readers of YAML take differently."""

    def keys(part, place):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            assert isinstance(part, list) or isinstance(key, str), f"{place}: {key!r}"
            if isinstance(value, (dict, list)):
                keys(value, f"{place}.{key}")

    for name in ("asyncapi.yaml", "openapi.yaml"):
        keys(yaml.safe_load((ROOT / "docs" / name).read_text()), name)
    assert Validator
