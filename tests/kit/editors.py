"""Editors of the acceptance tests: sessions on the Python package `websockets` and on the Node package `ws`.

Both record every message; neither judges. What a browser would keep to resume from (`at`, positions) is worked out
from the messages alone, as the contract says.
"""

import asyncio
import json
import os

import websockets

from kit.stage import ROOT, token


class Inbox:
    """What one session was sent, in order, and how it ended."""

    def __init__(self):
        self.messages = []
        self.closed = None
        self._news = asyncio.Event()

    def take(self, message):
        self.messages.append(message)
        self._news.set()

    def end(self, code, reason):
        self.closed = self.closed or (code, reason)
        self._news.set()

    async def until(self, what, predicate, seconds=20.0):
        """Waits until the predicate holds of this inbox, and returns what it returned."""

        async def watch():
            while not (found := predicate(self)):
                self._news.clear()
                await self._news.wait()
            return found

        try:
            return await asyncio.wait_for(watch(), seconds)
        except asyncio.TimeoutError:
            seen = [m if m["type"] != "event" else {"event": m["topic"], **m["event"]} for m in self.messages[-8:]]
            raise AssertionError(f"after {seconds:g} s: not {what}; closed: {self.closed}; the last messages: {seen}") from None

    async def message(self, kind, count=1, seconds=20.0):
        """The `count`th message of this type."""
        return (await self.until(f"{kind} number {count}", lambda inbox: inbox.of(kind)[count - 1 : count], seconds))[0]

    async def end_of_session(self, seconds=20.0):
        """How the session was closed: `(code, reason)`."""
        return await self.until("closed", lambda inbox: inbox.closed, seconds)

    def of(self, kind):
        return [message for message in self.messages if message["type"] == kind]

    def events(self, topic=None):
        return [message for message in self.of("event") if topic in (None, message["topic"])]

    def numbers(self, topic=None):
        """The numbers of the events (`note`) that came."""
        return [message["event"]["data"]["n"] for message in self.events(topic)]

    def recorded(self, topic):
        """Log ids of the recorded events that came, in order."""
        return [m["position"].partition(".")[2] for m in self.events(topic) if "position" in m]

    def resyncs(self):
        """`[(topic, reason), …]` in order."""
        return [(topic, message["reason"]) for message in self.of("resync") for topic in message["topics"]]

    @property
    def at(self):
        return max((message["at"] for message in self.messages if "at" in message), default=0)

    @property
    def resume(self):
        """What a client sends as `resume`: the latest `at` and the latest position of each topic."""
        positions = {}
        for message in self.messages:
            positions.update(message.get("positions", {}))
            if message["type"] == "event" and "position" in message:
                positions[message["topic"]] = message["position"]
            if message["type"] == "unsubscribed":
                for topic in message["topics"]:
                    positions.pop(topic, None)
        return {"at": self.at, "positions": positions}

    async def in_step(self):
        """Waits for the answer to a ping: all that the node had written before is here then."""
        before = len(self.of("pong"))
        await self.send({"type": "ping"})
        return await self.message("pong", before + 1)


def connect_message(sub, topics, resume=None, grant=None, bearer=None, **more):
    message = {"type": "connect", "topics": list(topics), **more}
    bearer = bearer if bearer is not None else token(sub, grant if grant is not None else ["*"])
    message["token"] = bearer
    if resume is not None:
        message["resume"] = resume
    return message


class Editor(Inbox):
    """A session on `websockets`."""

    @classmethod
    async def open(cls, node, sub="anna", topics=(), welcome=True, **connect):
        """Connects, says who it is, and waits for `welcome`."""
        self = await cls.dial(node)
        await self.send(connect_message(sub, topics, **connect))
        if welcome:
            await self.message("welcome")
        return self

    @classmethod
    async def dial(cls, node, headers=None, subprotocols=None, path="", **options):
        """The WebSocket alone; nothing is said on it."""
        self = cls()
        self.socket = await websockets.connect(
            node.websocket + path, additional_headers=headers, subprotocols=subprotocols, max_size=None, open_timeout=20,
            close_timeout=5, ping_interval=None, compression=None, max_queue=None, **options
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self):
        try:
            async for message in self.socket:
                assert isinstance(message, str), "a node sends no binary frames"
                self.take(json.loads(message))
        except websockets.exceptions.ConnectionClosed:
            pass
        finally:
            self.end(self.socket.close_code, self.socket.close_reason)

    async def send(self, message):
        await self.socket.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def close(self):
        await self.socket.close()
        await self._reading


class NodeEditor(Inbox):
    """A session on `ws`, in the process of a `NodeEditors`."""

    def __init__(self, home, name):
        super().__init__()
        self.home, self.name = home, name
        self.subprotocol = None

    async def send(self, message):
        await self.home.tell({"op": "send", "id": self.name, "message": message})

    async def close(self):
        await self.home.tell({"op": "close", "id": self.name})
        await self.end_of_session()


class NodeEditors:
    """A Node.js process with any number of editors."""

    @classmethod
    async def start(cls):
        self = cls()
        self.editors = {}
        env = {**os.environ, "NODE_PATH": str(ROOT / "tests/.tools/node/node_modules")}
        script = str(ROOT / "tests/acceptance/clients/editors.cjs")
        self.process = await asyncio.create_subprocess_exec(
            "node", script, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def open(self, node, sub="anna", topics=(), subprotocols=(), welcome=True, **connect):
        name = f"ws-{len(self.editors)}"
        editor = self.editors[name] = NodeEditor(self, name)
        first = connect_message(sub, topics, **connect)
        await self.tell({"op": "open", "id": name, "url": node.websocket, "protocols": list(subprotocols), "first": first})
        if welcome:
            await editor.message("welcome")
        return editor

    async def tell(self, what):
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        await self.process.stdin.drain()

    async def _read(self):
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            editor = self.editors[said["id"]]
            assert "binary" not in said, "a node sends no binary frames"
            if "message" in said:
                editor.take(said["message"])
            elif "open" in said:
                editor.subprotocol = said["open"]
            elif "refused" in said:
                editor.end(None, said["refused"])
            elif "closed" in said:
                editor.end(*said["closed"])
        for editor in self.editors.values():
            editor.end(None, "the Node process ended")

    async def stop(self):
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 10)
        await self._reading
