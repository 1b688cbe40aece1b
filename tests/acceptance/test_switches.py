"""Refusals before the upgrade, the switch that turns WebSockets off, and configuration errors that say what to do."""

import asyncio
import http.client as http_client
import json
import os
import resource

import pytest
import websockets

from kit.editors import Editor
from kit.stage import SECRET, Node, carillon, environment, http, note, until, wait_for

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def refusal(node, headers, status, code):
    """Checks the answer to such a request and returns its problem and headers."""
    connection = http_client.HTTPConnection("127.0.0.1", node.port, timeout=15)  # sends what it is told and no more
    connection.request("GET", "/realtime", headers=headers)
    answer = connection.getresponse()
    got, answer_headers, body = answer.status, answer.headers, answer.read()
    connection.close()
    assert got == status, body
    assert answer_headers["Content-Type"].startswith("application/problem+json")
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == (code, status) and problem["title"] and problem["detail"]
    return problem, answer_headers


async def test_a_plain_get_is_426_and_lists_which_headers_of_the_handshake_arrived(site):
    """So that an operator sees which middle tier dropped `Connection: Upgrade`."""
    node = site.node()
    problem, headers = refusal(node, {}, 426, "upgrade-missing")
    assert headers["Upgrade"].lower() == "websocket", "RFC 9110, 15.5.22: a 426 names the protocol"
    sent = {name: value for name, value in HANDSHAKE.items() if name not in ("Connection", "Upgrade")}
    problem, _ = refusal(node, sent, 426, "upgrade-missing")
    text = json.dumps(problem).lower()
    for name in HANDSHAKE:
        assert name.lower() in text, f"{name} is not mentioned"
    assert "middle tier" in text and "13" in text
    assert "dghlihnhbxbs" not in text, "the client's nonce is nobody's business"


async def test_a_malformed_handshake_is_400_and_names_the_version(site):
    """Key and version."""
    node = site.node()
    for change in ({"Sec-WebSocket-Key": "short"}, {"Sec-WebSocket-Key": "!" * 24}, {"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Version": "x"}):
        _, headers = refusal(node, {**HANDSHAKE, **change}, 400, "bad-handshake")
        if "Sec-WebSocket-Version" in change:
            assert headers["Sec-WebSocket-Version"] == "13"
    for gone in ("Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        refusal(node, {k: v for k, v in HANDSHAKE.items() if k != gone}, 400, "bad-handshake")


async def test_websockets_switched_off_are_404_and_config_says_so(site):
    """And switched on, `config` says that."""
    node = site.node(websocket__enabled=False, heartbeat__seconds=20)
    refusal(node, HANDSHAKE, 404, "websocket-disabled")
    with pytest.raises(websockets.exceptions.InvalidStatus) as failure:
        await Editor.dial(node)
    assert failure.value.response.status_code == 404
    config = json.loads(http("GET", node.public("/config"))[2])
    assert (config["websocket"], config["sse"], config["poll"], config["heartbeat"]) == (False, True, True, 20)
    assert config["version"]
    other = site.node()
    assert json.loads(http("GET", other.public("/config"))[2])["websocket"] is True


async def test_limits_before_the_upgrade_are_503_with_retry_after(site):
    """A node that is full says when to come back."""
    node = site.node(limits__sessions=2)
    held = [await Editor.open(node, "anna", []) for _ in range(2)]
    with pytest.raises(websockets.exceptions.InvalidStatus) as failure:
        await Editor.dial(node)
    answer = failure.value.response
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert json.loads(answer.body)["code"] == "too-many-sessions"
    await held[0].close()
    editor = await Editor.open(node, "anna", [])
    assert editor.of("welcome")


async def test_too_many_connects_a_second_are_503_accept_rate(site):
    """`limits.accepts_per_second`."""
    node = site.node(limits__accepts_per_second=2)
    results = await asyncio.gather(*(Editor.dial(node) for _ in range(40)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, websockets.exceptions.InvalidStatus)]
    assert refused and len(refused) < 40
    for result in refused:
        assert result.response.status_code == 503 and result.response.headers["Retry-After"]
        assert json.loads(result.response.body)["code"] == "accept-rate"


async def test_a_node_out_of_files_turns_newcomers_away_and_serves_those_who_are_there(site):
    """`ulimit -n`, lowered under a running node."""
    node = site.node()
    editors = [await Editor.open(node, f"editor-{number}", ["comments:1"]) for number in range(20)]
    pid = node.process.popen.pid
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 5, hard))
    newcomers = await asyncio.gather(*(Editor.dial(node) for _ in range(30)), return_exceptions=True)
    refused = [one for one in newcomers if isinstance(one, websockets.exceptions.InvalidStatus)]
    assert len(refused) >= 20, newcomers
    for one in refused:
        assert one.response.status_code == 503 and one.response.headers["Retry-After"]
        assert json.loads(one.response.body)["code"] == "too-many-sessions"
    site.record("comments:1", note(1))
    for editor in editors:
        await editor.until("the event", lambda e: e.numbers() == [1])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    await until("the log to say what to do", lambda: "ulimit -n" in node.output())
    assert node.metric("carillon_refused_total", reason="file-limit") >= 1
    late = await Editor.open(node, "late", ["comments:1"])
    assert late.of("welcome")


async def test_internal_routes_are_not_on_the_public_listener_nor_the_other_way_round(site):
    """Publishing, metrics and status stay inside."""
    node = site.node()
    for path in ("/publish", "/metrics", "/status", "/readyz", "/disconnect"):
        assert http("GET", f"http://127.0.0.1:{node.port}{path}")[0] == 404
        assert http("POST", f"http://127.0.0.1:{node.port}/realtime{path}", b"{}")[0] in (404, 405)
    assert http("GET", node.internal("/realtime/config"))[0] == 404


async def test_health_readiness_metrics_and_status(site):
    """What operators look at."""
    node, other = site.node(), site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    assert http("GET", node.internal("/healthz"))[0] == 200
    assert node.readiness()[0] == 200
    assert node.metric("carillon_sessions", transport="websocket") == 1
    site.record("comments:1", {"type": "comment.created"})
    await editor.until("the event", lambda e: e.events())
    assert node.metric("carillon_events_received_total", area="comments", kind="recorded") == 1
    assert node.metric("carillon_deliveries_total") == 1
    assert node.metric("carillon_link_up") == 1
    for line in http("GET", node.internal("/metrics"))[2].decode().splitlines():
        assert line.startswith(("# ", "carillon_", "process_")), line
    wait_for("both nodes in /status", lambda: all(n in http("GET", node.internal("/status"))[2].decode() for n in (node.name, other.name)))


def start_of(settings, file=None, arguments=("serve",)):
    """Runs a start that must fail: exit code and stderr."""
    env = environment(settings)
    if file:
        env["CARILLON_CONFIG"] = str(file)
    code, _, err = carillon(*arguments, env=env)
    return code, err


BASE = {"auth.mode": "jwt", "auth.secret": SECRET, "http.listen": "127.0.0.1:0", "internal.listen": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http.lisen": "127.0.0.1:0"}, ["CARILLON__HTTP__LISEN", "listen"]),
        ({"htp.listen": "127.0.0.1:0"}, ["CARILLON__HTP__LISTEN", "http"]),
        ({"websocket.enabled": "perhaps"}, ["CARILLON__WEBSOCKET__ENABLED", "perhaps", "true", "false"]),
        ({"telemetry.level": "loud"}, ["CARILLON__TELEMETRY__LEVEL", "loud", "debug"]),
        ({"probe.seconds": "60"}, ["CARILLON__PROBE__SECONDS", "60", "10"]),
        ({"log.length": "-1"}, ["CARILLON__LOG__LENGTH", "-1"]),
        ({"http.listen": "nowhere"}, ["CARILLON__HTTP__LISTEN", "nowhere"]),
        ({"redis.prefix": "Not Good"}, ["CARILLON__REDIS__PREFIX", "Not Good", "a-z"]),
        ({"redis.url": "http://127.0.0.1"}, ["CARILLON__REDIS__URL", "redis://"]),
        ({"auth.secret": "short"}, ["CARILLON__AUTH__SECRET", "32"]),
        ({"auth.mode": "perhaps"}, ["CARILLON__AUTH__MODE", "perhaps", "jwt", "callback", "none"]),
        ({"auth.algorithms": "none"}, ["CARILLON__AUTH__ALGORITHMS", "none", "HS256"]),
        ({"areas.names": "Comments"}, ["CARILLON__AREAS__NAMES", "Comments", "a-z"]),
        ({"areas.private": "letters"}, ["CARILLON__AREAS__PRIVATE", "letters"]),
        ({"auth.default_topics": "nowhere:1"}, ["CARILLON__AUTH__DEFAULT_TOPICS", "nowhere"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_stops_the_start_and_names_key_source_and_what_is_allowed(settings, words):
    """In the environment; secrets are not repeated."""
    code, err = start_of({**BASE, **settings})
    assert code == 1, (code, err)
    for word in words:
        assert word in err, f"{word!r} is missing in: {err}"
    assert "panicked" not in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[http]\nlisen = '127.0.0.1:0'\n", ["http.lisen", "listen"]),
        ("[htp]\n", ["htp", "http"]),
        ("[probe]\nseconds = 'often'\n", ["probe.seconds", "often"]),
        ("[limits]\nsessions = -5\n", ["limits.sessions", "-5"]),
        ("[http\n", ["carillon.toml"]),
    ],
)
def test_a_bad_file_is_named_with_the_key(tmp_path, text, words):
    """The source is the file."""
    file = tmp_path / "carillon.toml"
    file.write_text(text)
    code, err = start_of(BASE, file)
    assert code == 1
    for word in [*words, "carillon.toml"]:
        assert word in err, f"{word!r} is missing in: {err}"


def test_serve_refuses_to_start_without_an_auth_decision_and_says_how_to_make_one():
    """There is no default."""
    code, err = start_of({key: value for key, value in BASE.items() if not key.startswith("auth.")})
    assert code == 1
    for word in ("auth.mode", "jwt", "callback", "none"):
        assert word in err, err


async def test_a_port_that_is_taken_is_a_clear_error(site, tmp_path):
    """Exit code 1, the address, and what to do."""
    node = site.node()
    second = Node(tmp_path / "second", "second", {**node.settings, "internal.listen": "127.0.0.1:0"})
    site.others.append(second)
    assert await asyncio.to_thread(second.process.wait) == 1
    assert str(node.port) in second.output() and "panicked" not in second.output()
