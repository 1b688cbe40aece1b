"""Private areas: a notification reaches all sessions of its editor and nobody else's, whatever is asked for."""

import asyncio
from urllib.parse import quote

import pytest

from kit.editors import Editor
from kit.publishers import PythonPublisher, Refused
from kit.stage import carillon, note, text_of

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
    annas.append(await Editor.open(nodes[2], "ANNA", ["notifications:anna"], grant=[]))
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
    nodes[1].publish({"topic": "notifications:Anna", "event": note(5, "notification.created")})
    site.record("notifications", note(6))
    for anna in annas:
        await anna.until("six recorded and five live", lambda e: len(e.events("notifications:anna")) >= 11)
        assert sorted(anna.numbers("notifications:anna")) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104]
    for bert in berts:
        await bert.until("the area's event", lambda e: e.events("notifications"))
        await bert.in_step()
        assert bert.numbers() == [6], "somebody else's notification was delivered"


@pytest.mark.parametrize(
    "name", ["anna@example.com", "CMS\\Anna", "Änne Öztürk", "a b,c{d}", "100%", "ÉMILE", "名前", "İstanbul", "x" * 200]
)
async def test_names_with_special_characters_get_their_own_notifications(site, name):
    """The key is the name, lower-cased by Unicode's rules and percent-encoded; HTTP converts a name for the publisher."""
    node = site.node()
    reserved = " %*,{}"
    key = "".join(quote(c, safe="") if c in reserved or ord(c) < 32 or ord(c) == 127 else c for c in name.lower())
    own = f"notifications:{key}"
    editor = await Editor.open(node, name, [own], grant=[])
    assert editor.of("welcome")[0]["refused"] == []
    assert editor.of("welcome")[0]["user"] == name
    other = await Editor.open(node, "somebody", [own, "notifications"])
    assert [entry["code"] for entry in other.of("welcome")[0]["refused"]] == ["forbidden"]
    site.record(own, note(1))
    site.record("notifications", note(2))
    await asyncio.gather(*(e.until("the area's event", lambda e: 2 in e.numbers()) for e in (editor, other)))
    assert (sorted(editor.numbers()), other.numbers()) == ([1, 2], [2])


async def test_the_function_refuses_upper_case_in_a_private_key_and_names_the_right_one(site):
    """Otherwise the notification would be published to a topic that nobody can follow."""
    site.node()
    with pytest.raises(Refused, match="notifications:anna"):
        PythonPublisher(site.redis).recorded("notifications:Anna", note(1))
    assert site.log("notifications:anna") == []


async def test_the_command_line_converts_the_name_in_a_private_key(site):
    """As HTTP does."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["notifications:anna"])
    event = text_of(note(1, "notification.created"))
    done = await asyncio.to_thread(carillon, "publish", "--redis", site.redis.url, "notifications:ANNA", event, env=site.redis.environment())
    assert done[0] == 0, done
    await editor.until("it", lambda e: e.numbers("notifications:anna") == [1])
