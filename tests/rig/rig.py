"""The rig: docker-compose.yml brought up for real and checked from outside, through the balancer.

Every check is one sentence of what a user may rely on. Editors in Chromium work in Wagtail from the first check to the last.
Beside them an auditor (editors.py) counts what two publishers under load (publishers.yml) had accepted against what every
editor received: nothing lost, nothing twice, nothing out of order.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
import urllib.parse
from pathlib import Path

from faults import BACK, LOAD, WINDOW, FaultChecks
from image import ImageChecks
from newsroom_checks import NewsroomChecks

from kit.rig.editors import Editor, until
from kit.rig.newsroom import Newsroom
from kit.rig.stack import ROOT, Stack, clean_tree, http, stopwatch

EDITORS = ["anna", "bilal", "chiyo"]
PUBLISHERS = ("publisher-01", "publisher-02")
# What the publishers publish to, beside notifications.
TOPICS = [*(f"{area}:{key}" for area in ("comments", "content") for key in (42, 43, 44)), "tree:42"]
FILES = ("docker-compose.yml", "tests/rig/publishers.yml")


class Rig(ImageChecks, NewsroomChecks, FaultChecks):
    """A stack, everybody who watches it, and what was found."""

    def __init__(self, tree, stack):
        self.tree, self.stack = tree, stack
        self.newsroom, self.writer, self.reader, self.saved = Newsroom(stack), None, None, None
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
        loads = [self.stack.load(name) for name in PUBLISHERS]
        return await asyncio.gather(*(asyncio.to_thread(one.rate, per_second) for one in loads))

    async def audit(self, resyncs_allowed=()):
        """Pauses the publishers and compares what they had accepted with what every editor knows."""
        states = await self.rate(0)
        heads, accepted = {}, 0
        for state in states:
            assert state["given_up"] == 0, f"{state['name']} gave up on {state['given_up']} events"
            accepted += state["accepted"]
            for topic, last in state["topics"].items():
                place = tuple(int(part) for part in last.split("-"))
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

    # --- checks of the whole ---------------------------------------------------------------------------------------------
    async def up(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "up", "-d", timeout=180)
        nodes = self.stack.ids("node")
        assert len(nodes) == 3, f"{len(nodes)} nodes"
        await self.answers()
        return f"from nothing to an answer in {watch():.1f} s"

    async def answers(self):
        self.secret = self.stack.secret("jwt")
        # The balancer has to have found them.
        for path in ("realtime/config", "cms/health/"):
            await until(lambda: http(f"{self.stack.origin}/{path}")[0] == 200, 60, f"an answer from /{path} through the balancer")

    async def gone(self):
        await self.newsroom.end()
        for editor in self.editors:
            await editor.stop()
        self.editors.clear()
        # Not of cms-setup, which prints passwords.
        names = ("node", "cms-01", "cms-02", "balancer", "redis", "database", *PUBLISHERS)
        await asyncio.to_thread(self.stack.compose, "logs", "--no-color", "--tail=400", *names, check=False)
        await asyncio.to_thread(self.stack.down)
        left = self.stack.leftovers()
        assert not left, f"left behind: {left}"

    async def everyone_gets_everything(self):
        self.gather(12)
        await self.all_live(15)
        assert len(self.nodes_seen()) == 3, f"round robin over {self.nodes_seen()}"
        await self.rate(LOAD)
        missing = lambda: [
            (editor.name, source, area)
            for editor in self.editors
            for source in PUBLISHERS
            for area in ("comments", "content", "notifications", "tree")
            if not any(topic.split(":")[0] == area and who == source for topic, who in editor.sources)
        ]
        await until(lambda: not missing(), 30, lambda: f"events of both publishers in every area for every editor: {missing()[:5]}")
        return f"{len(self.editors)} editors on {len(self.nodes_seen())} nodes; " + await self.audit()

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
        here = len(self.editors) + len(self.newsroom.windows)
        await until(lambda: value('sum(carillon_sessions{job="carillon"})') == here, 30, f"{here} sessions counted")
        await self.rate(0)
        await self.stack.aside(*self.stack.command, "--profile", "monitoring", "rm", "-sf", "prometheus")

    # --- the variants -------------------------------------------------------------------------------------------------------
    async def variant_up(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "up", "-d", timeout=240)
        await self.answers()
        await self.newsroom_is_there()
        await self.two_windows()
        return f"{watch():.1f} s, and two editors see each other work"

    async def failover(self):
        """The master (of a shard) goes away for good; another one takes over."""
        await self.rate(LOAD)
        await self.stack.aside("docker", "stop", self.stack.ids("redis")[0])
        watch = stopwatch()
        # Until the new master has taken over nothing can be promised: wait until publishers get through again.
        accepted = lambda: sum(self.stack.load(name).state()["accepted"] for name in PUBLISHERS)
        await asyncio.sleep(5)
        before = await asyncio.to_thread(accepted)
        await until(lambda: accepted() > before + 50, 60, "publishers get through again")
        await self.all_live(15)
        note = await self.audit(resyncs_allowed=["redis-changed", "log-replaced", "gap", "no-position"])
        self.forget_resyncs()
        await self.one_writes_the_other_reads()
        return f"all live, and publishers through, {watch():.1f} s after the master went; {note}"

    async def variant(self, name):
        if await self.check(f"{name}: `docker-compose up` with its file brings everything up", self.variant_up):
            await self.check(f"{name}: Redis' users have the rights that `redis-function --acl` prints", self.rights)
            await self.check(f"{name}: editors on all nodes get what is published", self.everyone_gets_everything)
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
            await self.check("Wagtail answers on both instances, seeded, with passwords of its own", self.newsroom_is_there)
            if not await self.check("two editors in two windows see each other work", self.two_windows):
                return await self.check("all down again, nothing left behind", self.gone)
            await self.check("editors on all nodes get what is published", self.everyone_gets_everything)
            await self.check("Prometheus finds every node; the dashboard has data, and no alert fires", self.monitoring)
            await self.check("a node is killed: its editors move, and nothing is lost", self.kill)
            await self.check("Redis restarts: editors are told, stay connected, and nothing is lost", self.redis_restarts)
            await self.check("an instance of Wagtail is killed: editors go on through the other one, nobody is told of anything late", self.a_cms_is_killed)
            await self.check("five nodes and back to three: new nodes get sessions, and nothing is lost", self.scale)
            await self.check(f"rolling update under load: nothing lost, everyone back within {WINDOW} + {BACK} s", self.rolling)
            await self.check("every screen equals the database", self.screens_equal_the_database)
            await self.check("no log holds a secret, a token or a panic", self.logs)
        await self.check("all down again, nothing left behind", self.gone)
        # A figure for people: on a busy machine it is larger, and that is no fault.
        print(f"without the image builds it took {self.began() - built:.0f} s")


async def main(arguments):
    work = Path(tempfile.mkdtemp(prefix="carillon-rig-"))
    (ROOT / "tests/output").mkdir(parents=True, exist_ok=True)
    tree = work / "tree"
    clean_tree(tree)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    settings = {"CARILLON_TAG": "rig"}
    stack = Stack(tree, f"carillon-rig-{os.getpid()}", FILES, **settings)
    rigs = [Rig(tree, stack)]
    print(f"rig: details in {stack.log.name}", flush=True)
    try:
        if "--no-build" not in arguments:
            await stack.aside(str(ROOT / "tests/rig/base-images"), timeout=1800)
        await rigs[0].day("--no-build" not in arguments)
        for name in ("sentinel", "cluster") if "--variants" in arguments else ():
            variant = f"deploy/compose/{name}.yml"
            settings["RIG_REDIS_URL"] = re.search(r"REDIS_URL: (\S+)", (ROOT / variant).read_text().partition("cms-01:")[2])[1]
            rigs.append(Rig(tree, Stack(tree, f"carillon-rig-{name}-{os.getpid()}", (*FILES, variant), **settings)))
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
