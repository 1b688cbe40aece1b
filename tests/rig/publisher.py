"""A publisher under load, for the rig: it publishes with carillon-notify and counts what Redis has accepted.

    GET  /                      {"name": …, "accepted": 70, "given_up": 0, "topics": {"comments:42": "1732…-7", …}}
    POST /rate?per_second=5     so many changes per second from now on (0: pause, answered when the last one is in)

A change is one event to one, two or three topics. It runs in the image of the CMS, with what that image may know.
"""

import json
import os
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from carillon_notify import Publisher
from carillon_notify.errors import NotPublished

NAME = os.environ["NAME"]
EDITORS = ("anna", "bilal", "chiyo")
TOPICS = [f"{area}:{key}" for area in ("comments", "content") for key in (42, 43, 44)] + ["tree:42"]
# The function remembers an event's id for five minutes.
PATIENCE = 240


def place(position):
    """(epoch, seq) of a log id, to compare by."""
    return tuple(int(part) for part in position.split("-"))


class Load:
    """Publishes at a rate, in a thread of its own."""

    def __init__(self):
        password = Path("/run/carillon/redis-publisher").read_text().strip()
        self.publisher = Publisher(os.environ["REDIS_URL"], NAME, patience=PATIENCE, username="carillon-publisher", password=password)
        self.rate, self.busy, self.accepted, self.given_up, self.heads = 0.0, False, 0, 0, {}
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.rate > 0)
                pause, self.busy = 1 / self.rate, True
            began = time.monotonic()
            self.change()
            with self.changed:
                self.busy = False
                self.changed.notify_all()
            time.sleep(max(0.0, pause - (time.monotonic() - began)))

    def change(self):
        topics = random.sample([*TOPICS, f"notifications:{random.choice(EDITORS)}"], random.randint(1, 3))
        try:
            positions = self.publisher.record(topics, {"type": "rig.changed", "actor": random.choice(EDITORS), "data": {"page": 42}})
        except NotPublished as error:
            print(f"given up: {error}", flush=True)
            with self.changed:
                self.given_up += 1
            return
        with self.changed:
            self.accepted += len(topics)
            for topic, position in zip(topics, positions, strict=True):
                self.heads[topic] = max(self.heads.get(topic, position), position, key=place)

    def set_rate(self, rate):
        with self.changed:
            self.rate = rate
            self.changed.notify_all()
            if rate <= 0:
                self.changed.wait_for(lambda: not self.busy)

    def state(self):
        with self.changed:
            return {"name": NAME, "accepted": self.accepted, "given_up": self.given_up, "topics": dict(self.heads)}


class Door(BaseHTTPRequestHandler):
    """HTTP in front of it."""

    load = None

    def do_GET(self):
        body = json.dumps(self.load.state()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.load.set_rate(float(parse_qs(urlsplit(self.path).query)["per_second"][-1]))
        self.do_GET()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Door.load = Load()
    ThreadingHTTPServer(("0.0.0.0", 8000), Door).serve_forever()
