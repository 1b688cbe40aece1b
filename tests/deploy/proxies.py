"""nginx, HAProxy and Caddy, as configured under deploy/proxy, in front of three real nodes and a stand-in CMS.

The files are used as they are, but for addresses, ports and the place of the certificate. Every proxy gets the same
questions; `checks()` lists them. Sessions that stay silent for longer than a proxy's usual 60 s run for all at once.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import websockets
import websockets.exceptions

import files

from kit.rig.editors import mint, until
from kit.rig.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
PROXY = ROOT / "deploy/proxy"
HOST = "cms.example.com"
SECRET = "a secret of the tests, longer than 32 bytes"
PUBLISH_TOKEN = "a publishing token of the tests"
SILENCE = 65  # seconds; nginx, HAProxy's common examples and most cloud balancers cut at 60


async def request(port, method, path, headers=(), body=b"", tls=None, address="127.0.0.1"):
    """One HTTP/1.1 request on a connection of its own: (status, headers, reader, writer)."""
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(address, port, ssl=tls, server_hostname=HOST if tls else None), 5
    )
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    status = int(head.split()[1])
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])}
    return status, fields, reader, writer


async def whole(fields, reader):
    if "content-length" in fields:
        return (await reader.readexactly(int(fields["content-length"]))).decode()
    text = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        text += await reader.readexactly(size)
        await reader.readline()
    return text.decode()


class Node:
    def __init__(self, site, number):
        self.site, self.name, self.address = site, f"node-{number}", f"{site.net}.1{number}"
        self.process = None

    def start(self):
        site = self.site
        self.process = site.spawn(
            [site.program, "serve"], self.name,
            CARILLON__NODE__NAME=self.name,
            CARILLON__HTTP__LISTEN=f"{self.address}:{site.http}",
            CARILLON__HTTP__TRUSTED_PROXIES="127.0.0.0/8",
            CARILLON__INTERNAL__LISTEN=f"{self.address}:{site.internal}",
            CARILLON__INTERNAL__PUBLISH_TOKEN=PUBLISH_TOKEN,
            CARILLON__REDIS__URL=f"redis://127.0.0.1:{site.redis}",
            CARILLON__AUTH__MODE="jwt",
            CARILLON__AUTH__SECRET=SECRET,
            # Longer than the silence: whatever keeps a quiet session alive, it is not a heartbeat.
            CARILLON__HEARTBEAT__SECONDS="150",
            CARILLON__DRAIN__WINDOW_SECONDS="3",
            CARILLON__DRAIN__GRACE_SECONDS="2",
        )

    async def ready(self):
        async def answers():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {(self.site.work / (self.name + '.log')).read_text()[-400:]}")
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                status, _, _, writer = await request(self.site.internal, "GET", "/readyz", [("Host", "x")], address=self.address)
                writer.close()
                return status == 200
            return False

        await until(answers, 20, f"{self.name} is ready")


class Proxy:
    """A proxy program with one of our files. Knows its public port."""

    def __init__(self, site, name):
        self.site, self.name = site, name
        self.address = f"{site.net}.{100 + ['nginx', 'haproxy', 'caddy'].index(name)}"
        self.port, self.plain = free_port(self.address), free_port(self.address)
        self.origin = f"https://{HOST}:{self.port}"
        self.folder = site.work / name
        self.folder.mkdir()

    def adapt(self, path):
        """A file of ours with the addresses of this site."""
        text = path.read_text()
        text = re.sub(r"10\.0\.0\.(1\d):8080", rf"{self.site.net}.\1:{self.site.http}", text)
        text = text.replace("/var/log/nginx/", f"{self.folder}/").replace("log /dev/log local0", "log stdout format raw local0")
        return text.replace("10.0.0.21:80", f"{self.site.net}.21:{self.site.cms}")

    def put(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def start(self):
        command = getattr(self, f"_{self.name}")()
        self.process = self.site.spawn(command, self.name)

    def _check(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name} refuses the file: {done.stderr[-800:]}"
        # Caddy also warns about the certificate of these tests: only what concerns the file counts.
        odd = [line for line in done.stderr.splitlines() if re.search(r"WARNING|\[warn\]|\"logger\":\"caddyfile\"", line)]
        assert not odd, f"{self.name} warns: {odd}"

    def _nginx(self):
        self.put("upstream.conf", self.adapt(PROXY / "nginx/carillon-upstream.conf"))
        location = self.put("location.conf", self.adapt(PROXY / "nginx/carillon-location.conf"))
        site = self.adapt(PROXY / "nginx/site.conf")
        site = site.replace("listen 443", f"listen {self.address}:{self.port}").replace("listen 80;", f"listen {self.address}:{self.plain};")
        site = site.replace("/etc/nginx/carillon-location.conf", str(location))
        site = site.replace(f"/etc/nginx/tls/{HOST}.crt", str(self.site.certificate)).replace(f"/etc/nginx/tls/{HOST}.key", str(self.site.key))
        self.put("site.conf", site)
        main = self.put(
            "nginx.conf",
            f"worker_processes 1; daemon off; pid {self.folder}/pid; error_log {self.folder}/error.log warn;\n"
            f"events {{ worker_connections 512; }}\nhttp {{ access_log {self.folder}/access.log;\n"
            + "".join(f"{name}_temp_path {self.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + "include upstream.conf; include site.conf; }\n",
        )
        self._check("nginx", "-t", "-q", "-c", str(main))
        return ["nginx", "-c", str(main)]

    def _haproxy(self):
        text = self.adapt(PROXY / "haproxy.cfg")
        text = text.replace("port 9090", f"port {self.site.internal}")
        text = text.replace("bind :80\n", f"bind {self.address}:{self.plain}\n").replace("bind :443", f"bind {self.address}:{self.port}")
        text = text.replace(f"/etc/haproxy/tls/{HOST}.pem", str(self.site.both)).replace("maxconn 50000", "maxconn 500")
        path = self.put("haproxy.cfg", text)
        self._check("haproxy", "-c", "-f", str(path))
        return ["haproxy", "-db", "-f", str(path)]

    def _caddy(self):
        text = self.adapt(PROXY / "Caddyfile").replace("health_port 9090", f"health_port {self.site.internal}")
        head = f"{{\n\tadmin off\n\thttps_port {self.port}\n\thttp_port {self.plain}\n\tdefault_bind {self.address}\n\tauto_https disable_certs\n\tskip_install_trust\n"
        text = text.replace(f"{HOST} {{", f"{HOST}:{self.port} {{\n\ttls {self.site.certificate} {self.site.key}", 1)
        path = self.put("Caddyfile", text.replace("{\n", head, 1))
        self._check("caddy", "validate", "--adapter", "caddyfile", "--config", str(path))
        return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]

    # --- what a browser does ------------------------------------------------------------------------------------------
    def headers(self, *more):
        return [("Host", f"{HOST}:{self.port}"), ("Origin", self.origin), *more]

    async def get(self, path, *more):
        return await request(self.port, "GET", path, self.headers(*more), tls=self.site.trust, address=self.address)

    def websocket(self, **options):
        return websockets.connect(
            f"wss://{HOST}:{self.port}/realtime", host=self.address, port=self.port, ssl=self.site.trust,
            **{"origin": self.origin, "compression": None, "ping_interval": None, "open_timeout": 8, **options},
        )

    @contextlib.asynccontextmanager
    async def session(self, topic, **options):
        """A welcomed WebSocket session: (socket, welcome)."""
        async with self.websocket(**options) as socket_:
            await socket_.send(json.dumps({"type": "connect", "token": mint(SECRET, "anna"), "topics": [topic]}))
            welcome = json.loads(await asyncio.wait_for(socket_.recv(), 5))
            assert welcome["type"] == "welcome", welcome
            yield socket_, welcome

    async def sse(self, topic):
        """An SSE session: an async iterator of (event, data), and what closes it."""
        status, fields, reader, writer = await self.get(
            f"/realtime/events?topics={topic}", ("Authorization", f"Bearer {mint(SECRET, 'anna')}"), ("Accept", "text/event-stream")
        )
        assert status == 200 and fields["content-type"].startswith("text/event-stream"), (status, fields)

        async def messages():
            kind, data = None, None
            while line := await reader.readline():
                line = line.decode().rstrip("\r\n")
                if line.startswith("event:"):
                    kind = line[6:].strip()
                elif line.startswith("data:"):
                    data = json.loads(line[5:])
                elif line == "" and kind:
                    yield kind, data
                    kind, data = None, None

        return messages(), writer


class Site:
    """Redis, three nodes, a stand-in CMS and the proxies, on loopback addresses of their own."""

    def __init__(self, program):
        self.program = program
        self.work = Path(tempfile.mkdtemp(prefix="carillon-deploy-"))
        self.net = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.http, self.internal, self.cms, self.redis = (free_port(), free_port(), free_port(), free_port())
        self.processes, self.server = [], None
        self.nodes, self.proxies, self.topics = [], {}, 100

    def spawn(self, command, name, **environment):
        with open(self.work / f"{name}.log", "ab") as log:
            home = {"HOME": str(self.work), "XDG_DATA_HOME": str(self.work), "XDG_CONFIG_HOME": str(self.work)}
            process = subprocess.Popen(command, env={**os.environ, **home, **environment}, stdout=log, stderr=log, cwd=self.work)
        self.processes.append(process)
        return process

    async def __aenter__(self):
        try:
            return await self._start()
        except BaseException:
            await self.__aexit__()
            raise

    async def _start(self):
        self.certificate, self.key, self.both = self.work / "crt", self.work / "key", self.work / "pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}", "-addext",
             f"subjectAltName=DNS:{HOST}", "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True,
        )
        self.both.write_text(self.certificate.read_text() + self.key.read_text())
        self.trust = ssl.create_default_context(cafile=self.certificate)
        self.spawn(["redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.work)], "redis")
        self.server = await asyncio.start_server(self._cms, f"{self.net}.21", self.cms)
        await until(lambda: self._open(self.redis), 10, "Redis listens")
        self.nodes = [Node(self, number) for number in (1, 2, 3)]
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            await node.ready()
        for name in ("nginx", "haproxy", "caddy"):
            self.proxies[name] = Proxy(self, name)
        return self

    async def __aexit__(self, *_):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        if self.server:
            self.server.close()
        output = ROOT / "tests/output/deploy"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        for log in self.work.glob("*.log"):
            shutil.copy(log, output)
        shutil.rmtree(self.work, ignore_errors=True)

    @staticmethod
    def _open(port, address="127.0.0.1"):
        with socket.socket() as probe:
            return probe.connect_ex((address, port)) == 0

    async def _cms(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nthe CMS")
                await writer.drain()
        writer.close()

    def topic(self):
        self.topics += 1
        return f"comments:{self.topics}"

    async def publish(self, topic, kind="comment.created"):
        node = next(node for node in self.nodes if node.process.poll() is None)
        body = json.dumps({"topic": topic, "event": {"type": kind}}).encode()
        status, fields, reader, writer = await request(
            self.internal, "POST", "/publish",
            [("Host", "x"), ("Authorization", f"Bearer {PUBLISH_TOKEN}"), ("Content-Type", "application/json")], body, address=node.address,
        )
        text = await whole(fields, reader)
        writer.close()
        assert status == 200, f"{status} {text}"


async def next_event(socket_, seconds=2):
    while True:
        message = json.loads(await asyncio.wait_for(socket_.recv(), seconds))
        if message["type"] == "event":
            return message


def questions(site, name):
    """The same for every proxy."""
    proxy = site.proxies[name]

    async def starts():
        proxy.start()
        await until(lambda: site._open(proxy.port, proxy.address), 10, "the proxy listens")

        async def healthy():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                status, _, _, writer = await proxy.get("/realtime/config")
                writer.close()
                return status == 200
            return False

        await until(healthy, 10, "a node answers through it")
        status, fields, _, writer = await request(proxy.plain, "GET", "/x", [("Host", HOST)], address=proxy.address)
        writer.close()
        assert status in (301, 308) and fields["location"].startswith("https://"), f"plain HTTP: {status} {fields}"

    async def websocket():
        topic, seen = site.topic(), set()
        for _ in range(6):
            async with proxy.session(topic) as (socket_, welcome):
                seen.add(welcome["node"])
                began = time.monotonic()
                await site.publish(topic)
                await next_event(socket_)
                took = time.monotonic() - began
                assert took < 1, f"an event took {took:.2f} s"
        assert len(seen) == 3, f"not balanced over all nodes: {seen}"

    async def origin():
        try:
            async with proxy.websocket(origin="https://evil.example.com"):
                raise AssertionError("a foreign origin was let in")
        except websockets.exceptions.InvalidStatus as refused:
            assert refused.response.status_code == 403, refused
        # Only the base path goes to the nodes.
        for path, expected in (("/metrics", "the CMS"), ("/", "the CMS"), ("/realtimeless", None)):
            status, fields, reader, writer = await proxy.get(path)
            text = await whole(fields, reader)
            writer.close()
            assert "carillon_" not in text, f"{path} reaches the node's metrics"
            if expected:
                assert (status, text) == (200, expected), f"{path}: {status} {text}"

    async def sse():
        topic = site.topic()
        messages, writer = await proxy.sse(topic)
        kind, welcome = await asyncio.wait_for(anext(messages), 2)
        assert kind == "welcome" and welcome["user"] == "anna", (kind, welcome)
        for _ in range(3):
            began = time.monotonic()
            await site.publish(topic)
            kind, _ = await asyncio.wait_for(anext(messages), 2)
            took = time.monotonic() - began
            assert kind == "event" and took < 1, f"{kind} after {took:.2f} s: buffered?"
        writer.close()

    async def poll():
        topic, token = site.topic(), ("Authorization", f"Bearer {mint(SECRET, 'anna')}")

        async def ask(query):
            status, fields, reader, writer = await proxy.get(f"/realtime/poll?topics={topic}{query}", token)
            answer = json.loads(await whole(fields, reader))
            writer.close()
            assert status == 200, answer
            return answer

        start = await ask("")
        waiting = asyncio.create_task(ask(f"&cursor={start['cursor']}"))
        # The poll hangs until there is something; the second answer comes from whichever node.
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done, f"answered at once: {waiting.result()}"
        await site.publish(topic)
        answer = await asyncio.wait_for(waiting, 2)
        assert [message["type"] for message in answer["messages"]] == ["event"], answer

    async def drain():
        """A node drains: its sessions come back elsewhere, and whoever connects meanwhile gets another node."""
        topic, refused = site.topic(), 0

        @contextlib.asynccontextmanager
        async def newcomer():
            nonlocal refused
            async with contextlib.AsyncExitStack() as stack:
                while True:
                    try:
                        yield await stack.enter_async_context(proxy.session(topic))
                        return
                    except websockets.exceptions.InvalidStatus as status:
                        # Caddy does not ask the next node after a 503; nginx and HAProxy do.
                        refused += 1
                        assert name == "caddy" and status.response.status_code == 503 and refused <= 2, f"refused: {status}"

        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(proxy.session(topic)) for _ in range(6)]
            leaving = next(node for node in site.nodes if node.name == sessions[0][1]["node"])
            leaving.process.send_signal(signal.SIGTERM)
            newcomers = 0
            while leaving.process.poll() is None:
                async with newcomer():
                    newcomers += 1
                await asyncio.sleep(0.05)
            for _ in range(6):
                async with newcomer() as (_, welcome):
                    assert welcome["node"] != leaving.name
            assert leaving.process.returncode == 0, f"exit code {leaving.process.returncode}"
            for socket_, welcome in sessions:
                if welcome["node"] == leaving.name:
                    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                        while True:
                            await asyncio.wait_for(socket_.recv(), 2)
                    assert socket_.close_code == 1012, f"close code {socket_.close_code}"
            await site.publish(topic)
            for socket_, welcome in sessions:
                if welcome["node"] != leaving.name:
                    await next_event(socket_)
        leaving.start()
        await leaving.ready()

        async def again():
            async with newcomer() as (_, welcome):
                return welcome["node"] == leaving.name

        await until(again, 20, f"{leaving.name} gets sessions again")
        return f"{newcomers} sessions opened meanwhile, {refused} of them at the second try"

    return [
        (f"{name}: accepts its file without a warning, redirects to https, finds the nodes", starts),
        (f"{name}: WebSocket passes, events at once, sessions on every node", websocket),
        (f"{name}: a foreign origin is refused, our own is not; the internal port is out of reach", origin),
        (f"{name}: SSE is not buffered", sse),
        (f"{name}: long-poll hangs and answers at once", poll),
        (f"{name}: while a node drains, newcomers get another one", drain),
    ]


def checks(site):
    async def silence():
        """A quiet WebSocket and a quiet SSE stream through each proxy, without a heartbeat."""

        async def quiet(proxy):
            topic = site.topic()
            messages, writer = await proxy.sse(topic)
            await anext(messages)
            async with proxy.session(topic) as (socket_, _):
                try:
                    early = await asyncio.wait_for(socket_.recv(), SILENCE)
                    raise AssertionError(f"{proxy.name}: not silent: {early}")
                except TimeoutError:
                    pass
                except websockets.exceptions.ConnectionClosed as closed:
                    raise AssertionError(f"{proxy.name} cut a quiet WebSocket: {closed}") from closed
                await site.publish(topic)
                await next_event(socket_)
            try:
                kind, _ = await asyncio.wait_for(anext(messages), 2)
            except StopAsyncIteration:
                raise AssertionError(f"{proxy.name} cut a quiet SSE stream") from None
            assert kind == "event"
            writer.close()

        await asyncio.gather(*(quiet(proxy) for proxy in site.proxies.values()))

    async def metrics():
        """What a node counts is what docs/operations.md explains, and the dashboard and alerts ask for nothing else."""
        node, topic = site.nodes[0], site.topic()
        url, origin = f"ws://{node.address}:{site.http}/realtime", f"http://{node.address}:{site.http}"
        with contextlib.suppress(websockets.exceptions.InvalidStatus):
            await websockets.connect(url, origin="https://evil.example.com")
        async with websockets.connect(url, origin=origin, compression=None) as socket_:
            hello = {"type": "connect", "token": mint(SECRET, "anna"), "topics": [topic], "resume": {"positions": {}}}
            await socket_.send(json.dumps(hello))
            while json.loads(await asyncio.wait_for(socket_.recv(), 5))["type"] != "resync":
                pass
            await site.publish(topic)
            await next_event(socket_)
            _, writer = await asyncio.open_connection("127.0.0.1", site.redis)
            writer.write(f"PUBLISH carillon:{topic} nonsense\r\n".encode())
            # Sources have metrics once one has reported.
            writer.write(b"FCALL carillon_source 1 carillon:sources cms 300\r\n")
            await writer.drain()
            writer.close()

            async def exposed():
                _, fields, reader, writer = await request(site.internal, "GET", "/metrics", [("Host", "localhost")], address=node.address)
                text = await whole(fields, reader)
                writer.close()
                return text

            async def counted():
                text = await exposed()
                return "carillon_events_invalid_total{" in text and "carillon_source_late{" in text

            await until(counted, 30, "what is no event is counted, and the source known")
            await socket_.send("no JSON")
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                while True:
                    await asyncio.wait_for(socket_.recv(), 5)
            assert socket_.close_code == 4400, f"close code {socket_.close_code}"

        async def closed():
            return "carillon_sessions_closed_total{" in await exposed()

        # The client hears of its end a moment before the node has counted it.
        await until(closed, 30, "the closed session is counted")
        text = await exposed()
        histograms = set(re.findall(r"^# TYPE (\w+) histogram$", text, re.MULTILINE))
        family = lambda name: next((one for one in histograms if re.fullmatch(rf"{one}_(bucket|count|sum)", name)), name)
        seen = {}
        for name, labels in re.findall(r"^(carillon_\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
            seen.setdefault(family(name), set()).update(set(re.findall(r'(\w+)="', labels)) - {"le"})
        document = (ROOT / "docs/operations.md").read_text()
        explained = {
            name: set(filter(None, labels.split(",")))
            for name, labels in re.findall(r"^\| `(carillon_\w+)(?:\{(.*?)\})?` \|", document, re.MULTILINE)
        }
        differ = {name: (seen.get(name), explained.get(name)) for name in seen | explained if seen.get(name) != explained.get(name)}
        assert not differ, f"labels in /metrics and in docs/operations.md: {differ}"
        drawn, mentioned = ({family(name) for name in names} for names in (files.metrics_used(), re.findall(r"carillon_\w+", document)))
        assert drawn == set(seen), f"drawn: {sorted(drawn - set(seen))} do not exist, {sorted(set(seen) - drawn)} are missing"
        unknown = mentioned - set(seen) - {"carillon_publish"}
        assert not unknown, f"mentioned, and not exposed by a node: {sorted(unknown)}"
        return f"{len(seen)} metrics"

    return [
        *(question for name in site.proxies for question in questions(site, name)),
        (f"sessions that are silent for {SILENCE} s survive in every proxy", silence),
        ("every metric of a node is explained with its labels, every explained one exists, dashboard and alerts use these", metrics),
    ]
