"""What a stranger can hold of a node: bytes and seconds for each kind of connection, measured.

    tests/flood/held.py               all kinds, 200 connections each, by turns
    tests/flood/held.py silent        one of them

A node of its own for each kind, with the settings that it starts with; only `limits.accepts_per_second` and
`.strangers_per_second` are high, so that all come in at once. Prints how much the node grew for each connection and when
it ended the last one. CARILLON_BIN names the program; without it target/release/carillon.
"""

import os
import select
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("CARILLON_BIN", str(Path(__file__).resolve().parents[2] / "target/release/carillon"))
from kit.stage import Node  # noqa: E402

COUNT = 200
PATIENCE = 150
HEAD = b"GET /realtime/config HTTP/1.1\r\nHost: x\r\n"
UPGRADE = (b"GET /realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def frame(kind, payload, stream=0, flags=0):
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def http2():
    """One request over HTTP/2, finished: the connection stays."""
    path = b"/realtime/config"
    headers = bytes([0x82, 0x86, 0x04, len(path)]) + path + bytes([0x01, 1]) + b"x"
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b"") + frame(1, headers, 1, 0x5)


def half_message():
    """A first message of 64 KiB, but for its last bytes."""
    return b"\x81\xfe" + struct.pack(">H", 65_000) + b"\0\0\0\0" + b" " * 64_900


# What is sent, whether an answer is awaited before the rest is, and the rest.
KINDS = {
    "silent": (b"", False, b""),
    "half headers": (HEAD + b"X: " + b"y" * 8000, False, b""),
    "idle HTTP/1": (HEAD + b"\r\n", True, b""),
    "idle HTTP/2": (http2(), True, b""),
    "unread answers": (b"GET /realtime/realtime.js HTTP/1.1\r\nHost: x\r\n\r\n" * 50, False, b""),
    "no connect": (UPGRADE, True, b""),
    "half a first message": (UPGRADE, True, half_message()),
    "unauthorised body": (b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n" + b" " * 60_000, False, b""),
}


def memory(node):
    """Bytes that the process has in memory."""
    pages = Path(f"/proc/{node.process.popen.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def opened(node, name, first, answered, rest):
    """One connection, as far as this kind goes."""
    one = socket.socket()
    if name == "unread answers":
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.settimeout(20)
    one.connect(("127.0.0.1", node.internal_port if name == "unauthorised body" else node.port))
    try:
        one.sendall(first)
        if answered:
            one.recv(2048)
        one.sendall(rest)
    except OSError:
        pass  # It was refused before all was sent, which is as good as any end.
    return one


def files(node):
    """Files that the node has open: whoever reads nothing does not see the end of their connection."""
    return len(os.listdir(f"/proc/{node.process.popen.pid}/fd"))


def measure(place, name):
    """Opens all, prints what they cost and how long they lasted."""
    node = Node(place, "node", {"limits.accepts_per_second": 100_000, "limits.strangers_per_second": 100_000, "redis.url": None})
    try:
        node.ready()
        warm = opened(node, name, *KINDS[name])
        time.sleep(1)
        before, idle = memory(node), files(node)
        all_of_them = [opened(node, name, *KINDS[name]) for _ in range(COUNT)]
        peak, begun = memory(node), time.monotonic()
        while (left := max(0, files(node) - idle)) and time.monotonic() < begun + PATIENCE:
            peak = max(peak, memory(node))
            select.select([], [], [], 0.5)
        lasted = time.monotonic() - begun
        how_long = f"all ended after {lasted:.0f} s" if not left else f"{left} still open after {lasted:.0f} s"
        print(f"{name:<22} {(peak - before) / COUNT / 1024:6.1f} KiB each, {how_long}", flush=True)
        for one in [warm, *all_of_them]:
            one.close()
        return not left
    finally:
        node.stop()


def main():
    chosen = sys.argv[1:] or KINDS
    with tempfile.TemporaryDirectory(prefix="carillon-held-") as place:
        ended = [measure(Path(place) / str(number), name) for number, name in enumerate(chosen)]
    print(f"{sum(ended)} passed, {len(ended) - sum(ended)} failed")
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
