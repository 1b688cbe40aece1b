"""Corners of the contract's chapter on sessions: questions that come quicker than answers, two ways to one event, answers
to requests that nobody should make."""

import asyncio
import contextlib
import json
import os
import signal
import time

import websockets

from kit.editors import Editor, connect_message
from kit.stage import http, note, token


async def test_answers_come_in_the_order_of_the_questions(site):
    """`welcome` first, whatever was sent behind `connect` without waiting; each `subscribed` in its turn."""
    node = site.node()
    for number in range(10):
        editor = await Editor.dial(node)
        first = connect_message("anna", [f"comments:{number}"], resume={"at": 1, "positions": {}})
        key = f"projects:{number}"
        for message in (
            first,
            {"type": "subscribe", "topics": [key]},
            {"type": "unsubscribe", "topics": [key]},
            {"type": "subscribe", "topics": [key, "nonsense"]},
            {"type": "ping"},
        ):
            await editor.send(message)
        await editor.message("pong")
        answers = [message for message in editor.messages if message["type"] != "resync"]
        assert [message["type"] for message in answers] == ["welcome", "subscribed", "unsubscribed", "subscribed", "pong"]
        assert set(answers[1]["positions"]) == set(answers[3]["positions"]) == {key, "projects"}
        assert set(answers[2]["topics"]) == {key, "projects"}
        await editor.close()


async def test_what_comes_by_key_and_by_wildcard_comes_once_even_while_the_key_is_being_subscribed_to(site):
    """Every event of the key, recorded and live, exactly once and in order, though it is published all the time."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:*"])
    topics = [f"comments:{number}" for number in range(40)]
    for topic in topics:
        await editor.send({"type": "subscribe", "topics": [topic]})
        for number in range(8):
            await asyncio.to_thread(site.record, topic, note(number))
        await editor.send({"type": "unsubscribe", "topics": [topic]})
        await asyncio.to_thread(site.record, topic, note(8))
    await editor.until("all of them", lambda e: len(e.events()) >= 9 * len(topics))
    await editor.in_step()
    for topic in topics:
        assert editor.numbers(topic) == list(range(9)), topic
    assert editor.resyncs() == []


async def test_pings_are_no_connect(site):
    """Who keeps the connection warm without saying who he is is closed like one who is silent: 4408 after ten seconds."""
    node = site.node()
    editor = await Editor.dial(node)
    begun = time.monotonic()

    async def keep_warm():
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            while True:
                await editor.socket.ping()
                await asyncio.sleep(0.5)

    warm = asyncio.create_task(keep_warm())
    code, _ = await editor.end_of_session(15)
    await warm
    assert code == 4408
    assert 9 <= time.monotonic() - begun < 13


async def test_who_came_while_redis_was_away_is_told_everything_before_it_is_live(site):
    """A position is resumed by an exact replay, a topic without one is told `gap`; `status` (`live:true`) comes behind."""
    node = site.node(probe__seconds=1)
    before = await Editor.open(node, "anna", ["comments:1"])
    site.record("comments:1", note(0))
    await before.until("it", lambda e: e.numbers() == [0])
    await before.close()
    site.record("comments:1", note(1))
    os.kill(site.redis.process.popen.pid, signal.SIGSTOP)
    witness = await Editor.open(node, "bert", [], welcome=False)
    await witness.until("away", lambda e: any(message.get("live") is False for message in e.messages))
    back = await Editor.open(node, "anna", ["comments:1"], resume=before.resume)
    new = await Editor.open(node, "cleo", ["comments:1"])
    for editor in (back, new):
        welcome = editor.of("welcome")[0]
        assert welcome["live"] is False and welcome["positions"] == {}
    os.kill(site.redis.process.popen.pid, signal.SIGCONT)
    for editor in (back, new):
        await editor.until("live", lambda e: any(message["live"] for message in e.of("status")))
    assert [message["type"] for message in back.messages] == ["welcome", "event", "status"]
    assert back.numbers() == [1]
    assert [message["type"] for message in new.messages] == ["welcome", "resync", "status"]
    resync = new.of("resync")[0]
    assert resync["reason"] == "gap" and set(resync["topics"]) == set(resync["positions"]) == {"comments:1", "comments"}


async def test_what_nobody_should_ask_is_answered_with_a_problem(site):
    """Wrong methods, unknown paths and unreadable queries: `application/problem+json` with a code, on every route."""
    node = site.node()
    bearer = {"Authorization": "Bearer " + token("anna", ["*"])}
    for method, path, status in [
        ("POST", "", 405),
        ("PUT", "/poll", 405),
        ("POST", "/poll", 415),
        ("DELETE", "/events", 405),
        ("OPTIONS", "/config", 405),
        ("PUT", "/realtime.js", 405),
        ("GET", "/nothing", 404),
        ("GET", "/poll?topics=comments:1&topics=comments:2", 400),
        ("GET", "/events?topics=comments:1&cursor=a&cursor=b", 400),
    ]:
        answered, headers, body = await asyncio.to_thread(http, method, node.public(path), None, bearer)
        assert answered == status, (method, path, answered)
        assert headers["Content-Type"] == "application/problem+json", (method, path)
        problem = json.loads(body)
        assert problem["status"] == status and problem["code"] and problem["detail"], problem


async def test_an_empty_cursor_is_none(site):
    """The first poll of a client that always sends the parameter: the `welcome`, and no `resync`."""
    node = site.node()
    url = node.public(f"/poll?topics=comments:1&cursor=&token={token('anna', ['*'])}")
    _, _, body = await asyncio.to_thread(http, "GET", url)
    assert [message["type"] for message in json.loads(body)["messages"]] == ["welcome"]


async def test_what_was_written_by_hand_in_the_place_of_a_log_is_a_log_replaced(site):
    """A key of another type: its followers are told, and those of other topics notice nothing."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    site.record("comments:1", note(1))
    await editor.until("it", lambda e: e.numbers() == [1])
    with site.redis.client() as client:
        client.set("carillon:comments:1", "no log")
        client.hset("carillon:comments:2", "no", "log")
    await editor.until("told", lambda e: e.resyncs() == [("comments:1", "log-replaced")])
    site.record("comments:1", note(3))
    await editor.until("the next", lambda e: e.numbers() == [1, 3])
    other = await Editor.open(node, "bert", ["comments:2", "comments:3"])
    assert set(other.of("welcome")[0]["positions"]) == {"comments:2", "comments:3", "comments"}
    site.record("comments:2", note(4))
    await other.until("it", lambda e: e.numbers() == [4])


async def test_a_log_that_vanishes_is_noticed_though_nothing_is_published(site):
    """FLUSHALL and silence: told within ten seconds (and some, on a busy machine)."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    site.record("comments:1", note(1))
    await editor.until("it", lambda e: e.numbers() == [1])
    with site.redis.client() as client:
        client.flushall()
    await editor.until("told", lambda e: ("comments:1", "log-replaced") in e.resyncs(), 15)
    site.record("comments:1", note(2))
    await editor.until("the next", lambda e: e.numbers() == [1, 2])
    await editor.in_step()
    assert [reason for topic, reason in editor.resyncs() if topic == "comments:1"] == ["log-replaced"]
