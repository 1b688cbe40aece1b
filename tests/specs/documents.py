"""The three documents of docs/, and what they say of a message, an answer or an event.

Clients must ignore what they do not know, so the documents leave objects open. Here they are read strictly: an object
whose members are listed has no others, unless the document itself says `additionalProperties`. Thus a member, a message
type or a status that a node sends and no document knows fails a test.
"""

import copy
import json
import re

import jsonschema
import yaml
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from kit.stage import ROOT

PLACE = "https://carillon.invalid/docs/"
METHODS = ("get", "post", "put", "delete", "options", "head", "patch", "trace")


def read(name):
    text = (ROOT / "docs" / name).read_text()
    return yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)


def closed(part):
    """The same with every listing of members complete."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    strict = {key: closed(value) for key, value in part.items()}
    if isinstance(part.get("properties"), dict) and "additionalProperties" not in part:
        strict["additionalProperties"] = False
    return strict


def pattern(_, expression, instance, __):
    """ECMA-262's `$` is the end; Python's is also in front of a last line break."""
    if isinstance(instance, str) and not re.search(expression.replace("$", r"\Z"), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {expression!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": pattern})


class Documents:
    """The documents, as written or strictly."""

    def __init__(self, strict=True):
        self.all = {name: read(name) for name in ("asyncapi.yaml", "openapi.yaml", "event.schema.json")}
        # A dialect of its own would bring the validator of that dialect, with Python's `$`.
        self.all["event.schema.json"].pop("$schema")
        if strict:
            self.all = {name: closed(document) for name, document in self.all.items()}
        resources = [(PLACE + name, DRAFT202012.create_resource(document)) for name, document in self.all.items()]
        self.registry = Registry().with_resources(resources)
        self.validators = {}

    @property
    def asyncapi(self):
        return self.all["asyncapi.yaml"]

    @property
    def openapi(self):
        return self.all["openapi.yaml"]

    def check(self, reference, instance):
        """Fails with the first finding, unless the instance is as `reference` (a document and a place in it) says."""
        if reference not in self.validators:
            schema = {"$ref": PLACE + reference}
            checker = Validator.FORMAT_CHECKER
            self.validators[reference] = Validator(schema, registry=self.registry, format_checker=checker)
        finding = jsonschema.exceptions.best_match(self.validators[reference].iter_errors(instance))
        if finding is not None:
            raise AssertionError(f"{reference}: {finding.message} at {finding.json_path} of {json.dumps(instance)[:2000]}")

    def resolved(self, part):
        """What a `$ref` inside openapi.yaml stands for."""
        while "$ref" in part:
            for step in part["$ref"].removeprefix("#/").split("/"):
                part = self.openapi[step] if step == "components" else part[step]
        return part

    # Messages

    def message_types(self, channel, action):
        """The types that a node may send or receive on a channel."""
        types = set()
        for operation in self.asyncapi["operations"].values():
            if operation["channel"]["$ref"] != f"#/channels/{channel}":
                continue
            lists = [operation["messages"]] if operation["action"] == action else []
            if action == "send" and "reply" in operation:
                lists.append(operation["reply"]["messages"])
            types |= {each["$ref"].rpartition("/")[2] for messages in lists for each in messages}
        return types

    def message(self, channel, action, message):
        """Checks a message; returns its type."""
        kind = message.get("type")
        assert kind in self.message_types(channel, action), f"{channel}: nobody may {action} {kind!r}: {message}"
        self.check(f"asyncapi.yaml#/components/schemas/{kind}", message)
        return kind

    # Answers

    def operations(self):
        """`(method, path)` of every operation."""
        return [(method, path) for path, item in self.openapi["paths"].items() for method in METHODS if method in item]

    def responses(self, method, path):
        """The documented answers: `{status: response}`."""
        item = self.openapi["paths"].get(path)
        if item is None:
            return {"404": self.openapi["components"]["responses"]["NotFound"]}
        if method not in item:
            return {"405": self.openapi["components"]["responses"]["MethodNotAllowed"]}
        return {status: self.resolved(response) for status, response in item[method]["responses"].items()}

    def codes(self, response):
        """The problem codes that a documented answer may have; `{None}` where it is no problem."""
        schema = response.get("content", {}).get("application/problem+json", {}).get("schema")
        if schema is None:
            return {None}
        code = self.resolved(schema)["properties"]["code"]
        return set(code["enum"]) if "enum" in code else {code["const"]}

    def answer(self, method, path, status, headers, body):
        """Checks an answer of a node; returns its problem code, if it is a problem."""
        where = f"{method.upper()} {path}: {status}"
        responses = self.responses(method.lower(), path)
        assert str(status) in responses, f"{where} is not documented: {body[:500]}"
        response = responses[str(status)]
        for name, header in response.get("headers", {}).items():
            value = headers.get(name)
            assert value is not None or not header.get("required"), f"{where} without {name}: {dict(headers)}"
            if value is not None:
                jsonschema.validate(value, header["schema"], cls=Validator)
        content = response.get("content")
        if content is None:
            assert not body, f"{where} has a body: {body[:500]}"
            return None
        kind = (headers.get("Content-Type") or "").partition(";")[0]
        assert kind in content, f"{where} is {kind!r}: {body[:500]}"
        if not kind.endswith("json"):
            return None
        instance = json.loads(body)
        schema = content[kind]["schema"]
        if "$ref" in schema:
            self.check("openapi.yaml" + schema["$ref"], instance)
        else:
            jsonschema.validate(instance, copy.deepcopy(schema), cls=Validator)
        if kind != "application/problem+json":
            return None
        assert instance["status"] == status, f"{where}: the body says {instance['status']}"
        return instance["code"]
