"""The command line as a user meets it: help with examples, exit codes, pipes, `tail`, `dev`."""

import asyncio
import json
import os
import re
import signal
import subprocess

import pytest

from kit.editors import Editor
from kit.stage import PROGRAM, SECRET, carillon, environment, http, note, program_path, wait_for

COMMANDS = ["serve", "dev", "publish", "tail", "token mint", "token show", "config default", "config check", "config show", "redis-function", "health", "doctor", "bench"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    """And wrong usage is exit code 2, on stderr."""
    code, out, _ = carillon(*command.split(), "--help")
    assert code == 0 and f"carillon {command}" in out and "xample" in out
    code, out, err = carillon(*command.split(), "--no-such-option")
    assert code == 2 and err and not out


def test_config_default_is_a_configuration_and_show_hides_secrets(tmp_path):
    """What `default` prints, with an auth decision, passes `check`."""
    code, text, _ = carillon("config", "default")
    assert code == 0
    file = tmp_path / "carillon.toml"
    file.write_text(text.replace('mode = ""', 'mode = "jwt"', 1).replace('secret = ""', f'secret = "{SECRET}"', 1))
    code, out, err = carillon("config", "check", "--config", str(file))
    assert code == 0, err
    code, out, err = carillon("config", "show", "--config", str(file))
    assert code == 0 and SECRET not in out + err and "secret" in out
    code, _, err = carillon("config", "check", "--config", str(tmp_path / "missing.toml"))
    assert code == 1 and "missing.toml" in err


async def test_a_minted_token_opens_a_session_and_show_reads_it(site):
    """`token mint` with the node's configuration."""
    node = site.node()
    env = environment(node.settings)
    code, out, err = carillon("token", "mint", "--sub", "anna", "--topics", "comments:1", "--ttl", "10m", env=env)
    assert code == 0, err
    editor = await Editor.open(node, topics=["comments:1"], bearer=out.strip())
    assert editor.of("welcome")[0]["user"] == "anna" and editor.of("welcome")[0]["refused"] == []
    code, shown, err = carillon("token", "show", out.strip(), env=env)
    assert code == 0 and "anna" in shown and "comments:1" in shown
    code, shown, err = carillon("token", "show", out.strip()[:-4] + "AAAA", env=env)
    assert code == 1 and err, (shown, err)


async def test_publish_from_a_pipe_keeps_what_was_not_accepted_and_says_so(site, tmp_path):
    """One JSON a line; good ones are published, the bad line is named, the exit code is 1."""
    node = site.node()
    lines = [json.dumps(note(1)), "{bad", json.dumps(note(2))]
    code, out, err = carillon("publish", "comments:1", "-", "--redis", site.redis.url, stdin=("\n".join(lines) + "\n").encode(), cwd=tmp_path, env=site.redis.environment())
    assert code == 1 and "2" in err, (out, err)
    kept = list(tmp_path.glob("*.jsonl"))
    assert len(kept) == 1 and kept[0].name in err and "{bad" in kept[0].read_text(), (kept, err)
    assert 1 in [event["data"]["n"] for _, event in site.log("comments:1")]
    good = "".join(json.dumps(note(number)) + "\n" for number in range(100, 300)).encode()
    code, out, err = carillon("publish", "comments:2", "-", "--redis", site.redis.url, stdin=good, env=site.redis.environment())
    assert code == 0, err
    assert [event["data"]["n"] for _, event in site.log("comments:2")] == list(range(100, 300))
    code, out, err = carillon("publish", "comments:3", json.dumps(note(1)), env=environment(node.settings))
    assert code == 0 and site.log("comments:3"), err


class Tail:
    """`carillon tail`, its lines as they come."""

    def __init__(self, *arguments, env=None):
        self.popen = subprocess.Popen([PROGRAM, "tail", *arguments], env=env or environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.text = b""

    def lines(self):
        self.text += self.popen.stdout.read() or b""
        return [json.loads(line) for line in self.text.splitlines(True) if line.endswith(b"\n")]

    def has(self, number):
        return f'"n":{number}' in json.dumps(self.lines(), separators=(",", ":")).replace(" ", "")

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        self.popen.communicate(timeout=10)


async def test_tail_prints_events_one_json_a_line_and_resumes_after_a_disconnect(site):
    """Through a node that is restarted meanwhile, and straight from Redis."""
    node = site.node()
    env = environment(node.settings)
    tails = [Tail("comments:1", env=env), Tail("comments:1", "--redis", site.redis.url, env=site.redis.environment())]
    try:
        # Published until both have seen one, then everything from there on must come, once.
        sent = 0
        while not all(tail.lines() for tail in tails):
            assert sent < 3000 and all(tail.popen.poll() is None for tail in tails), [t.popen.stderr.read1() for t in tails]
            site.record("comments:1", note(sent))
            sent += 1
            await asyncio.sleep(0.01)
        node.stop()
        for number in range(sent, sent + 10):
            site.record("comments:1", note(number))
        node.start()
        node.ready()
        last = sent + 10
        site.record("comments:1", note(last))
        for tail in tails:
            wait_for("the last event", lambda: tail.has(last), 30)
            found = [int(n) for n in re.findall(r'"n": ?(\d+)', tail.text.decode())]
            assert found == list(range(found[0], sent + 10)) + [last]
    finally:
        for tail in tails:
            tail.stop()


def test_dev_starts_without_anything_and_what_it_prints_works_as_printed(tmp_path):
    """A link to a page, a publish line, a token for a client."""
    log = tmp_path / "dev.log"
    with log.open("wb") as out:
        place = {"XDG_RUNTIME_DIR": str(tmp_path)}
        dev = subprocess.Popen([PROGRAM, "dev", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"], env=environment({}) | place, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        wait_for("the lines to copy", lambda: "Ctrl-C" in log.read_text(), 20)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        status, headers, page = http("GET", re.search(r"http://\S+", printed).group(0))
        assert status == 200 and "html" in headers["Content-Type"]
        line = re.search(r"Publish an event +(.+)", printed).group(1)
        done = subprocess.run(["bash", "-c", line], env=place | {"PATH": program_path(tmp_path)}, capture_output=True, timeout=20)
        assert done.returncode == 0, (line, done.stderr)
        client = re.search(r"'(ws://[^']+)' -H 'Authorization: (Bearer [^']+)'", printed)
        assert client and "connect" in printed, "no line for a WebSocket client"
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.wait(20) == 0
