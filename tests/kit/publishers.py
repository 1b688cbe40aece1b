"""Publishers of the acceptance tests: redis-cli, the Python package `redis`, the Node package `redis`.

Each publishes recorded (FCALL) and live (PUBLISH) through Redis alone and returns Redis' answer, or raises `Refused`.
"""

import json
import os
import subprocess

import redis

from kit.stage import ROOT, text_of


class Refused(Exception):
    """Redis said no; the text is its sentence."""


class PythonPublisher:
    """On the Python package `redis`."""

    def __init__(self, server, **options):
        self.client = server.client(**options) if options else server.publisher()

    def recorded(self, topic, event):
        try:
            channel = b"carillon:" + topic if isinstance(topic, bytes) else f"carillon:{topic}"
            return self.client.fcall("carillon_publish", 1, channel, text_of(event)).decode()
        except redis.exceptions.ResponseError as error:
            raise Refused(str(error)) from None

    def live(self, topic, event):
        return self.client.publish(f"carillon:{topic}", text_of(event))

    def stop(self):
        self.client.close()


class CliPublisher:
    """On redis-cli, one process per event."""

    def __init__(self, server):
        tls = [word for pair in server.tls("--cacert", "--cert", "--key").items() for word in pair]
        self.command = ["redis-cli", "-u", server.url, *(["--tls", "--no-auth-warning"] if tls else []), *tls]

    def _run(self, *arguments):
        done = subprocess.run([*self.command, *arguments], capture_output=True, timeout=20)
        text = done.stdout.decode().strip()
        if done.returncode != 0 or done.stderr.strip():
            raise Refused(text or done.stderr.decode())
        return text

    def recorded(self, topic, event):
        text = self._run("FCALL", "carillon_publish", "1", f"carillon:{topic}", text_of(event))
        if not text[:1].isdigit():
            raise Refused(text)
        return text

    def live(self, topic, event):
        return int(self._run("PUBLISH", f"carillon:{topic}", text_of(event)))

    def stop(self):
        pass


class NodePublisher:
    """On the Node package `redis`."""

    def __init__(self, server):
        env = {**os.environ, "NODE_PATH": str(ROOT / "tests/.tools/node/node_modules")}
        script = str(ROOT / "tests/acceptance/clients/publisher.cjs")
        self.process = subprocess.Popen(
            ["node", script, server.url, *server.tls("ca", "cert", "key").values()], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, topic, event, recorded):
        order = {"recorded": recorded, "channel": f"carillon:{topic}", "function": "carillon_publish", "event": text_of(event)}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["reply"]

    def recorded(self, topic, event):
        return self._ask(topic, event, True)

    def live(self, topic, event):
        return self._ask(topic, event, False)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
