"""The corpus that every door is given (`tests/corpus`), in the shape the acceptance tests want it: bytes by name.

The same lines go through Rust's tests of the bus, the function, HTTP, the command line, a bare PUBLISH and a log.
"""

import base64
import json

from kit.stage import ROOT


def read(name, key):
    """`(good, bad)`, each `{what: bytes}`."""
    good, bad = {}, {}
    for number, line in enumerate((ROOT / f"tests/corpus/{name}.jsonl").read_text().splitlines()):
        case = json.loads(line)
        content = case[key].encode() if key in case else base64.b64decode(case["base64"])
        (good if case["verdict"] == "good" else bad)[f"{number}: {case['what']}"] = content
    assert len(good) > 10 and len(bad) > 30, f"the corpus {name} was not read"
    return good, bad


GOOD, BAD = read("events", "event")
GOOD_TOPICS, BAD_TOPICS = read("topics", "topic")


def bad(words):
    """The bad event of this description."""
    found = [event for what, event in BAD.items() if words in what]
    assert found, f"no bad event {words!r} in the corpus: {list(BAD)}"
    return found[0]
