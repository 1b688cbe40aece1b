"""What happens on bad days, and on days of maintenance: under load, with everybody watching."""

import asyncio
import json
import time

from playwright.async_api import expect

from kit.rig.editors import until
from kit.rig.stack import http, stopwatch

# The compose file's drain window, and what a client may take on top of it to be back.
WINDOW, BACK = 10, 5
LOAD = 10.0  # changes per second and publisher; each is published to one to three topics


class FaultChecks:
    """Checks with something killed, restarted or replaced; `self` is the rig."""

    async def kill(self):
        await self.rate(LOAD)
        # The one that Bilal's window is on: nodes are named after their containers.
        name = await self.reader.node()
        (victim,) = [node for node in self.stack.ids("node") if name.startswith(node[:12])] or [f"no node is called {name}"]
        moment = time.monotonic()
        await self.stack.aside("docker", "kill", victim)
        lost = lambda: [editor for editor in self.editors if any(at > moment for at, _, _ in editor.closes)]
        await until(lost, 5, "somebody noticed")
        await self.all_live(15)
        away = max(until_ - from_ for editor in lost() for from_, until_ in editor.absences if until_ > moment)
        await asyncio.sleep(1)  # under load
        note = await self.audit()
        await self.one_writes_the_other_reads()
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
        await expect(self.reader.badge).to_contain_text("Not in sync since", timeout=20_000)
        # Wagtail goes on without Redis.
        self.saved = f"Saved while Redis was away, {time.time():.0f}"
        await self.writer.write(self.saved)
        await self.stack.aside("docker", "start", redis)
        watch = stopwatch()
        # Loading is part of the outage; the promise counts from when Redis serves again.
        await until(lambda: self.stack.health(redis) == "healthy", 30, "Redis serves again")
        took = await self.all_live(15)
        await self.reader.read_on(self.saved, "Anna")
        note = await self.audit(resyncs_allowed=["redis-changed"])
        assert sum(len(editor.closes) for editor in self.editors) == closes, "sessions were closed"
        # What was accepted has survived: the logs are the same ones.
        assert epochs() == before, f"logs were lost: {sorted(before - epochs())[:3]} became {sorted(epochs() - before)[:3]}"
        told = [editor for editor in self.editors if editor.resyncs]
        assert len(told) == len(self.editors), f"a restart changes the lineage: {len(told)} of {len(self.editors)} were told"
        self.forget_resyncs()
        return f"live again {took:.1f} s after Redis served ({watch():.1f} s after its start), no session closed; {note}"

    async def a_cms_is_killed(self):
        await self.rate(LOAD)
        victim = self.stack.ids("cms-01")[0]
        await self.stack.aside("docker", "kill", victim)
        watch = stopwatch()
        await self.one_writes_the_other_reads()
        took = watch()
        await self.all_live(5)
        note = await self.audit()
        await self.stack.aside("docker", "start", victim)
        await until(lambda: self.stack.health(victim) == "healthy", 60, "the killed instance is healthy again")
        await self.both_instances_answer()
        await self.one_writes_the_other_reads()
        return f"written through the other instance and read {took:.1f} s after the kill; {note}"

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
        await self.one_writes_the_other_reads()
        return (
            f"{old} → {new} in {took:.0f} s, {both / 10:.0f} s of them side by side; {len(self.editors)} editors moved {len(away)} times, "
            f"without a session for {gone:.1f} s at most, the last one back {back:.1f} s after its node began to drain; {note}"
        )
