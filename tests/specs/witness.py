"""Talks to nodes over every transport, checks all that is said against the documents, and remembers what it has seen."""

import asyncio
import http.client
import json
import re
from urllib.parse import urlencode

from kit.editors import Editor, Inbox, connect_message
from kit.stage import token

LINES = {"event", "data", "id"}


class Witness:
    """What was seen: `(channel, action, type)`, `(channel, "resync"/"closing"/"error", word)`, `(method, path, status, code)`."""

    def __init__(self, documents):
        self.documents = documents
        self.messages, self.words, self.answers = set(), set(), set()

    def message(self, channel, action, message):
        kind = self.documents.message(channel, action, message)
        self.messages.add((channel, action, kind))
        word = {"resync": "reason", "closing": "code", "error": "code"}.get(kind)
        if word and action == "send":
            self.words.add((kind, message[word]))

    def ask(self, port, method, target, headers=None, body=None, path=None):
        """Asks for something, checks the answer and returns `(status, headers, body)`. The body of a stream is not read."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            streaming = answer.status == 101 or answer.headers.get_content_type() == "text/event-stream"
            text = b"" if streaming else answer.read()
        finally:
            connection.close()
        path = path or target.partition("?")[0]
        code = self.documents.answer(method, path, answer.status, answer.headers, text)
        self.answers.add((method.lower(), path, str(answer.status), code))
        return answer.status, answer.headers, text

    def public(self, node, path="", headers=None, method="GET", **query):
        query = {key: value for key, value in query.items() if value is not None}
        target = f"/realtime{path}" + ("?" + urlencode(query) if query else "")
        return self.ask(node.port, method, target, headers)

    def internal(self, node, method, target, body=None, headers=None):
        return self.ask(node.internal_port, method, target, headers, body)

    async def poll(self, node, topics=(), cursor=None, bearer=None, **query):
        """`(cursor, messages)` of a long-poll; the messages have been checked with the answer."""
        bearer = bearer or token("anna", ["*"])
        status, _, text = await asyncio.to_thread(
            self.public, node, "/poll", topics=",".join(topics), cursor=cursor, token=bearer, **query
        )
        assert status == 200, text
        answer = json.loads(text)
        for message in answer["messages"]:
            self.messages.add(("poll", "send", message["type"]))
        return answer["cursor"], answer["messages"]

    async def editor(self, node, sub="anna", topics=(), welcome=True, first=True, **connect):
        """A session over WebSocket."""
        editor = await WatchedEditor.dial(node)
        editor.witness = self
        if first:
            await editor.send(connect_message(sub, topics, **connect))
            if welcome:
                await editor.message("welcome")
        return editor

    async def stream(self, node, topics=(), cursor=None, bearer=None, headers=None, **query):
        """A session over server-sent events."""
        stream = Stream(self)
        query = {"topics": ",".join(topics), "token": bearer or token("anna", ["*"]), "cursor": cursor, **query}
        await stream.open(node, {key: value for key, value in query.items() if value is not None}, headers or {})
        if cursor is None and "Last-Event-ID" not in (headers or {}):
            await stream.message("welcome")
        return stream


class WatchedEditor(Editor):
    """An editor whose every message is checked, both ways; what is sent as text is meant to be wrong."""

    witness = None

    def take(self, message):
        super().take(message)
        try:
            self.witness.message("session", "send", message)
        except AssertionError as error:
            self.wrong = error
            raise

    wrong = None

    async def send(self, message):
        if isinstance(message, dict):
            self.witness.message("session", "receive", message)
        await super().send(message)

    async def until(self, what, predicate, seconds=20.0):
        try:
            return await super().until(what, predicate, seconds)
        finally:
            if self.wrong:
                raise self.wrong


class Stream(Inbox):
    """A session over server-sent events (HTML, 9.2), read to the letter of the documents."""

    def __init__(self, witness):
        super().__init__()
        self.witness, self.cursor, self.comments = witness, None, 0

    async def open(self, node, query, headers):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1 << 24)
        lines = [f"GET /realtime/events?{urlencode(query)} HTTP/1.1", f"Host: 127.0.0.1:{node.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        answered = http.client.parse_headers(_Lines(head.partition("\r\n")[2].encode()))
        code = self.witness.documents.answer("GET", "/realtime/events", status, answered, b"")
        self.witness.answers.add(("get", "/realtime/events", str(status), code))
        assert answered["Transfer-Encoding"] == "chunked"
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        text = b""
        try:
            while size := int(await self.reader.readline() or b"0", 16):
                text += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
                while b"\n\n" in text:
                    block, _, text = text.partition(b"\n\n")
                    self._block(block.decode())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except AssertionError as error:
            self.wrong = error
            self._news.set()
            return
        self.end(None, "the stream ended")

    wrong = None

    def _block(self, block):
        lines = block.split("\n")
        if block.startswith(":"):
            assert len(lines) == 1, block
            self.comments += 1
            self._news.set()
            return
        fields = dict(line.split(": ", 1) for line in lines)
        assert len(lines) == 3 and set(fields) == LINES, f"not event, data and id: {block!r}"
        message = json.loads(fields["data"])
        assert fields["event"] == message["type"]
        self.witness.documents.check("openapi.yaml#/components/schemas/Cursor", fields["id"])
        self.cursor = fields["id"]
        self.witness.message("stream", "send", message)
        self.take(message)

    async def until(self, what, predicate, seconds=20.0):
        def found(inbox):
            if self.wrong:
                raise self.wrong
            return predicate(inbox)

        return await super().until(what, found, seconds)

    async def close(self):
        self._reading.cancel()
        self.writer.close()


class _Lines:
    """What `parse_headers` reads from."""

    def __init__(self, text):
        self.lines = [*re.findall(rb"[^\n]*\n", text)]

    def readline(self, _=None):
        return self.lines.pop(0) if self.lines else b""
