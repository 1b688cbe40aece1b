"""Redis missing, restarted, too old, protected, restricted: the node waits or refuses, and says which and what to do."""

import asyncio
import socket
import threading

import pytest

from kit.editors import Editor
from kit.publishers import PythonPublisher, Refused
from kit.stage import Node, carillon, free_port, http, note, until, wait_for


def words_of(node):
    """All that the node says: output and readiness."""
    return node.output() + node.readiness()[1]


async def test_a_node_waits_for_redis_and_says_so_and_works_once_it_is_there(site):
    """Redis missing at start: alive, not ready, sessions welcomed with live:false; then as if nothing had been."""
    site.redis.stop()
    node = site.start(probe__seconds=1)
    wait_for("not ready", lambda: node.readiness()[0] == 503)
    assert http("GET", node.internal("/healthz"))[0] == 200
    wait_for("a word about Redis", lambda: str(site.redis.port) in node.output())
    editor = await Editor.open(node, "anna", ["comments:1"])
    welcome = editor.of("welcome")[0]
    assert welcome["live"] is False and not welcome.get("positions")
    await asyncio.to_thread(site.redis.start)
    await editor.until("live", lambda e: e.of("status") and e.of("status")[-1]["live"] is True)
    await editor.until("told gap", lambda e: ("comments:1", "gap") in e.resyncs())
    assert "comments:1" in editor.resume["positions"]
    await asyncio.to_thread(node.ready)
    site.record("comments:1", note(1))
    await editor.until("the event", lambda e: e.numbers() == [1])


async def test_a_restart_without_memory_brings_the_function_back(site):
    """An empty restart loses the library: the nodes load it again on reconnect."""
    node = site.node(probe__seconds=1)
    await asyncio.to_thread(site.redis.stop)
    await until("not ready", lambda: node.readiness()[0] == 503)
    await asyncio.to_thread(site.redis.start)
    await asyncio.to_thread(node.ready)
    assert site.record("comments:1", note(1)).endswith("-1")


def complaint(node, *words):
    """Waits until the node has said all these words, whether it ended or waits."""

    def said():
        text = words_of(node).lower()
        return all(word.lower() in text for word in words)

    try:
        wait_for(f"said {words}", said)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{words_of(node)}") from None
    assert node.readiness()[0] != 200
    if not node.process.running:
        assert node.process.popen.returncode == 1


async def test_a_wrong_password_is_a_clear_error(new_site):
    """It names the setting, and never the password."""
    site = new_site("--requirepass", "the-right-password")
    for settings in ({"redis__password": "wrong-password"}, {}):
        node = site.start(**settings)
        complaint(node, "password")
        assert "wrong-password" not in words_of(node)
        node.stop()
    node = site.node(redis__password="the-right-password")
    assert "the-right-password" not in words_of(node)


class OldRedis:
    """A stand-in that answers like Redis 6.2: no functions, and it says its version."""

    def __init__(self):
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            while header := lines.readline():
                words = header.split()
                if header.startswith(b"*"):
                    words = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(int(header[1:]))]
                connection.sendall(self._answer([word.upper() for word in words]))

    def _answer(self, words):
        info = b"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\nmaster_replid:%s\r\n" % (b"a" * 40)
        if words[0] == b"HELLO":
            pairs = [(b"server", b"redis"), (b"version", b"6.2.14"), (b"mode", b"standalone"), (b"role", b"master")]
            body = b"".join(b"$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(k), k, len(v), v) for k, v in pairs)
            return b"%%%d\r\n%s$5\r\nproto\r\n:3\r\n" % (len(pairs) + 1, body) if words[1:2] == [b"3"] else b"*%d\r\n%s" % (2 * len(pairs), body)
        if words[0] == b"INFO":
            return b"$%d\r\n%s\r\n" % (len(info), info)
        if words[0] == b"PING":
            return b"+PONG\r\n"
        if words[0] in (b"CLIENT", b"SELECT", b"AUTH"):
            return b":7\r\n" if words[1:2] == [b"ID"] else b"+OK\r\n"
        if words[0] in (b"SUBSCRIBE", b"PSUBSCRIBE"):
            return b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
        return b"-ERR unknown command `%s`, with args beginning with: \r\n" % words[0]

    def stop(self):
        self.listener.close()


async def test_a_redis_older_than_7_is_a_clear_error(site):
    """It says which version it found and which is needed."""
    old = site.keep(OldRedis())
    complaint(site.start(redis__url=f"redis://127.0.0.1:{old.port}"), "6.2.14", "7")


async def test_missing_rights_are_a_clear_error_that_names_the_command_to_allow(site):
    """A user who may do all but load functions; one who may not subscribe; one who may not call."""
    with site.redis.client() as client:
        for name, rights, word in (
            ("loader", ["+@all", "-function"], "function"),
            ("listener", ["+@all", "-subscribe", "-psubscribe"], "subscribe"),
            ("caller", ["+@all", "-fcall"], "fcall"),
        ):
            client.execute_command("ACL", "SETUSER", name, "on", ">secret-of-the-user", "~*", "&*", *rights)
            node = site.start(redis__username=name, redis__password="secret-of-the-user")
            complaint(node, word)
            assert "secret-of-the-user" not in words_of(node)
            node.stop()


async def test_the_least_privilege_users_suffice_and_no_more(site, tmp_path):
    """`redis-function --acl` as printed: a node and a publisher with these rights do everything; the default user is off."""
    code, lines, err = carillon("redis-function", "--acl")
    assert code == 0, err
    with site.redis.client() as client:
        for line in lines.splitlines():
            if line.startswith("ACL "):
                client.execute_command(*line.replace(">CHANGE-ME", ">secret").split())
    node = site.node(redis__username="carillon-node", redis__password="secret", probe__seconds=1)
    editor = await Editor.open(node, "anna", ["comments:1", "projects:*"])
    publisher = PythonPublisher(site.redis, username="carillon-publisher", password="secret")
    publisher.recorded("comments:1", note(1))
    publisher.live("comments:1", note(2))
    node.publish({"topic": "projects", "event": note(3)})
    await editor.until("all", lambda e: {1, 2, 3} <= set(e.numbers()))
    for command in (["FLUSHALL"], ["XTRIM", "other", "MAXLEN", "0"], ["GET", "carillon:comments:1"], ["FUNCTION", "LIST"], ["CONFIG", "GET", "*"]):
        with pytest.raises(Exception, match="(?i)permission"):
            publisher.client.execute_command(*command)
    with pytest.raises(Exception, match="(?i)permission"):
        publisher.client.publish("elsewhere", "x")
    publisher.stop()


async def test_a_node_with_other_settings_than_the_loaded_library_refuses_and_says_which(site):
    """Settings are baked into the function: two nodes that disagree would break each other's promise."""
    site.node()
    node = site.start(log__length=500)
    complaint(node, "log.length", "500", "1000")
    node.stop()
    complaint(site.start(areas__names=["comments", "notifications"]), "areas")


async def test_redis_function_prints_the_library_that_publishers_without_a_node_can_load(site):
    """`carillon redis-function | redis-cli -x FUNCTION LOAD`; a node accepts it as its own."""
    code, text, err = carillon("redis-function")
    assert code == 0, err
    with site.redis.client() as client:
        client.execute_command("FUNCTION", "LOAD", text)
    with pytest.raises(Refused):
        PythonPublisher(site.redis).recorded("comments:1", b"no event")
    site.record("comments:1", note(1))
    node = site.node()
    editor = await Editor.open(node, "anna", ["comments:1"])
    site.record("comments:1", note(2))
    await editor.until("it", lambda e: e.numbers() == [2])


async def test_a_site_without_redis_is_one_node_with_the_same_promises(tmp_path, site):
    """`redis.url` empty: in-memory; resume, trimmed log, de-duplication as with Redis."""
    node = Node(tmp_path / "alone", "alone", {"log.length": 100})
    site.nodes.append(node)
    node.ready()

    async def in_step(topic):
        editor = await Editor.open(node, "anna", [topic])
        assert node.publish({"topic": topic, "event": note(0)})[0] == 200
        await editor.until("it", lambda e: e.numbers() == [0])
        await editor.close()
        return editor.resume

    resume = await in_step("comments:1")
    node.publish([{"topic": "comments:1", "event": note(number)} for number in range(1, 51)])
    back = await Editor.open(node, "anna", ["comments:1"], resume=resume)
    await back.until("the replay", lambda e: 50 in e.numbers())
    assert back.numbers() == list(range(1, 51)) and back.resyncs() == []
    resume = await in_step("comments:2")
    node.publish([{"topic": "comments:2", "event": note(number)} for number in range(300)])
    late = await Editor.open(node, "anna", ["comments:2"], resume=resume)
    await late.message("resync")
    assert late.resyncs() == [("comments:2", "trimmed")] and late.events() == []
    named = {"topic": "comments:1", "event": note(1, id="x", source="y")}
    assert node.publish(named)[1] == node.publish(named)[1], "the same source and id twice"
