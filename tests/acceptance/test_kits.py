"""The publishing kits of examples/publish, as programs, as the least-privilege Redis user, on a wire with faults."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import pytest

from kit.editors import Editor
from kit.stage import ROOT, SECURED, carillon, environment, note, until
from kit.wire import Wire

# The wire has to see what it cuts; the users are the same with and without `--secured`.
pytestmark = pytest.mark.skipif(SECURED, reason="the kits bring their own least-privilege users, without TLS")
KITS = ROOT / "examples/publish"
PASSWORD = "a-password-of-the-acceptance-tests"


@pytest.fixture(params=["python", "node", "php"])
def kit(request, tmp_path):
    """The command of a kit."""
    if request.param == "python":
        return [sys.executable, str(KITS / "python/carillon_publisher.py")]
    if request.param == "php":
        return ["php", str(KITS / "php/CarillonPublisher.php")]
    # Modules are looked up beside the script.
    script = shutil.copy(KITS / "node/carillon-publisher.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/.tools/node/node_modules")
    return ["node", script]


@pytest.fixture
def guarded(site):
    """A site whose Redis knows exactly the users that `redis-function --acl` prints, and nobody else from outside."""
    code, text, err = carillon("redis-function", "--acl", env=environment({"auth.mode": "none"}))
    assert code == 0, err
    rules = [line.replace("CHANGE-ME", PASSWORD).split() for line in text.splitlines() if line.startswith("ACL")]
    assert [rule[2] for rule in rules] == ["carillon-publisher", "carillon-node"]
    with site.redis.client() as client:
        for rule in rules:
            client.execute_command(*rule)
    return site


def a_node(site, **settings):
    """A node as its least-privilege user."""
    return site.start(redis__username="carillon-node", redis__password=PASSWORD, **settings)


async def publish(kit, how, topic, event, port, patience=20, user="carillon-publisher", password=PASSWORD):
    """Runs a kit to its end: `(exit code, stdout, stderr)`."""
    settings = {
        "CARILLON_REDIS": f"redis://{user}:{password}@127.0.0.1:{port}",
        "CARILLON_SOURCE": "cms-01",
        "CARILLON_PATIENCE": str(patience),
    }
    command = [*kit, how, topic, json.dumps(event)]
    # The example in Python is a few lines around the library, as `pip install carillon-notify` brings it.
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "integrations/python/src"), **settings}
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


async def test_a_kit_publishes_recorded_and_live(kit, guarded):
    """What comes is the event with an id and a source of its own; the answers are those of Redis."""
    node = a_node(guarded).ready()
    editor = await Editor.open(node, "anna", ["comments:42"])
    code, out, err = await publish(kit, "record", "comments:42", note(1, data={"n": 1, "text": "Grüße"}), guarded.redis.port)
    assert code == 0, err
    recorded = await editor.until("the recorded one", lambda e: e.events()[0:1])
    assert recorded[0]["position"].endswith("." + out), "the kit names the position"
    event = recorded[0]["event"]
    assert event["source"] == "cms-01" and len(event["id"]) >= 16 and event["time"].endswith("Z")
    assert event["type"] == "comment.created" and event["data"] == {"n": 1, "text": "Grüße"}
    code, out, err = await publish(kit, "live", "comments:42", note(2), guarded.redis.port)
    assert (code, out) == (0, "1"), err
    await editor.until("the live one", lambda e: e.numbers() == [1, 2])
    assert "position" not in editor.events()[1]
    code, out, err = await publish(kit, "record", "comments:42", note(3, id="01JD"), guarded.redis.port)
    assert code == 0, err
    again = await publish(kit, "record", "comments:42", note(3, id="01JD"), guarded.redis.port)
    assert again == (0, out, ""), "an id of the caller's own is kept"
    await editor.in_step()
    assert editor.numbers() == [1, 2, 3] and editor.resyncs() == []


FAULTS = {
    "before": ["cut-before"],
    "after": ["cut-after"],
    "silence": ["silence"],
    "loading": ["-LOADING Redis is loading the dataset in memory"],
    "readonly": ["-READONLY You can't write against a read only replica."],
    "twice": ["-OOM command not allowed when used memory > 'maxmemory'.", "cut-after"],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_a_kit_repeats_after_an_error_with_the_same_id(kit, faults, guarded):
    """However the attempts end, the event is recorded once and comes once."""
    node = a_node(guarded).ready()
    editor = await Editor.open(node, "anna", ["comments:42"])
    wire = guarded.keep(Wire(guarded.redis.port, *faults))
    code, out, err = await publish(kit, "record", "comments:42", note(1), wire.own_port)
    assert code == 0, err
    assert len(wire.calls) == len(faults) + 1, "one attempt for each fault, and the good one"
    assert len({call[call.index(b"{") :] for call in wire.calls}) == 1, "every attempt is the same event"
    await editor.until("the event", lambda e: e.numbers())
    guarded.record("comments:42", note(2))
    await editor.until("the one behind", lambda e: 2 in e.numbers())
    assert editor.numbers() == [1, 2] and editor.resyncs() == []
    assert [key for key, _ in guarded.log("comments:42")] == editor.recorded("comments:42")
    assert editor.recorded("comments:42")[0] == out


async def test_a_kit_waits_until_a_node_has_loaded_the_function(kit, guarded):
    """The function has been lost under a running node: what is published meanwhile arrives all the same."""
    node = a_node(guarded, probe__seconds=1).ready()
    editor = await Editor.open(node, "anna", ["comments:42"])
    wire = guarded.keep(Wire(guarded.redis.port))
    with guarded.redis.client() as client:
        client.function_flush()
        publishing = asyncio.create_task(publish(kit, "record", "comments:42", note(1), wire.own_port))
        await until("a first attempt", lambda: wire.calls, 20)
    code, out, err = await publishing
    assert code == 0, err
    await editor.until("the event", lambda e: e.recorded("comments:42") == [out])


async def test_a_kit_says_what_to_do_when_nobody_loads_the_function(kit, guarded):
    """No node at all: after its patience an error that names the function and both remedies."""
    wire = guarded.keep(Wire(guarded.redis.port))
    code, out, err = await publish(kit, "record", "comments:42", note(1), wire.own_port, patience=1)
    assert (code, out) == (1, "") and len(wire.calls) > 1
    for words in ("carillon_publish", "start a Carillon node", "redis-function"):
        assert words in err, err


async def test_a_kit_does_not_repeat_what_stays_refused(kit, guarded):
    """A bad topic, a bad event, a key outside the prefix' rights, a wrong password: the reason, after one attempt."""
    a_node(guarded).ready()
    wire = guarded.keep(Wire(guarded.redis.port))
    for topic, event, reason in (
        # Redis itself refuses an area that the publisher's rights do not name.
        ("kitchen:1", note(1), "permission"),
        ("comments:42", {"type": "nonsense"}, "type"),
        ("notifications:%41nna", note(1), "notifications:Anna"),
    ):
        wire.calls.clear()
        code, out, err = await publish(kit, "record", topic, event, wire.own_port)
        assert (code, out) == (1, "") and reason in err, err
        assert len(wire.calls) == 1, (topic, wire.calls)
    wire.calls.clear()
    code, out, err = await publish(kit, "record", "comments:42", note(1), wire.own_port, password="wrong")
    assert (code, out) == (1, "") and len(wire.calls) == 0 and err, err
    with guarded.redis.client() as client:
        assert client.keys("carillon:comments*") == []


async def test_a_live_event_is_not_repeated(kit, guarded):
    """Nothing would recognise it a second time: one attempt, and an error when its answer is lost."""
    node = a_node(guarded).ready()
    editor = await Editor.open(node, "anna", ["comments:42"])
    wire = guarded.keep(Wire(guarded.redis.port, "cut-after"))
    code, out, err = await publish(kit, "live", "comments:42", note(1), wire.own_port)
    assert (code, out) == (1, "") and err and len(wire.calls) == 1
    await editor.until("the event", lambda e: e.numbers())
    guarded.record("comments:42", note(2))
    await editor.until("the one behind", lambda e: 2 in e.numbers())
    assert editor.numbers() == [1, 2]
