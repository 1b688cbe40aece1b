"""The rig: docker-compose.yml brought up for real and checked from outside, through the balancer.

Every check is one sentence of what a user may rely on. An auditor (editors.py) counts what the CMS instances had accepted
against what every editor received: nothing lost, nothing twice, nothing out of order.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import urllib.parse
from pathlib import Path

from playwright.async_api import async_playwright

from kit.rig.editors import Editor, until
from kit.rig.stack import ROOT, Stack, clean_tree, http, megabytes, next_release, process_status, stopwatch

# The compose file's drain window, and what the issue allows on top of it for a client to be back.
WINDOW, BACK = 10, 5
EDITORS = ["anna", "bilal", "chiyo"]
TOPICS = [*(f"{area}:{project}" for area in ("comments", "project-items") for project in (42, 43, 44)), "projects"]
LOAD = 10.0  # changes per second and CMS instance; each is published as one to three events


class Rig:
    def __init__(self, tree, stack):
        self.tree, self.stack = tree, stack
        self.editors = []
        self.secret = None
        self.passed, self.failed = [], []
        self.began = stopwatch()

    # --- the frame ----------------------------------------------------------------------------------------------------
    async def check(self, sentence, body):
        watch = stopwatch()
        try:
            note = await body()
            self.passed.append(sentence)
            print(f"ok    {sentence} ({watch():.1f} s){': ' + note if note else ''}", flush=True)
            return True
        except Exception as error:  # whatever goes wrong is a failed check, and the next one still runs
            self.failed.append(sentence)
            print(f"FAIL  {sentence} ({watch():.1f} s): {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            return False

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.stack.port}/realtime"

    def gather(self, count):
        """So many editors, in turn anna, bilal and chiyo, each with all shared topics and the own notifications."""
        for number in range(count):
            name = EDITORS[number % len(EDITORS)]
            editor = Editor(self.url, self.stack.origin, self.secret, name, [*TOPICS, f"notifications:{name}"])
            self.editors.append(editor.start())

    async def all_live(self, seconds):
        return await until(
            lambda: all(editor.connected and editor.live for editor in self.editors),
            seconds,
            lambda: f"every editor live; not: {[editor.story() for editor in self.editors if not (editor.connected and editor.live)][:5]}",
        )

    def nodes_seen(self):
        return {editor.node for editor in self.editors if editor.connected}

    async def rate(self, per_second):
        cms = [self.stack.cms(name) for name in ("cms-01", "cms-02")]
        return await asyncio.gather(*(asyncio.to_thread(one.rate, per_second) for one in cms))

    async def audit(self, resyncs_allowed=()):
        """Pauses the CMS instances and compares what they had accepted with what every editor knows."""
        states = await self.rate(0)
        heads, accepted = {}, 0
        for state in states:
            assert state["given_up"] == 0, f"{state['name']} gave up on {state['given_up']} events"
            accepted += state["accepted"]
            for topic, entry in state["topics"].items():
                place = tuple(int(part) for part in entry["last"].split("-"))
                heads[topic] = max(heads.get(topic, (0, 0)), place)
        known = lambda editor: {topic: place for topic, place in heads.items() if topic in editor.topics}
        behind = lambda: [
            f"{editor.name} on {editor.node}: {topic} at {editor.covered.get(topic)} of {place}"
            for editor in self.editors
            for topic, place in known(editor).items()
            if editor.covered.get(topic) != place
        ]
        await until(lambda: not behind(), 15, lambda: f"everyone knows everything that was accepted; behind: {behind()[:5]}")
        faults = [fault for editor in self.editors for fault in editor.faults]
        assert not faults, f"{len(faults)} faults: {faults[:5]}"
        odd = [(editor, *told) for editor in self.editors for told in editor.resyncs if told[2] not in resyncs_allowed]
        assert not odd, f"{len(odd)} times told to refetch without need: {[(t, r, more, e.story()) for e, _, t, r, more in odd[:3]]}"
        received = sum(editor.events for editor in self.editors)
        return f"{accepted} accepted so far, {received} deliveries audited, none lost, none twice"

    def forget_resyncs(self):
        for editor in self.editors:
            editor.resyncs.clear()

    # --- the checks, in the order of a day ------------------------------------------------------------------------------
    async def images(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "build", "node", "cms-01", timeout=3600)
        first = watch()
        releases = await asyncio.to_thread(next_release, self.tree, self.tree.parent / "next")
        await self.stack.aside(
            "docker", "build", "-f", str(self.tree.parent / "next/deploy/Dockerfile"), "-t", "carillon:rig-next",
            # Another program with the same dependencies; without optimisation it compiles in a fraction of the time.
            "--build-arg", f"VERSION={releases[1]}", "--build-arg", "CARGO_OPTIONS=--config=profile.release.package.carillon.opt-level=0",
            str(self.tree.parent / "next"), timeout=3600,
        )
        return f"release {releases[0]} in {first:.0f} s, release {releases[1]} in {watch() - first:.0f} s more"

    async def size(self):
        image = self.stack.inspect("carillon:rig")
        size = image["Size"]
        assert size < 60e6, f"{megabytes(size)} is not small"
        config = image["Config"]
        assert config["User"] == "10001:10001", config["User"]
        assert config["Healthcheck"]["Test"][-1] == "health", config["Healthcheck"]
        assert config["StopSignal"] == "SIGTERM"
        assert config["Labels"]["org.opencontainers.image.title"] == "Carillon"
        return f"image size {megabytes(size)}"

    async def up(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "up", "-d", timeout=180)
        nodes = self.stack.ids("node")
        assert len(nodes) == 3, f"{len(nodes)} nodes"
        self.secret = self.stack.secret("jwt")
        # The balancer has to have found them.
        for path in ("realtime/config", "demo/api/setup"):
            await until(lambda: http(f"{self.stack.origin}/{path}")[0] == 200, 30, f"an answer from /{path} through the balancer")
        return f"from nothing to an answer in {watch():.1f} s"

    async def start_time(self):
        node = self.stack.ids("node")[0]
        await self.stack.aside("docker", "stop", node)
        code = self.stack.inspect(node)["State"]["ExitCode"]
        assert code == 0, f"SIGTERM ended it with exit code {code}"
        await self.stack.aside("docker", "start", node)
        started = self.stack.inspect(node)["State"]["StartedAt"]
        # The container's clock is this machine's: nanoseconds are cut to what Python reads.
        moment = time.mktime(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float("0" + started[19:].rstrip("Z"))
        address = self.stack.address(node)
        deadline = time.time() + 20
        while (answer := http(f"http://{address}:9090/readyz", timeout=1))[0] != 200:
            assert time.time() < deadline, f"not ready after 20 s: {answer}"
            await asyncio.sleep(0.005)
        took = time.time() - moment
        await until(lambda: self.stack.health(node) == "healthy", 20, "HEALTHCHECK says healthy")
        return f"start time {took * 1000:.0f} ms from the start of the process to ready"

    async def hardened(self):
        for node in self.stack.ids("node"):
            seen = self.stack.inspect(node)
            assert seen["HostConfig"]["ReadonlyRootfs"], "the root file system can be written"
            assert seen["HostConfig"]["Privileged"] is False
            status = process_status(seen["State"]["Pid"])
            assert status["Uid"].split() == ["10001"] * 4, f"runs as {status['Uid']}"
            assert int(status["CapEff"], 16) == 0 == int(status["CapBnd"], 16), f"capabilities {status['CapEff']}, {status['CapBnd']}"
            assert status["NoNewPrivs"] == "1"
            mounts = Path(f"/proc/{seen['State']['Pid']}/mountinfo").read_text().splitlines()
            root = next(line.split() for line in mounts if line.split()[4] == "/")
            assert "ro" in root[5].split(","), f"root is mounted {root[5]}"
            assert not seen["HostConfig"]["PortBindings"], "a node publishes a port of its own"
        exposed = {
            port for service in ("redis", "cms-01", "cms-02", "balancer")
            for port, bound in (self.stack.inspect(self.stack.ids(service)[0])["NetworkSettings"]["Ports"] or {}).items() if bound
        }
        assert exposed == {"8080/tcp"}, f"published: {exposed}"
        status, _ = http(f"{self.stack.origin}/metrics")
        assert status == 404, f"/metrics through the balancer: {status}"
        return "uid 10001, read-only root, no capabilities, no new privileges, only the balancer's port published"

    async def cli(self):
        node = self.stack.ids("node")[0]
        mint = ("carillon", "token", "mint", "--sub", "anna", "--topics", "comments:42", "--ttl", "60s")
        # Its output is a token, which does not belong in a log.
        token = self.stack.run("docker", "exec", node, *mint, quiet=True).split()[-1]
        assert token.count(".") == 2, "no token"
        status, body = http(f"{self.stack.origin}/realtime/poll?topics=comments:42&token={token}")
        assert status == 200 and json.loads(body)["messages"][0]["user"] == "anna", f"{status} {body}"
        shown = self.stack.run("docker", "exec", node, "carillon", "config", "show")
        for name in ("jwt", "redis-node", "publish-token"):
            assert self.stack.secret(name) not in shown, f"config show prints {name}"

    async def rights(self):
        """Redis' users have exactly the rights that the program says they need."""
        node = self.stack.ids("node")[0]
        said = self.stack.run("docker", "exec", node, "carillon", "redis-function", "--acl")
        given = self.stack.secret("users.acl")
        for user in ("carillon-node", "carillon-publisher"):
            printed = next(line.split() for line in said.splitlines() if line.startswith(f"ACL SETUSER {user} "))[3:]
            written = next(line.split() for line in given.splitlines() if line.startswith(f"user {user} "))[2:]
            rights = [{word for word in words if word[0] not in "#>"} for words in (printed, written)]
            differ = rights[0] ^ rights[1]
            assert not differ, f"{user}: `redis-function --acl` and deploy/compose/make-secrets differ in {sorted(differ)}"
        return "the rig runs with the least-privilege users"

    async def demo(self):
        status, body = http(f"{self.stack.origin}/demo/", headers={"Accept": "text/html"})
        assert status == 200 and "<html" in body.lower(), f"{status} {body[:200]}"
        answers = [json.loads(http(f"{self.stack.origin}/demo/api/setup")[1]) for _ in range(4)]
        assert {answer["node"] for answer in answers} == {"cms-01", "cms-02"}, answers
        status, body = http(f"{self.stack.origin}/demo/api/token", "POST", b'{"editor":"anna"}')
        assert status == 200, body
        status, body = http(f"{self.stack.origin}/realtime/poll?topics=comments:42&token={json.loads(body)['token']}")
        assert status == 200 and json.loads(body)["messages"][0]["user"] == "anna", f"{status} {body}"

    async def in_a_browser(self):
        """The demo as its visitors see it: editors whose pages are on three nodes see each other's changes."""
        chromium = shutil.which("chromium")
        assert chromium, "no chromium on this machine: tests/install installs it"
        async with async_playwright() as play:
            browser = await play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
            try:
                pages = {}
                for number in range(12):
                    # Round robin over whatever a page asks for, which may be as many requests as there are nodes.
                    http(f"{self.stack.origin}/realtime/config")
                    page = await (await browser.new_context()).new_page()
                    await page.goto(f"{self.stack.origin}/demo/pane.html?editor={EDITORS[number % 3]}")
                    badge = page.locator("#badge[data-transport=WebSocket]", has_text="Live")
                    await badge.wait_for(timeout=15_000)
                    # "By WebSocket, node node-1, since 12:00:01"
                    pages.setdefault((await badge.get_attribute("title")).split(", ")[1], page)
                    if len(pages) == 3:
                        break
                assert len(pages) == 3, f"pages on {sorted(pages)} only"
                text = f"From the rig, {os.getpid()}"
                writer = next(iter(pages.values()))
                await writer.get_by_label("Your comment").fill(text)
                await writer.get_by_role("button", name="Comment", exact=True).click()
                for page in pages.values():
                    await page.locator("#comments", has_text=text).wait_for(timeout=5_000)
                # The page that people are sent to: three editors side by side.
                page = await (await browser.new_context()).new_page()
                await page.goto(f"{self.stack.origin}/demo/?count=3")
                for name in EDITORS:
                    badge = page.frame_locator(f"iframe[data-editor={name}]").locator("#badge", has_text="Live")
                    await badge.wait_for(timeout=15_000)
            finally:
                await browser.close()
        return "a comment shows on pages of three nodes; three editors side by side are live"

    async def everyone_gets_everything(self):
        self.gather(12)
        await self.all_live(15)
        assert len(self.nodes_seen()) == 3, f"round robin over {self.nodes_seen()}"
        await self.rate(LOAD)
        missing = lambda: [
            (editor.name, source, area)
            for editor in self.editors
            for source in ("cms-01", "cms-02")
            for area in ("comments", "project-items", "projects", "notifications")
            if not any(topic.split(":")[0] == area and who == source for topic, who in editor.sources)
        ]
        await until(lambda: not missing(), 30, lambda: f"events of both CMS instances in every area for every editor: {missing()[:5]}")
        note = await self.audit()
        # One change made in the browser, through the balancer, by either CMS instance.
        slowest = 0.0
        for number in range(4):
            before = [editor.sources.get(("projects", source), 0) for editor in self.editors for source in ("cms-01", "cms-02")]
            body = json.dumps({"editor": "anna", "status": ["on_hold", "active"][number % 2]}).encode()
            status, answer = await asyncio.to_thread(http, f"{self.stack.origin}/demo/api/projects/42/status", "POST", body)
            assert status == 200 and json.loads(answer)["published"], f"{status} {answer}"
            count = lambda: [editor.sources.get(("projects", source), 0) for editor in self.editors for source in ("cms-01", "cms-02")]
            slowest = max(slowest, await until(lambda: sum(count()) == sum(before) + len(self.editors), 2, "a change reaches everyone"))
        return f"{len(self.editors)} editors on {len(self.nodes_seen())} nodes; one change is everywhere {slowest * 1000:.0f} ms after its answer at most; {note}"

    async def monitoring(self):
        await self.stack.aside(*self.stack.command, "--profile", "monitoring", "up", "-d", "--no-deps", "prometheus", timeout=60)
        url = f"http://{self.stack.address(self.stack.ids('prometheus')[0])}:9090/api/v1"

        def ask(path):
            status, body = http(f"{url}/{path}", timeout=20)
            assert status == 200, f"{status} {body}"
            return json.loads(body)["data"]

        def value(query):
            result = ask("query?" + urllib.parse.urlencode({"query": query}))["result"]
            return float(result[0]["value"][1]) if result else None

        await until(lambda: http(f"{url}/query?query=1")[0] == 200, 30, "Prometheus answers")
        await self.rate(LOAD)
        await until(lambda: value('sum(carillon_link_up{job="carillon"})') == 3, 30, "three nodes scraped, all linked")
        dashboard = json.loads((self.tree / "deploy/monitoring/grafana/dashboards/carillon.json").read_text())
        empty = lambda: [
            panel["title"]
            for panel in dashboard["panels"]
            for target in panel.get("targets", [])[:1]
            if value(target["expr"].replace("$__rate_interval", "20s").replace("$job", "carillon")) is None
        ]
        # What has not happened yet has no figures: refusals, invalid events, gaps, publishers that report themselves.
        quiet = {"Published through the nodes, and invalid", "Resyncs by reason", "Resyncs in the last hour", "Publishers that are late"}
        await until(lambda: set(empty()) <= quiet, 45, lambda: f"panels without data: {set(empty()) - quiet}")
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
        assert len(rules) >= 10 and not firing, f"{len(rules)} rules, firing: {firing}"
        sessions = value('sum(carillon_sessions{job="carillon"})')
        assert sessions == len(self.editors), f"{sessions} sessions counted, {len(self.editors)} editors connected"
        await self.rate(0)
        await self.stack.aside(*self.stack.command, "--profile", "monitoring", "rm", "-sf", "prometheus")

    async def kill(self):
        await self.rate(LOAD)
        victim = self.stack.ids("node")[1]
        moment = time.monotonic()
        await self.stack.aside("docker", "kill", victim)
        lost = lambda: [editor for editor in self.editors if any(at > moment for at, _, _ in editor.closes)]
        await until(lost, 5, "somebody noticed")
        await self.all_live(15)
        away = max(until_ - from_ for editor in lost() for from_, until_ in editor.absences if until_ > moment)
        await asyncio.sleep(1)  # under load
        note = await self.audit()
        await self.stack.aside("docker", "start", victim)
        await until(lambda: self.stack.health(victim) == "healthy", 30, "the killed node is healthy again")
        return f"{len(lost())} editors moved, away {away:.1f} s at most; {note}"

    async def redis_restarts(self):
        await self.rate(LOAD)
        closes = sum(len(editor.closes) for editor in self.editors)
        epochs = lambda: {(topic, place[0]) for editor in self.editors for topic, place in editor.covered.items()}
        before = epochs()
        redis = self.stack.ids("redis")[0]
        await self.stack.aside("docker", "stop", redis)
        await until(lambda: not any(editor.live for editor in self.editors), 10, "every editor is told live:false")
        await self.stack.aside("docker", "start", redis)
        watch = stopwatch()
        # Loading is part of the outage; the promise counts from when Redis serves again.
        await until(lambda: self.stack.health(redis) == "healthy", 30, "Redis serves again")
        took = await self.all_live(15)
        await asyncio.sleep(1)
        note = await self.audit(resyncs_allowed=["redis-changed"])
        assert sum(len(editor.closes) for editor in self.editors) == closes, "sessions were closed"
        # What was accepted has survived: the logs are the same ones.
        assert epochs() == before, f"logs were lost: {sorted(before - epochs())[:3]} became {sorted(epochs() - before)[:3]}"
        told = [editor for editor in self.editors if editor.resyncs]
        assert len(told) == len(self.editors), f"a restart changes the lineage: {len(told)} of {len(self.editors)} were told"
        self.forget_resyncs()
        return f"live again {took:.1f} s after Redis served ({watch():.1f} s after its start), no session closed; {note}"

    async def scale(self):
        await self.rate(LOAD)
        before = set(self.stack.ids("node"))
        await self.stack.aside(*self.stack.command, "up", "-d", "--no-deps", "--no-recreate", "--scale", "node=5", "node", timeout=120)
        added = set(self.stack.ids("node")) - before
        assert len(added) == 2, f"{len(added)} nodes more"
        await until(lambda: all(self.stack.health(node) == "healthy" for node in added), 30, "five healthy nodes")

        async def seen():  # newcomers spread over all five
            self.gather(5)
            await self.all_live(15)
            return len(self.nodes_seen()) == 5

        await until(seen, 20, lambda: f"editors on five nodes; on {self.nodes_seen()}")
        await self.stack.aside(*self.stack.command, "up", "-d", "--no-deps", "--no-recreate", "--scale", "node=3", "node", timeout=120)
        assert len(self.stack.ids("node")) == 3
        await self.all_live(WINDOW + BACK)
        await asyncio.sleep(1)
        assert len(self.nodes_seen()) <= 3
        return f"{len(self.editors)} editors; " + await self.audit()

    async def rolling(self):
        self.gather(max(0, 40 - len(self.editors)))
        await self.all_live(15)
        await self.rate(LOAD)
        moment, versions, stop = time.monotonic(), [], asyncio.Event()

        async def watch_versions():
            while not stop.is_set():
                status, body = await asyncio.to_thread(http, f"{self.stack.origin}/realtime/config")
                versions.append(json.loads(body)["version"] if status == 200 else status)
                await asyncio.sleep(0.1)

        watcher = asyncio.create_task(watch_versions())
        try:
            async with self.stack.drains() as drains:
                out = await self.stack.aside(
                    str(self.tree / "deploy/compose/rolling-update"), CARILLON_TAG="rig-next", COMPOSE=" ".join(self.stack.command), timeout=300,
                )
        finally:
            stop.set()
            await watcher
        assert out.count("replaced") == 3, out
        took = time.monotonic() - moment
        await self.all_live(WINDOW + BACK)
        images = {self.stack.inspect(node)["Config"]["Image"] for node in self.stack.ids("node")}
        assert images == {"carillon:rig-next"}, images
        old, new = versions[0], versions[-1]
        assert old != new, f"both releases say {old}"
        assert all(version in (old, new) for version in versions), f"answers in between: {set(versions)}"
        both = len(versions) - versions.index(new) - versions[::-1].index(old)
        assert both > 10, "the releases did not run side by side"
        codes = {code for editor in self.editors for at, code, _ in editor.closes if at > moment}
        assert codes == {1012}, f"close codes {codes}"
        away = [(from_, until_) for editor in self.editors for from_, until_ in editor.absences if from_ > moment]
        # Back is counted from the SIGTERM that the node of the session got, not from the session's own end.
        assert len(drains) == 3, f"{len(drains)} nodes got SIGTERM"
        # Docker notes a signal after it has sent it: the first session may be gone before.
        begun = lambda gone: min(gone, max((drain for drain in drains if drain - 1 <= gone), default=gone - WINDOW))
        back = max(until_ - begun(from_) for from_, until_ in away)
        assert back <= WINDOW + BACK, f"somebody was back {back:.1f} s after the drain began"
        gone = max(until_ - from_ for from_, until_ in away)
        note = await self.audit()
        return (
            f"{old} → {new} in {took:.0f} s, {both / 10:.0f} s of them side by side; {len(self.editors)} editors moved {len(away)} times, "
            f"without a session for {gone:.1f} s at most, the last one back {back:.1f} s after its node began to drain; {note}"
        )

    async def logs(self):
        text = self.stack.compose("logs", "--no-color", "--tail=all", "node")
        for name in ("jwt", "redis-node", "publish-token"):
            assert self.stack.secret(name) not in text, f"the nodes log {name}"
        assert "eyJ" not in text, "the nodes log a token"
        assert "panicked" not in text, "a node panicked"

    async def gone(self):
        for editor in self.editors:
            await editor.stop()
        self.editors.clear()
        await asyncio.to_thread(self.stack.compose, "logs", "--no-color", "--tail=400", check=False)
        await asyncio.to_thread(self.stack.down)
        left = self.stack.leftovers()
        assert not left, f"left behind: {left}"

    # --- the variants -------------------------------------------------------------------------------------------------------
    async def variant_up(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "up", "-d", timeout=240)
        self.secret = self.stack.secret("jwt")
        for path in ("realtime/config", "demo/api/setup"):
            await until(lambda: http(f"{self.stack.origin}/{path}")[0] == 200, 30, f"an answer from /{path} through the balancer")
        return f"{watch():.1f} s"

    async def failover(self):
        """The master (of a shard) goes away for good; another one takes over."""
        await self.rate(LOAD)
        await self.stack.aside("docker", "stop", self.stack.ids("redis")[0])
        watch = stopwatch()
        # Until the new master has taken over nothing can be promised: wait until publishers get through again.
        accepted = lambda: sum(self.stack.cms(name).state()["accepted"] for name in ("cms-01", "cms-02"))
        await asyncio.sleep(5)
        before = await asyncio.to_thread(accepted)
        await until(lambda: accepted() > before + 50, 60, "publishers get through again")
        await self.all_live(15)
        note = await self.audit(resyncs_allowed=["redis-changed", "log-replaced", "gap", "no-position"])
        self.forget_resyncs()
        return f"all live, and publishers through, {watch():.1f} s after the master went; {note}"

    async def variant(self, name):
        if await self.check(f"{name}: `docker-compose up` with its file brings everything up", self.variant_up):
            await self.check(f"{name}: Redis' users have the rights that `redis-function --acl` prints", self.rights)
            await self.check(f"{name}: editors on all nodes get what both CMS instances publish", self.everyone_gets_everything)
            await self.check(f"{name}: a master goes, another takes over: nothing is lost unsaid", self.failover)
        await self.check(f"{name}: all down again, nothing left behind", self.gone)

    # --- the order of a day ---------------------------------------------------------------------------------------------
    async def day(self, build):
        if build and not await self.check("the images are built from a clean tree, dependencies cached for the next release", self.images):
            return
        built = self.began()
        await self.check("the image is small, non-root, with a health check and labels", self.size)
        if await self.check("`docker-compose up` brings everything up", self.up):
            await self.check("SIGTERM ends a node with exit code 0; it starts fast; HEALTHCHECK turns healthy", self.start_time)
            await self.check("nodes run without root, capabilities or a writable root; the internal port stays in", self.hardened)
            await self.check("the command line works inside the image and prints no secret", self.cli)
            await self.check("Redis' users have the rights that `redis-function --acl` prints", self.rights)
            await self.check("the demo page is served through the balancer", self.demo)
            await self.check("Chromium shows the demo at work across three nodes", self.in_a_browser)
            await self.check("editors on all nodes get what both CMS instances publish", self.everyone_gets_everything)
            await self.check("Prometheus finds every node; the dashboard has data, and no alert fires", self.monitoring)
            await self.check("a node is killed: its editors move, and nothing is lost", self.kill)
            await self.check("Redis restarts: editors are told, stay connected, and nothing is lost", self.redis_restarts)
            await self.check("five nodes and back to three: new nodes get sessions, and nothing is lost", self.scale)
            await self.check(f"rolling update under load: nothing lost, everyone back within {WINDOW} + {BACK} s", self.rolling)
            await self.check("the nodes' logs hold no secret, no token and no panic", self.logs)
        await self.check("all down again, nothing left behind", self.gone)
        took = self.began() - built

        async def quick():
            assert took < 600, f"{took:.0f} s"
            return f"{took:.0f} s"

        await self.check("without the image builds it took less than ten minutes", quick)


async def main(arguments):
    work = Path(tempfile.mkdtemp(prefix="carillon-rig-"))
    (ROOT / "tests/output").mkdir(parents=True, exist_ok=True)
    tree = work / "tree"
    clean_tree(tree)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    settings = {"CARILLON_TAG": "rig", "CMS_RATE": "1"}
    stack = Stack(tree, f"carillon-rig-{os.getpid()}", **settings)
    rigs = [Rig(tree, stack)]
    print(f"rig: details in {stack.log.name}", flush=True)
    try:
        if "--no-build" not in arguments:
            await stack.aside(str(ROOT / "tests/rig/base-images"), timeout=1800)
        await rigs[0].day("--no-build" not in arguments)
        for name in ("sentinel", "cluster") if "--variants" in arguments else ():
            files = ("docker-compose.yml", f"deploy/compose/{name}.yml")
            rigs.append(Rig(tree, Stack(tree, f"carillon-rig-{name}-{os.getpid()}", files, **settings)))
            await rigs[-1].variant(name)
    finally:
        for rig in rigs:
            if rig.stack.leftovers():
                rig.stack.down(patience=1)
        shutil.rmtree(work, ignore_errors=True)
    passed, failed = (sum(len(getattr(rig, field)) for rig in rigs) for field in ("passed", "failed"))
    # tests/rig/run adds what it checks itself, and prints the sum.
    (ROOT / "tests/output/rig.count").write_text(f"{passed} {failed}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
