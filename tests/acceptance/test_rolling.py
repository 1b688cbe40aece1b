"""Nodes of the release before beside new ones, under load, whichever were there first.

`CARILLON_BIN_BEFORE` names the older program; without it there is nothing to compare with, and the tests are left out.
"""

import asyncio
import os
from unittest import mock

import pytest

from kit import stage
from kit.editors import Editor
from kit.stage import AUTHORISED, http, note

BEFORE = os.environ.get("CARILLON_BIN_BEFORE")
BUSY, QUIET, LATER, WIDE, STILL = "comments:1", "comments:quiet", "comments:later", "projects", "comments:still-quiet"


async def node(site, program):
    """A node of either release."""
    with mock.patch.object(stage, "PROGRAM", program):
        return await asyncio.to_thread(site.node, probe__seconds=1)


class Publisher:
    """Publishes to the busy topic all the time; a publish that is refused ends it."""

    def __init__(self, site):
        self.site, self.published, self.over = site, 0, asyncio.Event()
        self.task = asyncio.create_task(self.publish())

    async def publish(self):
        while not self.over.is_set():
            self.published += 1
            await asyncio.to_thread(self.site.record, BUSY, note(self.published))
            await asyncio.sleep(0.02)

    async def a_while(self):
        before = self.published
        while self.published < before + 50:
            assert not self.task.done(), "the publisher was refused"
            await asyncio.sleep(0.02)

    async def end(self):
        self.over.set()
        await self.task


async def everybody_got_everything(editors, quiet, published):
    """All events of the busy topic without holes, the first ones of quiet topics, and no resync."""
    for editor, topics in quiet:
        for topic in topics:
            await editor.until(f"the event on {topic}", lambda e, topic=topic: e.numbers(topic) == [1])
    for editor in editors:
        await editor.until("the last event", lambda e: e.numbers(BUSY)[-1:] == [published])
        got = editor.numbers(BUSY)
        assert got == list(range(got[0], published + 1))
    for editor in [*editors, *(editor for editor, _ in quiet)]:
        assert editor.resyncs() == [] and editor.closed is None


async def comes_back(node, resume, topic, missed):
    back = await Editor.open(node, "cleo", [topic], resume=resume)
    await back.until("what was missed", lambda e: e.numbers(topic) == missed)
    assert back.resyncs() == []
    await back.close()


async def go_on_at_the_other_release(site, nodes, editors, published):
    """By their positions, those of a log that is still quiet among them; and after a drain."""
    waiting = [await Editor.open(node, "emil", [STILL]) for node in nodes[:2]]
    for editor in waiting:
        await editor.close()
    known = [editor.resume for editor in editors[:2]]
    site.record(BUSY, note(published + 1))
    site.record(STILL, note(1))
    for n, other in ((0, nodes[1]), (1, nodes[0])):
        await comes_back(other, known[n], BUSY, [published + 1])
        await comes_back(other, waiting[n].resume, STILL, [1])
    nodes[2].process.popen.terminate()
    await editors[2].end_of_session()
    resume = editors[2].resume
    site.record(BUSY, note(published + 2))
    await comes_back(nodes[1], resume, BUSY, [published + 2])


@pytest.mark.skipif(not BEFORE, reason="CARILLON_BIN_BEFORE names no older program")
@pytest.mark.parametrize("first", ["older", "newer"])
async def test_nodes_of_two_releases_serve_side_by_side(site, first):
    """Publishers are served throughout, everybody gets everything once, and orders end sessions on all nodes."""
    programs = [BEFORE, stage.PROGRAM] if first == "older" else [stage.PROGRAM, BEFORE]
    nodes = [await node(site, programs[0])]
    anna = await Editor.open(nodes[0], "anna", [BUSY, WIDE, QUIET])
    publisher = Publisher(site)
    await publisher.a_while()
    # The other release joins, with a topic that is quiet until later; then one more of the first.
    nodes.append(await node(site, programs[1]))
    bert = await Editor.open(nodes[1], "bert", [BUSY, LATER])
    cleo = await Editor.open(nodes[0], "cleo", [LATER])
    await publisher.a_while()
    nodes.append(await node(site, programs[0]))
    dora = await Editor.open(nodes[2], "dora", [BUSY, WIDE, QUIET])
    await publisher.a_while()
    for topic in (QUIET, LATER, WIDE):
        await asyncio.to_thread(site.record, topic, note(1))
    await publisher.end()
    quiet = [(anna, [WIDE, QUIET]), (dora, [WIDE, QUIET]), (bert, [LATER]), (cleo, [LATER])]
    await everybody_got_everything([anna, bert, dora], quiet, publisher.published)
    assert anna.numbers(BUSY)[0] == 1
    await go_on_at_the_other_release(site, nodes, [anna, bert, dora], publisher.published)
    # An order given at a node of either release ends sessions on the other's.
    for at, user, session in ((nodes[1], "anna", anna), (nodes[0], "bert", bert)):
        assert (await asyncio.to_thread(http, "POST", at.internal("/disconnect"), {"user": user}, AUTHORISED))[0] == 200
        assert (await session.end_of_session())[0] == 4403
