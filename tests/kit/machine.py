"""What tests need of the machine: to wait for something, a free port, a request, a process of their own."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path


def wait_for(what, predicate, seconds=15.0):
    """Polls until the predicate holds and returns what it returned; fails with `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: not {what}")
        time.sleep(0.02)


async def until(what, predicate, seconds=15.0):
    """The same for tests in which others have to go on meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: not {what}")
        await asyncio.sleep(0.02)


def free_port(address="127.0.0.1"):
    """A port below the range of outgoing connections, so that nobody gets it by chance before it is bound."""
    for _ in range(200):
        port = random.randint(12000, 31999)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port between 12000 and 31999")


def http(method, url, body=None, headers=None, seconds=15):
    """`(status, headers, bytes)`, for refusals as well."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class Process:
    """A program of ours, its output in a file, ended by its own pid."""

    def __init__(self, command, log, env=None):
        self.log = Path(log)
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env)

    @property
    def running(self):
        return self.popen.poll() is None

    def output(self):
        return self.log.read_text(errors="replace")

    def wait(self, seconds=15):
        return self.popen.wait(seconds)

    def kill(self, how=signal.SIGKILL):
        if self.running:
            self.popen.send_signal(how)
            self.popen.send_signal(signal.SIGCONT)
            self.popen.wait(20)
