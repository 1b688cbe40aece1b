"""Set-ups with a fault: real proxies with a wrong line, and scripted stand-ins for what cannot be had for real.

Everything listens on free ports of the loopback address and ends with the test. Knows nothing of the insides.
"""

import shutil
import socket
import socketserver
import subprocess
import threading
from pathlib import Path

from kit.stage import Process, free_port, wait_for

IGNORANT = "proxy_ignore_headers X-Accel-Buffering;"
COMPRESSING = "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;"
UPGRADE = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name):
    """Proxies are where only an administrator's PATH leads."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found, f"no {name} on this machine: tests/install installs it"
    return found


class Proxy:
    """nginx or HAProxy in front of a node; `lines` is where the fault goes."""

    def __init__(self, place, command, port):
        self.port = port
        self.process = Process(command, place / "proxy.log")
        try:
            wait_for("the proxy listens", lambda: listens(port) or not self.process.running)
            assert self.process.running, "the proxy ended"
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}: {self.process.output()}") from None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/realtime"

    def stop(self):
        self.process.kill()


def nginx(place, upstream, *lines, listen=""):
    """nginx with these lines in its location; `listen` goes on behind the port."""
    port, place = free_port(), Path(place)
    place.mkdir(parents=True, exist_ok=True)
    temporary = "\n".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    host = "" if any(" Host " in line for line in lines) else "proxy_set_header Host $http_host;"
    text = f"""
        daemon off; master_process off; pid {place}/pid; error_log stderr;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            {temporary}
            map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
            server {{
                listen 127.0.0.1:{port} {listen};
                location /realtime {{
                    proxy_pass http://127.0.0.1:{upstream};
                    {host} {" ".join(lines)}
                }}
            }}
        }}
    """
    (place / "nginx.conf").write_text(text)
    return Proxy(place, [program("nginx"), "-p", str(place), "-c", str(place / "nginx.conf")], port)


def haproxy(place, upstream, tunnel):
    """HAProxy whose tunnels may be quiet for as long as `tunnel` says."""
    port, place = free_port(), Path(place)
    place.mkdir(parents=True, exist_ok=True)
    text = f"""
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel {tunnel}
frontend public
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    server one 127.0.0.1:{upstream}
"""
    (place / "haproxy.cfg").write_text(text)
    return Proxy(place, [program("haproxy"), "-db", "-f", str(place / "haproxy.cfg")], port)


def certificate(place):
    """A self-made authority and a certificate for 127.0.0.1: the paths of authority, certificate and key."""
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    authority, key, request, signed = (str(place / name) for name in ("ca.pem", "key.pem", "request.pem", "cert.pem"))
    (place / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Nobody's authority", "-keyout",
         f"{authority}.key", "-out", authority],
        ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request],
        ["x509", "-req", "-in", request, "-CA", authority, "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2",
         "-extfile", str(place / "names"), "-out", signed],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return authority, signed, key


class StandIn:
    """A scripted server: `answer(handler)` is given each connection."""

    def __init__(self, answer):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    answer(self)
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/realtime"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def old_redis(version):
    """A server that speaks Redis' protocol (RESP) and reports this version."""

    def bulk(text):
        return f"${len(text)}\r\n{text}\r\n".encode()

    def answer(connection):
        while head := connection.rfile.readline():
            # Commands come as lists of strings, or in plain words.
            words = [] if head.startswith(b"*") else head.decode().split()
            for _ in range(int(head[1:]) if head.startswith(b"*") else 0):
                length = int(connection.rfile.readline()[1:])
                words.append(connection.rfile.read(length + 2)[:-2].decode())
            name = words[0].upper()
            if name == "HELLO":
                facts = {"server": "redis", "version": version, "mode": "standalone", "role": "master"}
                reply = f"%{len(facts) + 1}\r\n".encode() + b"".join(bulk(k) + bulk(v) for k, v in facts.items())
                reply += bulk("proto") + b":3\r\n"
            elif name == "INFO":
                reply = bulk(f"# Server\r\nredis_version:{version}\r\nrole:master\r\ncluster_enabled:0\r\n")
            elif name == "PING":
                reply = bulk(words[1]) if len(words) > 1 else b"+PONG\r\n"
            else:
                reply = f"-ERR unknown command '{words[0]}'\r\n".encode()
            connection.wfile.write(reply)

    return StandIn(answer)


def web_page():
    """A site that answers every path with its start page."""

    def answer(connection):
        while (line := connection.rfile.readline()) and line != b"\r\n":
            pass
        page = b"<!doctype html><title>A CMS</title>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        connection.wfile.write(head.encode() + page)

    return StandIn(answer)


def keeps_handshakes():
    """A middle tier that answers everything but a handshake, for which it waits for ever."""

    def answer(connection):
        text = b""
        while (line := connection.rfile.readline()) and line != b"\r\n":
            text += line.lower()
        if b"upgrade: websocket" in text:
            connection.rfile.read()
        connection.wfile.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    return StandIn(answer)
