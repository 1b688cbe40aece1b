"""Attackers: so many connections to one port, from many addresses of loopback, held or made anew until told to stop.

    attackers.py loris|garbage PORT COUNT FIRST_ADDRESS

`loris`: each begins a request and sends one byte of a header a second; one that is cut off is made anew at once.
`garbage`: each sends bytes that are no request, waits for the end, and is made anew, so that all of them are under way
all the time (a connection that was answered or cut off rests for a moment first: PAUSE). Writes `full` once COUNT
connections were made, and figures as one line of JSON when stdin ends.
"""

import heapq
import json
import os
import random
import select
import socket
import sys
import time

ADDRESSES = 50
PER_SECOND = 1500
PAUSE = 5.0
DRIP = 1.0

START = b"GET /realtime HTTP/1.1\r\nHost: node\r\nX-Slow: "
GARBAGE = (
    lambda: os.urandom(512),
    lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),
    lambda: b"\x00" * 2000,
    lambda: b"GET / HTTP/9.9\r\n\r\n",
    lambda: b"GET /realtime HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    lambda: b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
    lambda: b"\x81\xfe\xff\xff" + os.urandom(64),
    lambda: b"POST /realtime HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{",
    lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(64),
    lambda: b"\r\n" * 500,
)


class Attackers:
    """One process of them; one epoll."""

    def __init__(self, kind, port, count, first):
        self.kind, self.port, self.count = kind, port, count
        self.addresses = [f"127.0.{first}.{n + 1}" for n in range(ADDRESSES)]
        self.epoll = select.epoll()
        self.sockets = {}
        self.due = []  # (when, what, which): "make" a connection, or "drip" into one
        now = time.monotonic()
        for number in range(count):
            heapq.heappush(self.due, (now + number / PER_SECOND, "make", number))
        self.figures = {"kind": kind, "made": 0, "peak": 0, "cut_off": 0, "answered": 0, "refused_503": 0, "failed": 0}

    def make(self, number):
        one = socket.socket()
        one.setblocking(False)
        try:
            one.bind((self.addresses[number % ADDRESSES], 0))
            one.connect_ex(("127.0.0.1", self.port))
            self.epoll.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self.figures["failed"] += 1
            one.close()
            heapq.heappush(self.due, (time.monotonic() + PAUSE, "make", number))
            return
        self.sockets[one.fileno()] = (one, number)

    def opened(self, fd):
        one, _ = self.sockets[fd]
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.figures["failed"] += 1
            return self.end(fd, PAUSE)
        self.figures["made"] += 1
        if self.figures["made"] == self.count:
            print("full", flush=True)
        self.epoll.modify(fd, select.EPOLLIN)
        try:
            one.send(START if self.kind == "loris" else random.choice(GARBAGE)())
        except OSError:
            return self.end(fd, PAUSE)
        if self.kind == "loris":
            heapq.heappush(self.due, (time.monotonic() + DRIP, "drip", fd))
        self.figures["peak"] = max(self.figures["peak"], len(self.sockets))

    def heard(self, fd):
        try:
            answer = self.sockets[fd][0].recv(4096)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self.figures["cut_off"] += 1
            self.end(fd, 0 if self.kind == "loris" else PAUSE)
        elif answer.startswith(b"HTTP/1.1 503"):
            self.figures["refused_503"] += 1
        else:
            self.figures["answered"] += 1

    def end(self, fd, pause):
        one, number = self.sockets.pop(fd)
        one.close()
        heapq.heappush(self.due, (time.monotonic() + pause, "make", number))

    def drip(self, fd):
        if fd in self.sockets:
            try:
                self.sockets[fd][0].send(b"x")
            except OSError:
                return
            heapq.heappush(self.due, (time.monotonic() + DRIP, "drip", fd))

    def run(self):
        self.epoll.register(0, select.EPOLLIN | select.EPOLLHUP)
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, what, which = heapq.heappop(self.due)
                getattr(self, what)(which)
            wait = min(1.0, max(0.0, self.due[0][0] - now)) if self.due else 1.0
            for fd, event in self.epoll.poll(wait, 512):
                if fd == 0:
                    return
                if fd in self.sockets:
                    if event & select.EPOLLOUT:
                        self.opened(fd)
                    else:
                        self.heard(fd)


if __name__ == "__main__":
    os.nice(10)  # They stand for other machines: those do not take the node's processor.
    attackers = Attackers(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    attackers.run()
    attackers.figures["at_the_end"] = len(attackers.sockets)
    print(json.dumps(attackers.figures), flush=True)
