"""Private areas: a notification reaches all sessions of its editor and nobody else's, whatever is asked for."""

import asyncio
import json
from urllib.parse import quote

import pytest

from kit.editors import Editor
from kit.publishers import PythonPublisher, Refused
from kit.stage import ROOT, carillon, note, text_of

# What somebody else might try to get at `notifications:anna`, and `area:*`, which nobody may follow.
SPELLINGS = [
    "notifications:anna",
    "notifications:Anna",
    "notifications:ANNA",
    "notifications:%61nna",
    "notifications:%41nna",
    "notifications:ann%61",
    "notifications:ａnna",
    "notifications:anna%00",
    "notifications:anna%20",
    "notifications:anna ",
    " notifications:anna",
    "notifications:anna\n",
    "notifications:anna\u0000",
    "Notifications:anna",
    "NOTIFICATIONS:anna",
    "notifications::anna",
    "notifications:*",
    "notifications:a*",
    "notifications:{anna}",
    "notifications:[a]nna",
    "notifications:?nna",
    "notifications:bert,notifications:anna",
    "*",
    "*:anna",
    "**",
    "carillon:notifications:anna",
    "../notifications:anna",
    "notifications:bert/../anna",
    "n*:anna",
]


async def test_a_notification_reaches_all_sessions_of_its_editor_on_all_nodes_and_nobody_elses(site, node_editors):
    """Anna on three nodes and two clients; Bert, who may follow everything, tries every spelling of her topic."""
    nodes = site.three()
    annas = [await Editor.open(nodes[0], "anna", ["notifications:anna"], grant=[])]
    annas.append(await node_editors.open(nodes[1], "anna", ["notifications:anna"]))
    annas.append(await Editor.open(nodes[2], "anna", ["notifications:anna"], grant=[]))
    berts = []
    for node in nodes:
        for grant in (["*"], ["notifications:*", "notifications:anna", "*"], SPELLINGS):
            bert = await Editor.open(node, "bert", SPELLINGS, grant=grant)
            refused = {entry["topic"]: entry["code"] for entry in bert.of("welcome")[0]["refused"]}
            assert set(refused) == set(SPELLINGS), "an attempt was neither refused nor named"
            assert set(refused.values()) <= {"forbidden", "bad-topic"}
            assert refused["notifications:anna"] == "forbidden" and refused["notifications:*"] == "forbidden"
            await bert.send({"type": "subscribe", "topics": [*SPELLINGS, "notifications:bert"]})
            subscribed = await bert.message("subscribed")
            assert set(subscribed["positions"]) == {"notifications:bert", "notifications"}
            berts.append(bert)
    for number in range(5):
        site.record("notifications:anna", note(number, "notification.created"))
        site.live("notifications:anna", note(100 + number, "notification.created"))
    nodes[1].publish({"topic": "notifications:anna", "event": note(5, "notification.created")})
    site.record("notifications", note(6))
    for anna in annas:
        await anna.until("six recorded and five live", lambda e: len(e.events("notifications:anna")) >= 11)
        assert sorted(anna.numbers("notifications:anna")) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104]
    for bert in berts:
        await bert.until("the area's event", lambda e: e.events("notifications"))
        await bert.in_step()
        assert bert.numbers() == [6], "somebody else's notification was delivered"


VECTORS = json.loads((ROOT / "docs/private-keys.json").read_text(encoding="utf-8"))
NAMES = ["CMS\\Anna", "Änne Öztürk", "a b,c{d}", "100%", "ÉMILE", "名前", "İstanbul", "x" * 200]


def own(key):
    return f"notifications:{key}"


def key_of(name):
    """The contract, by other means than the product's."""
    return "".join(quote(c, safe="") if c in " %*,{}" else c for c in name)


@pytest.mark.parametrize("name", NAMES)
async def test_names_with_special_characters_get_their_own_notifications(site, name):
    """The key is the name letter by letter, percent-encoded where it must be."""
    node = site.node()
    mine = own(key_of(name))
    editor = await Editor.open(node, name, [mine], grant=[])
    assert editor.of("welcome")[0]["refused"] == []
    assert editor.of("welcome")[0]["user"] == name
    other = await Editor.open(node, "somebody", [mine, "notifications"])
    assert [entry["code"] for entry in other.of("welcome")[0]["refused"]] == ["forbidden"]
    site.record(mine, note(1))
    site.record("notifications", note(2))
    await asyncio.gather(*(e.until("the area's event", lambda e: 2 in e.numbers()) for e in (editor, other)))
    assert (sorted(editor.numbers()), other.numbers()) == ([1, 2], [2])


async def publish_by_command(site, topic, event, **variables):
    return await asyncio.to_thread(
        carillon, "publish", "--redis", site.redis.url, topic, text_of(event), env={**site.redis.environment(), **variables}
    )


async def test_names_that_differ_in_case_are_two_editors(site):
    """anna, Anna and one with a Kelvin sign: by the function, by HTTP and by the command line, each gets their own alone."""
    node = site.node()
    names = ["anna \u212a", "Anna \u212a", "anna k"]
    editors = [await Editor.open(node, name, [own(key_of(name))]) for name in names]
    for number, name in enumerate(names):
        topic = own(key_of(name))
        site.record(topic, note(10 + number))
        node.publish({"topic": topic, "event": note(20 + number)})
        done = await publish_by_command(site, topic, note(30 + number))
        assert done[0] == 0, done
    site.record("notifications", note(1))
    for number, editor in enumerate(editors):
        await editor.until("the area's event", lambda e: 1 in e.numbers())
        assert editor.numbers(own(key_of(names[number]))) == [10 + number, 20 + number, 30 + number]


async def test_where_case_does_not_count_doors_lower_it_and_the_function_refuses_it(site):
    """`auth.fold_subject`: one editor, however their name is written; the function knows A to Z only."""
    node = site.node(auth__fold_subject=True)
    folding = {"CARILLON__AUTH__FOLD_SUBJECT": "true"}
    editors = [await Editor.open(node, name, [own("anna%20k")]) for name in ("Anna \u212a", "anna k", "ANNA K")]
    assert [entry["topic"] for e in editors for entry in e.of("welcome")[0]["refused"]] == []
    node.publish({"topic": own("ANNA%20\u212a"), "event": note(1)})
    done = await publish_by_command(site, own("AnnA%20K"), note(2), **folding)
    assert done[0] == 0, done
    with pytest.raises(Refused, match="in lower case: write \"notifications:anna%20k\""):
        PythonPublisher(site.redis).recorded(own("Anna%20k"), note(3))
    site.record(own("anna%20k"), note(4))
    for editor in editors:
        await editor.until("all three", lambda e: e.numbers() == [1, 2, 4])


async def test_a_spelling_that_nobody_follows_is_refused_by_the_function_and_the_command_line(site):
    """Otherwise the notification would be published to a topic that nobody can follow."""
    site.node()
    for item in VECTORS["misspelt"]:
        with pytest.raises(Refused, match="one spelling"):
            PythonPublisher(site.redis).recorded(own(item["key"]), note(1))
        code, out, err = await publish_by_command(site, own(item["key"]), note(1))
        assert code != 0 and out == "" and "one spelling" in err, (item, err)
        assert site.log(own(item["right"])) == []


async def test_the_log_says_once_that_case_counts(site):
    """A CMS that does not distinguish case would lose notifications, and nobody would know why."""
    node = site.node()
    for name in ("anna", "Bert", "CHIYO"):
        await (await Editor.open(node, name, ["projects"])).in_step()
    node.publish({"topic": own("Dora"), "event": note(1)})
    assert node.output().count("has upper-case letters") == 1
    folding = site.node(auth__fold_subject=True, redis__prefix="folding")
    await (await Editor.open(folding, "Bert", ["projects"])).in_step()
    assert "auth.fold_subject" not in folding.output()
