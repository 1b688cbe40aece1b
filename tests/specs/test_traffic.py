"""A real node in every situation that the documents describe; all that it says is checked, and all of them must occur."""

import asyncio
import base64
import json
import os
import time

import pytest
import websockets

from kit.editors import connect_message
from kit.stage import AUTHORISED, note, token, until, wait_for

import unseen
from cms import Cms

UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket",
    "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), "Sec-WebSocket-Version": "13",
}
FOREIGN = {"Origin": "https://elsewhere.example"}
LISTED = "https://cms.example.com"
JSON = {"Content-Type": "application/json"}
PUBLISHER = {**JSON, **AUTHORISED}
ELEMENT = {"topic": "comments:1", "event": {"type": "comment.created"}}


async def test_a_session_over_websocket(witness, site):
    """Every message of a client and every answer to it, recorded and live events."""
    node = site.node()
    editor = await witness.editor(node, "anna", ["comments:1", "kitchen:1", "notifications:bert", "content:*"], client="tab-1")
    assert {each["code"] for each in editor.of("welcome")[0]["refused"]} == {"bad-topic", "forbidden"}
    await editor.send({"type": "subscribe", "topics": ["projects", "project-items:1"], "resume": {"at": 1, "positions": {}}})
    await editor.message("subscribed")
    await editor.send({"type": "unsubscribe", "topics": ["projects", "content:*"]})
    await editor.message("unsubscribed")
    site.record("comments:1", note(1, own={"any": [1, None]}))
    site.live("comments", note(2))
    await editor.until("both events", lambda e: sorted(e.numbers()) == [1, 2])
    await editor.in_step()
    await editor.send('{"type":"dance"}')
    await editor.message("error")
    await editor.send({"type": "token", "token": "nonsense"})
    await editor.message("error", 2)
    await editor.send({"type": "token", "token": token("anna", ["project-items:*"])})
    await editor.message("token-accepted")
    await editor.message("unsubscribed", 2)
    await editor.close()


async def test_why_a_topic_is_resynced(witness, site):
    """One resume for each reason that a client's own position can bring about; at a node that knows nothing of it yet."""
    before, node = site.node(log__length=100), site.node(log__length=100)
    first = await witness.editor(before, "anna", ["comments:1", "comments:2", "comments:3", "content:1"])
    for topic in ("comments:1", "comments:2", "comments:3"):
        site.record(topic, note(0))
    site.live("content:1", note(0))
    await first.until("all of them", lambda e: len(e.events()) == 4)
    resume = first.resume
    await first.close()
    lineage, _, place = resume["positions"]["comments:3"].partition(".")
    site.record_all("comments:1", [note(n) for n in range(1, 400)])
    with site.redis.client() as client:
        client.delete("carillon:comments:2")
        epoch = site.log_epoch("comments:3")
        client.execute_command("XADD", "carillon:comments:3", f"{epoch}-*", "event", "no event")
    resume["at"] = 1
    again = await witness.editor(node, "anna", ["comments:1", "comments:2", "comments:3", "content:1", "projects"], resume=resume)
    await again.until("five reasons", lambda e: {"trimmed", "log-replaced", "invalid", "live", "no-position"} <= reasons(e))
    positions = {"comments:3": f"{'0' * len(lineage)}.{place}"}
    other = await witness.editor(node, "anna", ["comments:3"], resume={"at": resume["at"], "positions": positions})
    await other.until("a changed lineage", lambda e: "redis-changed" in reasons(e))
    stream = await witness.stream(node, ["comments:3"], resume=json.dumps({"at": 1, "positions": positions}))
    await stream.until("the same on a stream", lambda e: "redis-changed" in reasons(e))
    await stream.close()
    cursor, _ = await witness.poll(before, ["content:9"])
    with site.redis.client() as client:
        client.delete("carillon:content:9")
    _, messages = await witness.poll(node, ["content:9"], cursor)
    assert {message["type"] for message in messages} == {"resync"}


def reasons(editor):
    return {reason for _, reason in editor.resyncs()}


async def test_a_session_that_is_too_slow_is_resynced(witness, site):
    """More than its outbox holds, while it does not read."""
    node = site.node(limits__outbox_bytes=16384)
    socket = await websockets.connect(node.websocket, max_size=None, max_queue=1, compression=None, ping_interval=None)
    await socket.send(json.dumps(connect_message("anna", ["comments:1"])))
    witness.message("session", "send", json.loads(await socket.recv()))
    site.record_all("comments:1", [note(n, text="x" * 60_000) for n in range(400)])
    async with asyncio.timeout(30):
        while (message := json.loads(await socket.recv()))["type"] != "resync":
            witness.message("session", "send", message)
    witness.message("session", "send", message)
    assert message["reason"] == "slow"
    await socket.close()


async def test_how_a_session_ends(witness, site):
    """Every close code has its `closing` before it."""
    node = site.node(limits__messages_per_second=5)
    never = await witness.editor(node, first=False)

    async def ends(editor, code):
        assert (await editor.end_of_session(30))[0] == code
        closing = editor.messages[-1]
        assert (closing["type"], closing["code"]) == ("closing", code), closing

    broken = await witness.editor(node)
    broken.socket.transport.write(b"\xc1\x80" + bytes(4))
    await ends(broken, 1002)
    busy = await witness.editor(node)
    for _ in range(40):
        await busy.send({"type": "ping"})
    await ends(busy, 1013)
    malformed = await witness.editor(node)
    await malformed.send("nonsense")
    await ends(malformed, 4400)
    talker = await witness.editor(node)
    await talker.send(json.dumps({"type": "ping", "pad": "x" * 70_000}))
    await ends(talker, 1009)
    stranger = await witness.editor(node, bearer="nonsense", welcome=False)
    await ends(stranger, 4401)
    revoked = await witness.editor(node, "carla")
    witness.internal(node, "POST", "/disconnect", {"user": "carla"}, PUBLISHER)
    await ends(revoked, 4403)
    soon = token("anna", ["*"], exp=int(time.time()) + 3)
    expiring, stream = await witness.editor(node, bearer=soon), await witness.stream(node, bearer=soon)
    for each in (expiring, stream):
        await each.message("token-expiring")
    await ends(never, 4408)
    leaving = await witness.editor(node)
    following = await witness.stream(node, ["comments:1"])
    cursor, _ = await witness.poll(node, ["comments:1"])
    polling = asyncio.create_task(witness.poll(node, ["comments:1"], cursor))
    await until("the poll is there", lambda: node.metric("carillon_sessions", transport="poll") == 1)
    await asyncio.to_thread(node.process.popen.terminate)
    await ends(leaving, 1012)
    await following.message("closing")
    assert (await polling)[1][-1]["type"] == "closing"
    await asyncio.to_thread(node.process.wait, 20)


async def test_the_end_of_a_token_on_a_stream(witness, site):
    """`token-expiring`, then `closing` with 4401, on both transports."""
    node = site.node()
    # The leeway of 30 s is for tokens that have just ended when they come, not for sessions.
    soon = token("anna", ["*"], exp=int(time.time()) + 2)
    stream, editor = await witness.stream(node, bearer=soon), await witness.editor(node, bearer=soon)
    for each in (stream, editor):
        await each.message("token-expiring")
        assert (await each.message("closing", seconds=45))["code"] == 4401


async def test_a_node_without_redis(witness, site):
    """`status` on every transport, `resync` (`gap`) for who came meanwhile, unready, and nothing is published."""
    node = site.node(probe__seconds=1)
    editor, stream = await witness.editor(node, topics=["comments:1"]), await witness.stream(node, ["comments:1"])
    cursor, _ = await witness.poll(node, ["comments:1"])
    await asyncio.to_thread(site.redis.stop)
    for each in (editor, stream):
        assert (await each.message("status"))["live"] is False
    cursor, messages = await witness.poll(node, ["comments:1"], cursor)
    assert [(message["type"], message.get("live")) for message in messages] == [("status", False)]
    late = await witness.editor(node, "bert", ["comments:1"])
    assert late.of("welcome")[0]["live"] is False
    assert witness.internal(node, "GET", "/readyz")[0] == 503
    assert witness.internal(node, "POST", "/publish", ELEMENT, PUBLISHER)[0] == 503
    assert witness.internal(node, "POST", "/publish?live=1", ELEMENT, PUBLISHER)[0] == 503
    for order in ("/disconnect", "/refresh"):
        assert witness.internal(node, "POST", order, {"user": "anna"}, PUBLISHER)[0] == 503
    assert witness.internal(node, "GET", "/status")[0] == 200
    await asyncio.to_thread(site.redis.start)
    for each in (editor, stream):
        assert (await each.message("status", 2))["live"] is True
    await late.until("told of the gap", lambda e: "gap" in reasons(e))
    await asyncio.to_thread(node.ready)


async def test_a_stream(witness, site):
    """Welcome, events, resume by the cursor in either place, and the heartbeat."""
    node = site.node(heartbeat__seconds=1)
    stream = await witness.stream(node, ["comments:1", "content:*"])
    site.record("comments:1", note(1))
    await stream.until("the event", lambda e: e.numbers() == [1])
    await stream.until("a heartbeat", lambda e: e.comments >= 2)
    cursor = stream.cursor
    await stream.close()
    site.record("comments:1", note(2))
    for given in ({"headers": {"Last-Event-ID": cursor}}, {"cursor": cursor}):
        again = await witness.stream(node, ["comments:1", "content:*"], **given)
        await again.until("what was missed", lambda e: 2 in e.numbers())
        await again.close()


async def test_polls(witness, site):
    """The first, one that waits for an event, one with nothing to tell, and one that may follow less than before."""
    node = site.node()
    cursor, messages = await witness.poll(node, ["comments:1", "comments:*"])
    assert messages[0]["type"] == "welcome" and messages[0]["refused"]
    polling = asyncio.create_task(witness.poll(node, ["comments:1"], cursor))
    await until("the poll is there", lambda: node.metric("carillon_sessions", transport="poll") == 1)
    site.record("comments:1", note(1))
    cursor, messages = await polling
    assert [message["type"] for message in messages] == ["event"]
    cursor, messages = await witness.poll(node, ["comments:1"], cursor, bearer=token("anna", ["projects"]))
    assert [message["type"] for message in messages] == ["unsubscribed"]
    _, messages = await witness.poll(node, ["projects"], cursor, bearer=token("anna", ["*"]))
    assert messages in ([], messages[:1])


def test_what_everybody_may_read(witness, site):
    """Configuration, scripts, preflights with and without a listed origin, what there is not."""
    node = site.node(http__allowed_origins=[LISTED])
    assert witness.public(node, "/config")[0] == 200
    for script in ("/realtime.js", "/realtime.js.map", "/realtime.d.ts"):
        status, headers, _ = witness.public(node, script)
        assert status == 200
        assert witness.public(node, script, {"If-None-Match": headers["ETag"]})[0] == 304
    for path in ("/events", "/poll", "/config", "/realtime.js", "/realtime.js.map", "/realtime.d.ts"):
        for origin in (LISTED, "https://elsewhere.example"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
            status, headers, _ = witness.public(node, path, asked, method="OPTIONS")
            assert status == 204 and headers["Access-Control-Allow-Origin"] == (LISTED if origin == LISTED else None)
        for method in ("PUT", "DELETE") if path in ("/events", "/poll") else ("POST", "PUT", "DELETE"):
            assert witness.public(node, path, method=method)[0] == 405
    assert witness.public(node, method="POST")[0] == 405
    for port in (node.port, node.internal_port):
        assert witness.ask(port, "GET", "/nowhere")[0] == 404
    for path in ("/publish", "/disconnect", "/refresh"):
        assert witness.internal(node, "GET", path)[0] == 405
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert "openmetrics" in witness.internal(node, "GET", "/metrics", headers=asked)[1]["Content-Type"]
    for path in ("/healthz", "/readyz", "/metrics", "/status", "/history", "/"):
        assert witness.internal(node, "GET", path)[0] == 200
        assert witness.internal(node, "POST", path)[0] == 405
    assert witness.internal(node, "GET", "/history?since=yesterday")[0] == 400


def test_refusals_before_a_session(witness, site):
    """Every transport, every reason that the request itself gives."""
    node = site.node()
    status, headers, _ = witness.public(node, headers={**UPGRADE, "Sec-WebSocket-Protocol": "other, carillon.v1"})
    assert (status, headers["Sec-WebSocket-Protocol"]) == (101, "carillon.v1")
    assert witness.public(node, headers={**UPGRADE, "Sec-WebSocket-Key": "short"})[0] == 400
    assert witness.public(node, headers={**UPGRADE, "Sec-WebSocket-Version": "8"})[0] == 400
    assert witness.public(node)[0] == 426
    assert witness.public(node, headers={"Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"})[0] == 426
    for path, base in (("", UPGRADE), ("/events", {}), ("/poll", {})):
        assert witness.public(node, path, {**base, "Authorization": "Bearer nonsense"})[0] == 401
        assert witness.public(node, path, {**base, **FOREIGN})[0] == 403
    for path in ("/events", "/poll"):
        assert witness.public(node, path)[0] == 401
        # A parameter twice.
        assert witness.ask(node.port, "GET", f"/realtime{path}?topics=a&topics=b")[0] == 400
    off = site.node(websocket__enabled=False, sse__enabled=False, poll__enabled=False)
    for path, base in (("", UPGRADE), ("/events", {}), ("/poll", {})):
        assert witness.public(off, path, base)[0] == 404


async def test_refusals_for_want_of_room(witness, site):
    """A full node, one that accepts too many at once, one that drains; on every transport."""
    ways = (("", UPGRADE, {}), ("/events", {}, {"token": token("anna")}), ("/poll", {}, {"token": token("anna")}))

    def refuses(node, code):
        def all_refuse():
            answers = [witness.public(node, path, headers, **query) for path, headers, query in ways]
            return all(status == 503 and json.loads(text)["code"] == code for status, _, text in answers)

        return all_refuse

    full = site.node(limits__sessions=1)
    await witness.editor(full)
    await asyncio.to_thread(wait_for, "full", refuses(full, "too-many-sessions"))
    busy = site.node(limits__accepts_per_second=1)
    await witness.editor(busy)
    await asyncio.to_thread(wait_for, "busy", refuses(busy, "accept-rate"))
    draining = site.node(drain__window_seconds=20)
    for _ in range(8):
        await witness.editor(draining)
    await asyncio.to_thread(draining.process.popen.terminate)
    await asyncio.to_thread(wait_for, "draining", lambda: draining.readiness()[0] == 503)
    assert witness.internal(draining, "GET", "/readyz")[0] == 503
    assert await asyncio.to_thread(refuses(draining, "draining"))


async def test_a_cms_that_is_asked(witness, site):
    """`auth.mode` `callback`: what it no longer allows is unsubscribed; while it is away nobody is let in."""
    cms = Cms()
    node = site.node(auth__mode="callback", auth__secret=None, auth__callback_url=cms.url, internal__publish_token=None)
    bearer = {"Authorization": "Bearer of-anna"}
    stream = await witness.stream(node, ["comments:1", "projects"], headers=bearer, bearer="of-anna")
    editor = await witness.editor(node, "anna", ["comments:1", "projects"], bearer="of-anna")
    cms.answer["topics"] = ["projects"]
    for each in (stream, editor):
        await each.message("unsubscribed")
    await stream.close()
    await editor.close()
    await asyncio.to_thread(cms.stop)
    stranger = {"Authorization": "Bearer of-somebody"}
    for path, base in (("", UPGRADE), ("/events", {}), ("/poll", {})):
        assert witness.public(node, path, {**base, **stranger})[0] == 503
    for path, body in (("/publish", ELEMENT), ("/disconnect", {"user": "anna"}), ("/refresh", {"user": "anna"})):
        assert witness.internal(node, "POST", path, body, {**JSON, **stranger})[0] == 503


def test_publishing(witness, site):
    """One, many, several topics, live; partly; every refusal."""
    node = site.node()

    def publish(body, query="", headers=PUBLISHER):
        status, _, text = witness.internal(node, "POST", "/publish" + query, body, headers)
        return status, json.loads(text)

    assert publish(ELEMENT)[0] == 200
    assert len(publish([ELEMENT, {"topics": ["comments:2", "projects"], "event": note(1)}])[1]["positions"]) == 3
    assert publish(ELEMENT, "?live=1")[1] == {"positions": [None]}
    with site.redis.client() as client:
        client.set("carillon:comments:9", "not a stream")
    status, answer = publish([ELEMENT, {**ELEMENT, "topic": "comments:9"}, ELEMENT])
    assert status == 207 and [each["status"] for each in answer["results"]] == [200, 503, 200]
    assert publish({**ELEMENT, "topic": "comments:9"})[1]["code"] == "redis-refuses"
    for body, query, code in (
        ("nonsense", "", "bad-request"),
        ([], "", "bad-request"),
        ([ELEMENT, {"event": note(1)}], "", "bad-request"),
        (ELEMENT, "?live=perhaps", "bad-request"),
        (ELEMENT, "?live=1&live=1", "bad-request"),
        ({**ELEMENT, "topic": "kitchen:1"}, "", "bad-topic"),
        ([ELEMENT, {**ELEMENT, "event": {"type": "x"}}], "", "bad-event"),
    ):
        status, problem = publish(body, query)
        assert (status, problem["code"]) == (400, code), (body, problem)
    bearer = lambda **claims: {**JSON, "Authorization": "Bearer " + token("cms", **claims)}  # noqa: E731
    assert publish(ELEMENT, headers=bearer(publish=["comments:*"]))[0] == 200
    assert publish([ELEMENT], headers=bearer(publish=["projects"]))[0] == 403
    assert publish(ELEMENT, headers=bearer())[0] == 403
    assert publish(ELEMENT, headers=JSON)[0] == 401
    assert publish({**ELEMENT, "event": note(1, text="x" * 70_000)})[1]["code"] == "bad-event"
    status, problem = publish(" " * (9 << 20))
    assert (status, problem["code"]) == (413, "bad-request")


def test_wishes_in_a_body(witness, site):
    """SSE and long-poll by POST: served, and every refusal that a body brings."""
    node = site.node()
    bearer = {**JSON, "Authorization": "Bearer " + token("anna", ["*"])}
    for path in ("/realtime/events", "/realtime/poll"):
        def post(body, headers=bearer):
            return witness.ask(node.port, "POST", path, headers, body)[0]  # noqa: B023

        assert post({"topics": ["comments:1"]}) == 200
        assert post("nonsense") == 400
        assert post({"topics": ["comments:1"]}, JSON) == 401
        assert post({"topics": ["x" * 70_000]}) == 413
        assert post("topics=comments:1", {**bearer, "Content-Type": "text/plain"}) == 415


def test_positions(witness, site):
    """Where topics stand, and every refusal."""
    node = site.node()

    def positions(topics, headers=PUBLISHER):
        status, _, text = witness.internal(node, "GET", f"/positions?topics={topics}", None, headers)
        return status, json.loads(text)

    assert set(positions("comments:1,projects")[1]["positions"]) == {"comments:1", "comments", "projects"}
    assert positions("")[1]["code"] == "bad-request"
    assert positions("kitchen:1")[1]["code"] == "bad-topic"
    assert positions("comments:1", {})[0] == 401
    claim = {"Authorization": "Bearer " + token("cms", publish=["projects"])}
    assert positions("comments:1", claim)[0] == 403


def test_orders(witness, site):
    """Sessions that end, and rights that are fetched anew: done, and every refusal."""
    node = site.node()
    elsewhere = {**JSON, "Authorization": "Bearer " + token("cms", publish=["comments:*"])}
    for path in ("/disconnect", "/refresh"):
        for body, headers, expected in (
            ({"user": "anna"}, PUBLISHER, 200),
            ("nonsense", PUBLISHER, 400),
            ({"user": "anna"}, JSON, 401),
            ({"user": "anna"}, elsewhere, 403),
            (" " * (9 << 20), PUBLISHER, 413),
        ):
            assert witness.internal(node, "POST", path, body, headers)[0] == expected, (path, expected)


def test_everything_documented_was_seen(request, witness, documents):
    """Each message type on each channel, each word in a message, each answer of each operation with each of its codes."""
    mine = {item.name for item in request.session.items if item.module is request.module}
    everything = {name for name in vars(request.module) if name.startswith("test_")}
    if mine != everything:
        pytest.skip("only some of the tests run")
    unseen.nothing_is_missing(witness, documents)
