"""What sessions may do wrong, and what each is told: close codes, refusals, limits, heartbeats, drain."""

import asyncio
import json
import os
import signal
import socket
import struct

import pytest

from kit.editors import Editor, connect_message
from kit.stage import note, until

# What a malformed message may be closed with: ours, or the code of RFC 6455 for broken framing, UTF-8 and size.
MALFORMED = {
    "binary": (b"\x00\x01", {4400}),
    "not JSON": ("hello", {4400}),
    "an array": ("[]", {4400}),
    "no type": ("{}", {4400}),
    "a type that is a number": ('{"type":7}', {4400}),
    "topics that are no list": ('{"type":"subscribe","topics":"comments:1"}', {4400}),
    "topics that are numbers": ('{"type":"subscribe","topics":[1]}', {4400}),
    "a position that is a number": ('{"type":"subscribe","topics":["comments:1"],"resume":{"positions":{"comments:1":7}}}', {4400}),
    "a megabyte of nested JSON": ("[" * (1 << 20), {4400, 1009}),
    "70,000 bytes": (json.dumps({"type": "ping", "pad": "x" * 70000}), {4400, 1009}),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_message_closes_that_session_and_no_other(site, name):
    """4400, before and after `connect`."""
    node = site.node()
    other = await Editor.open(node, "bert", ["comments:1"])
    message, codes = MALFORMED[name]
    for connected in (False, True):
        editor = await Editor.open(node, "anna", ["comments:1"]) if connected else await Editor.dial(node)
        try:
            await editor.send(message)
        except Exception as error:  # the node may close before a large message is written
            assert "sent" in str(error) or "received" in str(error), error
        code, _ = await editor.end_of_session()
        assert code in codes
    site.record("comments:1", note(1))
    await other.until("the event", lambda e: e.numbers() == [1])


async def test_the_order_of_connect(site):
    """A message before it, a second one, none at all (4408 within ten seconds and a bit)."""
    node = site.node()
    silent = await Editor.dial(node)
    early = await Editor.dial(node)
    await early.send({"type": "ping"})
    assert (await early.end_of_session())[0] == 4400
    twice = await Editor.open(node, "anna", [])
    await twice.send(connect_message("anna", []))
    assert (await twice.end_of_session())[0] == 4400
    without = await Editor.dial(node)
    await without.send({"type": "connect", "topics": []})
    assert (await without.end_of_session())[0] == 4401
    assert (await silent.end_of_session(14))[0] == 4408


async def test_an_unknown_type_is_answered_and_does_no_harm(site):
    """So that newer clients can talk to older nodes; unknown members are ignored."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"], something="new")
    await editor.send({"type": "juggle", "balls": 3})
    error = await editor.message("error")
    assert error["code"] == "unknown-type" and error["detail"]
    site.record("comments:1", note(1))
    await editor.until("the event", lambda e: e.numbers() == [1])


async def test_the_shape_of_welcome_event_and_subscribed(site, node_editors):
    """Names and types to the letter, and the sub-protocol echoed if offered."""
    node = site.node(heartbeat__seconds=20)
    editor = await node_editors.open(node, "anna", ["comments:1"], subprotocols=["other", "carillon.v1"], client="tab-1")
    assert editor.subprotocol == "carillon.v1"
    plain = await node_editors.open(node, "anna", [])
    assert plain.subprotocol == ""
    welcome = editor.of("welcome")[0]
    assert set(welcome) == {"type", "session", "node", "user", "heartbeat", "expires_in", "at", "positions", "refused", "live"}
    assert (welcome["node"], welcome["user"], welcome["heartbeat"], welcome["live"]) == ("node-1", "anna", 20, True)
    assert 3500 < welcome["expires_in"] <= 3630 and isinstance(welcome["at"], int) and welcome["session"]
    event = {"type": "comment.created", "data": {"n": 1, "text": "\u2028 ü"}, "x": [1, None, {}]}
    key = site.record("comments:1", event)
    await editor.until("the event", lambda e: e.events())
    got = editor.events()[0]
    assert set(got) == {"type", "topic", "position", "at", "event"}
    assert got["topic"] == "comments:1" and got["event"] == event
    lineage, _, entry = got["position"].partition(".")
    assert entry == key and lineage
    await editor.send({"type": "subscribe", "topics": ["projects", "nonsense:1"]})
    subscribed = await editor.message("subscribed")
    assert set(subscribed) == {"type", "at", "positions", "refused"} and set(subscribed["positions"]) == {"projects"}
    await editor.send({"type": "unsubscribe", "topics": ["projects"]})
    assert await editor.message("unsubscribed") == {"type": "unsubscribed", "topics": ["projects"]}
    await editor.in_step()
    assert isinstance(editor.of("pong")[0]["at"], int)


async def test_the_sixty_fifth_topic_is_refused_and_sixty_four_are_followed(site):
    """`too-many`, named; implied area-wide topics are not counted; leaving makes room."""
    node = site.node()
    topics = [f"comments:{number}" for number in range(65)]
    editor = await Editor.open(node, "anna", topics)
    welcome = editor.of("welcome")[0]
    assert welcome["refused"] == [{"topic": "comments:64", "code": "too-many"}]
    assert len(welcome["positions"]) == 65
    await editor.send({"type": "unsubscribe", "topics": ["comments:0"]})
    await editor.message("unsubscribed")
    await editor.send({"type": "subscribe", "topics": ["comments:64", "comments:65"]})
    assert [entry["topic"] for entry in (await editor.message("subscribed"))["refused"]] == ["comments:65"]


async def test_a_client_that_is_silent_is_pinged_and_then_closed(site):
    """Answers to Pings keep a session; a socket that answers nothing is closed with 4408 after two heartbeats."""
    # Two heartbeats are long enough for a client on a busy machine to answer, and nothing here keeps it from answering.
    node = site.node(heartbeat__seconds=4)
    alive = await Editor.open(node, "anna", ["comments:1"])
    deaf = await asyncio.to_thread(RawSocket, node)
    await asyncio.to_thread(deaf.upgrade)
    await asyncio.to_thread(deaf.send, 0x1, json.dumps(connect_message("bert", [])).encode())
    code = await asyncio.to_thread(deaf.close_code_without_answering)
    assert code == 4408
    site.record("comments:1", note(1))
    await alive.until("the event", lambda e: e.numbers() == [1])


async def test_a_drained_node_says_closing_and_ends_with_exit_code_0(site):
    """SIGTERM: unready, `closing` and 1012 to every session within the window, and they go on elsewhere."""
    leaving, staying = site.node(drain__window_seconds=2), site.node()
    editors = await asyncio.gather(*(Editor.open(leaving, f"e{n}", ["comments:1"]) for n in range(20)))
    site.record("comments:1", note(1))
    await asyncio.gather(*(editor.until("it", lambda e: e.numbers() == [1]) for editor in editors))
    leaving.process.popen.send_signal(signal.SIGTERM)
    ends = await asyncio.gather(*(editor.end_of_session() for editor in editors))
    assert {code for code, _ in ends} == {1012}
    for editor in editors:
        closing = editor.of("closing")[0]
        assert editor.messages[-1] is closing and closing["code"] == 1012 and closing["reconnect_after_ms"] >= 0
    assert await asyncio.to_thread(leaving.process.wait, 10) == 0
    site.record("comments:1", note(2))
    back = await asyncio.gather(*(Editor.open(staying, "x", ["comments:1"], resume=editor.resume) for editor in editors))
    for editor in back:
        await editor.until("what was missed", lambda e: e.numbers() == [2])
        assert editor.resyncs() == []


async def test_a_killed_node_loses_nothing(site):
    """SIGKILL: the sessions resume on another node."""
    dying, staying = site.node(), site.node()
    editors = [await Editor.open(dying, f"e{number}", ["comments:1"]) for number in range(10)]
    site.record("comments:1", note(1))
    await asyncio.gather(*(editor.until("it", lambda e: e.numbers() == [1]) for editor in editors))
    os.kill(dying.process.popen.pid, signal.SIGKILL)
    site.record_all("comments:1", [note(number) for number in range(2, 30)])
    for editor in editors:
        await editor.end_of_session()
        back = await Editor.open(staying, "x", ["comments:1"], resume=editor.resume)
        await back.until("what was missed", lambda e: 29 in e.numbers())
        assert back.numbers() == list(range(2, 30)) and back.resyncs() == []


class RawSocket:
    """A TCP connection that speaks as little WebSocket as a test wants."""

    def __init__(self, node):
        self.socket = socket.create_connection(("127.0.0.1", node.port), 20)
        self.host = f"127.0.0.1:{node.port}"
        self.buffer = b""

    def upgrade(self):
        self.socket.sendall(self.request())
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def request(self):
        return (
            f"GET /realtime HTTP/1.1\r\nHost: {self.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    def send(self, opcode, payload, fin=True, masked=True, length=None):
        """One frame; `length` lies about its size."""
        size = len(payload) if length is None else length
        head = bytes([opcode | (0x80 if fin else 0)])
        bit = 0x80 if masked else 0
        head += bytes([bit | size]) if size < 126 else struct.pack("!BH", bit | 126, size) if size < 65536 else struct.pack("!BQ", bit | 127, size)
        mask = b"\x11\x22\x33\x44" if masked else b""
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload
        self.socket.sendall(head + mask + body)

    def _more(self):
        got = self.socket.recv(65536)
        if not got:
            raise EOFError
        self.buffer += got

    def frame(self):
        """The next frame: `(opcode, payload)`."""

        def have(size):
            while len(self.buffer) < size:
                self._more()

        have(2)
        size, start = self.buffer[1] & 0x7F, 2
        assert not self.buffer[1] & 0x80, "a node never masks"
        if size == 126:
            have(4)
            size, start = struct.unpack("!H", self.buffer[2:4])[0], 4
        elif size == 127:
            have(10)
            size, start = struct.unpack("!Q", self.buffer[2:10])[0], 10
        have(start + size)
        opcode, payload = self.buffer[0] & 0xF, self.buffer[start : start + size]
        self.buffer = self.buffer[start + size :]
        return opcode, payload

    def until_message(self, kind):
        """The next text message of this type."""
        while True:
            opcode, payload = self.frame()
            if opcode == 1 and json.loads(payload)["type"] == kind:
                return json.loads(payload)

    def close_code_without_answering(self):
        """Reads on, answering no Ping, until a Close comes; 0 where the connection just ends."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == 8:
                    return struct.unpack("!H", payload[:2])[0] if payload else 1005
        except (EOFError, ConnectionError):
            return 0


def connected(node):
    raw = RawSocket(node)
    raw.upgrade()
    raw.send(0x1, json.dumps(connect_message("anna", ["comments:1"])).encode())
    raw.until_message("welcome")
    return raw


async def test_rfc_6455_fragments_with_control_frames_between_them(site):
    """A message in three pieces, Pings between them are answered at once (5.4, 5.5)."""
    node = site.node()
    raw = connected(node)
    raw.send(0x1, b'{"type":', fin=False)
    raw.send(0x9, b"between")
    assert raw.frame() == (0xA, b"between")
    raw.send(0x0, b'"pi', fin=False)
    raw.send(0xA, b"an unasked pong")
    raw.send(0x0, b'ng"}')
    assert raw.until_message("pong")
    raw.send(0x8, struct.pack("!H", 1000))
    assert raw.close_code_without_answering() == 1000


@pytest.mark.parametrize(
    ("name", "play", "codes"),
    [
        ("an unmasked frame", lambda raw: raw.send(0x1, b'{"type":"ping"}', masked=False), {1002}),
        ("a reserved opcode", lambda raw: raw.send(0x3, b"x"), {1002}),
        ("a reserved bit", lambda raw: raw.send(0x41, b"x"), {1002}),
        ("a long ping", lambda raw: raw.send(0x9, b"x" * 126), {1002}),
        ("a fragmented ping", lambda raw: raw.send(0x9, b"x", fin=False), {1002}),
        ("a continuation of nothing", lambda raw: raw.send(0x0, b"x"), {1002}),
        ("a message within a message", lambda raw: (raw.send(0x1, b"{", fin=False), raw.send(0x1, b"}")), {1002}),
        ("invalid UTF-8", lambda raw: raw.send(0x1, b'{"type":"\xff"}'), {1007, 4400}),
        ("a length of exabytes", lambda raw: raw.send(0x1, b"x", length=1 << 62), {1002, 1009, 4400}),
        ("a length with the top bit", lambda raw: raw.send(0x1, b"x", length=(1 << 63) + 5), {1002, 1009, 4400}),
        ("a message of endless fragments", lambda raw: endless(raw), {1009, 4400}),
        ("a close of one byte", lambda raw: raw.send(0x8, b"\x03"), {1002}),
        ("a close with a forbidden code", lambda raw: raw.send(0x8, struct.pack("!H", 1005)), {1002}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_rfc_6455_broken_frames_close_with_the_right_code(site, name, play, codes):
    """And nobody else notices."""
    node = site.node()
    other = await Editor.open(node, "bert", ["comments:1"])
    raw = await asyncio.to_thread(connected, node)
    await asyncio.to_thread(play, raw)
    assert await asyncio.to_thread(raw.close_code_without_answering) in codes
    site.record("comments:1", note(1))
    await other.until("the event", lambda e: e.numbers() == [1])


def endless(raw):
    """Fragments of one message, far beyond the limit."""
    try:
        raw.send(0x1, b"x" * 30000, fin=False)
        for _ in range(40):
            raw.send(0x0, b"x" * 30000, fin=False)
    except ConnectionError:
        pass


async def test_half_closed_and_vanished_sockets_leave_nothing_behind(site):
    """A FIN after the handshake, a FIN in mid-frame, a reset: the node counts no session any more."""
    node = site.node()
    for how in ("fin", "mid-frame", "reset"):
        raw = await asyncio.to_thread(connected, node)
        assert node.metric("carillon_sessions") == 1
        if how == "reset":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.socket.close()
        else:
            if how == "mid-frame":
                raw.socket.sendall(b"\x81\xfe")
            raw.socket.shutdown(socket.SHUT_WR)
        await until(f"gone after {how}", lambda: node.metric("carillon_sessions") == 0)


async def test_a_half_written_handshake_that_stalls_is_cut_off(site):
    """`limits.header_seconds`; honest clients come in meanwhile."""
    node = site.node(limits__header_seconds=1)
    stalled = [RawSocket(node) for _ in range(20)]
    for number, raw in enumerate(stalled):
        raw.socket.sendall(raw.request()[: number * 8])
    editor = await Editor.open(node, "anna", ["comments:1"])
    for raw in stalled:
        raw.socket.settimeout(10)
        assert await asyncio.to_thread(drained, raw.socket), "a stalled handshake is still connected"
    site.record("comments:1", note(1))
    await editor.until("the event", lambda e: e.numbers() == [1])


def drained(connection):
    """Reads until the other side ends the connection."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True
