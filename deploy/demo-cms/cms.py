"""A pretend CMS instance: publishes recorded events the way a real one would.

It knows Carillon only through Redis: one FCALL per change, with an `id`, repeated with the same `id` until Redis has
accepted it. That is all a publisher has to do to lose nothing and to publish nothing twice.

HTTP on port 8000, inside the network only (no authorisation: it is a toy):

    GET  /                      what was accepted so far, by topic: {"topics": {"comments:42": {"count": 7, "last": "1732…-7"}}, …}
    POST /rate?per_second=5     publish so many events per second from now on (0: pause, answered when the last one is in)
    POST /publish?topic=…       publish the event in the body
"""

import itertools
import json
import os
import random
import signal
import threading
import time
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import redis

NAME = os.environ.get("CMS_NAME", "cms-01")
PREFIX = os.environ.get("CARILLON_PREFIX", "carillon")
# How long an event's id is remembered by the function is 5 minutes: give up before that, and say so.
GIVE_UP_SECONDS = 240

EDITORS = ["anna", "bilal", "chiyo"]
PROJECTS = [42, 43, 44]


def connect():
    """A client for a single Redis, a Sentinel group or a cluster, as the environment says."""
    password = None
    if path := os.environ.get("REDIS_PASSWORD_FILE"):
        with open(path, encoding="utf-8") as file:
            password = file.read().strip()
    login = {"username": os.environ.get("REDIS_USERNAME"), "password": password}
    options = {"socket_timeout": 3, "socket_connect_timeout": 3, "decode_responses": True, "retry": None, **login}
    host = os.environ.get("REDIS_HOST", "127.0.0.1")
    if sentinels := os.environ.get("REDIS_SENTINELS"):
        from redis.sentinel import Sentinel

        addresses = [(part.split(":")[0], int(part.split(":")[1])) for part in sentinels.split(",")]
        sentinel = Sentinel(addresses, socket_timeout=1)
        return sentinel.master_for(os.environ.get("REDIS_MASTER", "carillon"), **options)
    if os.environ.get("REDIS_CLUSTER"):
        options.pop("retry")
        return redis.RedisCluster(host=host, port=6379, **options)
    options.pop("retry")
    return redis.Redis(host=host, port=int(os.environ.get("REDIS_PORT", "6379")), **options)


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def changes():
    """An endless editorial day: (topic, type, actor, data)."""
    for number in itertools.count(1):
        project, actor = random.choice(PROJECTS), random.choice(EDITORS)
        content = f"{random.randint(100, 999)}_{random.randint(1, 99)}"
        yield random.choice(
            [
                (f"comments:{project}", "comment.created", actor, {"project": project, "content": content, "language": "en", "number": number}),
                (f"comments:{project}", "activity.created", actor, {"project": project, "number": number}),
                (f"project-items:{project}", "project_item.saved", actor, {"project": project, "items": [content], "number": number}),
                ("projects", "project.saved", actor, {"project": project, "number": number}),
                (f"notifications:{random.choice(EDITORS)}", "notification.created", actor, {"unread": random.randint(1, 9), "number": number}),
                (f"content:{content}", "content.saved", actor, {"content": content, "language": "en", "number": number}),
            ]
        )


class Cms:
    def __init__(self):
        self.redis = connect()
        self.rate = float(os.environ.get("CMS_RATE", "0.5"))
        self.topics = {}
        self.failures = 0
        self.given_up = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.changed = threading.Condition()
        self.busy = False

    def publish(self, topic, event):
        """Publishes until it is accepted. Returns the position, or None when that took too long."""
        event = {"id": str(uuid.uuid4()), "time": now(), "source": NAME, **event}
        text = json.dumps(event, separators=(",", ":"))
        deadline, wait = time.monotonic() + GIVE_UP_SECONDS, 0.1
        while not self.stopping.is_set():
            try:
                position = self.redis.fcall(f"{PREFIX}_publish", 1, f"{PREFIX}:{topic}", text)
                with self.lock:
                    entry = self.topics.setdefault(topic, {"count": 0, "last": ""})
                    entry["count"] += 1
                    entry["last"] = position
                return position
            except redis.exceptions.RedisError as error:
                # "Function not found" is here too: Redis was emptied, and the nodes are about to load it again.
                self.failures += 1
                if time.monotonic() > deadline:
                    self.given_up += 1
                    print(json.dumps({"level": "error", "message": f"gave up on an event of {topic}", "error": str(error)}))
                    return None
                time.sleep(wait)
                wait = min(wait * 2, 1.0)
        return None

    def run(self):
        for topic, kind, actor, data in changes():
            with self.changed:
                while self.rate <= 0 and not self.stopping.is_set():
                    self.changed.wait(1)
                if self.stopping.is_set():
                    return
                pause = 1 / self.rate
                self.busy = True
            started = time.monotonic()
            self.publish(topic, {"type": kind, "actor": actor, "data": data})
            with self.changed:
                self.busy = False
                self.changed.notify_all()
                self.changed.wait(max(0.0, pause - (time.monotonic() - started)))

    def set_rate(self, rate):
        with self.changed:
            self.rate = rate
            self.changed.notify_all()
            while rate <= 0 and self.busy:
                self.changed.wait(1)

    def state(self):
        with self.lock:
            return {
                "name": NAME,
                "rate": self.rate,
                "accepted": sum(entry["count"] for entry in self.topics.values()),
                "repeated": self.failures,
                "given_up": self.given_up,
                "topics": {topic: dict(entry) for topic, entry in self.topics.items()},
            }


class Door(BaseHTTPRequestHandler):
    cms = None

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, self.cms.state())

    def do_POST(self):
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if url.path == "/rate":
                self.cms.set_rate(float(query["per_second"]))
                self.answer(200, self.cms.state())
            elif url.path == "/publish":
                position = self.cms.publish(query["topic"], json.loads(body))
                self.answer(200 if position else 503, {"position": position})
            else:
                self.answer(404, {"detail": "POST /rate?per_second=… or /publish?topic=…"})
        except (KeyError, ValueError) as error:
            self.answer(400, {"detail": repr(error)})

    def log_message(self, *_):
        pass


def main():
    cms = Cms()
    Door.cms = cms
    server = ThreadingHTTPServer(("0.0.0.0", 8000), Door)

    def stop(*_):
        cms.stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = threading.Thread(target=cms.run, daemon=True)
    worker.start()
    print(json.dumps({"level": "info", "message": f"{NAME} publishes {cms.rate} events per second"}))
    server.serve_forever()
    with cms.changed:
        cms.changed.notify_all()
    worker.join(5)


if __name__ == "__main__":
    main()
