"""Figures of a Wagtail site on Carillon. They belong to the machine and its load: nothing here passes or fails.

    tests/wagtail/run --measure [way] [cut] [publish] [idle]

way      from a save to another editor's screen, 200 saves
cut      instance 1 cut off from Redis; then both, for 60 s: arrival, requests meanwhile, order
publish  500 pages published at once: INSERTs per log entry, CPU with and without Carillon, five rounds each
idle     requests of three editors who do nothing, in a minute
"""

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time

from kit.stage import ROOT
from kit.wagtail_editors import Account, Screen
from kit.wagtail_site import WagtailSite

SAVES, ROUNDS, PUBLISHED, CUT = 200, 5, 500, 60


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def ms(seconds):
    return f"{seconds * 1000:.0f} ms"


async def opened(site, names, page):
    screens = [Screen(await asyncio.to_thread(Account, site.url, name), page) for name in names]
    for screen in screens:
        await screen.open()
    while not all(screen.live for screen in screens):
        await asyncio.sleep(0.05)
    return screens


async def seen(screen, at, seconds):
    """When a screen showed a save, or something newer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for shown, moment in screen.seen:
            if shown >= at:
                return moment
        await asyncio.sleep(0.002)
    return float("inf")


async def way(site, pages):
    (screen,) = await opened(site, ["bert"], pages[0])
    # Through instance 1; the screen reads through the balancer.
    writer = await asyncio.to_thread(Account, f"http://127.0.0.1:{site.instances[0].port}", "anna")
    fields = await asyncio.to_thread(writer.form, pages[0])
    lags = []
    for number in range(SAVES):
        made = await asyncio.to_thread(writer.save, pages[0], fields, body=f"Words, number {number}.")
        saved = time.monotonic()
        lags.append(max(0.0, await seen(screen, made[1], 30) - saved))
    await screen.close()
    print(f"save to another screen, {SAVES} saves, from Wagtail's answer to the save: p50 {ms(percentile(lags, 0.5))}, p99 {ms(percentile(lags, 0.99))}")


async def cut(site, pages):
    (screen,) = await opened(site, ["bert"], pages[1])
    writer = await asyncio.to_thread(Account, f"http://127.0.0.1:{site.instances[0].port}", "anna")
    fields = await asyncio.to_thread(writer.form, pages[1])

    async def save(number):
        began = time.monotonic()
        made = await asyncio.to_thread(writer.save, pages[1], fields, body=f"Words, number {number}.")
        saved_revisions.append(int(made[0]))
        return made[1], time.monotonic() - began

    saved_revisions = []
    before = [(await save(number))[1] for number in range(40)]
    site.instances[0].gate.cut()
    at, _ = await save(41)
    saved = time.monotonic()
    print(f"instance 1 cut off: its change is on the screen after {await seen(screen, at, 30) - saved:.1f} s; called late: {sorted(screen.late) or 'nothing'}")
    site.instances[1].gate.cut()
    began, during, late_after = time.monotonic(), [], None
    while time.monotonic() - began < CUT:
        at, took = await save(100 + len(during))
        during.append(took)
        if late_after is None and "cms" in screen.late:
            late_after = time.monotonic() - began
        await asyncio.sleep(0.4)
    for instance in site.instances:
        instance.gate.mend()
    back = time.monotonic()
    shown = await seen(screen, at, 60) - back
    # The first event that came made the screen read the newest state; the others follow.
    while await asyncio.to_thread(site.python, "from carillon_notify.django.models import OutboxRow; print(OutboxRow.objects.count())"):
        await asyncio.sleep(0.2)
    key = next(topic for topic in screen.topics if topic.startswith("content:"))
    with site.client() as redis:
        events = [json.loads(entry["event"]) for _, entry in redis.xrange(f"carillon:{key}")]
    told = [event["data"]["revision"] for event in events if event["type"] == "content.saved"]
    print(
        f"both cut off for {CUT} s: p95 of {len(during)} saves {ms(percentile(during, 0.95))}, before {ms(percentile(before, 0.95))}; "
        f"told that cms is late after {late_after and round(late_after, 1)} s; on the screen {shown:.1f} s after the return; "
        f"{len(saved_revisions)} saves in all, told {'each once, in order' if told == saved_revisions else f'OTHERWISE: {told} for {saved_revisions}'}"
    )
    await screen.close()


PUBLISH = """
import json, os, time
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from wagtail.models import Page, PageLogEntry
from home.models import HomePage
section = Page.objects.filter(slug="section").first()
if section.get_children().filter(slug__startswith="many-").count() == 0:
    for number in range({count}):
        section.add_child(instance=HomePage(title=f"Many {{number}}", slug=f"many-{{number}}", live=False)).save_revision()
pages = [page.specific for page in section.get_children().filter(slug__startswith="many-")]
revisions = [page.save_revision() for page in pages]
logged = PageLogEntry.objects.count()
began = time.process_time()
for revision in revisions:
    revision.publish()
spent = time.process_time() - began
entries = PageLogEntry.objects.count() - logged
inserts = None
if {counted}:
    connection.queries_limit = 100000
    with CaptureQueriesContext(connection) as seen:
        for revision in [page.save_revision() for page in pages[:50]]:
            revision.publish()
    inserts = sum(query["sql"].startswith('INSERT INTO "carillon_outbox"') for query in seen)
    entries = sum(query["sql"].startswith('INSERT INTO "wagtailcore_pagelogentry"') for query in seen)
print(json.dumps([spent, entries, inserts]))
"""


async def publish(site, pages):
    base = site.project / "mysite/settings/base.py"
    with_it = base.read_text()
    spent = {True: [], False: []}
    counted = None
    for number in range(ROUNDS):
        for enabled in (True, False) if number % 2 == 0 else (False, True):
            base.write_text(with_it + ("" if enabled else '\nCARILLON["ENABLED"] = False\n'))
            code = PUBLISH.format(count=PUBLISHED, counted=enabled and number == 0)
            cpu, entries, inserts = await asyncio.to_thread(site.python, code)
            spent[enabled].append(cpu)
            counted = (entries, inserts) if inserts is not None else counted
    base.write_text(with_it)
    on, off = (statistics.median(spent[enabled]) for enabled in (True, False))
    print(
        f"{PUBLISHED} pages published, CPU of the process, median of {ROUNDS} interleaved: {on:.2f} s with, {off:.2f} s without "
        f"({(on / off - 1) * 100:+.0f} %); {counted[1]} INSERTs into the outbox for {counted[0]} log entries"
    )


async def idle(site, pages):
    screens = await opened(site, ["anna", "bert", "cleo"], pages[2])
    await asyncio.sleep(3)
    before = len(site.requests())
    await asyncio.sleep(60)
    print(f"three idle editors: {len(site.requests()) - before} requests to the CMS in a minute")
    for screen in screens:
        await screen.close()


WHAT = {"way": way, "cut": cut, "publish": publish, "idle": idle}


async def main(wanted):
    place = tempfile.mkdtemp(prefix="measure-", dir=ROOT / "tests/output")
    site = await asyncio.to_thread(WagtailSite, place)
    try:
        pages = (await asyncio.to_thread(site.people, "anna", "bert", "cleo", pages=3))["pages"]
        for name in wanted:
            await WHAT[name](site, pages)
            sys.stdout.flush()
    finally:
        site.close()
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    names = sys.argv[1:] or list(WHAT)
    if unknown := [name for name in names if name not in WHAT]:
        sys.exit(f"measure: there is no {unknown[0]}; there are {', '.join(WHAT)}")
    asyncio.run(main(names))
