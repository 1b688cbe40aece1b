"""Editors of a Wagtail site without a browser: they sign in, save as Wagtail's autosave does, and keep a screen up to date.

A screen does what the page's script does: it reads where its page stands whenever an event or a resync concerns it, once per
burst, and again until Wagtail answers.
"""

import asyncio
import html.parser
import http.cookiejar
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request

import websockets

from kit.wagtail_site import PASSWORD

BURST = 0.02
"""Seconds in which events of one change come together, as in the page's script."""


class Form(html.parser.HTMLParser):
    """The fields of the form in which a page is edited."""

    def __init__(self, text):
        super().__init__()
        self.inside, self.area, self.fields = False, None, {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "form":
            self.inside = given.get("id") == "page-edit-form"
        elif self.inside and tag == "textarea":
            self.area = given.get("name")
        elif self.inside and tag == "input" and given.get("name") and given.get("type") not in ("checkbox", "radio", "submit", "file"):
            self.fields.setdefault(given["name"], given.get("value") or "")

    def handle_endtag(self, tag):
        if tag == "form":
            self.inside = False
        if tag == "textarea":
            self.area = None

    def handle_data(self, data):
        if self.area:
            self.fields[self.area] = self.fields.get(self.area, "") + data


class Account:
    """Somebody who is signed in. Its calls block."""

    def __init__(self, url, name):
        self.url, self.name, self.gets = url, name, 0
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.origin = f"tab-{random.randrange(1 << 40):x}"
        self.call("/admin/login/")
        self.call("/admin/login/", {"username": name, "password": PASSWORD, "next": "/admin/"})

    def call(self, path, fields=None, headers=None, seconds=30):
        """The text of an answer; raises urllib's errors."""
        data = None
        if fields is not None:
            csrf = next((cookie.value for cookie in self.jar if cookie.name == "csrftoken"), "")
            data = urllib.parse.urlencode({"csrfmiddlewaretoken": csrf, **fields}).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Referer": self.url + "/", **(headers or {})})
        with self.opener.open(request, timeout=seconds) as answer:
            return answer.read().decode()

    def token(self):
        return self.call("/admin/carillon/token/")

    def state(self, page):
        """Where a page stands; counted."""
        self.gets += 1
        return json.loads(self.call(f"/admin/carillon/pages/{page}/state/"))

    def form(self, page):
        """The fields of a page's form."""
        fields = Form(self.call(f"/admin/pages/{page}/edit/")).fields
        assert "body" in fields, "the sign-in has not worked"
        return fields

    def save(self, page, fields, **changed):
        """Saves as autosave does; the revision's number and time. None: somebody else has saved meanwhile."""
        body = {**fields, **changed, "carillon_origin": self.origin}
        answer = json.loads(self.call(f"/admin/pages/{page}/edit/", body, {"Accept": "application/json"}))
        if not answer.get("success"):
            return None
        fields["loaded_revision_id"], fields["loaded_revision_created_at"] = answer["revision_id"], answer["revision_created_at"]
        return answer["revision_id"], answer["revision_created_at"]


class Screen:
    """An editor with one page open."""

    def __init__(self, account, page):
        self.account, self.page = account, page
        self.shown, self.seen, self.told = None, [], {}
        self.relevant, self.resyncs, self.late, self.live = 0, 0, set(), False
        self.positions, self.at, self.topics = {}, None, []
        self.again = asyncio.Event()
        self.tasks = []

    async def open(self):
        self.shown = await asyncio.to_thread(self.account.state, self.page)
        topics = self.shown["topics"]
        self.topics = [topics["content"], topics["comments"], *topics["tree"]]
        self.above = {int(part) for part in topics["content"].partition(":")[2].split("/")[:-1]}
        self.account.gets = 0
        self.tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._read())]

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _follow(self):
        """A session, and another one whenever it ends."""
        url = self.account.url.replace("http", "ws") + "/realtime"
        while True:
            try:
                token = await asyncio.to_thread(self.account.token)
                async with websockets.connect(url, origin=self.account.url, max_size=None, open_timeout=20, compression=None) as socket:
                    first = {"type": "connect", "token": token, "topics": self.topics}
                    if self.positions:
                        first["resume"] = {"at": self.at, "positions": self.positions}
                    await socket.send(json.dumps(first))
                    async for text in socket:
                        self._take(json.loads(text))
            except (OSError, websockets.exceptions.WebSocketException, urllib.error.URLError, asyncio.TimeoutError):
                pass
            self.live = False
            await asyncio.sleep(random.uniform(0.2, 1.0))

    def _take(self, message):
        self.positions.update({topic: place for topic, place in message.get("positions", {}).items() if place})
        self.at = max(self.at or 0, message.get("at") or 0) or None
        if "late" in message:
            self.late |= {found["source"] for found in message["late"]}
        kind = message["type"]
        if kind == "welcome":
            self.live = True
        elif kind == "resync":
            self.resyncs += 1
            self.again.set()
        elif kind == "event":
            if "position" in message:
                self.positions[message["topic"]] = message["position"]
            event = message["event"]
            is_above = message["topic"].startswith("tree:")
            if event.get("origin") == self.account.origin or (is_above and event.get("data", {}).get("page") not in self.above):
                return
            self.relevant += 1
            self.again.set()

    async def _read(self):
        while True:
            await self.again.wait()
            await asyncio.sleep(BURST)
            self.again.clear()
            try:
                self.shown = await asyncio.to_thread(self.account.state, self.page)
                self.seen.append((self.shown["revision_created_at"], time.monotonic()))
            except (OSError, urllib.error.URLError, ValueError):
                await asyncio.sleep(random.uniform(0.3, 0.8))
                self.again.set()
