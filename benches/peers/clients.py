"""Clients of the servers that benches/peers/run measures: plain sockets that say what is needed to follow topics, and then only count
what comes. Must not know servers.
"""

import base64
import json
import os
import socket
import struct

PATIENCE = 60
# Loopback addresses of clients, each with ports of its own.
ADDRESSES = [f"127.0.0.{n}" for n in range(2, 10)]


def frame(text):
    """A client's frame; a mask of zeros changes nothing."""
    payload = text.encode()
    length = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
    return b"\x81" + length + bytes(4) + payload


class Connection:
    """A client's connection while it is opened."""

    def __init__(self, port, number):
        source = (ADDRESSES[number % len(ADDRESSES)], 0)
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source)
        self.host = f"Host: 127.0.0.1:{port}\r\n"
        self.heard = b""

    def websocket(self, path):
        self.handshake(path)
        self.upgraded()

    def handshake(self, path):
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\n{self.host}Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def upgraded(self):
        self.until(b"\r\n\r\n")

    def events(self, path):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{self.host}Accept: text/event-stream\r\n\r\n".encode())

    def say(self, message):
        self.socket.sendall(frame(message if isinstance(message, str) else json.dumps(message)))

    def read(self, wanted):
        """Reads more, for the sake of what is wanted."""
        piece = self.socket.recv(65536)
        if not piece:
            raise SystemExit(f"peers: the end before {wanted}: {self.heard[-500:]!r}")
        self.heard += piece

    def until(self, what):
        """Reads until this has come; everything up to its end."""
        while what not in self.heard:
            self.read(what)
        end = self.heard.index(what) + len(what)
        text, self.heard = self.heard[:end], self.heard[end:]
        return text

    def message(self):
        """The next message over a WebSocket."""
        while True:
            length, start = (self.heard[1] if len(self.heard) > 1 else None), 2
            if length == 126:
                length, start = int.from_bytes(self.heard[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self.heard[2:10], "big"), 10
            if length is not None and len(self.heard) >= start + length:
                text, self.heard = self.heard[start : start + length], self.heard[start + length :]
                return text
            self.read("a message")
