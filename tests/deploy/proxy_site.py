"""nginx, HAProxy and Caddy, as configured under deploy/proxy, in front of three real nodes and a stand-in CMS.

The files are used as they are, but for addresses, ports and the place of the certificate.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import websockets
import websockets.exceptions

from kit.rig.editors import mint, until
from kit.machine import free_port

ROOT = Path(__file__).resolve().parents[2]
PROXY = ROOT / "deploy/proxy"
HOST = "cms.example.com"
SECRET = "a secret of the tests, longer than 32 bytes"
PUBLISH_TOKEN = "a publishing token of the tests"


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
        self.http, self.internal, self.cms, self.redis = (free_port("0.0.0.0") for _ in range(4))
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
