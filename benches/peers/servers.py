"""The servers that benches/peers/run measures: how each is started, followed and published to. Must not know figures.

A server is one process (or one and its worker) with the configuration in its folder, all on one Redis.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

from clients import Connection

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What is installed for this, outside the sources: see docs/peers.md.
INSTALLED = pathlib.Path(os.environ.get("CARILLON_PEERS", ROOT / "tests/.tools/peers"))
PATIENCE = 60


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def said(*command):
    """What a command prints."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.stdout.strip()


def cpu_of(pids):
    """Seconds of user and system time of all threads, to the microsecond."""
    threads = [path for pid in pids for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


class Server:
    """What all have in common."""

    name, sse, resumes = "", False, False
    # What stands for a colon in topics, where it means something else.
    colon = ":"
    # What a client has to say now and then.
    alive = None
    # What is answered with 200 as soon as it serves, where a connection alone does not show that.
    health = None

    def __init__(self, redis, directory):
        self.redis, self.directory = redis, pathlib.Path(directory)
        self.port, self.door = free_port(), None
        self.process = subprocess.Popen(
            self.command(), env=os.environ | self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @classmethod
    def missing(cls):
        """Why it cannot be measured here; nothing where it can."""
        return None

    def topic(self, name):
        return name.replace(":", self.colon)

    def pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def memory(self):
        """KiB that are resident."""
        sizes = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(int(re.search(r"VmRSS:\s*(\d+)", size)[1]) for size in sizes)

    def cpu(self):
        return cpu_of(self.pids())

    def ready(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self.door = http.client.HTTPConnection("127.0.0.1", self.inner_port(), timeout=PATIENCE)
                self.door.connect()
                if self.is_ready():
                    return
            time.sleep(0.1)
        raise SystemExit(f"peers: {self.name} was not ready")

    def is_ready(self):
        if not self.health:
            return True
        self.door.request("GET", self.health)
        answer = self.door.getresponse()
        answer.read()
        return answer.status == 200

    def inner_port(self):
        return self.port

    def post(self, path, body, kind="application/json"):
        body = json.dumps(body, separators=(",", ":"))
        try:
            self.door.request("POST", path, body, {"Content-Type": kind})
            answer = self.door.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            # Closed while nothing was published, before this came.
            self.door.close()
            self.door.request("POST", path, body, {"Content-Type": kind})
            answer = self.door.getresponse()
        text = answer.read()
        if answer.status not in (200, 201, 202) or b'"error"' in text:
            raise SystemExit(f"peers: {self.name} said {answer.status}: {text[:300]!r}")
        return text

    def end(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


class Carillon(Server):
    name, sse, resumes, alive, path = "Carillon", True, True, '{"type":"ping"}', "/realtime"
    health = "/readyz"
    program = os.environ.get("CARILLON_BIN", ROOT / "target/release/carillon")

    @classmethod
    def version(cls):
        return said(cls.program, "--version")

    def command(self):
        return [str(self.program), "serve"]

    def environment(self):
        settings = json.loads((HERE / "carillon/settings.json").read_text())
        self.inner = free_port()
        settings |= {"HTTP__LISTEN": f"127.0.0.1:{self.port}", "INTERNAL__LISTEN": f"127.0.0.1:{self.inner}",
                     "REDIS__URL": self.redis.url}
        return {f"CARILLON__{name}": value for name, value in settings.items()}

    def inner_port(self):
        return self.inner

    def follow(self, number, topics, since=None):
        link = Connection(self.port, number)
        link.websocket(self.path)
        self.ask(link, topics, since)
        told = json.loads(link.message())
        return link, since or {"at": told["at"], "positions": told["positions"]}

    def ask(self, link, topics, since):
        resume = {"resume": since} if since else {}
        link.say({"type": "connect", "topics": topics} | resume)

    def stream(self, number, topics):
        link = Connection(self.port, number)
        link.events(f"/realtime/events?topics={','.join(topics)}")
        link.until(b"event: welcome")
        link.until(b"\n\n")
        return link

    def publish(self, some):
        self.post("/publish", [{"topic": topic, "event": event} for topic, event in some])


class Centrifugo(Server):
    name, sse, resumes, colon, path = "Centrifugo", True, True, "-", "/connection/websocket"
    program = shutil.which("centrifugo") or INSTALLED / "bin/centrifugo"

    @classmethod
    def missing(cls):
        if not pathlib.Path(cls.program).exists():
            return f"there is no {cls.program}, and none in the PATH"

    @classmethod
    def version(cls):
        # A program built by `go install` says its module's version.
        return said("go", "version", "-m", str(cls.program)).split("\tmod\t")[-1].split("\th1")[0].replace("\t", " ")

    def command(self):
        return [str(self.program), "--config", str(HERE / "centrifugo/config.json")]

    def environment(self):
        return {
            "CENTRIFUGO_HTTP_SERVER_PORT": str(self.port),
            "CENTRIFUGO_HTTP_SERVER_ADDRESS": "127.0.0.1",
            "CENTRIFUGO_ENGINE_REDIS_ADDRESS": self.redis.url,
        }

    def follow(self, number, topics, since=None):
        link = Connection(self.port, number)
        link.websocket(self.path)
        link.say({"id": 1, "connect": {}})
        link.until(b'"id":1')
        stand = {}
        for nth, topic in enumerate(topics, 2):
            place = {"recover": True} | since[topic] if since and topic in since else {}
            link.say({"id": nth, "subscribe": {"channel": topic} | place})
            if since is None:
                link.until(b'"id":%d' % nth)
                told = link.until(b"}}")
                stand[topic] = {
                    "epoch": re.search(rb'"epoch":"([^"]+)"', told)[1].decode(),
                    "offset": int((re.search(rb'"offset":(\d+)', told) or [0, 0])[1]),
                }
        return link, since or stand

    def ask(self, link, topics, since):
        link.say({"id": 1, "connect": {}})
        for nth, topic in enumerate(topics, 2):
            link.say({"id": nth, "subscribe": {"channel": topic, "recover": True} | since[topic]})

    def stream(self, number, topics):
        link = Connection(self.port, number)
        subs = json.dumps({"subs": {topic: {} for topic in topics}}, separators=(",", ":"))
        link.events("/connection/uni_sse?cf_connect=" + subs.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"))
        link.until(b"connect")
        return link

    def publish(self, some):
        commands = []
        for topic, event in some:
            known = {"idempotency_key": event["id"]} if "id" in event else {}
            commands.append({"publish": {"channel": topic, "data": event} | known})
        self.post("/api/batch", {"commands": commands})


class Nchan(Server):
    name, sse, colon = "nchan", True, "-"
    modules = [INSTALLED / "nchan/usr/lib/nginx/modules/ngx_nchan_module.so",
               pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")]

    @classmethod
    def missing(cls):
        if not shutil.which("nginx"):
            return "there is no nginx in the PATH"
        if not any(module.exists() for module in cls.modules):
            return f"there is no {cls.modules[0]}, and Debian's libnginx-mod-nchan is not installed"

    @classmethod
    def version(cls):
        packages = [path.name.split("_")[1] for path in INSTALLED.glob("libnginx-mod-nchan_*.deb")]
        return f"{(packages or ['as installed'])[0].replace('%3a', ':')}, {said('nginx', '-v')}"

    def command(self):
        module = next(module for module in self.modules if module.exists())
        text = (HERE / "nchan/nginx.conf").read_text()
        for name, value in (("MODULE", module), ("DIRECTORY", self.directory), ("PORT", self.port),
                            ("REDIS", self.redis.url)):
            text = text.replace(f"@{name}@", str(value))
        (self.directory / "nginx.conf").write_text(text)
        return ["nginx", "-c", str(self.directory / "nginx.conf"), "-e", str(self.directory / "error.log")]

    def environment(self):
        return {}

    def follow(self, number, topics, since=None):
        link = Connection(self.port, number)
        link.websocket(f"/follow?topics={','.join(topics)}")
        return link, None

    def stream(self, number, topics):
        link = Connection(self.port, number)
        link.events(f"/follow?topics={','.join(topics)}")
        link.until(b"\r\n\r\n")
        return link

    def publish(self, some):
        # It takes one message per request.
        for topic, event in some:
            self.post(f"/publish?topic={topic}", event)


class SocketIo(Server):
    name = "Socket.IO"
    installed = INSTALLED / "socketio"

    @classmethod
    def missing(cls):
        if not shutil.which("node"):
            return "there is no node in the PATH"
        if not (cls.installed / "node_modules/socket.io").exists():
            return f"there is no {cls.installed}/node_modules"

    @classmethod
    def version(cls):
        names = ["socket.io", "@socket.io/redis-adapter", "redis"]
        packages = [json.loads((cls.installed / "node_modules" / name / "package.json").read_text()) for name in names]
        told = ", ".join(f"{package['name']} {package['version']}" for package in packages)
        return f"{told}, Node.js {said('node', '--version')}"

    def command(self):
        return ["node", str(HERE / "socketio/server.js")]

    def environment(self):
        return {"PORT": str(self.port), "REDIS": self.redis.url, "INSTALLED": str(self.installed)}

    def follow(self, number, topics, since=None):
        link = Connection(self.port, number)
        link.websocket("/socket.io/?EIO=4&transport=websocket")
        link.until(b'"maxPayload"')
        link.say("40")
        link.until(b"40{")
        link.say("421" + json.dumps(["follow", topics]))
        link.until(b"431")
        return link, None

    def publish(self, some):
        self.post("/publish", [{"topic": topic, "event": event} for topic, event in some])


class Sockudo(Server):
    """Over its own protocol (version 2), because the other, Pusher's, knows no places."""

    name, resumes, colon, path = "Sockudo", True, "-", "/app/bench?protocol=2"
    alive = '{"event":"sockudo:ping","data":{}}'
    health = "/ready"
    program = shutil.which("sockudo") or INSTALLED / "bin/sockudo"

    @classmethod
    def missing(cls):
        if not pathlib.Path(cls.program).exists():
            return f"there is no {cls.program}, and none in the PATH"

    @classmethod
    def version(cls):
        return said(cls.program, "--version")

    def command(self):
        return [str(self.program), "--config", str(HERE / "sockudo/config.toml")]

    def environment(self):
        return {"HOST": "127.0.0.1", "PORT": str(self.port), "REDIS_URL": self.redis.url, "RUST_LOG": "error"}

    def follow(self, number, topics, since=None):
        link = Connection(self.port, number)
        link.websocket(self.path)
        self.ask(link, topics, since)
        for _ in topics:
            link.until(b"subscription_succeeded")
            link.until(b"}")
        return link, since or dict.fromkeys(topics, 0)

    def ask(self, link, topics, since):
        link.until(b"connection_established")
        for topic in topics:
            link.say({"event": "sockudo:subscribe", "data": {"channel": topic}})
        if since:
            link.say({"event": "sockudo:resume", "data": {"channel_serials": since}})

    def publish(self, some):
        batch = [
            {"name": event["type"], "channel": topic, "data": json.dumps(event, separators=(",", ":"))}
            | ({"idempotency_key": event["id"]} if "id" in event else {})
            for topic, event in some
        ]
        self.post(self.signed("/apps/bench/batch_events", {"batch": batch}), {"batch": batch})

    def signed(self, path, body):
        """The path with the signature of Pusher's HTTP interface."""
        text = json.dumps(body, separators=(",", ":")).encode()
        query = (f"auth_key=bench&auth_timestamp={int(time.time())}&auth_version=1.0"
                 f"&body_md5={hashlib.md5(text, usedforsecurity=False).hexdigest()}")
        signature = hmac.new(b"bench", f"POST\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
        return f"{path}?{query}&auth_signature={signature}"


PEERS = [Carillon, Centrifugo, Nchan, SocketIo, Sockudo]
