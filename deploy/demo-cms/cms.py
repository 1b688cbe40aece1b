"""One instance of the pretend CMS of docker-compose.yml. Two of them share a database and publish through Redis.

    /demo/api/…                 the REST interface of the demo page, as demo/API.md has it; the balancer routes it here
    GET  /                      what was accepted so far, by topic: {"topics": {"comments:42": {"count": 7, "last": "1732…-7"}}, …}
    POST /rate?per_second=5     so many random changes per second from now on (0: pause, answered when the last one is in)

A gentle editorial day goes on by itself: CMS_RATE changes per second. It is a toy: whoever reaches it may do everything.
"""

import base64
import hashlib
import hmac
import json
import os
import random
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from editorial import PROJECT_STATUSES, STATUSES, Database, Refused
from publisher import REDIS_ERRORS, Publisher

NAME = os.environ.get("CMS_NAME", "cms-01")
VERSION = "0.2.0"
BODY = 16 * 1024
REMARKS = [
    "Looks good to me.", "Can we have this one shorter?", "The second paragraph repeats the first.", "@anna please have a look.",
    "Translation is in.", "@bilal the picture is missing.", "Legal is fine with it.", "@chiyo the link goes nowhere.",
]  # fmt: skip


def seed():
    with open(os.environ.get("CMS_SEED", "/app/seed.json"), encoding="utf-8") as file:
        return json.load(file)


def token(editor, ttl):
    """A token of the CMS for its editor (HS256): what Carillon believes, because both know the secret."""
    with open(os.environ.get("JWT_SECRET_FILE", "/run/carillon/jwt"), encoding="utf-8") as file:
        secret = file.read().strip().encode()

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": editor, "iat": now, "exp": now + ttl, "topics": ["comments:*", "project-items:*", "projects", "content:*"]}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


class Cms:
    """Database and publisher, and the random editorial day."""

    def __init__(self):
        self.database = Database(seed)
        self.publisher = Publisher(NAME)
        self.rate = float(os.environ.get("CMS_RATE", "0.1"))
        self.stopping = threading.Event()
        self.changed = threading.Condition()
        self.busy = False

    def change(self, editor, origin, write):
        """Changes the state, then publishes: the order of a real CMS, after commit."""

        def change(state):
            return write(state, state.editor(editor))

        answer, events = self.database.write(change)
        published = []
        for topic, kind, data in events:
            try:
                position = self.publisher.publish(topic, kind, editor, data, origin)
                published.append({"topic": topic, "type": kind, "position": position})
            except REDIS_ERRORS as error:
                return {**answer, "published": published, "publish_error": str(error)}
        return {**answer, "published": published}

    def random_change(self):
        state = self.database.read().data
        editor = random.choice(state["editors"])["id"]
        item = random.choice(state["items"])
        other = random.choice(state["editors"])["id"]
        write = random.choice(
            [
                lambda s, e: s.comment(e, item["project"], random.choice(REMARKS), item["id"]),
                lambda s, e: s.move(e, item["project"], item["id"], random.choice([*STATUSES])),
                lambda s, e: s.approve(e, item["project"], item["id"]),
                lambda s, e: s.save(e, item["content"], teaser=random.choice(REMARKS)),
                lambda s, e: s.project_status(e, item["project"], random.choice(PROJECT_STATUSES)),
                lambda s, e: s.notify(e, other, f"“{item['name']}” is waiting for you.", item["project"]),
            ]
        )
        self.change(editor, None, write)

    def run(self):
        while not self.stopping.is_set():
            with self.changed:
                if self.rate <= 0:
                    self.changed.wait(1)
                    continue
                pause, self.busy = 1 / self.rate, True
            started = time.monotonic()
            try:
                self.random_change()
            except REDIS_ERRORS as error:
                # The database is away: nothing was changed, nothing is owed.
                print(json.dumps({"level": "warn", "message": "the database did not answer", "error": str(error)}))
            with self.changed:
                self.busy = False
                self.changed.notify_all()
                wanted = self.rate
                self.changed.wait_for(lambda: self.rate != wanted, max(0.0, pause - (time.monotonic() - started)))

    def set_rate(self, rate):
        with self.changed:
            self.rate = rate
            self.changed.notify_all()
            if rate <= 0:
                self.changed.wait_for(lambda: not self.busy)


def text(body, field):
    value = body.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > 2000:
        raise Refused(400, "bad-request", f"The field `{field}` must be a text of 1 to 2,000 characters.")
    return value.strip()


class Server(ThreadingHTTPServer):
    """Browsers and health checks that hang up are no news."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Door(BaseHTTPRequestHandler):
    """HTTP in front of it."""

    protocol_version = "HTTP/1.1"
    cms = None

    def answer(self, status, body, kind="application/json"):
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def serve(self, act):
        try:
            self.answer(*act())
        except Refused as refused:
            problem = {"status": refused.status, "code": refused.code, "detail": refused.detail}
            self.answer(refused.status, problem, "application/problem+json")
        except REDIS_ERRORS as error:
            problem = {"status": 503, "code": "no-database", "detail": f"The demo's database does not answer: {error}"}
            self.answer(503, problem, "application/problem+json")

    def do_GET(self):
        self.serve(self.read)

    def do_POST(self):
        self.serve(self.write)

    def read(self):
        url = urlsplit(self.path)
        if url.path == "/":
            return 200, {"name": NAME, "rate": self.cms.rate, **self.cms.publisher.state()}
        state, path = self.cms.database.read(), url.path.removeprefix("/demo/api")
        if path == "/setup":
            return 200, {"realtime": "/realtime", "version": VERSION, "node": NAME, "editors": state.data["editors"]}
        if path == "/projects":
            return 200, {"projects": [state.project(row["id"]) for row in state.data["projects"]]}
        if path == "/state":
            data = {key: value for key, value in state.data.items() if key != "counters"}
            return 200, {**data, "projects": [state.project(row["id"]) for row in state.data["projects"]]}
        if path == "/notifications":
            editor = state.editor(parse_qs(url.query).get("editor", [None])[0])["id"]
            return 200, {"unread": state.unread(editor), "notifications": state.notifications(editor)}
        if match := re.fullmatch(r"/projects/([^/]+)/items", path):
            project = state.project(match[1])
            return 200, {"project": project, "items": [item for item in state.data["items"] if item["project"] == project["id"]]}
        if match := re.fullmatch(r"/projects/([^/]+)/comments", path):
            project = state.project(match[1])["id"]
            return 200, {"project": project, "comments": state.comments(project)}
        if match := re.fullmatch(r"/content/([^/]+)", path):
            return 200, state.find("contents", match[1], "no-such-content")
        raise Refused(404, "not-found", f"There is nothing at {url.path}.")

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY:
            self.close_connection = True
            raise Refused(413, "too-large", f"A body may have {BODY} bytes.")
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError as error:
            raise Refused(400, "bad-request", f"The body is not JSON: {error}.") from error
        if not isinstance(body, dict):
            raise Refused(400, "bad-request", "The body must be a JSON object.")
        return body

    def write(self):
        url, body = urlsplit(self.path), self.body()
        if url.path == "/rate":
            self.cms.set_rate(float(parse_qs(url.query)["per_second"][-1]))
            return 200, {"name": NAME, "rate": self.cms.rate, **self.cms.publisher.state()}
        path, editor = url.path.removeprefix("/demo/api"), body.get("editor")
        if path == "/token":
            return self.token(body)

        def change(write, status=200):
            return status, self.cms.change(editor, body.get("origin"), write)

        if match := re.fullmatch(r"/projects/([^/]+)/comments", path):
            words = text(body, "text")
            return change(lambda s, e: s.comment(e, match[1], words, body.get("item")), 201)
        if match := re.fullmatch(r"/projects/([^/]+)/items/([^/]+)/move", path):
            return change(lambda s, e: s.move(e, match[1], match[2], body.get("status")))
        if match := re.fullmatch(r"/projects/([^/]+)/items/([^/]+)/approve", path):
            return change(lambda s, e: s.approve(e, match[1], match[2]))
        if match := re.fullmatch(r"/projects/([^/]+)/status", path):
            return change(lambda s, e: s.project_status(e, match[1], body.get("status")))
        if match := re.fullmatch(r"/content/([^/]+)/save", path):
            fields = {name: text(body, name) for name in ("title", "teaser") if body.get(name) is not None}
            return change(lambda s, e: s.save(e, match[1], **fields))
        if path == "/notify":
            words = text(body, "text")
            return change(lambda s, e: s.notify(e, body.get("to"), words, body.get("project")), 201)
        if path == "/notifications/read":
            return change(lambda s, e: s.read(e, body.get("id"), body.get("all") is True))
        raise Refused(404, "not-found", f"There is nothing at {url.path}.")

    def token(self, body):
        editor, ttl = self.cms.database.read().editor(body.get("editor"))["id"], body.get("ttl", 600)
        if not isinstance(ttl, int) or not 1 <= ttl <= 3600:
            raise Refused(400, "bad-request", "The field `ttl` must be 1 to 3600 seconds.")
        return 200, {"token": token(editor, ttl), "expires_in": ttl, "sub": editor}

    def log_message(self, *_):
        pass


def main():
    cms = Door.cms = Cms()
    server = Server(("0.0.0.0", 8000), Door)

    def stop(*_):
        cms.stopping.set()
        cms.publisher.stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = threading.Thread(target=cms.run, daemon=True)
    worker.start()
    print(json.dumps({"level": "info", "message": f"{NAME} makes {cms.rate} changes per second"}))
    server.serve_forever()
    with cms.changed:
        cms.changed.notify_all()
    worker.join(5)


if __name__ == "__main__":
    main()
