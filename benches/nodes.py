"""A node that is measured: its ports, settings without the limits that load from one machine would meet, and the wait for it."""

import contextlib
import functools
import os
import pathlib
import random
import re
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = os.environ.get("CARILLON_BIN", ROOT / "target/release/carillon")
# Seconds.
PATIENCE = 120
UNLIMITED = {
    "AUTH__MODE": "none",
    "AUTH__DEFAULT_TOPICS": "*",
    "LIMITS__ACCEPTS_PER_SECOND": "100000",
    "LIMITS__SESSIONS_PER_EDITOR": "0",
    "LIMITS__EDITOR_REQUESTS_PER_SECOND": "0",
    "LIMITS__EDITOR_TOPICS_PER_SECOND": "0",
    "LIMITS__EDITOR_TOPICS_PER_HOUR": "0",
    "DRAIN__WINDOW_SECONDS": "0",
    "TELEMETRY__LEVEL": "error",
}


def free_port():
    """Below the ports that the kernel gives to outgoing connections: a bench has thousands of them."""
    while True:
        port = random.randint(12_000, 31_999)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


@functools.cache
def known():
    return subprocess.run([str(BIN), "config", "default"], stdout=subprocess.PIPE, text=True, check=True).stdout


def is_known(setting):
    """Whether the program, which may be an older one, has this setting."""
    return re.search(rf"^#? ?{setting.split('__')[1].lower()} =", known(), re.MULTILINE)


class Node:
    """One `carillon serve` with these settings besides `UNLIMITED`."""

    def __init__(self, settings):
        self.public, self.internal = free_port(), free_port()
        listen = {"HTTP__LISTEN": f"127.0.0.1:{self.public}", "INTERNAL__LISTEN": f"127.0.0.1:{self.internal}"}
        settings = UNLIMITED | listen | settings
        environment = os.environ | {f"CARILLON__{name}": value for name, value in settings.items() if is_known(name)}
        self.process = subprocess.Popen([str(BIN), "serve"], env=environment, stdout=subprocess.DEVNULL)

    def get(self, path):
        """What its internal listener says."""
        return urllib.request.urlopen(f"http://127.0.0.1:{self.internal}{path}", timeout=PATIENCE).read().decode()

    def wait_until_ready(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise SystemExit("a node ended; its error stands above")
            with contextlib.suppress(OSError):
                self.get("/readyz")
                return
            time.sleep(0.05)
        raise SystemExit(f"a node was not ready within {PATIENCE} s")

    def memory(self, what="VmRSS"):
        """KiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+)", status, re.MULTILINE)[1])

    def end(self):
        self.process.kill()
        self.process.wait()
