"""docs/event.schema.json and the corpus that every door of a node is given: the same verdict."""

import json

import pytest

from kit.corpus import read
from documents import Documents
from kit.stage import ROOT

# What a schema cannot see, by the corpus' own word for why an event is refused: it is given the value that a reader made
# of the text. `json`: the text is no JSON, or the value is nested too deep; `utf8`, `size`: of the text alike.
OF_THE_TEXT = {"json", "utf8", "size"}


def cases():
    """`(what, verdict, bytes)` of every line."""
    good, bad = read("events", "event")
    texts = {**good, **bad}
    lines = [json.loads(line) for line in (ROOT / "tests/corpus/events.jsonl").read_text().splitlines()]
    return [(name, line["verdict"], texts[name]) for name, line in zip(sorted(texts, key=number), lines, strict=True)]


def number(name):
    return int(name.partition(":")[0])


def verdict(documents, text):
    """What the schema says of an event: `good`, or why not; None where the text has no value to show it."""

    def no_constants(word):
        raise ValueError(word)

    try:
        value = json.loads(text.decode(), parse_constant=no_constants)
        json.dumps(value).encode()
    except (ValueError, RecursionError):
        return None
    try:
        documents.check("event.schema.json", value)
        return "good"
    except AssertionError as error:
        return str(error)


@pytest.mark.parametrize("what, expected, text", cases(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_schema_judges_as_the_node_does(documents, what, expected, text):
    """Good is good. Refused for its members is refused; refused for its text is beyond a schema."""
    found = verdict(documents, text)
    if expected == "good":
        assert found == "good"
    elif expected not in OF_THE_TEXT:
        assert found not in ("good", None), f"{what} passes"


def test_the_open_reading_judges_alike(documents):
    """Events are open: unknown attributes pass in the strict reading as well."""
    loose = Documents(strict=False)
    judged = [(verdict(documents, text), verdict(loose, text)) for _, _, text in cases()]
    assert all(strict == open_ for strict, open_ in judged)
    assert sum(strict == "good" for strict, _ in judged) >= 20
    assert sum(strict not in ("good", None) for strict, _ in judged) >= 25
