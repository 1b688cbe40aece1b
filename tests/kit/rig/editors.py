"""Editors as an auditor: WebSocket clients that believe nothing and check everything against docs/contract.md.

Written from the contract alone, without a line of the product's own client: it reconnects as told, resumes with its
positions, and writes down every event, resync, status and close with the time it came.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time

import websockets


def mint(secret, sub, topics=("*",), ttl=3600):
    """A token as a CMS would sign it (HS256)."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = part(json.dumps({"sub": sub, "exp": int(time.time()) + ttl, "topics": list(topics)}).encode())
    sign = hmac.new(secret.encode(), head + b"." + body, hashlib.sha256).digest()
    return (head + b"." + body + b"." + part(sign)).decode()


def split(position):
    """(lineage, epoch, seq) of a position. Clients never look inside; an auditor does."""
    lineage, _, rest = position.rpartition(".")
    epoch, _, seq = rest.rpartition("-")
    return lineage, int(epoch), int(seq)


class Editor:
    """One session that comes back whenever it is cut off."""

    def __init__(self, url, origin, secret, name, topics):
        self.url, self.origin, self.secret, self.name = url, origin, secret, name
        self.topics = list(topics)
        self.positions = {}  # topic -> position, as a client keeps it
        self.at = None
        self.covered = {}  # topic -> (epoch, seq) up to which this editor knows everything
        self.events = 0
        self.sources = {}  # (topic, source) -> events
        self.resyncs = []  # (time, topic, reason, what was known and where)
        self.faults = []  # what the contract forbids
        self.closes = []  # (time, code, reason)
        self.welcomes = []  # (time, node)
        self.absences = []  # (from, until) without a session
        self.refusals = []  # (time, what) answers other than 101
        self.live = False
        self.node = None
        self.connected = False
        self._left_at = None
        self._wait = None
        self._task = None
        self._socket = None

    def start(self):
        self._task = asyncio.create_task(self._run())
        return self

    async def stop(self):
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass

    def story(self):
        """The last things that happened to this editor, with seconds ago."""
        ago = lambda rows: [(f"-{time.monotonic() - row[0]:.1f}s", *row[1:]) for row in rows[-4:]]
        return {"name": self.name, "closes": ago(self.closes), "refusals": ago(self.refusals), "welcomes": ago(self.welcomes)}

    def fault(self, text):
        self.faults.append(f"{self.name}: {text}")

    async def _run(self):
        failures = 0
        while True:
            self._wait = None
            try:
                async with websockets.connect(
                    self.url,
                    origin=self.origin,
                    open_timeout=5,
                    ping_interval=None,
                    close_timeout=2,
                    compression=None,
                    max_queue=None,
                ) as socket:
                    self._socket = socket
                    await self._hello(socket)
                    async for text in socket:
                        failures = 0
                        self._take(json.loads(text))
            except websockets.exceptions.ConnectionClosed as closed:
                frame = closed.rcvd
                self.closes.append((time.monotonic(), frame.code if frame else 1006, frame.reason if frame else ""))
            except websockets.exceptions.InvalidStatus as refused:
                self.refusals.append((time.monotonic(), refused.response.status_code))
                failures += 1
            except (OSError, websockets.exceptions.WebSocketException) as error:
                self.refusals.append((time.monotonic(), type(error).__name__))
                failures += 1
            finally:
                if self.connected:
                    self._left_at = time.monotonic()
                self.connected, self.live, self.node = False, False, None
            # As told by the node, else full jitter from the first try on.
            wait = self._wait if self._wait is not None else random.uniform(0, min(5.0, 0.5 * 2 ** min(failures, 4)))
            await asyncio.sleep(wait)

    async def _hello(self, socket):
        message = {"type": "connect", "token": mint(self.secret, self.name), "topics": self.topics, "client": f"rig-{id(self):x}"}
        if self.positions:
            message["resume"] = {"positions": self.positions}
            if self.at is not None:
                message["resume"]["at"] = self.at
        await socket.send(json.dumps(message))

    def _take(self, message):
        kind = message["type"]
        if kind == "event":
            self._event(message)
        elif kind == "welcome":
            now = time.monotonic()
            self.welcomes.append((now, message["node"]))
            if self._left_at is not None:
                self.absences.append((self._left_at, now))
                self._left_at = None
            self.connected, self.node, self.live = True, message["node"], message["live"]
            for refused in message["refused"]:
                self.fault(f"refused {refused}")
            for topic, position in message["positions"].items():
                self._start(topic, position, "welcome")
        elif kind == "subscribed":
            for topic, position in message["positions"].items():
                self._start(topic, position, "subscribed")
        elif kind == "resync":
            for topic in message["topics"]:
                more = {"node": self.node, "knew": self.covered.get(topic), "now": message["positions"].get(topic)}
                self.resyncs.append((time.monotonic(), topic, message["reason"], more))
                if position := message["positions"].get(topic):
                    # Refetching makes this editor's view complete up to here.
                    self.positions[topic] = position
                    self.covered[topic] = split(position)[1:]
        elif kind == "status":
            self.live = message["live"]
        elif kind == "closing":
            self._wait = message["reconnect_after_ms"] / 1000
        if isinstance(message.get("at"), (int, float)):
            self.at = message["at"]

    def _start(self, topic, position, where):
        """A starting point must be exactly where this editor stood, if it stood somewhere."""
        place = split(position)[1:]
        if topic in self.covered and place != self.covered[topic]:
            self.fault(f"{where} starts {topic} at {place}, not at {self.covered[topic]}, without a resync")
        self.positions[topic] = position
        self.covered[topic] = place

    def _event(self, message):
        topic, position = message["topic"], message.get("position")
        self.events += 1
        source = message["event"].get("source")
        self.sources[topic, source] = self.sources.get((topic, source), 0) + 1
        if position is None:
            return
        _, epoch, seq = split(position)
        before = self.covered.get(topic)
        if before is None:
            self.fault(f"an event of {topic} before any starting point")
        elif (epoch, seq) != (before[0], before[1] + 1):
            word = "duplicate or reordered" if (epoch, seq) <= before else "hole"
            self.fault(f"{word} in {topic}: {before} then {(epoch, seq)}")
        self.positions[topic] = position
        self.covered[topic] = (epoch, seq)


async def until(condition, seconds, what):
    """Waits for `condition()`; returns how long it took. Fails with `what` (text, or called) after `seconds`."""
    started = time.monotonic()
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return time.monotonic() - started
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.05)
