"""An editor whose browser is out of control, and a Redis that is full: nobody else notices, and nothing is left behind.

The editor may follow everything and keeps to no limit; the limits are those that a node starts with.
"""

import asyncio
import contextlib
import itertools
import json
import os
import time

import pytest
import redis

from kit.editors import Editor, connect_message
from kit.stage import http, note, token, until

# How long the editor rages. The page on security says what a minute of it showed.
SECONDS = float(os.environ.get("CARILLON_HOSTILE_SECONDS", "8"))
SESSIONS = 10
QUIET_SMALL = ("--maxmemory", "64mb", "--maxmemory-policy", "noeviction")


class Rage:
    """One editor, ten sessions by each transport: new topics all the time, old cursors, renewals, sessions made anew."""

    def __init__(self, node):
        self.node = node
        self.bearer = token("mallory", ["*"])
        self.names = itertools.count()
        self.done = {"websocket": 0, "sse": 0, "poll": 0, "refused": 0}
        self.over = time.monotonic() + SECONDS

    def topics(self, count):
        return [f"comments:{next(self.names)}-{'x' * 100}" for _ in range(count)]

    async def run(self):
        kinds = (self.websocket, self.events, self.poll)
        await asyncio.gather(*(self.again(kind) for kind in kinds for _ in range(SESSIONS)))

    async def again(self, kind):
        while time.monotonic() < self.over:
            try:
                await asyncio.wait_for(kind(), 5)
            except Exception:  # noqa: BLE001 - a refusal, a cut, a close: they come back at once
                self.done["refused"] += 1
                await asyncio.sleep(0.02)

    async def websocket(self):
        editor = await Editor.dial(self.node)
        try:
            await editor.send(connect_message("mallory", self.topics(60), bearer=self.bearer))
            await editor.message("welcome", seconds=5)
            for _ in range(20):
                topics = self.topics(50)
                await editor.send({"type": "subscribe", "topics": topics})
                await editor.send({"type": "unsubscribe", "topics": topics})
                await editor.send({"type": "token", "token": self.bearer})
                self.done["websocket"] += 1
                await asyncio.sleep(0.01)
                if editor.closed:
                    return
        finally:
            await editor.close()

    async def ask(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.node.port)
        try:
            writer.write(f"GET /realtime/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.bearer}\r\n\r\n".encode())
            return await asyncio.wait_for(reader.read(4096), 1)
        finally:
            writer.close()

    async def events(self):
        await self.ask("events?topics=" + ",".join(self.topics(20)))
        self.done["sse"] += 1

    async def poll(self):
        cursor = ("x", "", "AAAA")[next(self.names) % 3]
        with contextlib.suppress(asyncio.TimeoutError):
            await self.ask(f"poll?cursor={cursor}&topics=" + ",".join(self.topics(20)))
        self.done["poll"] += 1


async def test_a_hostile_editor_is_felt_by_nobody(new_site):
    """Redis has 64 MB: every publish succeeds, every node stays ready, honest editors get everything, and few keys stay."""
    site = new_site(*QUIET_SMALL)
    nodes = [site.node(), site.node()]
    with site.redis.client() as client:
        before = client.dbsize()
    honest = [await Editor.open(node, "anna", ["comments:1", "projects"]) for node in nodes]
    rage = Rage(nodes[0])
    raging = asyncio.create_task(rage.run())
    published, unready = 0, []
    while not raging.done():
        published += 1
        await asyncio.to_thread(site.record, "comments:1", note(published))
        status, answer = await asyncio.to_thread(nodes[published % 2].publish, {"topic": "projects", "event": note(published)})
        assert status == 200, answer
        for node in nodes:
            status, why = await asyncio.to_thread(node.readiness)
            # 0: the machine was too busy to answer in five seconds.
            if status not in (0, 200):
                unready.append((node.name, status, why))
        await asyncio.sleep(0.05)
    await raging
    assert min(rage.done.values()) > 0, f"every kind of rage took place, and was refused in part: {rage.done}"
    assert not unready
    for editor in honest:
        for topic in ("comments:1", "projects"):
            await editor.until(f"all of {topic}", lambda e, topic=topic: e.numbers(topic) == list(range(1, published + 1)))
        assert not editor.resyncs() and editor.closed is None
    with site.redis.client() as client:
        made, used = client.dbsize() - before, client.info("memory")["used_memory"]
    print(f"{published} published by each way, {rage.done}, {made} keys, {used / 1e6:.1f} MB")
    # limits.editor_topics_per_hour on one node, and what the honest ones follow.
    assert made < 5_000 + 100


@pytest.mark.parametrize("ways", ["websocket", "poll"])
async def test_following_adds_no_key_to_a_full_redis_and_all_is_well_once_it_has_room(site, ways):
    """Publishing and readiness come back within ten seconds, and whoever came meanwhile is told."""
    node = site.node(probe__seconds=1)
    early = await Editor.open(node, "anna", ["comments:1"])
    with site.redis.client() as client:
        client.config_set("maxmemory", "1")
        keys = client.dbsize()
        topics = [f"comments:new-{n}" for n in range(40)]
        if ways == "websocket":
            late = [await Editor.open(node, f"editor-{n}", topics) for n in range(5)]
            assert all("comments:new-1" not in editor.of("welcome")[0].get("positions", {}) for editor in late)
        else:
            late = []
            path = "/poll?topics=" + ",".join(topics)
            headers = {"Authorization": f"Bearer {token('bert', ['*'])}"}
            status, _, body = await asyncio.to_thread(http, "GET", node.public(path), None, headers)
            assert status == 200 and not [t for t in json.loads(body)["messages"][0].get("positions", {}) if "new" in t], body
        with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
            site.record("comments:1", note(1))
        assert client.dbsize() <= keys, "following added keys"
        client.config_set("maxmemory", "0")
    await until("ready", lambda: node.readiness()[0] == 200, 10)
    await asyncio.to_thread(site.record, "comments:1", note(1))
    await early.until("the event", lambda e: e.numbers("comments:1") == [1], 10)
    for editor in late:
        told = {(topic, "gap") for topic in topics}
        await editor.until("told", lambda e: told <= set(e.resyncs()), 10)
    for n, editor in enumerate(late):
        site.record(f"comments:new-{n}", note(n))
        await editor.until("the event", lambda e, n=n: e.numbers(f"comments:new-{n}") == [n])
