"""No secret and no token in anything that a node prints or answers, however talkative it was made."""

import asyncio
import json

import pytest
import websockets

from kit.editors import Editor
from kit.stage import AUTHORISED, PUBLISH_TOKEN, SECRET, carillon, environment, http, leaks, note, token, until

PREVIOUS = "the-previous-secret-of-the-acceptance-tests-9876543210"


async def use_every_door(node, good, bad):
    """Good and bad tokens wherever a node takes one; the answers."""
    answers = []
    for bearer in (good, bad):
        for way in ({"Authorization": f"Bearer {bearer}"}, {"Cookie": f"session={bearer}"}):
            answers += [http("GET", node.public(f"/poll?topics=projects,{bearer[:40]}"), headers=way)[2].decode()]
            try:
                editor = await Editor.dial(node, way)
                await editor.send({"type": "connect", "topics": ["comments:1", bearer[:30]]})
                await editor.until("an answer", lambda e: e.messages or e.closed)
                await editor.send({"type": "token", "token": bad})
                await editor.send({"type": "token", "token": {"a": bad}})
                await editor.end_of_session()
                answers += [json.dumps(editor.messages)]
            except websockets.exceptions.InvalidStatus as refusal:
                answers += [refusal.response.body.decode()]
        answers += [http("GET", node.public(f"/poll?topics=projects&token={bearer}"))[2].decode()]
        answers += [http("GET", node.public(f"?token={bearer}"))[2].decode()]
        editor = await Editor.open(node, "anna", ["comments:1"], bearer=bearer, welcome=False)
        await editor.until("an answer", lambda e: e.messages or e.closed)
        answers += [json.dumps(editor.messages)]
        await editor.close()
        for path, body in (("/publish", {"topic": "comments:1", "event": note(1)}), ("/disconnect", {"user": "somebody"})):
            answers += [http("POST", node.internal(path), body, {"Authorization": f"Bearer {bearer}"})[2].decode()]
    answers += [http("POST", node.internal("/publish"), b"{", {**AUTHORISED})[2].decode()]
    answers += [http("GET", node.internal(path))[2].decode() for path in ("/status", "/metrics", "/readyz", "/", "/page.js")]
    return answers


@pytest.mark.parametrize("form", ["text", "json"])
async def test_nothing_that_a_node_prints_or_answers_holds_a_secret_or_a_token(site, tmp_path, form):
    """At level `trace`, with secrets in files and in the environment, good and bad tokens at every door."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    node = site.node(telemetry__level="trace", telemetry__format=form, auth__cookie="session", auth__secret=None,
                     auth__secret_file=tmp_path / "secret", auth__previous_secret=PREVIOUS)
    good = token("anna", ["comments:*", "projects"])
    bad = token("anna", ["*"], secret="a-secret-that-nobody-here-knows-0123456789")
    answers = await use_every_door(node, good, bad)
    site.record("comments:1", note(1))
    await until("its own words at this level", lambda: "TRACE" in node.output() or "DEBUG" in node.output())
    node.process.kill(15)
    for what, text in [("the log", node.output()), *(("an answer", answer) for answer in answers)]:
        assert leaks(text, {**node.settings}) == [], f"in {what}"
        assert PREVIOUS not in text, f"in {what}"
    env = environment(node.settings)
    for command in (("config", "show"), ("config", "check"), ("redis-function",), ("redis-function", "--acl"), ("health",)):
        code, out, err = await asyncio.to_thread(carillon, *command, env=env)
        assert leaks(out + err, node.settings) == [] and PREVIOUS not in out + err, command


@pytest.mark.parametrize(
    "settings",
    [
        {"auth.secret": "too-short-a-secret"},
        {"auth.secret": SECRET, "auth.public_key_file": "/nowhere"},
        {"redis.url": f"redis://user:{PUBLISH_TOKEN}@127.0.0.1:1/x/y"},
        {"redis.url": f"gopher://user:{PUBLISH_TOKEN}@127.0.0.1:1"},
        {"auth.mode": "callback", "auth.callback_url": f"ftp://user:{PUBLISH_TOKEN}@cms/who"},
        {"auth.jwks": f"https//user:{PUBLISH_TOKEN}@cms/keys", "auth.secret": None},
        {"internal.publish_token": "short-token"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_a_start_that_fails_over_a_secret_does_not_repeat_it(settings):
    """In the environment; `serve`, `config check` and `config show`."""
    base = {"auth.mode": "jwt", "auth.secret": SECRET, "http.listen": "127.0.0.1:0", "internal.listen": "127.0.0.1:0"}
    env = environment({key: value for key, value in {**base, **settings}.items() if value is not None})
    secrets = {SECRET, PUBLISH_TOKEN, "too-short-a-secret", "short-token"}
    for command in (("config", "check"), ("config", "show"), ("redis-function", "--acl")):
        code, out, err = carillon(*command, env=env)
        assert not [secret for secret in secrets if secret in out + err], (command, out, err)


def test_the_search_finds_what_is_planted():
    """A search that finds nothing anywhere would pass as well."""
    made = token("anna", ["*"])
    assert leaks("nothing here") == []
    assert leaks(f"GET /realtime/poll?token={made} 200") == [made]
    assert leaks(f"…{made.rpartition('.')[2]}…") == [made], "the signature alone"
    assert leaks(f"secret = {SECRET}") == [SECRET]
    assert leaks("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl") != [], "somebody else's token"
    assert leaks("a value-of-its-own", {"redis.password": "value-of-its-own"}) == ["value-of-its-own"]
