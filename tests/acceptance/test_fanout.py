"""The main job: whatever anybody publishes through Redis reaches exactly the editors who follow it, on every node, in
order, once. Three nodes, sixty editors on two foreign WebSocket clients, three foreign publishers.
"""

import asyncio
import random
from collections import defaultdict

from kit.editors import Editor
from kit.publishers import CliPublisher, NodePublisher, PythonPublisher
from kit.stage import note

PROJECTS = [f"{area}:{project}" for area in ("comments", "project-items") for project in range(1, 7)]
CONTENT = [f"content:12_{number}" for number in range(1, 4)]
AREA_WIDE = ["comments", "project-items", "projects", "notifications", "content"]


def followed(topics):
    """What a session with these topics follows: `area:key` brings `area` with it."""
    return {*topics, *(topic.partition(":")[0] for topic in topics)}


async def test_everything_reaches_exactly_its_followers_in_order_and_once(site, node_editors):
    """Recorded and live, all areas, three publishers; compared with the logs in Redis and with what was published."""
    dice = random.Random(2)
    nodes = site.three()
    editors = []
    for number in range(60):
        name = f"editor-{number}"
        topics = {*dice.sample(PROJECTS, dice.randint(1, 4)), *dice.sample(CONTENT, dice.randint(0, 1))}
        topics |= {"projects"} if dice.random() < 0.5 else set()
        topics |= {f"notifications:{name}"} if dice.random() < 0.7 else set()
        home = Editor if number % 2 else node_editors
        editors.append((home.open(nodes[number % 3], name, sorted(topics)), followed(topics)))
    opened = await asyncio.gather(*(opening for opening, _ in editors))
    editors = [(editor, topics) for editor, (_, topics) in zip(opened, editors)]
    for editor, topics in editors:
        welcome = editor.of("welcome")[0]
        assert welcome["live"] is True and welcome["refused"] == []
        assert set(welcome["positions"]) == topics

    publishers = {"cli": CliPublisher(site.redis), "python": PythonPublisher(site.redis), "node": NodePublisher(site.redis)}
    everywhere = [*PROJECTS, *CONTENT, *AREA_WIDE, *(f"notifications:editor-{n}" for n in range(0, 60, 7))]
    sent = defaultdict(list)

    def publish_all(name):
        """One publisher's share, in its own thread: 80 recorded and 40 live events over all topics."""
        own = random.Random(name)
        for number in range(120):
            topic, live = own.choice(everywhere), number % 3 == 0
            event = note(number, "project_item.saved", source=name, extra={"kept": [None, 1.5, "ü"]})
            if live:
                publishers[name].live(topic, event)
                sent[name, topic].append(number)
            else:
                publishers[name].recorded(topic, event)

    await asyncio.gather(*(asyncio.to_thread(publish_all, name) for name in publishers))
    # The last word in every topic: behind it nothing may come any more.
    last = {topic: await asyncio.to_thread(site.record, topic, note(-1, source="end")) for topic in everywhere}
    for publisher in publishers.values():
        publisher.stop()

    logs = {topic: site.log(topic) for topic in everywhere}
    delivered = 0
    for editor, topics in editors:
        mine = [topic for topic in everywhere if topic in topics]
        await editor.until("the last events", lambda e: all(last[t] in e.recorded(t)[-1:] for t in mine), 60)
        await editor.in_step()
        assert {message["topic"] for message in editor.events()} <= topics, "an event of a topic that is not followed"
        assert not editor.resyncs()
        for topic in mine:
            assert editor.recorded(topic) == [key for key, _ in logs[topic]], topic
            recorded = [message["event"] for message in editor.events(topic) if "position" in message]
            assert recorded == [event for _, event in logs[topic]], "an event that was touched on its way"
            for name in publishers:
                live = [m["event"]["data"]["n"] for m in editor.events(topic) if "position" not in m and m["event"]["source"] == name]
                assert live == sent[name, topic], (name, topic)
        delivered += len(editor.events())
    assert sum(len(log) for log in logs.values()) == 240 + len(everywhere)
    assert delivered > 2000, "too few deliveries to mean anything"


async def test_an_area_wide_event_reaches_every_key_of_the_area_and_a_key_only_its_own(site):
    """`project-items` reaches all editors of the area, `project-items:42` one project's; `area:*` gets each once."""
    node = site.node()
    one = await Editor.open(node, "one", ["project-items:42"])
    two = await Editor.open(node, "two", ["project-items:43"])
    plain = await Editor.open(node, "plain", ["project-items"])
    every = await Editor.open(node, "every", ["project-items:*", "project-items:42"])
    assert "project-items:*" not in every.of("welcome")[0]["positions"], "area:* has no positions"
    for number, topic in enumerate(["project-items", "project-items:42", "project-items:43", "project-items:44", "project-items"]):
        site.record(topic, note(number))
    for editor, numbers in ((one, [0, 1, 4]), (two, [0, 2, 4]), (plain, [0, 4])):
        await editor.until("the last event", lambda e: 4 in e.numbers())
        await editor.in_step()
        assert editor.numbers() == numbers
    await every.until("all five", lambda e: set(e.numbers()) == {0, 1, 2, 3, 4})
    await every.in_step()
    assert sorted(every.numbers()) == [0, 1, 2, 3, 4], "an event came twice by key and by wildcard"


async def test_subscribing_and_unsubscribing_take_effect_at_once_and_the_implied_area_stays_while_a_key_is_followed(site):
    """After `unsubscribed` nothing of the topic comes; `area` ends with the last key of it."""
    node = site.node()
    editor = await Editor.open(node, "anna", [])
    await editor.send({"type": "subscribe", "topics": ["comments:1", "comments:2"]})
    assert set((await editor.message("subscribed"))["positions"]) == {"comments:1", "comments:2", "comments"}
    await editor.send({"type": "unsubscribe", "topics": ["comments:1", "comments"]})
    assert "comments:1" in (await editor.message("unsubscribed"))["topics"]
    site.record("comments:1", note(1))
    site.record("comments", note(2))
    site.record("comments:2", note(3))
    await editor.until("both", lambda e: {2, 3} <= set(e.numbers()))
    await editor.send({"type": "unsubscribe", "topics": ["comments:2"]})
    await editor.message("unsubscribed", 2)
    site.record("comments", note(4))
    await editor.send({"type": "subscribe", "topics": ["projects"]})
    await editor.message("subscribed", 2)
    site.record("projects", note(5))
    await editor.until("the event behind", lambda e: 5 in e.numbers())
    assert sorted(editor.numbers()) == [2, 3, 5]


async def test_http_publishes_single_batch_topics_and_live(site):
    """`POST /publish` in all its shapes reaches followers on another node, with positions that are the log's ids."""
    here, there = site.node(), site.node()
    editor = await Editor.open(there, "anna", ["comments:1", "projects"])
    status, answer = here.publish({"topic": "comments:1", "event": note(1)})
    assert status == 200 and answer["positions"] == [site.log("comments:1")[0][0]]
    status, answer = here.publish([{"topic": "comments:1", "event": note(2)}, {"topics": ["projects", "comments:9"], "event": note(3)}])
    assert status == 200
    assert answer["positions"] == [site.log("comments:1")[1][0], site.log("projects")[0][0], site.log("comments:9")[0][0]]
    status, answer = here.publish({"topic": "comments:1", "event": note(4)}, "?live=1")
    assert status == 200
    await editor.until("all", lambda e: {1, 2, 3, 4} <= set(e.numbers()))
    assert ["position" in m for m in editor.events("comments:1")] == [True, True, False]
    assert len(site.log("comments:1")) == 2, "a live event was kept"


async def test_an_event_of_the_same_source_and_id_is_published_once(site):
    """De-duplication by (topic, source, id): the first id is the answer, nothing is delivered again."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1", "comments:2"])
    event = note(1, id="01JD", source="cms-01")
    first = site.record("comments:1", event)
    assert site.record("comments:1", event) == first
    assert node.publish({"topic": "comments:1", "event": event})[1]["positions"] == [first]
    assert site.record("comments:1", {**event, "source": "cms-02"}) != first
    site.record("comments:2", event)
    site.record("comments:1", note(2))
    await editor.until("the last", lambda e: 2 in e.numbers())
    assert editor.numbers("comments:1") == [1, 1, 2]
    await editor.until("the other topic", lambda e: e.numbers("comments:2") == [1])


async def test_two_prefixes_share_a_redis_and_hear_nothing_of_each_other(site):
    """Several sites on one Redis: another prefix, another function, other channels."""
    ours, theirs = site.node(), site.node(redis__prefix="other")
    anna, bert = await Editor.open(ours, "anna", ["comments:1"]), await Editor.open(theirs, "bert", ["comments:1"])
    site.record("comments:1", note(1))
    site.record("comments:1", note(2), prefix="other")
    await anna.until("its own", lambda e: e.numbers())
    await bert.until("its own", lambda e: e.numbers())
    await asyncio.gather(anna.in_step(), bert.in_step())
    assert (anna.numbers(), bert.numbers()) == ([1], [2])
