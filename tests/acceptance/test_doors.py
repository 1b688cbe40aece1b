"""Bad events at every door: the function, HTTP, the command line, a bare PUBLISH, straight into a log. One verdict."""

import asyncio
import json
from urllib.parse import unquote

import pytest

from kit.corpus import BAD, BAD_TOPICS, GOOD, GOOD_TOPICS, bad
from kit.editors import Editor
from kit.publishers import PythonPublisher, Refused
from kit.stage import AUTHORISED, PUBLISH_TOKEN, carillon, free_port, http, note, token, until


async def test_the_function_refuses_every_bad_event_with_a_reason_and_takes_every_good_one(site):
    """Nothing bad reaches a log; what is good arrives untouched."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    publisher = PythonPublisher(site.redis)
    taken = {}
    for name, event in BAD.items():
        try:
            taken[name] = publisher.recorded("comments:1", event)
        except Refused as refused:
            assert len(str(refused)) > 20, f"{name}: no reason: {refused}"
    assert taken == {}
    for name, event in GOOD.items():
        publisher.recorded("comments:1", event)
    await editor.until("all good ones", lambda e: len(e.events()) == len(GOOD))
    assert [m["event"] for m in editor.events()] == [json.loads(event) for event in GOOD.values()]
    assert editor.resyncs() == []


async def test_http_refuses_every_bad_event_naming_the_element_and_takes_every_good_one(site):
    """400 and `application/problem+json`; in a batch with one bad element nothing is published."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    good = b'{"topic":"comments:1","event":{"type":"comment.created"}}'
    for name, event in BAD.items():
        for query in ("", "?live=1"):
            body = b'{"topic":"comments:1","event":' + event + b"}"
            for text, batch in ((body, False), (b"[" + good + b"," + body + b"]", True)):
                status, headers, answer = http("POST", node.internal("/publish" + query), text, {"Content-Type": "application/json", **AUTHORISED})
                assert status in (400, 413, 422), (name, query, status, answer)
                assert headers["Content-Type"].startswith("application/problem+json"), name
                problem = json.loads(answer)
                assert problem["status"] == status and problem["code"] and problem["detail"], (name, problem)
    mixed = [{"topic": "comments:1", "event": note(1)}, {"topic": "comments:1", "event": {"id": "x"}}]
    status, problem = node.publish(mixed)
    assert status == 400 and "1" in json.dumps({k: v for k, v in problem.items() if k != "status"}), "the second element is to blame"
    assert site.log("comments:1") == []
    for event in GOOD.values():
        body = b'{"topic":"comments:1","event":' + event + b"}"
        status, answer = node.publish(body)
        assert status == 200 and len(answer["positions"]) == 1, (status, answer)
    await editor.until("all good ones", lambda e: len(e.events()) == len(GOOD))
    assert [m["event"] for m in editor.events()] == [json.loads(event) for event in GOOD.values()]


async def test_the_command_line_refuses_every_bad_event_with_exit_code_1_and_takes_every_good_one(site, tmp_path):
    """`carillon publish TOPIC @file`; the reason on stderr."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    file = tmp_path / "event.json"

    async def publish(event):
        file.write_bytes(event)
        return await asyncio.to_thread(carillon, "publish", "--redis", site.redis.url, "comments:1", f"@{file}", env=site.redis.environment())

    for name, event in BAD.items():
        code, out, err = await publish(event)
        assert code == 1 and err.strip() and "panicked" not in err, (name, code, out, err)
    assert site.log("comments:1") == []
    for name, event in GOOD.items():
        code, out, err = await publish(event)
        assert code == 0, (name, err)
    await editor.until("all good ones", lambda e: len(e.events()) == len(GOOD))


async def test_what_is_bad_on_a_bare_publish_is_counted_and_never_delivered(site):
    """It cannot be answered; the node's log says so and goes on, and good live events pass."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1", "projects"])
    counted = lambda: node.metric("carillon_events_invalid_total") or 0  # noqa: E731
    before = counted()
    for event in BAD.values():
        assert site.live("comments:1", event) == 1
    for event in GOOD.values():
        site.live("comments:1", event)
    await editor.until("all good ones", lambda e: len(e.events()) >= len(GOOD))
    site.record("comments:1", note(7))
    await editor.until("the one behind", lambda e: "position" in e.events()[-1])
    assert [m["event"] for m in editor.events()[:-1]] == [json.loads(event) for event in GOOD.values()]
    await until("all counted", lambda: counted() - before == len(BAD))
    assert "comments" in node.output(), "nothing in the log about them"
    lines = [line for line in node.output().splitlines() if "WARN" in line.upper()]
    assert len(lines) < len(BAD), "the log of the node is not rate-limited"


async def test_channels_that_are_no_topics_do_no_harm(site):
    """Whatever is published on a channel under the prefix, editors get nothing of it and the node goes on."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:*", "comments:1"])
    with site.redis.client() as client:
        for topic in [*BAD_TOPICS.values(), b"nodes:{carillon}", b"control:{carillon}", b"probe:{node-1}"]:
            for message in (b'{"type":"comment.created"}', b"1-1 {}", b"\xff", b"", b"1732-x {}", b'99999999999999999999-1 {"type":"a.b"}'):
                client.publish(b"carillon:" + topic, message)
    site.record("comments:1", note(1))
    await editor.until("the good one", lambda e: 1 in [m["event"].get("data", {}).get("n") for m in e.events()])
    await editor.in_step()
    assert {m["topic"] for m in editor.events()} == {"comments:1"}
    assert node.readiness()[0] == 200


@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
async def test_what_slipped_into_a_log_is_a_resync_invalid_and_the_position_goes_on(site, away):
    """An entry that is not an event, written past the function: live through a message, and in a replay."""
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    site.record("comments:1", note(0))
    await editor.until("in step", lambda e: e.numbers() == [0])
    if away:
        await editor.close()
    with site.redis.client() as client:
        for number, event in enumerate([bad("NaN"), bad("{}"), bad("ff"), bad("65537 bytes")]):
            key = client.execute_command("XADD", "carillon:comments:1", site.log_epoch("comments:1") + "-*", "event", event)
            client.publish("carillon:comments:1", key + b" " + event)
            site.record("comments:1", note(number + 1))
        key = client.execute_command("XADD", "carillon:comments:1", site.log_epoch("comments:1") + "-*", "a", "1", "b", "2")
    last = site.record("comments:1", note(5))
    if away:
        editor = await Editor.open(node, "anna", ["comments:1"], resume=editor.resume)
    # The event itself, or a `resync` that covers it: what is published before that may be covered as well.
    await editor.until("the last", lambda e: e.resume["positions"].get("comments:1", "").endswith("." + last))
    site.record("comments:1", note(6))
    await editor.until("the one behind", lambda e: 6 in e.numbers())
    assert ("comments:1", "invalid") in editor.resyncs()
    assert {reason for _, reason in editor.resyncs()} == {"invalid"}
    assert editor.numbers() == sorted(set(editor.numbers())), "out of order or twice"
    other = site.node()
    late = await Editor.open(other, "bert", ["comments:1"], resume=editor.resume)
    await late.in_step()
    assert late.resyncs() == [] and late.events() == []


async def test_bad_topics_are_refused_at_every_door_that_answers(site, node_editors):
    """The function, HTTP, the command line, and a session that asks to follow them."""
    node = site.node()
    publisher = PythonPublisher(site.redis)
    for name, topic in BAD_TOPICS.items():
        with pytest.raises(Refused) as refused:
            publisher.recorded(topic, note(1))
        assert len(str(refused.value)) > 20, name
    with site.redis.client() as client:
        assert client.keys("carillon:*") in ([], [b"carillon:nodes:{carillon}"]), "a log was opened for nothing"
    texts = [text for topic in BAD_TOPICS.values() if (text := topic.decode(errors="ignore")).encode() == topic]
    for topic in texts:
        if topic.startswith("notifications:"):
            continue  # HTTP and the command line convert the names of editors
        status, problem = node.publish({"topic": topic, "event": note(1)})
        assert status == 400 and problem["detail"], (topic, status, problem)
        if "\0" not in topic:
            code, _, err = await asyncio.to_thread(carillon, "publish", "--redis", site.redis.url, "--", topic, '{"type":"a.b"}', env=site.redis.environment())
            assert code in (1, 2) and err.strip(), topic
    wrong = [topic for topic in texts if topic != "comments:*"]
    for opener in (Editor, node_editors):
        editor = await opener.open(node, "somebody", [*wrong, "comments:1"])
        welcome = editor.of("welcome")[0]
        assert set(welcome["positions"]) == {"comments:1", "comments"}
        refused = {entry["topic"]: entry["code"] for entry in welcome["refused"]}
        assert set(refused) == set(wrong)
        others = {topic for topic, code in refused.items() if code != "bad-topic"}
        assert all(topic.startswith("notifications:") and refused[topic] == "forbidden" for topic in others), others


async def test_good_topics_pass_every_door(site):
    """And each reaches its follower under exactly its name."""
    node = site.node()
    topics = sorted({topic.decode() for topic in GOOD_TOPICS.values()} - {"notifications"})
    publisher = PythonPublisher(site.redis)
    everybody = "domain\\anna@example.com"
    for number, topic in enumerate(topics):
        private = topic.startswith("notifications:")
        editor = await Editor.open(node, name_in(topic) if private else everybody, [topic])
        assert editor.of("welcome")[0]["refused"] == [], topic
        publisher.recorded(topic, note(number))
        assert node.publish({"topic": topic, "event": note(number)})[0] == 200, topic
        await editor.until("both", lambda e: e.numbers(topic) == [number, number])
        await editor.close()


def name_in(topic):
    """The editor whose notifications these are."""
    return unquote(topic.partition(":")[2])


async def test_who_may_publish_over_http(site):
    """A `publish` claim for the topic or the configured token; nobody else, and nobody at all without either elsewhere."""
    event = {"topic": "comments:1", "event": note(1)}
    node = site.node()

    def bearer(value):
        return node.publish(event, headers={"Authorization": f"Bearer {value}"})[0]

    assert node.publish(event, headers={})[0] in (401, 403)
    assert bearer("something-else-entirely") in (401, 403)
    assert bearer(PUBLISH_TOKEN) == 200
    assert bearer(token("cms", publish=["comments:*"])) == 200
    assert bearer(token("cms", publish=["*"])) == 200
    assert bearer(token("cms", publish=["comments:1"])) == 200
    assert bearer(token("cms", publish=["comments:2", "projects"])) == 403
    assert bearer(token("anna", ["*"])) == 403
    assert bearer(token("cms", publish=["*"], exp=1)) == 401
    assert len(site.log("comments:1")) == 4
    trusting = {"auth__mode": "none", "auth__secret": None, "internal__publish_token": None}
    assert site.node(**trusting).publish(event, headers={})[0] == 200, "neither configured: allowed on loopback"
    open_to_all = site.start(**trusting, internal__listen=f"0.0.0.0:{free_port()}")
    open_to_all.internal_port = int(open_to_all.settings["internal.listen"].rpartition(":")[2])
    assert open_to_all.ready().publish(event, headers={})[0] == 403


async def test_never_a_success_for_what_redis_did_not_accept(site):
    """Redis refuses writes, then goes: an error that says so, and the log holds exactly what was answered with 200."""
    node = site.node(probe__seconds=1)
    assert node.publish({"topic": "comments:1", "event": note(1)})[0] == 200
    with site.redis.client() as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        status, problem = await asyncio.to_thread(node.publish, {"topic": "comments:1", "event": note(2)})
        assert status >= 500 and problem["detail"], (status, problem)
        client.config_set("maxmemory", "0")
    assert [event["data"]["n"] for _, event in site.log("comments:1")] == [1]
    site.redis.stop()
    status, problem = await asyncio.to_thread(node.publish, {"topic": "comments:1", "event": note(3)})
    assert status == 503 and problem["detail"], (status, problem)


async def test_a_partial_failure_is_207_with_a_result_per_element(site):
    """One log has been overwritten with something that is no stream; the other element is published."""
    node = site.node()
    with site.redis.client() as client:
        client.set("carillon:comments:2", "not a stream")
    status, answer = node.publish([{"topic": f"comments:{number}", "event": note(number)} for number in (1, 2, 3)])
    assert status == 207, answer
    text = json.dumps(answer)
    assert site.log("comments:1")[0][0] in text
    # What came behind the failure may or may not have been tried; the answer says which.
    third = [key for key, _ in site.log("comments:3")]
    assert all(key in text for key in third)
    with site.redis.client() as client:
        assert client.get("carillon:comments:2") == b"not a stream", "a key that is not ours stays as it was"
